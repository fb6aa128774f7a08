"""The cache on disk looked over as a whole: how much there is, whether it is sound, what is kept.

Owns what is done to ranges of values, for commands; mounts may be using the cache meanwhile. What
readers and writers do is `cache`'s.

All that goes is deleted by diskcache, a few values in a transaction: a reader finds a value or does
not, a writer waits for milliseconds. Values are counted, found by their keys and looked into by the
table of diskcache, read-only: it offers no ranges, and a full disk may still be looked over. To
forget values the database needs room: where there is none their files go first, as if evicted.

*Threading.* One thread.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import diskcache

from mlhubfs.content.cache import bad_blocks, pins_of
from mlhubfs.content.disk import KEEP_SECONDS, BytesDisk, open_cache
from mlhubfs.content.pins import Pin
from mlhubfs.errors import CacheUnusable

_BATCH = 100  # values to a transaction
_PAGE = 1000  # keys read at once
_ASSET = 64  # digits of a key that name the asset
_END = "g"  # above all that follows in a key
_SECONDS = 60.0  # to wait for who writes
_ROOM = 1 << 20  # bytes that the database needs to forget values
_UNPINNED = "expire_time IS NULL"
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
            self._table = _open_table(folder / "cache.db")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()
        if "_cache" in self.__dict__:
            self._cache.close()

    @cached_property
    def _cache(self) -> Any:
        """The cache, to write to."""
        with self._told():
            return open_cache(self.folder, timeout=_SECONDS)

    @property
    def limit(self) -> int:
        """Most bytes that it may have, as who opened it last was told."""
        with self._told():
            query = "SELECT value FROM Settings WHERE key = 'size_limit'"
            return int(self._table.execute(query).fetchone()[0])

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
        keys = list(keys)
        if self.free < _ROOM:
            self._remove_files(keys)
            self._table.close()
            with self._told():
                self._table = _open_table(self.folder / "cache.db")
        return self._each(keys, _UNPINNED, self._cache.delete)

    def remove_strays(self) -> int:
        """Remove the files that no value has, for their writer was killed; return their bytes.

        Who writes makes files before others can see their values. So a file is a stray only if it
        is none's while nobody writes.
        """
        strays = self._files() - self._filed()
        total = 0
        if strays:
            with self._told(), self._cache.transact():
                for name in strays - self._filed():
                    path = self.folder / name
                    with contextlib.suppress(FileNotFoundError):
                        total += path.stat().st_size
                        path.unlink()
        return total

    def pin(self, pin: Pin) -> None:
        """Keep what is there of it, and what comes."""
        with self._told():
            self.pins.add(pin)
        self._each(pin.keys, _UNPINNED, self._keep)

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
        query = "SELECT mode, filename, value FROM Cache WHERE key = ?"
        row = self._table.execute(query, (key,)).fetchone()
        if row is None:
            return 0  # another has just deleted it
        try:
            mode, name, held = row
            value = BytesDisk(str(self.folder)).fetch(mode, name, held, read=True)
            if isinstance(value, bytes):
                return bad_blocks(key, value)
            with value:
                return bad_blocks(key, value.read())
        except FileNotFoundError:
            return int(self._table.execute(query, (key,)).fetchone() is not None)
        except OSError:
            return 1

    def _remove_files(self, keys: Iterable[str]) -> None:
        """Remove the files of values that are to go, but not what the database knows of them."""
        for beginning in keys:
            with self._told():
                rows = self._table.execute(
                    "SELECT filename FROM Cache WHERE key > ? AND key < ? "  # noqa: S608
                    f"AND {_UNPINNED} AND filename IS NOT NULL",
                    (beginning, beginning + _END),
                ).fetchall()
                for (name,) in rows:
                    (self.folder / name).unlink(missing_ok=True)

    def _files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.glob("??/*.val")}

    def _filed(self) -> set[str]:
        """Return the files of all values."""
        with self._told():
            rows = self._table.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")
            return {name for (name,) in rows}

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


def _open_table(path: Path) -> sqlite3.Connection:
    """Open the database to read; of a full disk, too, where it may have no room for its locks."""
    url = f"file:{quote(str(path))}?mode=ro"
    table = sqlite3.connect(url, uri=True, timeout=_SECONDS)
    try:
        table.execute("SELECT 1 FROM Settings").fetchone()
    except sqlite3.OperationalError:
        table.close()
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        table = sqlite3.connect(f"{url}&immutable=1", uri=True)  # nobody is writing to it
    return table
