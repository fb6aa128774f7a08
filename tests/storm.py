"""A storm: storage that fails at random, and processes that read through a mount meanwhile.

    with Storm(seed=7) as storm, mounts.mounted(storm.source, folder, STORMY) as mount:
        outcome = Outcome.of(storm.readers(mount.path, count=8, seconds=3))
        storm.calm(mount.path)
    assert outcome.wrong == []

Each reader opens files at random, reads random ranges of them and compares with the true bytes;
after each file the kernel forgets its pages, so that the daemon has to answer.

*Threading.* The servers' threads take faults from `Weather`, under its lock.
"""

import collections
import contextlib
import json
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from faulty import Asset, FaultyServer, Reply
from rooms import mlhub, stac_item

import mlhubfs

SAMPLE = Path(mlhubfs.__file__).parent / "sample"
COG = next(SAMPLE.glob("sample_aerial_scene_v1/*/*/image.tif"))
COPIES = 40
STORMY = "cache_size=30M,timeout=8,connect_timeout=1,read_timeout=0.4"
"""Options of a mount: silence is noticed soon, and blocks are evicted and fetched all the time."""

ALLOWED = {"EIO", "ETIMEDOUT", "EAGAIN", "EACCES"}
"""What a storage that fails may make of a read, after all its retries."""

WARNED = [r"WARNING mlhubfs\.(transport|content|cache)"]
"""What a storm leaves in the log."""

READER = """
import errno, json, os, random, sys, time
folder, truth, copies, seed, seconds = sys.argv[1:3] + [float(one) for one in sys.argv[3:]]
data = {"image": open(truth, "rb").read()}
data["long"] = data["image"] * 12
chance = random.Random(seed)
reads, sizes, wrong, errors = 0, 0, [], {}

def note(error):
    name = errno.errorcode[error.errno]
    errors[name] = errors.get(name, 0) + 1

end = time.monotonic() + seconds
while time.monotonic() < end:
    kind = chance.choice(sorted(data))
    path = f"{folder}/{kind}-{chance.randrange(int(copies)):02}.tif/{kind}.tif"
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        note(error)
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
                    note(error)
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
print(json.dumps([reads, sizes, wrong, errors]))
"""

FAULTS = ("503", "429", "reset", "cut", "stall", "stall in the body", "other length", "no range")


class Outcome(NamedTuple):
    """What readers saw."""

    reads: int
    size: int
    """Bytes that came."""
    wrong: list
    """Reads that gave other bytes than the true ones: path, offset, size, bytes that came."""
    errors: dict[str, int]
    """Failed opens and reads, by the name of their errno."""

    @classmethod
    def of(cls, readers: list[subprocess.Popen], timeout: float) -> "Outcome":
        """Wait for readers to end, and add up what they tell."""
        told = [json.loads(one.communicate(timeout=timeout)[0]) for one in readers]
        errors = sum((collections.Counter(one[3]) for one in told), collections.Counter())
        wrong = [each for one in told for each in one[2]]
        return cls(sum(one[0] for one in told), sum(one[1] for one in told), wrong, dict(errors))


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


class Storm(contextlib.ExitStack):
    """An API at `source`; its items' assets, `COPIES` of two files, are on a storage in a storm."""

    def __init__(self, seed):
        super().__init__()
        self.weather = Weather(seed)
        self.data = {"image": COG.read_bytes()}
        self.data["long"] = self.data["image"] * 12
        self.servers = api, storage = [self.enter_context(FaultyServer()) for _ in range(2)]
        items = []
        for number in range(COPIES):
            for kind, content in self.data.items():
                storage.on(f"/{kind}/{number}", self.weather.over(content))
                href = f"{storage.url}/{kind}/{number}"
                items.append(stac_item(f"{kind}-{number:02}.tif", {f"{kind}.tif": href}))
        mlhub(api, {"d": {"c": items}})
        self.source = f"{api.url}/v1"

    def readers(self, mount, *, count, seconds):
        """Start processes that read what is mounted at `mount` for so long, or until the end."""
        words = [sys.executable, "-S", "-c", READER, mount / "d/c", COG, str(COPIES)]
        started = [
            subprocess.Popen([*words, str(seed), str(seconds)], stdout=subprocess.PIPE, text=True)
            for seed in range(count)
        ]
        for one in started:
            self.callback(one.kill)
        return started

    def forget(self):
        """Let go of the requests so far, of which there are many."""
        for server in self.servers:
            server.requests.clear()

    def calm(self, mount):
        """End the storm; read some files as a whole, which must come right now."""
        self.weather.is_fair = True
        for number in (0, 7, COPIES - 1):
            for kind, content in self.data.items():
                path = mount / f"d/c/{kind}-{number:02}.tif/{kind}.tif"
                assert path.read_bytes() == content, path


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
