"""What the kernel may ask of a file system, in words that know no libfuse.

Owns the values that cross the seam between `binding` (which calls) and `operations` (which
answers). Imports nothing of either.

*Threading.* Every method may be called from many threads at once. They are libfuse's threads, so
thread-local values do not outlive a call.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Attributes(NamedTuple):
    """What `stat` tells; the owner is who mounted, and libfuse numbers the inodes."""

    mode: int
    """Type and permission bits, as `st_mode`."""

    size: int
    """Exact, in bytes."""

    mtime: float
    """Seconds since the epoch; must be the same at every call, or the kernel drops its pages."""

    nlink: int = 1


class OpenFile(NamedTuple):
    """How an open file is to be treated."""

    fh: int
    """The handle that later calls name."""

    direct_io: bool = False
    """Every `read()` reaches the file system, unsplit by the page cache; mmap fails."""

    keep_cache: bool = False
    """Keep the pages of earlier opens; else the kernel drops them now."""


class DirEntry(NamedTuple):
    """One name of a directory."""

    name: str
    """Neither empty nor longer than 255 bytes, without `/` and NUL: one bad name fails them all."""

    attributes: Attributes
    """At least the type bits of `mode`."""

    complete: bool
    """All attributes are exact: the kernel may answer `stat` from them without asking again."""

    next_offset: int
    """Where a listing goes on behind this name: positive, and the same at every listing."""


class Totals(NamedTuple):
    """What `df` tells."""

    size: int = 0
    """In bytes; all of it counts as used."""

    files: int = 0


class FileSystem(Protocol):
    """What the binding calls.

    A raised `MlhubfsError` becomes its errno; anything else is logged and becomes EIO. Paths are
    absolute, and bytes that are not UTF-8 are surrogates as `os.fsdecode` gives them.
    """

    def init(self) -> None:
        """Start working: the mount is there, and no other call has come yet."""

    def destroy(self) -> None:
        """Stop working: the mount is gone, and no other call will come."""

    def getattr(self, path: str, fh: int | None) -> Attributes:
        """Return the attributes of `path`, or of the open file `fh`, which then is the same."""

    def readlink(self, path: str) -> str:
        """Return the target of a symbolic link."""

    def open(self, path: str, flags: int) -> OpenFile:
        """Return a handle for reading; `flags` are those of the system call."""

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes | memoryview:
        """Return exactly `size` bytes, less only at the end of the file.

        The kernel takes a shorter answer for the end and cuts the file there, silently.
        """

    def release(self, fh: int) -> None:
        """Forget a handle that `open` gave."""

    def opendir(self, path: str) -> int:
        """Return a handle for a listing."""

    def readdir(self, path: str, fh: int, offset: int) -> Iterable[DirEntry]:
        """Yield the names that follow `offset`: 0 or the `next_offset` of some name.

        The kernel takes as many as fit and comes back with the offset of the last one taken, so
        the iterator is mostly left unfinished. `.` and `..` are the file system's to give.
        """

    def releasedir(self, fh: int) -> None:
        """Forget a handle that `opendir` gave."""

    def statfs(self) -> Totals:
        """Return the totals; asked often, so in constant time."""
