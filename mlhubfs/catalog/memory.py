"""Answers kept for a while, each asked for once however many want it.

Owns the in-memory metadata cache: values and "no such thing" with a time to live, least recently
used out first. A value past its time is asked for again; where the server cannot be reached then,
the old value serves on, because a directory that was readable a minute ago is worth more than EIO.

*Threading.* Any thread. cachetools' classes are not thread-safe: one lock, never held over a load.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from cachetools import LRUCache

from mlhubfs.errors import NotFound, Unavailable
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.catalog")
_GRACE_SECONDS = 15.0  # how long an old value serves before an unreachable server is tried again
T = TypeVar("T")


class _Kept(NamedTuple):
    value: Any
    error: NotFound | None
    expires: float


class Memory:
    """A cache of at most `capacity`, as `weigh` counts its values; times are seconds."""

    def __init__(
        self,
        workers: Workers,
        *,
        ttl: float,
        negative_ttl: float,
        capacity: int,
        weigh: Callable[[Any], int] = lambda _: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = workers
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: LRUCache[str, _Kept] = LRUCache(
            capacity, getsizeof=lambda kept: 1 if kept.error else weigh(kept.value)
        )

    def get(self, key: str, load: Callable[[], T]) -> T:
        """Return the value under `key`, loaded by one of those who ask if it is not fresh.

        Raises what `load` raises; a NotFound is remembered.
        """
        kept = self._find(key)
        if kept and self._is_fresh(kept):
            return self._answer(kept)  # type: ignore[no-any-return]
        try:
            return self._workers.once(key, lambda: self._load(key, load, self._is_fresh))
        except Unavailable as error:
            if kept is None or kept.error:
                raise
            _log.warning("%s; what was known before is shown instead", error)
            self._keep(key, kept.value, None, _GRACE_SECONDS)
            return self._answer(kept)  # type: ignore[no-any-return]

    def peek(self, key: str) -> Any | None:
        """Return a fresh value, or None; never loads."""
        kept = self._find(key)
        return kept.value if kept and self._is_fresh(kept) else None

    def oldest(self) -> float:
        """Return the time at which a value that is fresh by now was loaded at the earliest."""
        return self._clock() - self._ttl

    def put(self, key: str, value: Any) -> None:
        """Keep a value that was learned along the way."""
        self._keep(key, value, None, self._ttl)

    def renew(self, key: str, load: Callable[[], T], is_new: Callable[[T], bool]) -> T:
        """Return a value that `is_new` accepts: the one at hand, else one loaded now."""

        def will_do(kept: _Kept) -> bool:
            return not kept.error and is_new(kept.value)

        kept = self._find(key)
        if kept and will_do(kept):
            return self._answer(kept)  # type: ignore[no-any-return]
        return self._workers.once(f"renew {key}", lambda: self._load(key, load, will_do))

    def _is_fresh(self, kept: _Kept) -> bool:
        return self._clock() < kept.expires

    def _find(self, key: str) -> _Kept | None:
        with self._lock:
            found: _Kept | None = self._kept.get(key)
            return found

    def _load(self, key: str, load: Callable[[], T], will_do: Callable[[_Kept], bool]) -> T:
        # Who looked while another's flight was under way may get here when that has landed.
        kept = self._find(key)
        if kept and will_do(kept):
            return self._answer(kept)  # type: ignore[no-any-return]
        try:
            value = load()
        except NotFound as error:
            self._keep(key, None, error, self._negative_ttl)
            raise
        self.put(key, value)
        return value

    def _keep(self, key: str, value: Any, error: NotFound | None, seconds: float) -> None:
        kept = _Kept(value, error, self._clock() + seconds)
        with self._lock:
            try:
                self._kept[key] = kept
            except ValueError:
                # A single value larger than the whole cache is not kept.
                self._kept.pop(key, None)

    @staticmethod
    def _answer(kept: _Kept) -> Any:
        if kept.error:
            raise NotFound(str(kept.error))
        return kept.value
