"""A file system in memory, mounted by a process of its own: what tests of the binding look at.

    with memory_mount(tmp_path, binding, sync_read=True) as mount:
        (mount.path / "data").read_bytes()
        mount.calls("read")            # what the binding asked so far: [["/data", 16384, 0], ...]

Its files, whose names say what they do:

    data, unsplit      DATA; `unsplit` is opened with direct_io
    view               DATA, answered as a memoryview
    grows              one byte more at each look, with the same mtime
    too-long           answers one byte more than was asked for
    stalled, stalled-* read answers when the reader gives up, or with TimedOut after STALL_SECONDS
    raises/<error>     looking it up raises that error (ERRORS)
    big/               directory of as many names as `names` says, all attributes known
    loose/             the same, of which only the types are known
    odd/               ODD_NAMES
    link               symbolic link to `data`
"""

import contextlib
import errno
import json
import logging
import os
import random
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mounted import check_log, need_fuse

from mlhubfs.errors import Busy, Changed, Interrupted, MountError, NotFound, TimedOut
from mlhubfs.fuse.binding import choose
from mlhubfs.fuse.filesystem import Attributes, DirEntry, OpenFile, Totals

DATA = random.Random(2).randbytes(1_000_003)
MTIME = 1499558461.123456  # of the Sentinel-2 scenes of BigEarthNet, with a fraction
STALL_SECONDS = 60
ODD_NAMES = ("new\nline", "ümlaut", "🛰", "\udcff\udcfe", "x" * 255, "Case", "case")
DIRECTORY = Attributes(stat.S_IFDIR | 0o555, 0, MTIME)


class Negative(NotFound):
    """An errno that no kernel would take."""

    errno = -5


ERRORS = {
    "NotFound": (NotFound("no"), errno.ENOENT),
    "TimedOut": (TimedOut("late"), errno.ETIMEDOUT),
    "Busy": (Busy("busy"), errno.EAGAIN),
    "Changed": (Changed("changed"), errno.ESTALE),
    "Negative": (Negative("wrong"), errno.EIO),
    "ValueError": (ValueError("fault"), errno.EIO),
    "OSError": (OSError("as requests raises it, without an errno"), errno.EIO),
    "EPERM": (OSError(errno.EPERM, "a real one is a fault too"), errno.EIO),
    "KeyboardInterrupt": (KeyboardInterrupt(), errno.EIO),
    "SystemExit": (SystemExit(3), errno.EIO),
    "GeneratorExit": (GeneratorExit(), errno.EIO),
}


def big_name(number):
    return f"S2A_MSIL2A_20170617T113321_{number:06d}"


