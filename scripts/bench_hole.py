"""The black hole: what a mount does while its server is stopped in mid-read, and after.

The figures, in seconds (`inf`: not within the time that was waited):

* `failure`: from the server's stop until a read of bytes that are nowhere at hand has failed;
* `ctrl-c`, `kill -9`: from the signal until a reader that waits for such bytes is gone;
* `cached`, `listing`: to read a file that was read before, to list its directory, page cache and
  names dropped, while the server is stopped;
* `recovery`: from the server's waking until a read brings the right bytes again, without remount.
"""

import math
import os
import signal
import subprocess
import time
from pathlib import Path

from bench_server import Server

FIGURES = ("failure", "ctrl-c", "kill -9", "cached", "listing", "recovery")
_PIECE = 64 << 10
_NEAR_SECONDS = 10.0  # long enough for what must be at once


def measure(big: Path, small: Path, copy: Path, server: Server, limit: float) -> dict[str, float]:
    """Return the figures; `copy` is the local copy of `big`. Raises ValueError for wrong bytes."""
    found = {}
    size = copy.stat().st_size
    offsets = [size * part // 8 for part in (3, 4, 5, 6, 7)]
    os.listdir(small.parent)  # noqa: PTH208 - one request, nothing else
    small.read_bytes()
    readers: list[subprocess.Popen[bytes]] = []
    _start("head", "-c", str(2 * _PIECE), os.fspath(big)).wait()  # size and link are known
    try:
        server.stop()
        stopped = time.monotonic()
        readers = [_from(offset, big) for offset in offsets[:3]]
        time.sleep(1)
        found["ctrl-c"] = _gone(readers[1], signal.SIGINT)
        found["kill -9"] = _gone(readers[2], signal.SIGKILL)
        drop_page_cache()
        found["cached"] = _timed(_start("cat", os.fspath(small)))
        found["listing"] = _timed(_start("ls", os.fspath(small.parent)))
        while readers[0].poll() is None and time.monotonic() - stopped < limit:
            time.sleep(0.01)
        if readers[0].poll() == 0:
            raise ValueError("a read of a stopped server's bytes succeeded")
        ended = readers[0].poll() is not None
        found["failure"] = time.monotonic() - stopped if ended else math.inf
    finally:
        server.go_on()
        for one in readers:
            one.kill()
    found["recovery"] = _recovery(big, copy, offsets[3])
    return found


def drop_page_cache() -> None:
    """Let the kernel forget what files hold and are called."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def _from(offset: int, path: Path) -> "subprocess.Popen[bytes]":
    # Not `dd`: it handles SIGINT, and Linux lets no handled signal end a wait for a page. `env`
    # undoes the ignoring of SIGINT that a shell's background job hands down.
    tail = ["env", "--default-signal=INT", "tail", "-c", f"+{offset + 1}", os.fspath(path)]
    return _start(*tail)


def _start(*command: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _gone(process: "subprocess.Popen[bytes]", number: int) -> float:
    process.send_signal(number)
    return _timed(process, needs_success=False)


def _timed(process: "subprocess.Popen[bytes]", *, needs_success: bool = True) -> float:
    start = time.monotonic()
    try:
        code = process.wait(_NEAR_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return math.inf
    return math.inf if code and needs_success else time.monotonic() - start


def _recovery(big: Path, copy: Path, offset: int) -> float:
    start = time.monotonic()
    while time.monotonic() - start < _NEAR_SECONDS:
        try:
            data = _read(big, offset)
        except OSError:
            time.sleep(0.1)
            continue
        if data != _read(copy, offset):
            raise ValueError("wrong bytes after the server was stopped")
        return time.monotonic() - start
    return math.inf


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), _PIECE, offset)
