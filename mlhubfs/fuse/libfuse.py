"""The C library below the bindings: where it is, which it is, and the calls that bindings lack.

Owns a second ctypes handle to the libfuse that a binding uses. Does not mount.

*Why by soname.* fusepy and mfusepy look with `find_library`, which runs ldconfig or gcc, and
mfusepy takes libfuse 2 when both are there. The loader finds a soname without either.

*Threading.* `current`, `caller` and `interrupted` speak of the request that the calling thread
serves, so they may only be called inside a callback of libfuse: in other threads libfuse
dereferences NULL. The others may be called from any thread while the mount lives.
"""

import ctypes
import os
from typing import NamedTuple

from mlhubfs.errors import MountError

SONAMES = {
    "fuse3": ("libfuse3.so.4", "libfuse3.so.3"),  # 3.17 changed the ABI, and with it the soname
    "fuse2": ("libfuse.so.2",),
}
PACKAGES = {"fuse3": "fuse3", "fuse2": "libfuse2 (libfuse2t64 on newer systems)"}


class Version(NamedTuple):
    """Of the library, not of the kernel's protocol."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class _Context(ctypes.Structure):
    """The members of `struct fuse_context` that both versions have."""

    _fields_ = (
        ("fuse", ctypes.c_void_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("pid", ctypes.c_int32),
    )


class Libfuse:
    """A loaded libfuse of either major version."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._library = ctypes.CDLL(path)
        self.version = parse_version(self._library.fuse_version())
        self._library.fuse_get_context.restype = ctypes.POINTER(_Context)
        self._library.fuse_exit.argtypes = [ctypes.c_void_p]
        if self.version.major == 3:
            self._library.fuse_get_session.argtypes = [ctypes.c_void_p]
            self._library.fuse_get_session.restype = ctypes.c_void_p
            self._library.fuse_session_exited.argtypes = [ctypes.c_void_p]
            self._library.fuse_invalidate_path.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        else:
            self._library.fuse_exited.argtypes = [ctypes.c_void_p]

    def current(self) -> int:
        """Return the address of the `struct fuse` whose callback this thread is in."""
        return int(self._library.fuse_get_context().contents.fuse)

    def caller(self) -> int:
        """Return the thread for which this thread's callback works; 0 from another namespace."""
        return int(self._library.fuse_get_context().contents.pid)

    def interrupted(self) -> bool:
        """Whether who waits for the answer of this thread's callback has been interrupted."""
        return bool(self._library.fuse_interrupted())

    def exited(self, fuse: int) -> bool:
        """Whether the loop of `fuse` is ending, by a signal or an unmount."""
        if self.version.major == 3:
            session = self._library.fuse_get_session(fuse)
            return bool(self._library.fuse_session_exited(session))
        return bool(self._library.fuse_exited(fuse))

    def exit(self, fuse: int) -> None:
        """Let the loop of `fuse` end after the current requests."""
        self._library.fuse_exit(fuse)

    def invalidate(self, fuse: int, path: bytes) -> bool:
        """Let the kernel forget attributes and pages of `path`; False if it knew none."""
        if self.version < Version(3, 2):
            return False
        return bool(self._library.fuse_invalidate_path(fuse, path) == 0)


def load(name: str) -> Libfuse:
    """Return libfuse `fuse2` or `fuse3`; FUSE_LIBRARY_PATH is tried first, as the bindings do."""
    chosen = os.environ.get("FUSE_LIBRARY_PATH")
    reasons = []
    for path in (*((chosen,) if chosen else ()), *SONAMES[name]):
        try:
            library = Libfuse(path)
        except (OSError, AttributeError) as error:
            reasons.append(str(error))
            continue
        if f"fuse{library.version.major}" == name:
            return library
        reasons.append(f"{path} is libfuse {library.version}")
    raise MountError(f"{'; '.join(reasons)}: install the package {PACKAGES[name]}")


def parse_version(number: int) -> Version:
    """Undo FUSE_MAKE_VERSION: 29 is 2.9, 314 is 3.14."""
    return Version(*divmod(number, 10 if number < 100 else 100))
