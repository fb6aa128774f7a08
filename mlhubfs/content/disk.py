"""How diskcache keeps our values: as bytes only, in the pieces in which they come.

Owns the files of values; the database is diskcache's, and what is in a value is `cache`'s.

1. diskcache unpickles what its database calls a pickle (CVE-2025-69872). `BytesDisk` refuses any
   value that is not bytes and any key that is not a string, on both ways.
2. diskcache writes bytes line by line, through a buffer. `BytesDisk` hands the kernel the slices of
   the answer as they came from the network, and lets only the wanted part be read back.

3. diskcache evicts whatever was used least recently. What is pinned is marked by a time at which it
   expires, far away, and `_POLICY` passes over it: marks can be set and taken without the value.

*Threading.* Reading: any thread. Writing: the one thread of the cache that writes.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW

_TRIES = 5
_POLICY = "least-recently-used-unpinned"
KEEP_SECONDS = 1e10
"""To a pinned value's expiry: 300 years."""


def open_cache(folder: Path, **settings: Any) -> Any:
    """Return diskcache's database in `folder`, which evicts what is not pinned."""
    unpinned = "FROM Cache INDEXED BY Cache_unpinned WHERE expire_time IS NULL"
    diskcache.EVICTION_POLICY.setdefault(
        _POLICY,
        {
            **diskcache.EVICTION_POLICY["least-recently-used"],
            "init": "CREATE INDEX IF NOT EXISTS Cache_unpinned ON Cache (access_time) "
            "WHERE expire_time IS NULL",
            "cull": f"SELECT {{fields}} {unpinned} ORDER BY access_time LIMIT ?",
        },
    )
    settings = {"disk": BytesDisk, "eviction_policy": _POLICY, **settings}
    return diskcache.Cache(str(folder), **settings)


class Value:
    """A value in the pieces in which it lies in memory."""

    def __init__(self, pieces: list[bytes | memoryview]) -> None:
        self.pieces = pieces
        self.size = sum(len(piece) for piece in pieces)


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Stores `Value`s under strings, and neither writes nor reads anything that is pickled."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.written: list[str] = []
        """The files of the transaction under way."""

    def put(self, key: str) -> tuple[str, bool]:
        """Return the key as the database is to hold it."""
        if not isinstance(key, str):
            raise TypeError(f"cache keys are strings, not {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: bool) -> str:
        """Return the key that the database holds."""
        if not raw or not isinstance(key, str):
            raise ValueError("a cache key that mlhubfs did not write")
        return key

    def store(self, value: Value, read: bool, key: Any = diskcache.UNKNOWN) -> Any:
        """Write the value, to a file unless it is short; return what the database is to hold."""
        if read or not isinstance(value, Value):
            raise TypeError(f"cache values are bytes, not {type(value).__name__}")
        if value.size < self.min_file_size:
            return 0, MODE_RAW, None, b"".join(value.pieces)
        name, path = self.filename(key, value)
        self.written.append(path)
        _write_file(path, value)
        return value.size, MODE_BINARY, name, None

    def filename(self, key: Any = diskcache.UNKNOWN, value: Any = diskcache.UNKNOWN) -> Any:  # noqa: ARG002
        """Return a new file's name and path, in one of 256 folders.

        diskcache's own 65536 would cost two more folders for nearly every file.
        """
        digits = os.urandom(16).hex()
        name = f"{digits[:2]}/{digits[2:]}.val"
        return name, os.path.join(self._directory, name)  # noqa: PTH118

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:  # noqa: ARG002
        """Return the value's bytes, or its file, open."""
        if mode == MODE_RAW and isinstance(value, bytes):
            return value
        if mode == MODE_BINARY and filename:
            return open(os.path.join(self._directory, filename), "rb", 0)  # noqa: PTH118, PTH123
        raise ValueError("a cache value that mlhubfs did not write")


def slices(value: Any, *spans: tuple[int, int]) -> list[bytes]:
    """Return spans (offset, length) of bytes, or of an open file, which is closed."""
    if isinstance(value, bytes):
        return [value[start : start + length] for start, length in spans]
    with value:
        return [os.pread(value.fileno(), length, start) for start, length in spans]


def _write_file(path: str, value: Value) -> None:
    """Write a new file from pieces, without joining them."""
    descriptor = _new_file(path)
    try:
        if os.writev(descriptor, value.pieces) != value.size:
            raise OSError(f"the disk took only a part of {path}")
    finally:
        os.close(descriptor)


def _new_file(path: str) -> int:
    """Open a new file, in a folder that another process may remove as soon as it is empty."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        Path(path).parent.mkdir(mode=0o700, exist_ok=True)
    raise OSError(f"the folder of {path} is removed again and again")
