"""The C callbacks of libfuse 2 and 3, answered by a `FileSystem`.

Owns the translation between C structures and the values of `filesystem`. These classes come before
the `FUSE` class of fusepy or mfusepy in the bases of the class that `binding` mounts, and replace
its callbacks of the same name. The bindings keep their structures and the call of libfuse's main.

*Why not the bindings' own callbacks.*
1. Their guards break. fusepy's reads `error.errno > 0` of any OSError: with the None that requests'
   exceptions have it raises inside the guard, then again for want of `self` in a static method, so
   ctypes answers with whatever is in the register (readers saw ERANGE). Both end the mount for
   a SystemExit.
2. Their readdir drops the offset (fusepy), or never sets FUSE_FILL_DIR_PLUS (mfusepy), and builds
   a dict and a structure for each name.
3. Their open cannot set `direct_io`, except by handing out C structures.

*Threading.* Callbacks run on libfuse's threads, many at once. Python makes a new thread state for
each call, so nothing here is thread-local; `_serving` holds the identifiers of the threads inside
a callback and since when, and setting and taking one key of a dict is atomic.
"""

import ctypes
import errno
import logging
import math
import os
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from time import monotonic
from typing import Any

from mlhubfs.errors import (
    Interrupted,
    IsADirectory,
    MlhubfsError,
    NotADirectory,
    NotFound,
    ReadOnly,
)
from mlhubfs.fuse.filesystem import Attributes, FileSystem
from mlhubfs.fuse.libfuse import Libfuse

log = logging.getLogger("mlhubfs.fuse")

# The bindings register a callback for each of these and leave the others NULL, so the kernel stops
# asking after one ENOSYS: for flush, access and extended attributes that halves an `ls -l`.
OFFERED = (
    "getattr", "readlink", "open", "read", "release", "opendir", "readdir", "releasedir",
    "statfs", "init", "destroy",
)  # fmt: skip
# Python's open() and older C libraries take st_blksize for the size of their buffer, so that a
# larger one makes them fetch as much at each seek. cp and cat have sizes of their own.
BLOCK_SIZE = 4096
# Reads ahead that the kernel has under way at once. A stalled reader holds up two of them, so that
# with the default of 12 the seventh reader of a dead host would stop the reads of all files.
MAX_BACKGROUND = 160
CAP_ASYNC_READ = 1  # libfuse 3, bit of fuse_conn_info.want
# Without it the kernel asks for one name of a directory at a time, and lists none meanwhile: a size
# that a server does not tell would hold up the directory. Off by default, and passed on to the
# kernel only since libfuse 3.17 (https://github.com/libfuse/libfuse/pull/861 and 880).
CAP_PARALLEL_DIROPS = 1 << 18
FILL_DIR_PLUS = 2  # libfuse 3, enum fuse_fill_dir_flags: the structure is complete
READDIR_PLUS = 1  # libfuse 3, enum fuse_readdir_flags: the kernel would take complete ones


_ORDINARY = (NotFound, NotADirectory, IsADirectory, ReadOnly, Interrupted)


