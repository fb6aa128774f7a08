"""Measure listings of a very large collection, ours beside the clients that people have.

    python scripts/bench_listing.py                        # 590,326 items: some 40 minutes
    python scripts/bench_listing.py --items 20000 --delays 0 --limits 10000 --no-peers

Prints tables in Markdown. Everything runs here, on one machine, against `synthetic_catalog.py`:
ours through a real mount by the `mlhubfs` of this Python, each with caches of its own in a new
folder; the others in virtual environments of their own, made in `--environments` or anew. Nothing
stays behind: mounts, servers, folders.

A peer walks the first `--first` items only: its rate is taken to be that of the whole. For peers
the server leaves the limit in its `next` links, which MLHub did not: pystac-client does not send it
again, so it would be measured with pages of 10.
What ours cannot do yet is found out by counting the server's requests, and said.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from synthetic_catalog import COLLECTION, DATASET, ITEMS, ROOT_PATH, item_id

HERE = Path(__file__).parent
NOT_YET = "not yet"
Numbers = dict[str, float | None]
"""Measure -> value; None for what cannot be done yet."""

_UNITS = {
    "first name": "s",
    "cold walk": "items/s",
    "cold walk, --catalog": "items/s",
    "listing from the index": "s",
    "ls -l": "s",
    "cold stat": "ms",
    "cold stat, requests": "",
    "memory after the walk": "MB",
    "memory after ls -l": "MB",
}

_PYSTAC = """
from pystac_client import ItemSearch
found = ItemSearch(url=f"{root}/collections/{collection}/items", method="GET", limit=limit,
                   max_items=count).items_as_dicts()
"""
_RADIANT = """
from radiant_mlhub.client import list_collection_items
found = list_collection_items(collection, page_size=limit, limit=count)
"""
_TIMED = """
import json, resource, sys, time
root, collection, limit, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
{search}
began = time.perf_counter()
next(found)
first = time.perf_counter() - began
walked = 1 + sum(1 for _ in found)
seconds = time.perf_counter() - began
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({{"first": first, "walked": walked, "seconds": seconds, "memory": memory}}))
"""


@dataclass(frozen=True)
class Peer:
    """Another client: what to install, and the Python that makes `found`, an iterator of items."""

    name: str
    requirements: tuple[str, ...]
    search: str


PEERS = [
    Peer("pystac-client", ("pystac-client>=0.9,<0.10",), _PYSTAC),
    # It imports pkg_resources, which newer setuptools no longer has.
    Peer("radiant_mlhub", ("radiant_mlhub==0.5.5", "setuptools<80"), _RADIANT),
]


@dataclass(frozen=True)
class Server:
    """A running synthetic catalog."""

    root: str

    def requests(self) -> dict[str, int]:
        """Return the requests so far, by kind."""
        url = self.root.removesuffix(ROOT_PATH) + "/requests"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return dict.fromkeys(("page", "item", "catalog", "other"), 0) | json.load(answer)


@contextlib.contextmanager
def serving(items: int, *flags: str, limit: int, delay: float) -> Iterator[Server]:
    """Run a synthetic catalog."""
    words = ["--items", items, "--limit", limit, "--delay", delay, *flags]
    command = [sys.executable, HERE / "synthetic_catalog.py", *words]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        try:
            root = process.stdout.readline().strip() if process.stdout else ""
            if not root:
                raise SystemExit("the synthetic catalog did not start")
            yield Server(root)
        finally:
            process.terminate()


@dataclass
class Mount:
    """A mount of ours in `folder`, with the caches that are below."""

    folder: Path
    root: str
    limit: int
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        self.path = self.folder / "mount"
        self.path.mkdir(exist_ok=True)
        kept = {name: one for name, one in os.environ.items() if not name.startswith("MLHUB")}
        own = {"HOME": "home", "XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state"}
        self._environ = kept | {name: str(self.folder / one) for name, one in own.items()}

    @property
    def collection(self) -> Path:
        """The directory that is measured."""
        return self.path / DATASET / COLLECTION

    def memory(self) -> float:
        """Return the most memory that the daemon has had, in MB."""
        (state,) = (self.folder / "state" / "mlhubfs" / "mounts").glob("*.json")
        process = json.loads(state.read_text("utf-8"))["pid"]
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
        return next(int(one.split()[1]) / 1024 for one in lines if one.startswith("VmHWM"))

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Mount it; called again, it is a fresh mount on the caches of the last one."""
        options = f"page_size={self.limit},ttl=1d,timeout=600"
        self._run("mount", self.root, str(self.path), "-o", options)
        try:
            yield
        finally:
            self._run("umount", str(self.path))

    def _run(self, *words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "mlhubfs", *words],
            env=self._environ,
            stdout=subprocess.DEVNULL,
            check=True,
        )


