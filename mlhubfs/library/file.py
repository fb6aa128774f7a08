"""An asset as a Python file.

Owns the position in it. The bytes come block by block through the same caches as a mount's.

*Threading.* As Python's files: one thread at a time. In a forked child an open file goes on, with a
session of the child's own.
"""

import io
import os
from typing import Any

from mlhubfs.errors import Changed
from mlhubfs.library.access import Access

BUFFER = 128 << 10  # bytes; a block: less would ask the cache more often for the same one

_PIECE = 4 << 20  # bytes that `readall` asks for at once


class AssetFile(io.RawIOBase):
    """The bytes of the file at `path` in the tree, of the version that it had when it was opened.

    Reading raises Changed where the server has another version by now, and the transport's errors.
    """

    def __init__(self, access: Access, path: str) -> None:
        self.name = path
        """Where a mount has the file."""
        self._access = access
        self._position = 0
        self._open()
        self._edition = self._bytes.edition

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to `offset` bytes from the start, the position or the end; return the position."""
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; return how many bytes, 0 at the end."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        data = self._current().read(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Return what is left."""
        return b"".join(iter(lambda: self.read(_PIECE), b""))

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self.name} is closed")

    def _open(self) -> None:
        self._session = self._access.session
        file = self._session.tree.file(self.name)
        self._bytes, self._size = file.open(), file.attributes().size

    def _current(self) -> Any:
        if self._access.session is not self._session:
            self._open()
            if self._bytes.edition != self._edition:
                raise Changed(f"{self.name} was replaced on the server while it was open")
        return self._bytes
