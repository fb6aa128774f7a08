"""The directory that is mounted on: fit to be, alive, dead; and taking a mount away.

Owns what is asked of the system about mounts (/proc/self/mountinfo, fusermount) and the file that
a running daemon holds locked, by which `umount` knows that it has ended.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import platformdirs

from mlhubfs.errors import MountError

_TYPE = "fuse.mlhubfs"
_LINKS = 40  # to follow, as the kernel does
_TOOL_SECONDS = 5.0  # umount(8) asks the daemon, which may hang; fusermount does not
_DETACHED_SECONDS = 5.0  # a daemon that saw its mount go ends by then, unless its disk is slow
_END_SECONDS = 15.0  # the cache may take 5 s to be written, a request under way ends at once


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo."""

    path: str
    type: str
    source: str


class Daemon(NamedTuple):
    """What a daemon's file says, and whether the daemon is there."""

    where: Path
    source: str
    process: int
    is_running: bool


def mounts() -> list[Mount]:
    """Return all mounts of this namespace, the latest last."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    found = []
    for line in lines.splitlines():
        before, _, after = line.partition(" - ")
        kind, source = after.split(" ")[:2]
        found.append(Mount(_unescape(before.split(" ")[4]), kind, _unescape(source)))
    return found


def place_of(path: Path) -> tuple[Mount, str] | None:
    """Return the mount of mlhubfs that `path` is in, and its path from there; else None."""
    real = os.path.realpath(path)
    around = [one for one in mounts() if _is_below(real, one.path)]
    inmost = max(reversed(around), key=lambda one: len(one.path), default=None)
    if inmost is None or inmost.type != _TYPE:
        return None
    return inmost, real[len(inmost.path) :] or "/"


def real(where: Path) -> str:
    """Return the real path of a mount point; what is mounted is not asked, for it may hang."""
    path, mounted = where.absolute(), {one.path for one in mounts()}
    for _ in range(_LINKS):
        if path.name in {"", ".."}:
            break
        path = Path(os.path.realpath(path.parent), path.name)
        if os.fspath(path) in mounted or not path.is_symlink():
            return os.fspath(path)
        path = path.parent / path.readlink()
    return os.path.realpath(where)


def is_served(where: Path) -> bool:
    """Say whether a living mount of mlhubfs is on `where`."""
    path = os.path.realpath(where)
    mounted = [one for one in mounts() if one.path == path]
    return bool(mounted) and mounted[-1].type == _TYPE and not _is_dead(where)


def prepare(where: Path) -> None:
    """See that `where` is an empty directory; clear what a crashed daemon left on it.

    Raises MountError that says what is wrong and what to do.
    """
    path = os.path.realpath(where)
    if _is_dead(where):
        _unmount(Path(path), lazy=True)
    if where.is_symlink() and not where.exists():
        raise MountError(f"{where} is a dangling symbolic link: give a directory")
    mounted = [one for one in mounts() if one.path == path]
    if mounted and mounted[-1].type == _TYPE:
        raise MountError(
            f"{where} is already mounted, from {mounted[-1].source}: "
            f"end that first with {remedy(where)}"
        )
    try:
        with os.scandir(where) as names:
            is_empty = next(names, None) is None
    except FileNotFoundError:
        command = f"mkdir {shlex.quote(os.fspath(where))}"
        raise MountError(f"{where} does not exist: make it with `{command}`") from None
    except NotADirectoryError:
        raise MountError(f"{where} is not a directory: give an empty directory") from None
    except OSError as error:
        raise MountError(f"{where} cannot be used: {error.strerror}") from None
    if not is_empty:
        raise MountError(f"{where} is not empty: give an empty directory, or empty it")


def unmount(where: Path, *, lazy: bool = False) -> None:
    """Take the mount on `where` away, and wait until its daemon has ended.

    `lazy` detaches it even while it is in use. Raises MountError.
    """
    path = real(where)
    mounted = [one for one in mounts() if one.path == path]
    if not mounted:
        raise MountError(f"{where} is not mounted")
    if mounted[-1].type != _TYPE:
        raise MountError(f"{where} is a mount of type {mounted[-1].type}, not one of mlhubfs")
    with _daemon(path) as await_end:
        _unmount(Path(path), lazy=lazy)
        if not lazy:
            await_end()


@contextlib.contextmanager
def held(where: Path, source: str) -> Iterator[None]:
    """Hold the file that says that a daemon serves `where`, until it has ended."""
    path = _lock_path(os.fspath(where))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MountError(
                f"another mlhubfs is just mounting or ending on {where}: try again in a moment"
            ) from None
        file.truncate(0)  # not by opening it: until the lock is ours, it is another one's
        json.dump({"pid": os.getpid(), "mountpoint": os.fspath(where), "source": source}, file)
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def daemons() -> list[Daemon]:
    """Return this user's daemons: those that run, and those that ended and left a mount behind."""
    found = []
    mounted = {one.path for one in mounts() if one.type == _TYPE}
    for path in sorted(_lock_path("").parent.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError), path.open("rb") as file:
            is_running = not _locks(file)
            told = json.load(file)
            if is_running or told["mountpoint"] in mounted:
                where = Path(told["mountpoint"])
                found.append(Daemon(where, told["source"], told["pid"], is_running))
    return found