@contextlib.contextmanager
def fresh_mount(root: str, limit: int) -> Iterator[Mount]:
    """Yield an unmounted Mount without caches; its folder is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bench-listing-"))
    try:
        yield Mount(folder, root, limit)
    finally:
        shutil.rmtree(folder)


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that `action` takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def first_name(folder: Path) -> None:
    """Read a directory up to its first item."""
    with os.scandir(folder) as entries:
        next(one for one in entries if one.name != "collection.json")


def shell(command: str, folder: Path) -> int:
    """Run a command that prints a number in `folder`, and return the number."""
    done = subprocess.run(
        command, shell=True, cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout)


def measure_peer(peer: Peer, python: Path, server: Server, limit: int, count: int) -> Numbers:
    """Let a peer walk the first `count` items."""
    words = [server.root, COLLECTION, str(limit), str(count)]
    done = subprocess.run(
        [python, "-c", _TIMED.format(search=peer.search), *words],
        env={**os.environ, "MLHUB_ROOT_URL": f"{server.root}/", "MLHUB_API_KEY": "none"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    if told["walked"] != count:
        raise SystemExit(f"{peer.name} listed {told['walked']} of {count} items")
    return {
        "first name": told["first"],
        "cold walk": count / told["seconds"],
        "memory after the walk": told["memory"],
    }


def measure_ours(items: int, limit: int, delay: float, listed: int) -> Numbers:
    """Measure a mount: cold, after its walk, and mounted anew."""
    numbers: Numbers = {}
    with serving(items, limit=limit, delay=delay) as server:
        with fresh_mount(server.root, limit) as mount, mount.mounted():
            before = server.requests()
            path = mount.collection / item_id(items // 2)
            numbers["cold stat"] = timed(path.stat) * 1000
            after = server.requests()
            numbers["cold stat, requests"] = sum(after.values()) - sum(before.values())
        with fresh_mount(server.root, limit) as mount:
            with mount.mounted():
                numbers["first name"] = timed(lambda: first_name(mount.collection))
            shutil.rmtree(mount.folder / "cache")
            with mount.mounted():
                numbers["cold walk"] = items / _walk(mount, items)
                numbers["memory after the walk"] = mount.memory()
            with mount.mounted():
                before = server.requests()
                seconds = _walk(mount, items)
                again = server.requests()["page"] - before["page"]
                numbers["listing from the index"] = seconds if again <= 1 else None
    with (
        serving(listed, limit=limit, delay=delay) as server,
        fresh_mount(server.root, limit) as mount,
        mount.mounted(),
    ):
        _walk(mount, listed)
        numbers["ls -l"] = timed(lambda: shell("ls -l | wc -l", mount.collection))
        numbers["memory after ls -l"] = mount.memory()
    return numbers


def measure_catalog(items: int, limit: int, delay: float) -> Numbers:
    """Measure a cold walk where the server has the dataset's catalog in one file."""
    with (
        serving(items, "--catalog", limit=limit, delay=delay) as server,
        fresh_mount(server.root, limit) as mount,
        mount.mounted(),
    ):
        if server.requests()["catalog"]:
            raise SystemExit("the catalog was asked for at the mount: the walk is not cold")
        began = time.perf_counter()
        first_name(mount.collection)
        # Where the catalog is used, it is asked for about now, behind the first page.
        for _ in range(100):
            if server.requests()["catalog"]:
                break
            time.sleep(0.02)
        else:
            return {"cold walk, --catalog": None}
        _walk(mount, items)
        return {"cold walk, --catalog": items / (time.perf_counter() - began)}