class Callbacks:
    """What is the same in libfuse 2 and 3."""

    def __init__(
        self, filesystem: FileSystem, libfuse: Libfuse, started: Callable[[], None]
    ) -> None:
        self.fuse: int | None = None
        """Address of the `struct fuse` while it may be used."""
        self.sync_read = False
        """Whether libfuse 3 is to switch reading ahead off (libfuse 2 has a mount option)."""
        self.started = False
        self.failure: BaseException | None = None
        """What ended the mount as it began."""
        self._filesystem = filesystem
        self._libfuse = libfuse
        self._on_start = started
        self._serving: dict[int, float] = {}
        self._owner = (os.getuid(), os.getgid())

    def _wrapper(self, callback: Any, *arguments: Any) -> int:
        """Answer one request; both bindings put this around each callback."""
        thread = get_ident()
        self._serving[thread] = monotonic()
        try:
            return callback(*arguments) or 0
        except BaseException as error:  # noqa: BLE001 - what leaves here becomes a random answer
            code = errno.EIO
            with suppress(BaseException):
                code = _explain(error, callback.__name__)
            return -code
        finally:
            del self._serving[thread]

    def interrupted(self) -> bool:
        """Whether nobody waits for the answer that the calling thread is to give."""
        if self.fuse is None or get_ident() not in self._serving:
            return False
        return self._libfuse.interrupted() or self._libfuse.exited(self.fuse)

    def caller(self) -> int:
        """Return the thread id of who waits for the calling thread's answer, 0 where unknown."""
        return self._libfuse.caller() if get_ident() in self._serving else 0

    def elapsed(self) -> float:
        """Return for how many seconds the calling thread has been serving its request."""
        since = self._serving.get(get_ident())
        return 0.0 if since is None else monotonic() - since

    def _start(self) -> None:
        # `fuse` is set last: libfuse has no request here that `interrupted` could speak of.
        fuse = self._libfuse.current()
        self.started = True
        try:
            self._on_start()
            self._filesystem.init()
        except BaseException as error:
            self.failure = error
            self._libfuse.exit(fuse)
            raise
        self.fuse = fuse

    def destroy(self, _data: Any) -> None:
        """Tell the file system that the mount is gone."""
        self.fuse = None
        if self.failure is None:
            self._filesystem.destroy()

    def _stat(self, path: bytes, buffer: Any, info: Any) -> None:
        handle = info.contents.fh if info else None
        self._fill(buffer.contents, self._filesystem.getattr(_decoded(path), handle))

    def _fill(self, stat: Any, attributes: Attributes) -> None:
        mode, size, mtime, nlink = attributes
        stat.st_mode = mode
        stat.st_nlink = nlink
        stat.st_uid, stat.st_gid = self._owner
        stat.st_size = size
        stat.st_blocks = (size + 511) // 512
        stat.st_blksize = BLOCK_SIZE
        seconds = math.floor(mtime)
        nanoseconds = int((mtime - seconds) * 1e9)
        for time in (stat.st_atimespec, stat.st_mtimespec, stat.st_ctimespec):
            time.tv_sec = seconds
            time.tv_nsec = nanoseconds

    def readlink(self, path: bytes, buffer: Any, size: int) -> None:
        """Put the target, cut to `size` with its NUL, into `buffer`."""
        target = self._filesystem.readlink(_decoded(path)).encode("utf-8", "surrogateescape")
        target = target[: size - 1] + b"\0"
        ctypes.memmove(buffer, target, len(target))

    def open(self, path: bytes, info: Any) -> None:
        """Set handle and flags."""
        fields = info.contents
        opened = self._filesystem.open(_decoded(path), fields.flags)
        fields.fh = opened.fh
        fields.direct_io = opened.direct_io
        fields.keep_cache = opened.keep_cache

    def read(self, path: bytes, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Copy the bytes into the buffer of the reply, the one copy that is made here."""
        data = self._filesystem.read(_decoded(path), size, offset, info.contents.fh)
        length = len(data)
        if length > size:
            raise ValueError(f"read({size}, {offset}) answered {length} bytes")
        if isinstance(data, bytes):
            ctypes.memmove(buffer, data, length)
        elif length:
            room = (ctypes.c_char * length).from_address(ctypes.addressof(buffer.contents))
            memoryview(room).cast("B")[:] = data
        return length

    def release(self, _path: bytes, info: Any) -> None:
        """Forget a file's handle."""
        self._filesystem.release(info.contents.fh)

    def opendir(self, path: bytes, info: Any) -> None:
        """Set the handle."""
        info.contents.fh = self._filesystem.opendir(_decoded(path))

    def releasedir(self, _path: bytes, info: Any) -> None:
        """Forget a listing's handle."""
        self._filesystem.releasedir(info.contents.fh)

    def statfs(self, _path: bytes, buffer: Any) -> None:
        """Tell what is there, all of it used."""
        size, files = self._filesystem.statfs()
        totals = buffer.contents
        totals.f_bsize = totals.f_frsize = BLOCK_SIZE
        totals.f_blocks = -(-size // BLOCK_SIZE)
        totals.f_files = files
        totals.f_namemax = 255


class Callbacks2(Callbacks):
    """What libfuse 2 calls, by the names that fusepy gives it."""

    def init(self, _connection: Any) -> None:
        """Start."""
        self._start()

    def getattr(self, path: bytes, buffer: Any) -> None:
        """Fill a structure for a path."""
        self._stat(path, buffer, None)

    def fgetattr(self, path: bytes, buffer: Any, info: Any) -> None:
        """Fill a structure for an open file."""
        self._stat(path, buffer, info)

    def readdir(self, path: bytes, buffer: Any, add: Any, offset: int, info: Any) -> None:
        """Give names and their types until the buffer is full."""
        stat, reference = _new_stat(add)
        for name, attributes, _complete, next_offset in self._filesystem.readdir(
            _decoded(path), info.contents.fh, offset
        ):
            stat.st_mode = attributes[0]
            if add(buffer, name.encode("utf-8", "surrogateescape"), reference, next_offset):
                return


class Callbacks3(Callbacks):
    """What libfuse 3 calls, by the names that mfusepy gives it."""

    def init_fuse_3(self, connection: Any, _config: Any) -> None:
        """Start; what libfuse 2 takes as mount options is set here."""
        wishes = connection.contents
        wishes.max_background = MAX_BACKGROUND
        wishes.congestion_threshold = MAX_BACKGROUND * 3 // 4
        wishes.want |= wishes.capable & CAP_PARALLEL_DIROPS
        if self.sync_read:
            wishes.want &= ~CAP_ASYNC_READ
        self._start()

    def getattr_fuse_3(self, path: bytes, buffer: Any, info: Any) -> None:
        """Fill a structure for a path or an open file."""
        self._stat(path, buffer, info)

    def readdir_fuse_3(  # noqa: PLR0917 - libfuse's signature
        self, path: bytes, buffer: Any, add: Any, offset: int, info: Any, flags: int
    ) -> None:
        """Give names, with all attributes where they are known and the kernel can take them."""
        stat, reference = _new_stat(add)
        fill = self._fill
        plus = FILL_DIR_PLUS if flags & READDIR_PLUS else 0
        for name, attributes, complete, next_offset in self._filesystem.readdir(
            _decoded(path), info.contents.fh, offset
        ):
            if plus and complete:
                fill(stat, attributes)
                flag = plus
            else:
                stat.st_mode = attributes[0]
                flag = 0
            if add(buffer, name.encode("utf-8", "surrogateescape"), reference, next_offset, flag):
                return


def _new_stat(add: Any) -> tuple[Any, Any]:
    """Return a `struct stat` of the binding, zeroed, and the pointer to it that `add` takes."""
    pointer = add.argtypes[2]
    stat = pointer._type_()
    return stat, pointer(stat)


def _decoded(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _explain(error: BaseException, operation: str) -> int:
    """Return the errno of `error`, and log what is not an answer but a fault."""
    if isinstance(error, MlhubfsError):
        # What does not exist is asked for all the time; the rest is what an operator looks for.
        level = logging.DEBUG if isinstance(error, _ORDINARY) else logging.INFO
        name = errno.errorcode.get(error.errno, "")
        log.log(level, "%s gave %s: %s", operation, name, error)
        # libfuse takes what is beyond for garbage, and the kernel would never wake the reader.
        if isinstance(error.errno, int) and 0 < error.errno < 512:
            return error.errno
    log.error("%s failed", operation, exc_info=error)
    return errno.EIO
