"""Measure how fast an archive is downloaded, by mlhubfs and by what else users have.

Run it as root: `python scripts/bench_download.py`; `--help` tells the options. nginx serves an
archive of random bytes: on the loopback, behind a line with a delay (`--net`), and with a limit to
the rate of each connection. Each peer downloads it by a process of its own, whose start is part of
the time; what has come is compared with the archive, and the exit code is 1 if mlhubfs brought a
wrong byte. Peers take turns, so that a noisy minute meets them all, and each is the first in its
turn: what one leaves behind in memory is the next one's burden.

*Figures.* Medians of the runs, the fastest and the slowest run; CPU is that of the peer's process.
`cp` copies the archive on the same disk, which is as fast as this disk can be.

nginx lets each request have a second's worth of its rate at once: peers whose requests are smaller
than that never meet the limit.
"""

import argparse
import filecmp
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench_report import machine
from bench_server import COLLECTION, Line, Server, serving

UP = Path(__file__).resolve().parent.parent.parent / "shared/net/up.sh"
SIZE, QUICK_SIZE = 1 << 30, 64 << 20
ARCHIVE = f"{COLLECTION}.tar.gz"
_SETTLE_SECONDS = 0.5
_ARIA2C = (
    "aria2c --quiet --allow-overwrite=true --file-allocation=none -x16 -s16 --min-split-size=1M"
)
_RADIANT = f"""\
from radiant_mlhub.client import download_archive
download_archive({COLLECTION!r}, '.', if_exists='overwrite')
"""


@dataclass(frozen=True)
class Peer:
    """A program that downloads into its working directory."""

    name: str
    command: list[str]
    environ: Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    """One download."""

    seconds: float
    cpu: float
    requests: int


class Bench:
    """Downloads the archive in `root` again and again, below `base`."""

    def __init__(self, base: Path, root: Path, radiant: Path | None) -> None:
        self.wrong: set[str] = set()
        """Peers that brought other bytes."""
        self._base = base
        self._archive = root / "archives" / ARCHIVE
        self._radiant = radiant

    def row(self, title: str, server: Server, runs: int) -> None:
        """Print the table of one kind of line."""
        peers = self._peers(server)
        samples: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
        for run in range(runs):
            first = run % len(peers)
            for peer in (*peers[first:], *peers[:first]):
                samples[peer.name].append(self._take(peer, server))
        size = self._archive.stat().st_size
        print(f"\n### {title}: {size / 1e6:,.0f} MB (load {os.getloadavg()[0]:.1f})\n")
        print("| peer | s | fastest-slowest | MB/s | CPU s | requests |")
        print("|---|---:|---:|---:|---:|---:|")
        for name, found in samples.items():
            times = [one.seconds for one in found]
            middle = statistics.median(times)
            cpu = statistics.median(one.cpu for one in found)
            print(
                f"| {name} | {middle:.2f} | {min(times):.2f}-{max(times):.2f} "
                f"| {size / middle / 1e6:.0f} | {cpu:.2f} | {found[-1].requests} |"
            )

    def _take(self, peer: Peer, server: Server) -> Sample:
        folder = Path(tempfile.mkdtemp(prefix="download-", dir=self._base))
        environ = {**os.environ, **peer.environ, "HOME": os.fspath(folder)}
        try:
            os.sync()  # what the peer before has written is not this one's burden
            time.sleep(_SETTLE_SECONDS)
            server.forget()
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.monotonic()
            done = subprocess.run(
                peer.command, cwd=folder, env=environ, capture_output=True, check=False
            )
            seconds = time.monotonic() - started
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if done.returncode:
                raise RuntimeError(f"{peer.name}: {done.stderr.decode().strip()[-500:]}")
            if not filecmp.cmp(folder / ARCHIVE, self._archive, shallow=False):
                self.wrong.add(peer.name)
            traffic = server.traffic()
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return Sample(seconds, cpu, traffic.requests if traffic else 0)
        finally:
            shutil.rmtree(folder)

    def _peers(self, server: Server) -> list[Peer]:
        api = f"{server.url}/api/"
        ours = [sys.executable, "-m", "mlhubfs", "download", COLLECTION, "--source", api]
        anonymous = {"MLHUB_PROFILE": "__anonymous__", "XDG_CACHE_HOME": os.fspath(self._base)}
        url = f"{api}archive/{COLLECTION}"
        peers = [
            Peer("mlhubfs", ours, anonymous),
            Peer("curl", ["curl", "-sfL", "-o", ARCHIVE, url], {}),
            Peer("cp", ["cp", os.fspath(self._archive), ARCHIVE], {}),
        ]
        if shutil.which("aria2c"):
            peers.append(Peer("aria2c -x16", [*_ARIA2C.split(), "-o", ARCHIVE, url], {}))
        else:
            print("no aria2c: apt install aria2")
        if self._radiant:
            command = [os.fspath(self._radiant), "-c", _RADIANT]
            environ = {"MLHUB_ROOT_URL": api, "MLHUB_PROFILE": "__anonymous__"}
            peers.append(Peer("radiant_mlhub 0.4.1", command, environ))
        return peers


def _radiant(base: Path) -> Path | None:
    """Return a Python that has the published client, None where it cannot be installed."""
    folder = base / "radiant"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "radiant_mlhub==0.4.1", "setuptools<80"],
        check=False,
    )
    return None if done.returncode else python


def _make(root: Path, size: int) -> None:
    """Make what nginx serves: the archive, and what the API tells of it."""
    for folder in ("archives", "data", "storage", "api/archive/bench"):
        (root / folder).mkdir(parents=True)
    with (root / "archives" / ARCHIVE).open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    about = {"collection": COLLECTION, "dataset": COLLECTION, "size": size, "types": ["labels"]}
    (root / "api/archive" / COLLECTION / "info.json").write_text(json.dumps(about))


def main() -> int:
    """Run what the command line asks for; return 1 if mlhubfs brought wrong bytes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="64 MiB and one run: does it work?")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rtt", type=int, nargs="*", default=[0, 50], help="milliseconds")
    parser.add_argument("--limit", default="50m", help="bytes/s of each connection, as nginx says")
    parser.add_argument("--net", type=Path, default=UP, help="script that brings the line up")
    parser.add_argument("--folder", type=Path, help="where to work; has to have 4 GiB")
    arguments = parser.parse_args()
    runs = 1 if arguments.quick else arguments.runs
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        base, root = Path(name), Path(name) / "root"
        _make(root, QUICK_SIZE if arguments.quick else SIZE)
        bench = Bench(base, root, _radiant(base))
        for key, value in machine().items():
            print(f"{key}: {value}")
        for rtt in arguments.rtt:
            with serving(Line(rtt), root, base / "nginx", arguments.net) as server:
                bench.row(f"{rtt} ms", server, runs)
        limit = f"limit_rate {arguments.limit};"
        with serving(Line(0), root, base / "nginx", arguments.net, limit) as server:
            bench.row(f"0 ms, {arguments.limit}B/s a connection", server, runs)
    for peer in sorted(bench.wrong):
        print(f"{peer} brought wrong bytes", file=sys.stderr)
    return 1 if "mlhubfs" in bench.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