def _walk(mount: Mount, items: int) -> float:
    counts = []
    seconds = timed(lambda: counts.append(shell("ls -U | wc -l", mount.collection)))
    if counts[0] != items + 1:  # and collection.json
        raise SystemExit(f"the mount listed {counts[0] - 1} of {items} items")
    return seconds


def median(runs: list[Numbers]) -> Numbers:
    """Return the median of each measure."""
    numbers: Numbers = {}
    for name in runs[0]:
        known = [one for run in runs if (one := run[name]) is not None]
        numbers[name] = statistics.median(known) if len(known) == len(runs) else None
    return numbers


def table(columns: dict[str, Numbers]) -> str:
    """Return measures by client as a Markdown table."""
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name, unit in _UNITS.items():
        if any(name in numbers for numbers in columns.values()):
            cells = [_cell(numbers, name, unit) for numbers in columns.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(numbers: Numbers, name: str, unit: str) -> str:
    if name not in numbers:
        return ""
    value = numbers[name]
    if value is None:
        return NOT_YET
    digits = 0 if value >= 100 or value == int(value) else 3 if value < 1 else 1
    return f"{value:,.{digits}f} {unit}".rstrip()


def make_environment(folder: Path, peer: Peer) -> Path:
    """Return the Python of a virtual environment that has the peer, made if it is not there."""
    home = folder / peer.name
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        print(f"installing {peer.name} into {home} ...", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([python, *quiet, *peer.requirements], check=True, stdout=sys.stderr)
        (home / "complete").touch()
    return python


def measure(options: argparse.Namespace, peers: dict[str, tuple[Peer, Path]]) -> Iterator[str]:
    """Yield the tables as they are ready."""
    count = min(options.first, options.items)
    for limit in options.limits:
        for delay in options.delays:
            ours = []
            for _ in range(options.runs):
                run = measure_ours(options.items, limit, delay, min(options.listed, options.items))
                if not options.no_catalog:
                    run |= measure_catalog(options.items, limit, delay)
                ours.append(run)
            columns = {"mlhubfs": median(ours)}
            for name, (peer, python) in peers.items():
                with serving(options.items, "--keep-limit", limit=limit, delay=delay) as server:
                    columns[name] = median(
                        [
                            measure_peer(peer, python, server, limit, count)
                            for _ in range(options.runs)
                        ]
                    )
            yield (
                f"{options.items:,} items, pages of {limit:,}, {delay * 1000:g} ms before each "
                f"answer (ls -l: {min(options.listed, options.items):,}; "
                f"other clients: the first {count:,}; median of {options.runs})\n\n"
                f"{table(columns)}\n"
            )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--limits", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.05], help="seconds")
    parser.add_argument("--first", type=int, default=20_000, help="items that a peer walks")
    parser.add_argument("--listed", type=int, default=100_000, help="items for ls -l")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--peers", nargs="*", default=[one.name for one in PEERS])
    parser.add_argument("--no-peers", action="store_const", dest="peers", const=[])
    parser.add_argument("--no-catalog", action="store_true", help="leave the tarball out")
    parser.add_argument("--environments", type=Path, help="where the peers' are, or are kept")
    options = parser.parse_args()
    # As for Ctrl-C: mounts, servers and folders are taken away on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as ending:
        folder = options.environments
        if folder is None:
            folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="bench-peers-")))
        chosen = [one for one in PEERS if one.name in options.peers]
        peers = {one.name: (one, make_environment(folder.absolute(), one)) for one in chosen}
        for text in measure(options, peers):
            print(text, flush=True)


if __name__ == "__main__":
    main()
