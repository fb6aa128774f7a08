"""Mounting: one file-system class, on libfuse 3 by mfusepy or on libfuse 2 by fusepy.

Owns the choice, the mount options, the signals and what a failed mount says. Does not fork, and
does not know what it mounts.

*Threading.* `Binding.mount` blocks its thread, which is to be the main one: signals end the mount
there. `interrupted` and `invalidate` may be called from any thread, at any time.
"""

import importlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from mlhubfs.errors import MountError
from mlhubfs.fuse.callbacks import MAX_BACKGROUND, OFFERED, Callbacks, Callbacks2, Callbacks3
from mlhubfs.fuse.filesystem import FileSystem
from mlhubfs.fuse.libfuse import Libfuse, Version, load
from mlhubfs.fuse.stderr import CapturedStderr

log = logging.getLogger("mlhubfs.fuse")

Options = Mapping[str, str | bool | int | float]
_MODULES = {"fuse3": "mfusepy", "fuse2": "fuse"}  # in the order in which they are preferred
_CALLBACKS: dict[str, type[Callbacks]] = {"fuse3": Callbacks3, "fuse2": Callbacks2}
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # those that libfuse handles
_ALWAYS: Options = {
    "ro": True,
    "default_permissions": True,
    "subtype": "mlhubfs",
}
# More than the reads that the kernel has under way at once, so that look-ups find a thread while
# all of those stall.
MAX_THREADS = MAX_BACKGROUND + 40
_NO_DEVICE = "load the module (modprobe fuse), or start the container with --device /dev/fuse"
_REMEDIES = (  # the first whose words libfuse used
    ("allow_other", "add the line user_allow_other to /etc/fuse.conf"),
    ("exec fusermount", "install the package fuse3"),
    ("no write access", "mount on a directory that is yours"),
    ("/dev/fuse: Permission denied", "as root, let all users in: `chmod 666 /dev/fuse`"),
    ("device not found", _NO_DEVICE),
    ("/dev/fuse", _NO_DEVICE),
    ("not permitted", "start the container with --device /dev/fuse --cap-add SYS_ADMIN"),
    ("denied", "mount on a directory that is yours"),
    ("not empty", "mount on an empty directory"),
    ("bad mount point", "mount on an existing directory"),
    ("unknown option", "leave the option out"),
)


class Availability(NamedTuple):
    """Whether a binding can be used here."""

    name: str
    """`fuse3` or `fuse2`."""

    library: str
    """Version and path of libfuse; empty where it cannot be loaded."""

    problem: str
    """Why the binding cannot be used and what to do; empty if it can."""


def available() -> list[Availability]:
    """Try each binding, the preferred first."""
    found = []
    for name in _MODULES:
        try:
            libfuse = Binding(name).libfuse
            found.append(Availability(name, f"{libfuse.version} ({libfuse.path})", ""))
        except MountError as error:
            found.append(Availability(name, "", str(error)))
    return found


def choose(binding: str = "auto") -> "Binding":
    """Return the binding `fuse3` or `fuse2`, or for `auto` the first of these that loads.

    Raises `MountError` that says for each why it does not load and what to install.
    """
    problems = []
    for name in _MODULES if binding == "auto" else (binding,):
        try:
            return Binding(name)
        except MountError as error:
            problems.append(f"{name}: {error}")
    raise MountError("; ".join(problems))


