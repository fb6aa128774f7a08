"""The cache on disk: shared by all mounts of the user, checksummed, written behind the reader.

Owns the diskcache database, its writer thread, and the format of its values:

* `<version key>:e<n>`, a whole extent, and `<version key>:b<n>`, a single block: the CRC-32 of each
  block over its key, number and data (4 bytes each, big-endian), then the blocks.
* any other key: the CRC-32 over key and value, then the value.

What fails its check counts as absent, block by block: an extent with one bad block serves the
others, and the one that is fetched again stands beside it. A cache may fail in every way that a
disk can; nothing of that reaches a reader. What cannot be read is a miss, what cannot be written is
dropped, and the log says so, once per kind of trouble.

1. diskcache keeps a database connection per thread, in a thread-local. The threads that serve the
   kernel lose theirs at the end of every call (ctypes makes a thread state per callback), so they
   must never call into here: the store does it from workers of its own.
2. diskcache would note each read in the database to know what was used last: a write per read.
   So there are two handles on the one database: `_reader` with that switched off, and `_writer`,
   which notes the use in batches and evicts by it.
3. diskcache's `retry=True` repeats for ever on a disk that fails; it is not used.
4. diskcache looks up one key at a time, and opens a file to note its use. A read that finds nothing
   would look 33 times, so its table is asked in SQL for those two.

*Threading.* `read` and `get` from any long-lived thread, `write` and `put` from any; one writer.
"""

import contextlib
import logging
import os
import re
import shutil
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import diskcache

from mlhubfs.content.blocks import BLOCK, BLOCKS_PER_EXTENT, blocks_of, cut, parts, runs, span
from mlhubfs.content.buffers import Blocks
from mlhubfs.content.disk import KEEP_SECONDS, Value, open_cache, slices
from mlhubfs.content.pins import Pins

_log = logging.getLogger("mlhubfs.cache")
_QUEUE_BYTES = 64 << 20  # what may wait; beyond it values are dropped, rather than readers held
_FREE_SHARE = 0.05  # of the disk, never touched
_BATCH = 64  # values per transaction: one alone costs as much as its commit
_LONGEST = 1 << 20  # bytes of a value that is not blocks
_USED_KEYS = 4096  # notes of use that wait for the writer; more would only repeat
_TROUBLE = (OSError, sqlite3.Error, diskcache.Timeout, ValueError, EOFError)


class _Held(NamedTuple):
    """What a value on disk holds: these blocks of a version, of `size` bytes in all."""

    key: str
    blocks: range
    size: int