class Memory:
    def __init__(self, calls, *, names=0, binding=None, fails_to_start=False):
        self._calls = calls
        self._binding = binding
        self._fails_to_start = fails_to_start
        self._grown = 0
        self._lock = threading.Lock()
        file = self._file(1)
        self._entries = {
            "/": self._listing(("data", "big", "odd"), complete=False),
            "/big": self._listing(map(big_name, range(names)), complete=True),
            "/loose": self._listing(map(big_name, range(names)), complete=False),
            "/odd": self._listing(ODD_NAMES, complete=True),
        }
        self._attributes = {
            **dict.fromkeys(self._entries, DIRECTORY),
            **{f"{top}/{big_name(n)}": file for top in ("/big", "/loose") for n in range(names)},
            **{f"/odd/{name}": file for name in ODD_NAMES},
            **{
                f"/{name}": self._file(len(DATA))
                for name in ("data", "unsplit", "view", "too-long")
            },
            "/link": Attributes(stat.S_IFLNK | 0o777, 4, MTIME),
            "/raises": DIRECTORY,
        }

    @staticmethod
    def _file(size):
        return Attributes(stat.S_IFREG | 0o444, size, MTIME)

    def _listing(self, names, *, complete):
        known = [(".", DIRECTORY, False), ("..", DIRECTORY, False)]
        known += [(n, DIRECTORY if n in {"big", "odd"} else self._file(1), complete) for n in names]
        # Far apart and irregular, so that nothing that counts entries can pass for an offset.
        return [DirEntry(*one, (i + 1) * 1_000_000_007) for i, one in enumerate(known)]

    def _note(self, operation, *arguments):
        with self._lock:
            self._calls.write(json.dumps([operation, *arguments]) + "\n")
            self._calls.flush()

    def init(self):
        if self._fails_to_start:
            raise NotFound("nothing to serve")
        self._note("init", self._binding.interrupted())

    def destroy(self):
        self._note("destroy", self._binding.interrupted())

    def getattr(self, path, fh):
        self._note("getattr", path)
        folder, _, name = path.rpartition("/")
        if path == "/grows":
            self._grown += 1
            return self._file(self._grown)
        if name.startswith("stalled"):
            return self._file(len(DATA))
        if folder == "/raises":
            logging.getLogger("mlhubfs.fuse").info("raising %s", name)
            raise ERRORS[name][0]
        if path == "/invalidate":
            outcome = []
            thread = threading.Thread(
                target=lambda: outcome.extend(
                    [self._binding.invalidate("/grows"), self._binding.interrupted()]
                )
            )
            thread.start()
            thread.join()
            self._note("invalidated", *outcome)
        try:
            return self._attributes[path]
        except KeyError:
            raise NotFound(path) from None

    def readlink(self, path):
        return "data"

    def open(self, path, flags):
        self._note("open", path, flags)
        return OpenFile(len(path), direct_io=path == "/unsplit", keep_cache=path == "/data")

    def read(self, path, size, offset, fh):
        self._note("read", path, size, offset)
        if path == "/too-long":
            return bytes(size + 1)
        if path == "/view":
            return memoryview(DATA)[offset : offset + size]
        if path.startswith("/stalled"):
            return self._stall(path)
        return DATA[offset : offset + size]

    def _stall(self, path):
        deadline = time.monotonic() + STALL_SECONDS
        while time.monotonic() < deadline:
            if self._binding.interrupted():
                self._note("interrupted", path)
                raise Interrupted(path)
            time.sleep(0.05)
        raise TimedOut(path)

    def release(self, fh):
        self._note("release", fh)

    def opendir(self, path):
        return len(path)

    def readdir(self, path, fh, offset):
        self._note("readdir", path, offset, fh)
        entries = self._entries[path]
        first = 0 if offset == 0 else offset // 1_000_000_007
        return iter(entries[first:])

    def releasedir(self, fh):
        self._note("releasedir", fh)

    def statfs(self):
        return Totals(10_000, 7)


class MemoryMount:
    def __init__(self, path, calls, log, process):
        self.path = path
        self.process = process
        self._calls = calls
        self._log = log

    @property
    def log(self):
        return self._log.read_text("utf-8", "replace")

    def calls(self, operation, *first):
        """What was asked, without the operation's name; the arguments begin with `first`."""
        lines = [json.loads(line) for line in self._calls.read_text().splitlines()]
        found = [arguments for name, *arguments in lines if name == operation]
        return [arguments for arguments in found if arguments[: len(first)] == list(first)]

    def ends(self):
        """Wait for the process; return its exit code."""
        return self.process.wait(timeout=30)


@contextlib.contextmanager
def memory_mount(folder, binding, *, names=0, allow=(), fails_to_start=False, **options):
    """Mount it below `folder` in a process of its own, and leave nothing behind."""
    need_fuse(binding)
    path, calls, log = folder / "memory", folder / "calls", folder / "log"
    path.mkdir(exist_ok=True)
    calls.touch()
    settings = {
        "binding": binding, "path": str(path), "calls": str(calls), "names": names,
        "fails_to_start": fails_to_start, "options": {"fsname": "memory", **options},
    }  # fmt: skip
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(settings)],
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    mount = MemoryMount(path, calls, log, process)
    try:
        wait_until(lambda: mount.calls("init") or process.poll() is not None)
        yield mount
    finally:
        if is_mounted(path):
            unmount(path)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
            process.wait()
    check_log(mount.log, allow)


def is_mounted(path):
    return f" {path} " in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")


def unmount(path):
    for tool in (["umount", "-l"], ["fusermount3", "-uz"], ["fusermount", "-uz"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*tool, path], capture_output=True, check=False).returncode == 0:
                return
    pytest.fail(f"{path} cannot be unmounted")


def wait_until(holds, seconds=30):
    """Poll until `holds()`; fail the test if it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail("waited in vain")
        time.sleep(0.01)


def _serve(binding, path, calls, names, fails_to_start, options):
    logging.basicConfig(
        level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    chosen = choose(binding)
    with Path(calls).open("a") as file:
        memory = Memory(file, names=names, binding=chosen, fails_to_start=fails_to_start)
        chosen.mount(memory, Path(os.fsdecode(path)), options=options)


if __name__ == "__main__":
    try:
        _serve(**json.loads(sys.argv[1]))
    except MountError as refusal:
        sys.exit(f"MountError: {refusal}")
