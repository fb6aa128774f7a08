"""Read at random for ten minutes while the storage fails and the cache folder comes and goes.

    python scripts/soak.py
    python scripts/soak.py --minutes 3 --binding fuse2 --seed 5

Eight processes compare what a real mount gives with the true bytes. A third of the storage's
answers are faults (tests/storm.py). Every few seconds the cache folder is renamed and renamed back;
near the end it is deleted. Exits with 1 if a read was wrong, failed in a way that README does not
know, or if the mount was dead. Needs what `pip install '.[test]'` brings.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from mounted import SECONDS, Mount, mounted
from storm import ALLOWED, STORMY, Outcome, Storm

PAUSE = 4.0
"""Seconds between two troubles with the cache folder: time to fill it again."""

LATE = 0.8
"""Share of the time after which the cache folder is deleted: what is left is read without it."""


def main() -> int:
    """Run the soak, print its figures, return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--readers", type=int, default=8, help="processes [8]")
    parser.add_argument("--binding", choices=("fuse3", "fuse2"), default="fuse3")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", dest="options", default=STORMY, help="of the mount [%(default)s]")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Storm(asked.seed) as storm,
        mounted(
            storm.source,
            Path(folder),
            asked.options,
            binding=asked.binding,
            allow=[r"WARNING mlhubfs\."],
        ) as mount,
    ):
        seconds = 60 * asked.minutes
        readers = storm.readers(mount.path, count=asked.readers, seconds=seconds)
        late = time.monotonic() + seconds * LATE
        chance = random.Random(asked.seed)
        dead = 0
        memory = [resident(mount)]
        while any(one.poll() is None for one in readers):
            time.sleep(PAUSE)
            trouble(mount.cache, chance, is_last=time.monotonic() > late)
            dead += is_dead(mount)
            memory.append(resident(mount))
            storm.forget()
        outcome = Outcome.of(readers, timeout=SECONDS)
        weather = dict(storm.weather.seen)
        if not dead:
            storm.calm(mount.path)
            mount.remount()
            storm.calm(mount.path)
    print(f"{asked.minutes:g} minutes, {asked.readers} readers, {asked.binding}, seed {asked.seed}")
    print(f"{outcome.reads:,} reads, {outcome.size / 1e9:.1f} GB, {len(outcome.wrong)} wrong")
    print(f"errors: {listed(outcome.errors)}")
    print(f"requests to the storage: {listed(weather)}")
    print(f"dead mounts: {dead} at {len(memory)} looks")
    print(f"the daemon's memory in MB: {' '.join(f'{one / 1e6:.0f}' for one in tenths(memory))}")
    return 0 if not outcome.wrong and not dead and outcome.errors.keys() <= ALLOWED else 1


def trouble(cache: Path, chance: random.Random, *, is_last: bool) -> None:
    """Rename the cache folder and rename it back; or delete it, which a mount never gets over."""
    if is_last:
        shutil.rmtree(cache, ignore_errors=True)
        return
    away = cache.with_name("away")
    cache.rename(away)
    time.sleep(chance.uniform(0.01, 2))
    away.rename(cache)


def is_dead(mount: Mount) -> bool:
    """Say whether the mount does not answer."""
    words = ["stat", "--file-system", str(mount.path)]
    try:
        return subprocess.run(words, capture_output=True, timeout=20, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def resident(mount: Mount) -> int:
    """Return the bytes that the daemon has in memory, 0 if it is gone."""
    try:
        pages = Path(f"/proc/{mount.daemon}/statm").read_text("utf-8").split()[1]
    except FileNotFoundError:
        return 0
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