class DiskCache:
    """At most `size` bytes of values in `folder`; raises OSError if it cannot be opened at all.

    `is_patient` lets who writes wait where the disk does not keep up, instead of writing less.
    """

    def __init__(self, folder: Path, size: int, *, is_patient: bool = False) -> None:
        self._folder = folder
        self._troubles: set[str] = set()
        self.hits = self.misses = 0
        """Blocks that were asked for and there, or not, so far."""
        self.problem = ""
        """What last kept it from keeping what it was given."""
        self._is_patient = is_patient
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._writer = self._open(size)
        self._reader = self._open(size)
        self._reader.eviction_policy = "none"
        self._opened = self._database()
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, Value]] = deque()
        self._queued_bytes = 0
        self._used: set[str] = set()
        self._pins = pins_of(folder)
        self._closing = False
        self._thread = threading.Thread(target=self._write, name="cache-writer", daemon=True)
        self._thread.start()

    def read(self, key: str, numbers: Iterable[int], size: int) -> Blocks:
        """Return those blocks of the version `key`, of `size` bytes, that are there and sound."""
        found: Blocks = {}
        wanted = list(numbers)
        for run in runs(wanted):
            for part in parts(run):
                found.update(self._read_extent(key, part, size))
        missed = sum(number not in found for number in wanted)
        self.hits += len(wanted) - missed
        self.misses += missed
        return found

    def lacks(self, key: str, size: int) -> list[range]:
        """Return the runs of blocks that are not there, within extents; none is looked into."""
        found = list[range]()
        try:
            for part in parts(blocks_of(0, size)):
                if _extent_key(key, part) not in self._reader:
                    found += runs(n for n in part if f"{key}:b{n}" not in self._reader)
        except _TROUBLE as error:
            self._report("read", error)
            return list(parts(blocks_of(0, size)))
        return found

    def write(self, key: str, first: int, data: bytes | memoryview, size: int) -> None:
        """Queue `data`, which begins with block `first`: whole extents as one value each."""
        view = memoryview(data)
        for part in parts(range(first, first + len(blocks_of(0, len(view))))):
            start, stop = span(part, size)
            piece = view[start - first * BLOCK : stop - first * BLOCK]
            if part == _extent(part.start, size):
                self._enqueue(_extent_key(key, part), _checked(key, part, piece))
            else:
                for number in part:
                    block = piece[(number - part.start) * BLOCK :][:BLOCK]
                    one = range(number, number + 1)
                    self._enqueue(f"{key}:b{number}", _checked(key, one, block))

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`, if it is there and sound."""
        value = self._value(key)
        if value is None:
            return None
        try:
            data: bytes = slices(value, (0, _LONGEST))[0]
        except OSError as error:
            self._report("read", error)
            return None
        if data[:4] == _checksum(key, data[4:]):
            return data[4:]
        self._distrust(key)
        return None

    def put(self, key: str, value: bytes) -> None:
        """Queue a value to be written; returns at once."""
        self._enqueue(key, Value([_checksum(key, value), value]))

    def flush(self, timeout: float) -> bool:
        """Wait until what is queued is written, at most `timeout` seconds; say whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queued_bytes, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Write what is queued, at most `timeout` seconds long, and let go of the database."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._writer.close()
            self._reader.close()

    def _read_extent(self, key: str, part: range, size: int) -> Blocks:
        """Return the blocks of `part`, which lies within one extent."""
        extent = _extent(part.start, size)
        found = self._sound(_extent_key(key, part), _Held(key, extent, size), part)
        names = {f"{key}:b{number}": number for number in part if number not in found}
        for name in self._present(list(names)):
            one = range(names[name], names[name] + 1)
            found.update(self._sound(name, _Held(key, one, size), one))
        return found

    def _present(self, names: list[str]) -> list[str]:
        """Return those under which there is a value, by one look-up: mostly there is none."""
        if len(names) < 2:
            return names
        marks = ",".join("?" * len(names))
        query = f"SELECT key FROM Cache WHERE raw = 1 AND key IN ({marks})"  # noqa: S608 - marks only
        try:
            return [name for (name,) in self._reader._sql(query, names)]  # noqa: SLF001 - see 4
        except _TROUBLE as error:
            self._report("read", error)
            return []

    def _sound(self, name: str, held: _Held, wanted: range) -> Blocks:
        """Return those of the `wanted` blocks in the value under `name` that pass their check."""
        value = self._value(name)
        if value is None:
            return {}
        header = 4 * len(held.blocks)
        start, stop = span(wanted, held.size)
        offset = header + start - held.blocks.start * BLOCK
        try:
            sums, data = slices(value, (0, header), (offset, stop - start))
        except OSError as error:
            self._report("read", error)
            return {}
        found: Blocks = {}
        for number, block in cut(data, wanted.start).items():
            at = 4 * (number - held.blocks.start)
            if sums[at : at + 4] == _checksum(f"{held.key}:{number}", block):
                found[number] = block
        if len(found) < len(wanted):
            self._distrust(name)
        return found

    def _value(self, key: str) -> Any:
        """Return the bytes under `key`, or an open file of them, or None."""
        try:
            value = self._reader.get(key, read=True)
        except _TROUBLE as error:
            self._report("read", error)
            return None
        if value is not None:
            with self._changed:
                if len(self._used) < _USED_KEYS:
                    self._used.add(key)
                    if len(self._used) == _BATCH:
                        self._changed.notify()
        return value

    def _distrust(self, key: str) -> None:
        # Not deleted: that would wait for whoever writes. What is fetched again takes its place.
        self._report("trust", ValueError(f"{key} fails its checksum and is fetched again"))

    def _database(self) -> tuple[int, int]:
        """Return what tells the database in the folder from any other."""
        found = (self._folder / "cache.db").stat()
        return found.st_dev, found.st_ino

    def _open(self, size: int) -> Any:
        settings: dict[str, Any] = {
            "size_limit": size,
            "cull_limit": 20,
            "sqlite_cache_size": 256,  # pages of 4 KiB per connection; there is one per thread
            "timeout": 5,
        }
        try:
            return open_cache(self._folder, **settings)
        except (sqlite3.Error, diskcache.Timeout, ValueError) as error:
            if not _is_damage(error):
                raise OSError(str(error)) from error
            self._set_aside(error)
        try:
            return open_cache(self._folder, **settings)
        except (sqlite3.Error, diskcache.Timeout) as error:
            raise OSError(str(error)) from error

    def _set_aside(self, error: Exception) -> None:
        aside = self._folder.with_name(f"{self._folder.name}.damaged")
        _log.warning("the cache in %s is damaged (%s): it is set aside", self._folder, error)
        shutil.rmtree(aside, ignore_errors=True)
        self._folder.rename(aside)
        self._folder.mkdir(mode=0o700)

    def _enqueue(self, key: str, value: Value) -> None:
        with self._changed:
            if self._is_patient:
                self._changed.wait_for(lambda: self._closing or self._has_queue_for(value))
            if self._closing or not self._has_queue_for(value):
                return
            self._queue.append((key, value))
            self._queued_bytes += value.size
            self._changed.notify()

    def _has_queue_for(self, value: Value) -> bool:
        return self._queued_bytes + value.size <= _QUEUE_BYTES

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._closing and not self._queue and not self._used:
                    break
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                used, self._used = self._used, set()
            try:
                if self._has_room():
                    self._store(batch, used)
            except _TROUBLE as error:
                self.problem = f"{self._folder}: {error}"
                self._report("write", error)
            written = sum(value.size for _, value in batch)
            batch.clear()
            with self._changed:
                self._queued_bytes -= written
                self._changed.notify_all()
        self._writer.close()  # the connection of this thread

    def _has_work(self) -> bool:
        return bool(self._queue) or self._closing or len(self._used) >= _BATCH

    def _store(self, batch: list[tuple[str, Value]], used: set[str]) -> None:
        written: list[str] = self._writer.disk.written
        written.clear()
        self._pins.refresh()
        try:
            with self._writer.transact():
                # The use first: what is stored after it may evict.
                note = "UPDATE Cache SET access_time = ? WHERE raw = 1 AND key = ?"
                now = time.time()
                for key in used:
                    self._writer._sql(note, (now, key))  # noqa: SLF001 - see 4
                for key, value in batch:
                    expire = KEEP_SECONDS if self._pins.cover(key) else None
                    self._writer.set(key, value, expire=expire)
        except BaseException:
            # The transaction is undone, and with it all that would ever find these files.
            for path in written:
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - diskcache gives strings
            raise

    def _has_room(self) -> bool:
        # Deleted, or another mount's in its place: it would hold files that no database knows, and
        # that would stay for ever.
        if self._database() != self._opened:
            raise OSError("another cache stands in its place; mount again to use it")
        disk = shutil.disk_usage(self._folder)
        if disk.free >= disk.total * _FREE_SHARE:
            return True
        self._writer.cull()
        self.problem = f"less than {_FREE_SHARE:.0%} of the disk is free"
        self._report("grow", OSError(self.problem))
        return False

    def _report(self, doing: str, error: Exception) -> None:
        kind = f"{doing} {type(error).__name__}"
        if kind not in self._troubles:
            self._troubles.add(kind)
            _log.warning("cache %s: cannot %s: %s; it goes on without", self._folder, doing, error)


def pins_of(folder: Path) -> Pins:
    """Return the pins of the cache in `folder`: beside it, for it may be set aside."""
    return Pins(folder.with_name("pins.json"))


def bad_blocks(key: str, value: bytes) -> int:
    """Return how many blocks of a value fail their check."""
    version, _, name = key.rpartition(":")
    if not re.fullmatch(r"[be]\d+", name):
        return int(value[:4] != _checksum(key, value[4:]))
    count = -(-len(value) // (BLOCK + 4))
    first = int(name[1:]) * (BLOCKS_PER_EXTENT if name[0] == "e" else 1)
    sums, data = value[: 4 * count], memoryview(value)[4 * count :]
    found = cut(data, first)
    sound = sum(
        sums[4 * index : 4 * index + 4] == _checksum(f"{version}:{number}", block)
        for index, (number, block) in enumerate(found.items())
    )
    return max(count, 1) - sound


def _extent(number: int, size: int) -> range:
    """Return the blocks of the extent that block `number` lies in."""
    first = number // BLOCKS_PER_EXTENT * BLOCKS_PER_EXTENT
    return range(first, min(first + BLOCKS_PER_EXTENT, len(blocks_of(0, size))))


def _extent_key(key: str, part: range) -> str:
    return f"{key}:e{part.start // BLOCKS_PER_EXTENT}"


def _checked(key: str, numbers: range, data: memoryview) -> Value:
    """Return the blocks `numbers`, which `data` holds, behind their checksums."""
    blocks = (data[index * BLOCK : (index + 1) * BLOCK] for index in range(len(numbers)))
    sums = (
        _checksum(f"{key}:{number}", block) for number, block in zip(numbers, blocks, strict=True)
    )
    return Value([b"".join(sums), data])


def _is_damage(error: Exception) -> bool:
    """Say whether the database is bad, and not the disk full or the lock held by others."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return isinstance(error, ValueError)
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


def _checksum(key: str, data: bytes | memoryview) -> bytes:
    return zlib.crc32(data, zlib.crc32(key.encode())).to_bytes(4, "big")
