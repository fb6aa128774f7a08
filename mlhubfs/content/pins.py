"""What is never evicted: the pins of a cache, in a file beside it.

Owns the file, which all that use the cache read and only `mlhubfs cache pin` writes. A pin is a
path of a source, and what the keys of its values begin with: so what is fetched for it later, or
again, is kept as well. `cache` marks the values, `stock` those that are there when the pin comes.

*Threading.* One thread for each object; any number of processes.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mlhubfs.errors import CacheUnusable

_PART = 16  # digits of a key for each part of an identity
_PARTS = 5  # of an archive; an asset has four


class Pin(NamedTuple):
    """A path that is kept."""

    source: str
    path: str
    keys: tuple[str, ...]
    """What the keys of its values begin with."""


class Pins:
    """The pins in the file `path`, none where it is not there.

    Raises CacheUnusable where it cannot be read: to take it for empty would lose what it holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, int] | None = None
        self._beginnings: frozenset[str] = frozenset()
        self._pins: list[Pin] = []

    def all(self) -> list[Pin]:
        """Return the pins as the file has them now."""
        try:
            self._read()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CacheUnusable(
                f"what is pinned cannot be read from {self._path} ({error}): mend the file, "
                "or remove it to pin nothing"
            ) from error
        return self._pins

    def refresh(self) -> None:
        """Read the file again if it has changed; what was read last stays where that fails."""
        with contextlib.suppress(CacheUnusable):
            self.all()

    def cover(self, key: str) -> bool:
        """Say whether a value is to be kept, by what was read last."""
        return bool(self._beginnings) and any(
            key[: number * _PART] in self._beginnings for number in range(1, _PARTS + 1)
        )

    def add(self, pin: Pin) -> None:
        """Keep a path from now on."""
        self._change(lambda pins: [*(one for one in pins if one[:2] != pin[:2]), pin])

    def remove(self, source: str, path: str) -> Pin | None:
        """Keep a path no longer; return what was kept of it, None if nothing was."""
        found = [one for one in self.all() if one[:2] == (source, path)]
        self._change(lambda pins: [one for one in pins if one not in found])
        return found[0] if found else None

    def _read(self) -> None:
        state, found = None, []
        with contextlib.suppress(FileNotFoundError):
            stat = self._path.stat()
            state = stat.st_ino, stat.st_mtime_ns
            if state == self._state:
                return
            found = [_parse(one) for one in json.loads(self._path.read_text(encoding="utf-8"))]
        self._state, self._pins = state, found
        self._beginnings = frozenset(key for pin in found for key in pin.keys)

    def _change(self, change: Callable[[list[Pin]], Iterable[Pin]]) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            pins = [one._asdict() for one in change(self.all())]
            new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            new.touch(mode=0o600)
            new.write_text(json.dumps(pins, indent=1), encoding="utf-8")
            new.replace(self._path)
        finally:
            os.close(folder)
        self.refresh()


def _parse(one: dict[str, Any]) -> Pin:
    return Pin(one["source"], one["path"], tuple(one["keys"]))
