"""Reads what a benchmark tells it to, in a process of its own, and says how long it took.

The job is one line of JSON on stdin. The process imports and warms up what it needs, says `ready`,
waits for a second line, does the tasks with as many threads as told, and answers with one line of
JSON: the seconds, the useful bytes, and a CRC-32 per task, by which the bytes are compared with
those of the local copy. (A CRC costs 0.14 s per GiB, SHA-256 would cost more than the reading.)
"""

import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

CHUNK = 1 << 20
RANDOM_SIZE = 16 << 10
_own = threading.local()


class Read(NamedTuple):
    """What a task brought."""

    size: int
    crc: int | None
    """None where it was thrown away unseen."""


def whole(path: str) -> Read:
    """Read a file from its start to its end; a URL by curl, which sees to its size only."""
    if path.startswith("http"):
        command = ["curl", "-sSf", "-o", "/dev/null", "-w", "%{size_download}", path]
        return Read(int(subprocess.check_output(command)), None)
    size = crc = 0
    buffer = memoryview(bytearray(CHUNK))
    with Path(path).open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            crc = zlib.crc32(buffer[:count], crc)
            size += count
    return Read(size, crc)


def piece(task: tuple[str, int]) -> Read:
    """Read 16 KiB at an offset, through a handle that each thread opens once."""
    path, offset = task
    if not hasattr(_own, "file"):
        _own.file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - for the thread's life
    _own.file.seek(offset)
    data = _own.file.read(RANDOM_SIZE)
    return Read(len(data), zlib.crc32(data))


def window(task: tuple[str, int, int, int, int]) -> Read:
    """Read a window as `pixels` x `pixels`, through a dataset that each thread opens once."""
    import rasterio  # noqa: PLC0415 - most jobs do not need it
    from rasterio.windows import Window  # noqa: PLC0415

    path, column, row, side, pixels = task
    if not hasattr(_own, "dataset"):
        _own.dataset = rasterio.open(path)
    data = _own.dataset.read(1, window=Window(column, row, side, side), out_shape=(pixels, pixels))
    return Read(data.nbytes, zlib.crc32(data.tobytes()))


def chip(paths: list[str]) -> Read:
    """Open and read the bands of one chip."""
    import rasterio  # noqa: PLC0415 - most jobs do not need it

    size = crc = 0
    for path in paths:
        with rasterio.open(path) as dataset:
            data = dataset.read(1)
        size += data.nbytes
        crc = zlib.crc32(data.tobytes(), crc)
    return Read(size, crc)


KINDS: dict[str, Callable[[Any], Read]] = {
    "whole": whole,
    "piece": piece,
    "window": window,
    "chip": chip,
}


def perform(kind: str, tasks: list[Any], threads: int) -> dict[str, Any]:
    """Do the tasks, in order of their start, and return seconds, bytes and checksums."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        reads = list(pool.map(KINDS[kind], tasks))
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "bytes": sum(read.size for read in reads),
        "crcs": [read.crc for read in reads],
    }


def main() -> None:
    """Serve one job."""
    job = json.loads(sys.stdin.readline())
    if job["warm_up"]:
        chip([job["warm_up"]])
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        answer = perform(job["kind"], job["tasks"], job["threads"])
    except Exception as error:  # noqa: BLE001 - the parent reports it
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
