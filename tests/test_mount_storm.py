"""Eight processes read random ranges through a mount while its storage fails at random.

    MLHUBFS_STORM_SECONDS=30 pytest -s tests/test_mount_storm.py

runs it as long as the project's acceptance asks for and prints its figures.
"""

import collections
import errno
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import mounted as mounts
import pytest
from faulty import Asset, FaultyServer, Reply
from rooms import mlhub, stac_item

import mlhubfs

SAMPLE = Path(mlhubfs.__file__).parent / "sample"
COG = next(SAMPLE.glob("sample_aerial_scene_v1/*/*/image.tif"))
SECONDS = float(os.environ.get("MLHUBFS_STORM_SECONDS", "3"))
READERS = 8
COPIES = 40
ALLOWED = {errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EACCES}
"""What a storage that fails may make of a read, after all its retries."""

READER = """
import json, os, random, sys, time
folder, truth, seed, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
data = {"image": open(truth, "rb").read()}
data["long"] = data["image"] * 12
chance = random.Random(seed)
reads, sizes, wrong, errors = 0, 0, [], {}
end = time.monotonic() + seconds
while time.monotonic() < end:
    kind = chance.choice(sorted(data))
    path = f"{folder}/{kind}-{chance.randrange(40):02}.tif/{kind}.tif"
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        errors[error.errno] = errors.get(error.errno, 0) + 1
        continue
    try:
        if os.fstat(file).st_size != len(data[kind]):
            wrong.append([path, "size", os.fstat(file).st_size])
        for _ in range(chance.randrange(1, 9)):
            offset = chance.randrange(len(data[kind]))
            size = chance.choice([1, 100, 4096, 16384, 131072, 400_000, 2_000_000])
            stop = min(offset + size, len(data[kind]))
            # A read that fails behind its beginning returns what it has; what follows must come
            # or fail, for nothing at all would be the end of the file.
            while offset < stop:
                try:
                    came = os.pread(file, stop - offset, offset)
                except OSError as error:
                    errors[error.errno] = errors.get(error.errno, 0) + 1
                    break
                reads += 1
                sizes += len(came)
                if came != data[kind][offset : offset + len(came)] or not came:
                    wrong.append([path, offset, size, len(came)])
                    break
                offset += len(came)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
print(json.dumps([reads, sizes, wrong[:5], errors]))
"""


class Weather:
    """What happens to a request of storage: a third of them fail, in one of eight ways."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.is_fair = False
        self.seen = collections.Counter()

    def over(self, content):
        """Return the behaviour of one file under this weather."""

        def behave(request):
            with self.lock:
                dice = self.chance.random()
                cut = self.chance.randrange(200_000)
                fault = "none" if self.is_fair or dice > 0.33 else self.chance.choice(FAULTS)
                self.seen[fault] += 1
            return _reply(fault, cut, content, request)

        return behave


FAULTS = ("503", "429", "reset", "cut", "stall", "stall in the body", "other length", "no range")


def _reply(fault, cut, content, request):
    whole = Asset(content=content)(request)
    match fault:
        case "503":
            return Reply(503)
        case "429":
            return Reply(429, {"Retry-After": "0"})
        case "reset":
            return Reply(reset=True)
        case "cut":
            return Asset(content=content, cut=cut)(request)
        case "stall":
            return Asset(content=content, hold=_later(0.6))(request)
        case "stall in the body":
            return Asset(content=content, cut=cut, hold=_later(0.6))(request)
        case "other length":
            return Asset(content=content, length=max(0, len(whole.body) - 1))(request)
        case "no range" if len(content) < 2 << 20:
            return Asset(content=content, ranges=False)(request)
    return whole


def _later(seconds):
    event = threading.Event()
    timer = threading.Timer(seconds, event.set)
    timer.daemon = True
    timer.start()
    return event


@pytest.mark.promise(
    "A read gives the right bytes or an error, never wrong bytes, and never waits beyond `timeout`."
)
def test_no_wrong_byte(mounted, binding):
    """Whatever the storage does, a read gives the right bytes or one of four errnos.

    503, 429, resets, bodies cut short, stalls and lies are a third of the answers. The cache is so
    small that blocks are evicted, read back and fetched again all the time.
    """
    data = COG.read_bytes()
    weather = Weather(2026)
    with FaultyServer() as api, FaultyServer() as storage:
        items = []
        for number in range(COPIES):
            for kind, content in (("image", data), ("long", data * 12)):
                storage.on(f"/{kind}/{number}", weather.over(content))
                href = f"{storage.url}/{kind}/{number}"
                items.append(stac_item(f"{kind}-{number:02}.tif", {f"{kind}.tif": href}))
        mlhub(api, {"d": {"c": items}})
        options = "cache_size=30M,timeout=8,connect_timeout=1,read_timeout=0.4"
        allow = [r"WARNING mlhubfs\.(transport|content|cache)"]
        with mounted(f"{api.url}/v1", options, binding=binding, allow=allow) as mount:
            folder = mount.path / "d/c"
            readers = [
                subprocess.Popen(
                    [sys.executable, "-S", "-c", READER, folder, COG, str(seed), str(SECONDS)],
                    stdout=subprocess.PIPE, text=True,
                )
                for seed in range(READERS)
            ]  # fmt: skip
            outcomes = [
                json.loads(one.communicate(timeout=SECONDS + mounts.SECONDS)[0]) for one in readers
            ]
            weather.is_fair = True
            calm = _read_all(folder, data)
    reads, size = (sum(one[n] for one in outcomes) for n in (0, 1))
    wrong = [each for one in outcomes for each in one[2]]
    errors = collections.Counter()
    for one in outcomes:
        errors.update({errno.errorcode[int(code)]: count for code, count in one[3].items()})
    print(
        f"\n{binding}: {SECONDS:.0f} s, {READERS} readers, {reads} reads, {size / 1e6:.0f} MB, "
        f"{len(wrong)} wrong, errors {dict(errors)}; storage: {dict(weather.seen)}"
    )
    assert wrong == []
    assert {getattr(errno, name) for name in errors} <= ALLOWED
    assert reads > READERS * SECONDS, "the storm let hardly anything through"
    assert sum(weather.seen.values()) > weather.seen["none"] > 0
    assert set(FAULTS) <= set(weather.seen)
    assert calm


def _read_all(folder, data):
    """Read some files as a whole, now that nothing fails any more."""
    deadline = time.monotonic() + mounts.SECONDS
    for number in (0, 7, COPIES - 1):
        for kind, content in (("image", data), ("long", data * 12)):
            assert (folder / f"{kind}-{number:02}.tif" / f"{kind}.tif").read_bytes() == content
    return time.monotonic() < deadline