def remedy(where: Path, *, lazy: bool = False) -> str:
    """Return the command that takes a mount away."""
    return f"`mlhubfs umount {'--lazy ' * lazy}{shlex.quote(os.fspath(where))}`"


def socket_path(where: Path) -> Path:
    """Return where the daemon that serves `where` answers questions."""
    return _lock_path(real(where)).with_suffix(".sock")


def _is_dead(where: Path) -> bool:
    try:
        os.statvfs(where)  # always asked of the daemon; the kernel may know the attributes by heart
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def _unmount(where: Path, *, lazy: bool) -> None:
    tools = [
        *(["umount", "-l"] if lazy else ["umount"] for _ in range(os.geteuid() == 0)),
        *([tool, "-uz" if lazy else "-u"] for tool in ("fusermount3", "fusermount")),
    ]
    reason = "neither fusermount3 nor fusermount was found: install the package fuse3"
    for tool in tools:
        if shutil.which(tool[0]) is None:
            continue
        try:
            done = subprocess.run(  # noqa: S603 - the system's own tool, no shell
                [*tool, "--", os.fspath(where)],
                capture_output=True,
                text=True,
                check=False,
                timeout=_TOOL_SECONDS,
            )
        except subprocess.TimeoutExpired:
            reason = "its daemon does not answer: use --lazy, and end the daemon with `kill -9`"
            continue
        if done.returncode == 0:
            return
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given"
        if "busy" in reason:
            reason = f"{where} is in use: close what is open in it, or use --lazy"
            break
    raise MountError(f"cannot unmount {where}: {reason}")


@contextlib.contextmanager
def _daemon(path: str) -> Iterator[Callable[[], None]]:
    """Find the daemon that serves `path`, and give a function that waits for its end.

    It is found before it ends and waited for as a process, not as a holder of its file: that it
    lets go of a little earlier. A mount of another user's has its file elsewhere; nobody waits.
    """
    process = pid = -1
    with (
        contextlib.suppress(OSError, ValueError, KeyError),
        _lock_path(path).open("rb") as file,
    ):
        if not _locks(file):
            pid = json.load(file)["pid"]
            process = os.pidfd_open(pid)

    def await_end() -> None:
        if process < 0 or select.select([process], [], [], _DETACHED_SECONDS)[0]:
            return
        # Another mount namespace (a container, `ip netns exec`) may hold a copy of the mount, and
        # libfuse's loop goes on for it. A daemon that was stopped must go on to end.
        for number in (signal.SIGTERM, signal.SIGCONT):
            signal.pidfd_send_signal(process, number)
        if not select.select([process], [], [], _END_SECONDS)[0]:
            raise MountError(
                f"{path} is unmounted, but its daemon goes on after {_END_SECONDS:.0f} s: "
                f"see its log, or end it with `kill -9 {pid}`"
            )

    try:
        yield await_end
    finally:
        if process >= 0:
            os.close(process)


def _locks(file: IO[bytes]) -> bool:
    """Lock a daemon's file, as long as it is open, unless a running daemon does."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_path(where: str) -> Path:
    name = hashlib.blake2b(os.fsencode(where), digest_size=8).hexdigest()
    return Path(platformdirs.user_state_path("mlhubfs")) / "mounts" / f"{name}.json"


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
