"""The command line as a user runs it: a process of its own, in a home of its own.

    def test_something(user):                          # a fixture of the modules that import it
        done = user.run("ls", "/", source=server.root_url)
        assert (done.code, done.out, done.err) == (0, "README.txt\n", "")
        with user.running("serve", "--port", "0") as process: ...

`refused(done, *words)` checks what every refusal must be: exit code 1, nothing on stdout, one line
on stderr, in which each of the words stands.
"""

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import mounted as mounts
import pytest

MLHUBFS = (sys.executable, "-m", "mlhubfs")
NOBODY = 65534
AS_NOBODY = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    # So that Python may be where only root can look, as in a checkout below /root.
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
)  # fmt: skip


class Done(NamedTuple):
    code: int
    out: str
    err: str


class User:
    """A user whose HOME, caches and state are below `folder`."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        self.home = mounts.Mount("", folder, (), environ)
        self.environ = self.home.environ
        self.cache = self.home.cache
        self.logs = folder / "state" / "mlhubfs" / "log"
        self.profiles = folder / "home" / ".mlhub" / "profiles"

    def run(self, *words, typed="", before=(), cwd=None, source=None, program=MLHUBFS, **environ):
        """Run `mlhubfs WORDS...`, behind the words `before`; the environment is changed so."""
        if source:
            environ["MLHUB_ROOT_URL"] = source
        done = subprocess.run(
            [*before, *program, *map(str, words)],
            env={**self.environ, **environ},
            input=typed,
            capture_output=True,
            text=True,
            timeout=mounts.SECONDS,
            cwd=cwd or self.folder,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def running(self, *words, **environ):
        """Start `mlhubfs WORDS...`; kill it at the end if it still runs."""
        process = subprocess.Popen(
            [*MLHUBFS, *map(str, words)],
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def processes(self) -> list[int]:
        """Return the processes that run in this user's environment."""
        mark = f"HOME={self.environ['HOME']}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0") and is_alive(int(path.parent.name)):
                    found.append(int(path.parent.name))
        return found

    def end(self) -> None:
        """Leave neither mount nor process behind."""
        for where in reversed(mount_table()):
            if where.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", where], capture_output=True, check=False)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def refused(done: Done, *words: str) -> None:
    """Check that a command refused, in one line that holds the words."""
    assert done.code == 1, done
    assert done.out == ""
    assert done.err.startswith("mlhubfs: "), done.err
    assert done.err.count("\n") == 1, done.err
    assert done.err.endswith("\n")
    for word in words:
        assert word in done.err


def until(met, what: str, seconds: float = 30.0):
    """Poll `met` until it returns something true, and return that; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (outcome := met()):
        if time.monotonic() > deadline:
            pytest.fail(f"not in {seconds} s: {what}")
        time.sleep(0.01)
    return outcome


def need_root() -> None:
    """Skip where the test has to become somebody else, or to mount."""
    if os.geteuid():
        pytest.skip("only root can act as another user, or in a mount namespace")


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_dead(where: Path) -> bool:
    """Say whether the daemon of the mount on `where` is gone without having unmounted."""
    try:
        os.statvfs(where)  # stat may be answered by the kernel alone
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def names(folder: Path) -> list[str]:
    """Return what is in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def mount_table() -> list[str]:
    """Return where something is mounted, the latest last."""
    lines = Path("/proc/mounts").read_text("utf-8").splitlines()
    return [
        re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[1])
        for line in lines
    ]


def hiding(*paths: str | Path, then: str = "") -> tuple[str, ...]:
    """Return words before a command that hide files from it, in a mount namespace of its own.

    `then` is what the shell runs after it, in there.
    """
    hide = "".join(f"mount --bind /dev/null '{path}' && " for path in paths)
    call = f'"$@" && {{ {then}; }}' if then else 'exec "$@"'
    return "unshare", "-m", "sh", "-c", f"{hide}{call}", "sh"


def without_device() -> tuple[str, ...]:
    """Return words before a command that has no /dev/fuse."""
    script = 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$@"'
    return "unshare", "-m", "sh", "-c", script, "sh"


def without_library(*sonames: str, then: str = "") -> tuple[str, ...]:
    """Return words before a command that cannot load libraries; `then` as in `hiding`."""
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = [line.split(" => ")[1] for line in known.splitlines() if line.split()[0] in sonames]
    return hiding(*found, then=then)
