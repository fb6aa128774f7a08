"""Read at random for ten minutes while the storage fails and the cache folder comes and goes.

    python scripts/soak.py
    python scripts/soak.py --minutes 3 --binding fuse2 --seed 5

Eight processes compare what a real mount gives with the true bytes. A third of the storage's
answers are faults (tests/storm.py). Every few seconds the cache folder is renamed and renamed back,
or deleted. Exits with 1 if a read was wrong, failed in a way that README does not know, or if the
mount was dead. Needs what `pip install '.[test]'` brings.
"""

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from mounted import SECONDS, Mount, mounted
from storm import ALLOWED, STORMY, Outcome, Storm

PAUSE = 4.0
"""Seconds between two troubles with the cache folder: time to fill it again."""


def main() -> int:
    """Run the soak, print its figures, return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--readers", type=int, default=8, help="processes [8]")
    parser.add_argument("--binding", choices=("fuse3", "fuse2"), default="fuse3")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Storm(asked.seed) as storm,
        mounted(
            storm.source, Path(folder), STORMY, binding=asked.binding, allow=[r"WARNING mlhubfs\."]
        ) as mount,
    ):
        seconds = 60 * asked.minutes
        readers = storm.readers(mount.path, count=asked.readers, seconds=seconds)
        done: Counter[str] = Counter()
        memory = [resident(mount)]
        chance = random.Random(asked.seed)
        for _ in until_they_end(readers):
            done[trouble(mount.cache, chance)] += 1
            done["dead mount"] += is_dead(mount)
            memory.append(resident(mount))
            storm.forget()
        outcome = Outcome.of(readers, timeout=SECONDS)
        weather = dict(storm.weather.seen)
        storm.calm(mount.path)
        mount.remount()
        storm.calm(mount.path)
    print(f"{asked.minutes:g} minutes, {asked.readers} readers, {asked.binding}, seed {asked.seed}")
    print(f"{outcome.reads:,} reads, {outcome.size / 1e9:.1f} GB, {len(outcome.wrong)} wrong")
    print(f"errors: {listed(outcome.errors)}")
    print(f"requests to the storage: {listed(weather)}")
    print(f"cache folder: renamed {done['rename']}, deleted {done['delete']} times")
    print(f"dead mounts: {done['dead mount']}")
    print(f"the daemon's memory in MB: {' '.join(f'{one / 1e6:.0f}' for one in tenths(memory))}")
    is_well = not outcome.wrong and not done["dead mount"] and outcome.errors.keys() <= ALLOWED
    return 0 if is_well else 1


def until_they_end(readers: list[subprocess.Popen[str]]) -> Iterator[None]:
    """Yield every `PAUSE` seconds as long as one of the readers runs."""
    while any(one.poll() is None for one in readers):
        time.sleep(PAUSE)
        yield


def trouble(cache: Path, chance: random.Random) -> str:
    """Rename the cache folder for a while, or delete it; return which."""
    if chance.random() < 0.2:
        shutil.rmtree(cache, ignore_errors=True)
        return "delete"
    away = cache.with_name("away")
    with contextlib.suppress(FileNotFoundError):  # it was deleted, and nobody has missed it yet
        cache.rename(away)
        time.sleep(chance.uniform(0.01, 2))
        try:
            away.rename(cache)
        except OSError:  # it was made anew
            shutil.rmtree(away)
    return "rename"


def is_dead(mount: Mount) -> bool:
    """Say whether the mount does not answer."""
    words = ["stat", "--file-system", str(mount.path)]
    try:
        return subprocess.run(words, capture_output=True, timeout=20, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def resident(mount: Mount) -> int:
    """Return the bytes that the daemon has in memory."""
    pages = Path(f"/proc/{mount.daemon}/statm").read_text("utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def listed(counts: dict[str, int]) -> str:
    """Return counts in words, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "none"


def tenths(values: list[int]) -> list[int]:
    """Return the largest of each tenth of `values`, in their order."""
    size = -(-len(values) // 10)
    return [max(values[start : start + size]) for start in range(0, len(values), size)]


if __name__ == "__main__":
    sys.exit(main())
