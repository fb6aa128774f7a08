"""The cache on disk looked over as a whole: how much there is, whether it is sound, what is kept.

Owns what is done to ranges of values, for commands; mounts may be using the cache meanwhile. What
readers and writers do is `cache`'s.

All that goes is deleted by diskcache, a few values in a transaction: a reader finds a value or does
not, a writer waits for milliseconds. Values are counted and found by their keys in the table of
diskcache, read-only: it offers no ranges.

*Threading.* One thread.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import diskcache

from mlhubfs.content.cache import bad_blocks, pins_of
from mlhubfs.content.disk import KEEP_SECONDS, open_cache
from mlhubfs.content.pins import Pin
from mlhubfs.errors import CacheUnusable

_BATCH = 100  # values to a transaction
_PAGE = 1000  # keys read at once
_ASSET = 64  # digits of a key that name the asset
_END = "g"  # above all that follows in a key
_SECONDS = 60.0  # to wait for who writes
_BYTES = "size + ifnull(length(value), 0)"
_TROUBLE = (sqlite3.Error, diskcache.Timeout, ValueError, OSError)


class Totals(NamedTuple):
    """How much there is."""

    assets: int
    bytes: int


class Checked(NamedTuple):
    """One value that was looked into."""

    bytes: int
    bad: int
    """Blocks of it that failed; then it was removed."""


class Stock:
    """The values in `folder`; raises CacheUnusable, in all methods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pins = pins_of(folder)
        if not (folder / "cache.db").exists():
            raise CacheUnusable(f"there is no cache in {folder}: nothing was read with it yet")
        with self._told():
            self._cache = open_cache(folder, timeout=_SECONDS)
            url = f"file:{quote(str(folder))}/cache.db?mode=ro"
            self._table = sqlite3.connect(url, uri=True, timeout=_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()
        self._cache.close()

    @property
    def limit(self) -> int:
        """Most bytes that it may have, as who opened it last was told."""
        return int(self._cache.size_limit)

    @property
    def free(self) -> int:
        """Bytes that are free on its disk."""
        return shutil.disk_usage(self.folder).free

    def totals(self) -> Totals:
        """Return how much there is."""
        return self._sum("1")

    def pinned(self, keys: Iterable[str] | None = None) -> Totals:
        """Return how much of it is pinned, in all or below what begins with `keys`."""
        if keys is None:
            return self._sum("expire_time IS NOT NULL")
        found = [
            self._sum("expire_time IS NOT NULL AND key >= ? AND key < ?", key, key + _END)
            for key in keys
        ]
        return Totals(sum(one.assets for one in found), sum(one.bytes for one in found))

    def verify(self) -> Iterator[Checked]:
        """Look into every value, and remove those that are not sound."""
        for key, size in self._values("1"):
            with self._told():
                bad = self._bad_blocks(key)
                if bad:
                    self._cache.delete(key)
            yield Checked(size, bad)

    def clear(self, keys: Iterable[str] = ("",)) -> int:
        """Remove what is not pinned, all or what begins with `keys`; return how many bytes."""
        return self._each(keys, "expire_time IS NULL", self._cache.delete)

    def pin(self, pin: Pin) -> None:
        """Keep what is there of it, and what comes."""
        with self._told():
            self.pins.add(pin)
        self._each(pin.keys, "expire_time IS NULL", self._keep)

    def unpin(self, source: str, path: str) -> bool:
        """Keep a path no longer; say whether it was kept."""
        with self._told():
            pin = self.pins.remove(source, path)
        if pin:
            self._each(pin.keys, "expire_time IS NOT NULL", self._let_go)
        return pin is not None

    def _keep(self, key: str) -> None:
        self._cache.touch(key, expire=KEEP_SECONDS)

    def _let_go(self, key: str) -> None:
        if not self.pins.cover(key):
            self._cache.touch(key)

    def _bad_blocks(self, key: str) -> int:
        value = self._cache.get(key, read=True)
        if value is None:
            return int(key in self._cache)  # its file is gone; or another has just deleted it
        if isinstance(value, bytes):
            return bad_blocks(key, value)
        with value:
            try:
                return bad_blocks(key, value.read())
            except OSError:
                return 1

    def _each(self, keys: Iterable[str], which: str, act: Callable[[str], object]) -> int:
        """Do something to the values that begin with `keys`; return how many bytes they have."""
        total = 0
        for beginning in keys:
            values = self._values(which, beginning)
            while batch := list(islice(values, _BATCH)):
                with self._told(), self._cache.transact():
                    for key, size in batch:
                        act(key)
                        total += size
        return total

    def _values(self, which: str, beginning: str = "") -> Iterator[tuple[str, int]]:
        """Yield keys, and the bytes of their values, in order."""
        last = beginning
        while True:
            with self._told():
                page: list[tuple[str, int]] = self._table.execute(
                    f"SELECT key, {_BYTES} FROM Cache WHERE key > ? AND key < ? AND {which} "  # noqa: S608
                    f"ORDER BY key LIMIT {_PAGE}",
                    (last, beginning + _END),
                ).fetchall()
            if not page:
                return
            yield from page
            last = page[-1][0]

    def _sum(self, which: str, *values: Any) -> Totals:
        with self._told():
            row = self._table.execute(
                f"SELECT count(DISTINCT substr(key, 1, {_ASSET})), ifnull(sum({_BYTES}), 0) "  # noqa: S608
                f"FROM Cache WHERE {which}",
                values,
            ).fetchone()
        return Totals(*row)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except _TROUBLE as error:
            raise CacheUnusable(f"the cache in {self.folder} cannot be used: {error}") from error
