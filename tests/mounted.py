"""Real mounts for tests: the real command, a real daemon, the kernel between it and the test.

    def test_something(mounted, binding):               # fixtures of conftest.py
        with mounted(source_url, "ttl=1h", binding=binding, allow=["is incomplete"]) as mount:
            (mount.path / "README.txt").read_text()
            mount.log                                   # the daemon's log so far
            mount.remount("ttl=0")                      # another daemon; the disk cache stays
            mount.unmount()                             # returns when the daemon has ended

`mounted` of this module is the same for mounts that live longer than a test; it is given a folder.

Each mount has a HOME, a cache folder and a state folder of its own, below that folder. At the end
it is unmounted (lazily if need be), its daemon is ended if that did not, and the test fails if the
log holds a traceback, or a warning or an error that none of the regular expressions in `allow`
matches. Where /dev/fuse or the libfuse of the binding is missing, the test is skipped with the
reason; with CI=true in the environment it fails.
"""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlhubfs.errors import MountError
from mlhubfs.fuse.libfuse import load

BINDINGS = ("fuse3", "fuse2")
SECONDS = 60
"""Most that a command may take before the test fails. Not a claim: what hangs is to be seen."""

_TROUBLE = re.compile(r"^\S+ \S+ (?:WARNING|ERROR|CRITICAL) |^Traceback ", re.MULTILINE)
_ENVIRONMENT = re.compile(r"MLHUB.*|XDG_.*|(?i:https?_proxy|all_proxy|no_proxy)|PYTHONWARNINGS")


class CommandFailed(Exception):
    """A command of mlhubfs ended with another exit code than 0; str() is what it said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(done.stderr.strip() or f"exit code {done.returncode}")
        self.done = done


def need_fuse(binding: str) -> None:
    """Skip the test, or fail it in CI, where `binding` cannot mount here."""
    problem = _problem(binding)
    if problem and os.environ.get("CI"):
        pytest.fail(f"CI must test real mounts: {problem}")
    if problem:
        pytest.skip(problem)


def _problem(binding: str) -> str:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
        load(binding)
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    except MountError as error:
        return str(error)
    return ""


def fails(*codes: int) -> Any:
    """Return a context that expects an OSError with one of these errnos."""
    return pytest.raises(OSError, match=rf"^\[Errno ({'|'.join(map(str, codes))})\]")


def names(folder: Path) -> list[str]:
    """Return the names in a directory, in the order in which the kernel gives them."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


class Mount:
    """A mount of `source`, and the folders that are its own."""

    def __init__(
        self, source: str, folder: Path, options: tuple[str, ...], environ: Mapping[str, str]
    ) -> None:
        self.source = source
        self.folder = folder
        self.path = folder / "mount"
        """Where it is mounted."""
        self.cache = folder / "cache" / "mlhubfs"
        """The cache folder: `blocks` is below."""
        self.options = options
        self.is_mounted = False
        self.daemon: int | None = None
        """The process id of the daemon, while it is mounted."""
        kept = {name: value for name, value in os.environ.items() if not _ENVIRONMENT.match(name)}
        self.environ = {
            **kept,
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            **environ,
        }
        """The environment of its commands."""
        for name in ("mount", "home", "cache", "state", "config"):
            (folder / name).mkdir(exist_ok=True)

    @property
    def log(self) -> str:
        """What its daemons have logged so far."""
        return "".join(
            path.read_text("utf-8", "replace") for path in sorted(self._log_folder.glob("*.log*"))
        )

    def command(self, *words: str | Path, timeout: float = SECONDS) -> str:
        """Run `mlhubfs WORDS...` in its environment; return stdout, raise CommandFailed."""
        done = subprocess.run(
            [sys.executable, "-m", "mlhubfs", *words],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(done)
        return done.stdout

    def mount(self, *options: str) -> None:
        """Mount it; returns when the mount answers. Raises CommandFailed."""
        texts = ",".join((*self.options, *options))
        self.command("mount", self.source, self.path, "-o", texts)
        self.is_mounted = True
        self.daemon = self._find_daemon()

    def remount(self, *options: str) -> None:
        """Unmount it and mount it again: another daemon, the same caches on disk."""
        self.unmount()
        self.mount(*options)

    def unmount(self, *, lazy: bool = False) -> None:
        """Unmount it; unless `lazy`, returns when the daemon has ended. Raises CommandFailed."""
        self.command("umount", *(["--lazy"] if lazy else []), self.path)
        self.is_mounted = False

    def end(self) -> None:
        """Leave nothing behind, whatever the state."""
        if self.is_mounted:
            with contextlib.suppress(CommandFailed, subprocess.TimeoutExpired):
                self.unmount()
        for tool in (["umount", "-l"], ["fusermount3", "-uz"], ["fusermount", "-uz"]):
            if not self._is_in_table():
                break
            with contextlib.suppress(OSError):
                subprocess.run([*tool, self.path], capture_output=True, check=False)
        if self.daemon is not None and not _ends(self.daemon):
            os.kill(self.daemon, signal.SIGKILL)

    @property
    def _log_folder(self) -> Path:
        return self.folder / "state" / "mlhubfs" / "log"

    def _find_daemon(self) -> int | None:
        for path in (self.folder / "state" / "mlhubfs" / "mounts").glob("*.json"):
            return int(json.loads(path.read_text("utf-8"))["pid"])
        return None

    def _is_in_table(self) -> bool:
        table = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        return f" {self.path} " in table


@contextlib.contextmanager
def mounted(
    source: str,
    folder: Path,
    *options: str,
    binding: str = "auto",
    allow: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Iterator[Mount]:
    """Mount `source` below `folder` with `-o options`, and take it away at the end."""
    if binding != "auto":
        need_fuse(binding)
    mount = Mount(source, folder, (f"binding={binding}", *options), environ or {})
    try:
        mount.mount()
        yield mount
    finally:
        mount.end()
    check_log(mount.log, allow)


def check_log(log: str, allow: Iterable[str] = ()) -> None:
    """Fail if a line of `log` is a warning, an error or a traceback that `allow` does not match."""
    unexpected = [
        line
        for line in log.splitlines()
        if _TROUBLE.match(line) and not any(re.search(pattern, line) for pattern in allow)
    ]
    if unexpected:
        first = log.find(unexpected[0])
        pytest.fail(f"the daemon's log holds:\n{log[first : first + 4000]}")


def _ends(process: int) -> bool:
    """Wait until a process that is not our child has ended, at most some seconds."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([descriptor], [], [], 10)
        return bool(ready)
    finally:
        os.close(descriptor)
