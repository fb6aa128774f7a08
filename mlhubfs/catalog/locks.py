"""Locks on files, between the processes and the threads of one machine.

Owns `flock` and the removal of lock files. A lock belongs to its holder's open file: the kernel
lets it go when the holder ends, by kill -9 too, so nothing expires and no clock is trusted. Every
lock opens the file anew, hence two threads of one process exclude each other like two processes.

A forked child has a copy of the open file, which would keep the lock when the holder closes its
own: hence the holder unlocks first. The child, which may end earlier, only closes.

A lock file may be removed by who holds it alone. Whoever had opened it before, and is given the
lock now, has locked a file that nobody else will find: `try_lock` notices and takes the new one.

*Threading.* Any thread; nothing here waits for longer than it was told to.
"""

import contextlib
import fcntl
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

_STEP_SECONDS = 0.01


class Releasable(ABC):
    """Something that is held until `release`, or to the end of a `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @abstractmethod
    def release(self) -> None:
        """Let go."""


class FileLock(Releasable):
    """A lock that is held until `release`, or until this process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._process = os.getpid()

    def release(self, *, remove: bool = False) -> None:
        """Let go, once; `remove` takes the file away, which only who holds it alone may ask."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if self._process == os.getpid():
            if remove:
                with contextlib.suppress(OSError):
                    self._path.unlink()
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def try_lock(path: Path, *, shared: bool = False) -> FileLock | None:
    """Return the lock on `path`, made if it is not there, or None where another holds it.

    `shared` holders exclude only who wants it alone. Raises OSError where no file can be made.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return FileLock(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def lock(path: Path, *, seconds: float, shared: bool = False) -> FileLock | None:
    """Return the lock on `path`, or None where others have held it for all of `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        held = try_lock(path, shared=shared)
        if held or time.monotonic() >= deadline:
            return held
        time.sleep(_STEP_SECONDS)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