class Binding:
    """One libfuse and the module that speaks to it. Mounts once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.libfuse: Libfuse = load(name)
        self._fuse: Any = _import(_MODULES[name], self.libfuse).FUSE
        self._session: Callbacks | None = None

    def mount(self, filesystem: FileSystem, mountpoint: Path, *, options: Options) -> None:
        """Serve `filesystem` at `mountpoint` until it is unmounted, or a signal ends it.

        `options` come atop those that are always set; True names an option without a value,
        False leaves it out. `sync_read`: the kernel reads within the program's call instead of
        ahead. Half as fast for one sequential reader, but a program that catches its signals is
        then let go too when `read` stalls. libfuse 3 makes `/` the working directory. Never
        forks. Raises `MountError` with what libfuse said and what to try.
        """
        failure: Exception | None = None
        wanted = {**_ALWAYS, **self._limits(), **options}
        with _default_signals(), CapturedStderr() as said:
            session = self._new_session(filesystem, said)
            if self.name == "fuse3":
                session.sync_read = bool(wanted.pop("sync_read", False))
            try:
                # It is the constructor of the binding's class that serves until the unmount.
                self._fuse.__init__(
                    session,
                    SimpleNamespace(use_ns=True, **dict.fromkeys(OFFERED, True)),
                    str(mountpoint),
                    foreground=True,
                    **_arguments(wanted),
                )
            except (RuntimeError, UnicodeError) as error:
                failure = error
        self._session = None
        if session.failure is not None:
            raise MountError(f"cannot start: {session.failure}") from session.failure
        if not session.started:
            raise MountError(_complaint(mountpoint, said.text, failure)) from failure
        if failure is not None:
            # Not an error: libfuse 3 reports a signal this way, after it has unmounted.
            log.debug("the loop of libfuse ended with status %s", failure)

    def interrupted(self) -> bool:
        """Whether nobody waits for the answer that the calling thread is to give the kernel.

        True when the program was interrupted or killed, or the mount is ending. False in a thread
        that serves no request. Reads ahead belong to no program: for them only the ending counts
        (the program itself is let go at once if it was killed, unless it catches the signal).
        """
        session = self._session
        return session is not None and session.interrupted()

    def caller(self) -> int:
        """Return the thread id of who waits for the calling thread's answer, 0 where unknown."""
        session = self._session
        return session.caller() if session else 0

    def elapsed(self) -> float:
        """Return for how many seconds the kernel has waited for the calling thread, else 0."""
        session = self._session
        return session.elapsed() if session else 0.0

    def invalidate(self, path: str) -> bool:
        """Let the kernel forget the attributes and pages of `path`; whether it knew any.

        Blocks while a read of that file is being answered, so never call it where such a read
        may be waiting for the caller. False on libfuse 2, which cannot.
        """
        session = self._session
        fuse = session.fuse if session else None
        # libfuse frees its table of paths before it calls `destroy`, but long after its loop ended.
        if fuse is None or self.libfuse.exited(fuse):
            return False
        return self.libfuse.invalidate(fuse, os.fsencode(path))

    def _new_session(self, filesystem: FileSystem, said: CapturedStderr) -> Callbacks:
        kind: type[Callbacks] = type("Session", (_CALLBACKS[self.name], self._fuse), {})
        self._session = session = kind(filesystem, self.libfuse, said.release)
        return session

    def _limits(self) -> Options:
        if self.name == "fuse2":  # starts as many threads as there are requests
            return {
                "max_background": MAX_BACKGROUND,
                "congestion_threshold": MAX_BACKGROUND * 3 // 4,
            }
        if self.libfuse.version < Version(3, 12):  # as libfuse 2, and refuses the option
            return {}
        return {"max_threads": MAX_THREADS, "max_idle_threads": 16}


@contextmanager
def _default_signals() -> Iterator[None]:
    """Let libfuse see SIG_DFL, over which alone it sets the handlers that end a mount."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {n: old for n, old in before.items() if old not in {None, signal.SIG_IGN}}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _import(name: str, libfuse: Libfuse) -> Any:
    """Import a binding, which takes the libfuse that FUSE_LIBRARY_PATH names as it is imported."""
    before = os.environ.get("FUSE_LIBRARY_PATH")
    os.environ["FUSE_LIBRARY_PATH"] = libfuse.path
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, AttributeError, NotImplementedError) as error:
        raise MountError(f"the Python module {name} does not load: {error}") from error
    finally:
        if before is None:
            del os.environ["FUSE_LIBRARY_PATH"]
        else:
            os.environ["FUSE_LIBRARY_PATH"] = before
    taken = getattr(module, "_libfuse_path", None)
    if taken != libfuse.path:
        raise MountError(f"the Python module {name} was already imported, for {taken}")
    return module


def _arguments(options: Options) -> dict[str, str | bool]:
    """Return options as the bindings join them, so with the commas in their values escaped."""
    return {
        name: value
        if isinstance(value, bool)
        else str(value).replace("\\", "\\\\").replace(",", "\\,")
        for name, value in options.items()
    }


def _complaint(mountpoint: Path, said: str, failure: Exception | None) -> str:
    lines = said.strip().splitlines()
    reason = lines[-1] if lines else f"libfuse gives no reason (status {failure})"
    remedy = next((remedy for words, remedy in _REMEDIES if words in said), "")
    return f"cannot mount on {mountpoint}: {reason}" + (f"; {remedy}" if remedy else "")
