"""The blocks on disk: shared by all mounts of the user, checksummed, written behind the reader.

Owns the diskcache database, its writer thread, and the format of a value: CRC-32 over key and data
(4 bytes, big-endian), then the data. A value that fails its check is deleted and counts as absent.

A cache may fail in every way that a disk can; nothing of that reaches a reader. What cannot be read
is a miss, what cannot be written is dropped, and the log says so, once per kind of trouble.

1. diskcache unpickles what its database calls a pickle (CVE-2025-69872). `_BytesDisk` refuses any
   value that is not bytes and any key that is not a string, on both ways; the folder is 0700.
2. diskcache keeps a database connection per thread, in a thread-local. The threads that serve the
   kernel lose theirs at the end of every call (ctypes makes a thread state per callback), so they
   must never call into here: `Content` does it from workers of its own.
3. diskcache would note each read in the database to know what was used last: a write per read.
   So there are two handles on the one database: `_reader` with that switched off, and `_writer`,
   which notes the use in batches and evicts by it.
4. diskcache's `retry=True` repeats for ever on a disk that fails; it is not used.

*Threading.* `get` from any long-lived thread, `put` and `use` from any thread; one writer thread.
"""

import logging
import shutil
import sqlite3
import threading
import zlib
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diskcache

_log = logging.getLogger("mlhubfs.cache")
_QUEUE_BYTES = (
    64 << 20
)  # what may wait to be written; beyond it blocks are dropped, not readers held
_FREE_SHARE = 0.05  # of the disk, never touched
_BATCH = 64  # values per transaction: one costs 1.8 ms alone (1 MiB), most of it the commit
_USED_KEYS = 4096  # notes of use that wait for the writer; more would only repeat
_TROUBLE = (OSError, sqlite3.Error, diskcache.Timeout, ValueError, EOFError)


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Stores bytes under strings, and neither writes nor reads anything that is pickled."""

    def put(self, key: str) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError(f"cache keys are strings, not {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: bool) -> str:
        if not raw or not isinstance(key, str):
            raise ValueError("a cache key that mlhubfs did not write")
        return key

    def store(self, value: bytes, read: bool, key: Any = diskcache.UNKNOWN) -> Any:
        if read or type(value) is not bytes:
            raise TypeError(f"cache values are bytes, not {type(value).__name__}")
        return super().store(value, read, key)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode not in {diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY}:
            raise ValueError("a cache value that mlhubfs did not write")
        if mode == diskcache.core.MODE_RAW and not isinstance(value, bytes):
            raise ValueError("a cache value that mlhubfs did not write")
        return super().fetch(mode, filename, value, read)


class DiskCache:
    """At most `size` bytes of values in `folder`; raises OSError if it cannot be opened at all."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._troubles: set[str] = set()
        self.hits = self.misses = 0
        """Values that were asked for and there, or not, so far."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._writer = self._open(size)
        self._reader = self._open(size)
        self._reader.eviction_policy = "none"
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, bytes]] = deque()
        self._queued_bytes = 0
        self._used: set[str] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._write, name="cache-writer", daemon=True)
        self._thread.start()

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return key -> data of those that are there and sound."""
        found = {}
        for key in keys:
            data = self._get(key)
            if data is not None:
                found[key] = data
            self.hits += data is not None
            self.misses += data is None
        with self._changed:
            if len(self._used) < _USED_KEYS:
                self._used.update(found)
                if len(self._used) >= _BATCH:
                    self._changed.notify()
        return found

    def put(self, key: str, data: bytes) -> None:
        """Queue `data` to be written; returns at once."""
        with self._changed:
            if self._closing or self._queued_bytes + _weight(data) > _QUEUE_BYTES:
                return
            self._queue.append((key, data))
            self._queued_bytes += _weight(data)
            self._changed.notify()

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

    def _open(self, size: int) -> Any:
        settings: dict[str, Any] = {
            "disk": _BytesDisk,
            "size_limit": size,
            "eviction_policy": "least-recently-used",
            "cull_limit": 20,
            "sqlite_cache_size": 256,  # pages of 4 KiB per connection; there is one per thread
            "timeout": 5,
        }
        try:
            return diskcache.Cache(str(self._folder), **settings)
        except (sqlite3.Error, diskcache.Timeout, ValueError) as error:
            if not _is_damage(error):
                raise OSError(str(error)) from error
            self._set_aside(error)
        try:
            return diskcache.Cache(str(self._folder), **settings)
        except (sqlite3.Error, diskcache.Timeout) as error:
            raise OSError(str(error)) from error

    def _set_aside(self, error: Exception) -> None:
        aside = self._folder.with_name(f"{self._folder.name}.damaged")
        _log.warning("the cache in %s is damaged (%s): it is set aside", self._folder, error)
        shutil.rmtree(aside, ignore_errors=True)
        self._folder.rename(aside)
        self._folder.mkdir(mode=0o700)

    def _get(self, key: str) -> bytes | None:
        try:
            value = self._reader.get(key)
        except _TROUBLE as error:
            self._report("read", error)
            return None
        if value is None:
            return None
        data: bytes = value[4:]
        if int.from_bytes(value[:4], "big") == _checksum(key, data):
            return data
        self._report("trust", ValueError(f"the block {key} fails its checksum: fetched again"))
        try:
            self._reader.delete(key)
        except _TROUBLE as error:
            self._report("delete", error)
        return None

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
                self._report("write", error)
            with self._changed:
                self._queued_bytes -= sum(_weight(data) for _, data in batch)
                self._changed.notify_all()
        self._writer.close()  # the connection of this thread

    def _has_work(self) -> bool:
        return bool(self._queue) or self._closing or len(self._used) >= _BATCH

    def _store(self, batch: list[tuple[str, bytes]], used: set[str]) -> None:
        with self._writer.transact():
            # The use first: what is stored after it may evict.
            for key in used:
                opened = self._writer.get(key, read=True)
                if hasattr(opened, "close"):
                    opened.close()
            for key, data in batch:
                self._writer.set(key, _checksum(key, data).to_bytes(4, "big") + data)

    def _has_room(self) -> bool:
        disk = shutil.disk_usage(self._folder)
        if disk.free >= disk.total * _FREE_SHARE:
            return True
        self._writer.cull()
        self._report("grow", OSError(f"less than {_FREE_SHARE:.0%} of the disk is free"))
        return False

    def _report(self, doing: str, error: Exception) -> None:
        kind = f"{doing} {type(error).__name__}"
        if kind not in self._troubles:
            self._troubles.add(kind)
            _log.warning("cache %s: cannot %s: %s; it goes on without", self._folder, doing, error)


def _is_damage(error: Exception) -> bool:
    """Say whether the database is bad, and not the disk full or the lock held by others."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return isinstance(error, ValueError)
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


def _weight(data: bytes) -> int:
    return 4 + len(data)


def _checksum(key: str, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(key.encode()))
