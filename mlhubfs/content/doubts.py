"""Which versions of assets have been found to have the catalog's checksum, and which have not.

Owns what follows from that. Bytes that were found wrong are never served again: the blocks get
another key, and so are fetched anew. Where these are no better, it is the catalog that is wrong, or
the storage: the log says so, and the file is served as it is.

*Threading.* Any thread.
"""

import logging
import threading
from typing import Protocol

from mlhubfs.errors import BadAnswer
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.content")
_REMEMBERED = 1 << 16


class Notes(Protocol):
    """Where short values are kept between mounts; may forget anything at any time."""

    def get(self, key: str) -> bytes | None:
        """Return the value, if it is there and sound."""

    def put(self, key: str, value: bytes) -> None:
        """Keep a value; returns at once."""


class Doubts:
    """The doubts about versions, by their keys."""

    def __init__(self, notes: Notes | None, disk: Workers) -> None:
        self._notes = notes
        self._disk = disk
        self._lock = threading.Lock()
        self._spoilt: dict[str, bool] = {}
        self._settled: set[str] = set()

    def key_now(self, key: str) -> str:
        """Return the key of the blocks that are served of a version."""
        return f"{key}~" if self._is_spoilt(key) else key

    def is_settled(self, key: str) -> bool:
        """Say whether a version need not be looked at again."""
        with self._lock:
            return key in self._settled

    def settle(self, key: str, served: str, name: str, *, is_right: bool) -> None:
        """Take note of what a whole version was found to be; raises BadAnswer if it is to fail.

        `served` is the key of the blocks that were read, as `key_now` told it.
        """
        is_final = is_right or served != key
        with self._lock:
            is_news = not self._spoilt.get(key)
            if not is_final:
                self._spoilt[key] = True
            elif len(self._settled) >= _REMEMBERED:
                self._settled.clear()
            if is_final:
                self._settled.add(key)
        if not is_final:
            what = f"{name} does not have the catalog's checksum (file:checksum)"
            if is_news:
                _log.warning("%s: it is fetched again when it is next opened", what)
                if self._notes:
                    self._notes.put(f"{key}:spoilt", b"1")
            raise BadAnswer(f"{what}: open it again, it is fetched anew")
        if not is_right:
            _log.warning("%s was fetched again, and the catalog's checksum is still another", name)

    def _is_spoilt(self, key: str) -> bool:
        with self._lock:
            known = self._spoilt.get(key)
        if known is None:
            notes = self._notes
            known = notes is not None and bool(
                self._disk.wait(self._disk.submit(lambda: notes.get(f"{key}:spoilt")))
            )
            with self._lock:
                if len(self._spoilt) >= _REMEMBERED:
                    self._spoilt.clear()
                known = self._spoilt.setdefault(key, known)
        return known
