"""Measure how fast files are read through mlhubfs, and through what else users have.

Run it as root: `python scripts/bench_read.py`; `--help` tells the options. nginx serves the bytes,
on the loopback or behind a line with a delay (`--net`); each peer reads the same bytes from it, in
a fresh process, from a fresh mount and cache, with the page cache dropped. What is read is compared
with the local copy; the exit code is 1 if mlhubfs brought a wrong byte.

*Passes.* `cold`: nothing at hand. `second`: the same mount again, page cache dropped. `remounted`:
a new mount over the cache that the others left, page cache dropped; what is not on disk by then is
fetched again. The last two are measured for peers that keep bytes.

*Figures.* `ratio` is the peer's time over that of mlhubfs: above 1 mlhubfs is faster. Requests and
bytes are those that nginx logged, headers included. CPU is the daemon's, per useful GiB, work that
it does after the reader has ended included; so is the memory, its peak.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_hole
from bench_hole import drop_page_cache
from bench_peers import RANDOM, SEQUENTIAL, Peer, Ready, peers
from bench_report import GIB, Sample, machine, report
from bench_rows import COLD, HOLE, REMOUNTED, SECOND, WORKLOADS, Key, Row, plan
from bench_server import DATA, QUICK, Line, Server, Sizes, data, serving, write_catalog

HERE = Path(__file__).resolve().parent
UP = HERE.parent.parent / "shared/net/up.sh"
_SETTLE_SECONDS = 20.0


class Bench:
    """Takes samples, each a dict of figures, or of an `error`, by row, pass and peer."""

    def __init__(self, base: Path, sizes: Sizes, *, runs: int, budget: float, limit: float) -> None:
        self.samples: dict[Key, list[Sample]] = {}
        self.wrong: set[str] = set()
        """The peers that brought wrong bytes."""
        self._base = base
        self._sizes = sizes
        self._runs = runs
        self._budget = budget
        self._limit = limit

    def row(self, row: Row, server: Server, who: list[Peer]) -> None:
        """Take the samples of a row, peers in turn, so that a noisy minute meets them all."""
        truth: dict[str, Any] = {}
        if row.workload != HOLE:
            copy = next(one for one in who if one.name == "local")
            with copy.ready(server, self._base, SEQUENTIAL) as ready:
                truth = self._read(row, ready)
        spent = dict.fromkeys(who, 0.0)
        for _ in range(self._runs):
            for peer in who:
                if spent[peer] < self._budget:
                    start = time.monotonic()
                    self._run(row, peer, server, truth)
                    spent[peer] += time.monotonic() - start

    def _run(self, row: Row, peer: Peer, server: Server, truth: dict[str, Any]) -> None:
        """Measure all passes of one peer, from nothing."""
        base = self._base / "run"
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        done = COLD
        try:
            if row.workload == HOLE:
                self._hole(row, peer, server, base)
                return
            workload = WORKLOADS[row.workload]
            with peer.ready(server, base, workload.profile) as ready:
                if workload.listed and peer.is_mount:
                    set(Path(ready.ways[DATA] + workload.listed).iterdir())
                self._pass(row, COLD, peer, ready=ready, server=server, truth=truth)
                if peer.keeps and SECOND in workload.passes:
                    done = SECOND
                    self._pass(row, SECOND, peer, ready=ready, server=server, truth=truth)
            if peer.keeps and REMOUNTED in workload.passes:
                done = REMOUNTED
                with peer.ready(server, base, workload.profile) as ready:
                    self._pass(row, REMOUNTED, peer, ready=ready, server=server, truth=truth)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            self._note(row, done, peer, {"error": str(error)})
        finally:
            shutil.rmtree(base, ignore_errors=True)

    def _pass(
        self,
        row: Row,
        name: str,
        peer: Peer,
        *,
        ready: Ready,
        server: Server,
        truth: dict[str, Any],
    ) -> None:
        server.forget()
        before = ready.cpu_seconds()
        answer = self._read(row, ready)
        _settle(ready, server)
        pairs = zip(answer["crcs"], truth["crcs"], strict=True)
        same = all(crc in {None, true} for crc, true in pairs)
        if not same or answer["bytes"] != truth["bytes"]:
            self.wrong.add(peer.name)
            raise RuntimeError("WRONG BYTES")
        after, traffic = ready.cpu_seconds(), server.traffic()
        figures = {
            "seconds": answer["seconds"],
            "bytes": answer["bytes"],
            "tasks": len(truth["crcs"]),
            "load": os.getloadavg()[0],
        }
        if traffic:
            figures |= {"requests": traffic.requests, "line_bytes": traffic.bytes}
        if before is not None and after is not None:
            figures["cpu_per_gib"] = (after - before) / answer["bytes"] * GIB
            figures["peak_mib"] = ready.peak_mib()
        self._note(row, name, peer, figures)

    def _read(self, row: Row, ready: Ready) -> dict[str, Any]:
        """Let a fresh process do the reading, page cache dropped; raises RuntimeError."""
        workload = WORKLOADS[row.workload]
        warm_up = self._base / "local/storage/c0000/B02.tif"
        job = {
            "kind": workload.kind,
            "tasks": workload.tasks(self._sizes, ready.ways, row.threads),
            "threads": row.threads,
            "warm_up": os.fspath(warm_up) if workload.kind in {"window", "chip"} else None,
        }
        with subprocess.Popen(
            [sys.executable, os.fspath(HERE / "bench_reader.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ready.environ},
        ) as reader:
            try:
                assert reader.stdin and reader.stdout  # noqa: PT018
                print(json.dumps(job), file=reader.stdin, flush=True)
                reader.stdout.readline()
                drop_page_cache()
                answer: dict[str, Any] = json.loads(reader.communicate("go\n")[0])
            finally:
                reader.kill()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _hole(self, row: Row, peer: Peer, server: Server, base: Path) -> None:
        with peer.ready(server, base, RANDOM) as ready:
            large = Path(ready.ways[DATA]) / "big/big.bin"
            small = Path(ready.ways[DATA]) / "files/f0000.bin"
            copy = self._base / "local/data/big/big.bin"
            try:
                figures = bench_hole.measure(large, small, copy, server, self._limit)
            except ValueError as error:
                self.wrong.add(peer.name)
                raise RuntimeError(f"WRONG BYTES: {error}") from None
        self._note(row, COLD, peer, dict(figures))

    def _note(self, row: Row, run: str, peer: Peer, figures: Sample) -> None:
        self.samples.setdefault(Key(row, run, peer.name), []).append(figures)


def _settle(ready: Ready, server: Server) -> None:
    """Wait until the daemon has done what the reader left it to do."""
    state, since = None, time.monotonic()
    end = since + _SETTLE_SECONDS
    while time.monotonic() < min(since + 0.5, end):
        now = (ready.cpu_seconds(), server.traffic())
        if now != state:
            state, since = now, time.monotonic()
        time.sleep(0.05)


def arguments() -> argparse.Namespace:
    """Return the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=summary, epilog=details, formatter_class=form)
    add = parser.add_argument
    names = ",".join([*WORKLOADS, HOLE])
    add("--workloads", default=names, help="of %(default)s")
    add("--delays", help="round trips in ms, as in 0,50,20@200 (200 Mbit/s) [those of each row]")
    add("--threads", help="as in 1,8 [those of each row]")
    add("--peers", help="others to compare with, as in rclone-full,curl [all]")
    add("--runs", type=int, default=5, help="samples of each figure [%(default)s]")
    add("--budget", type=float, default=300, help="seconds of a row and peer; then no more runs")
    add("--quick", action="store_true", help="one run of small sizes, to see that it works")
    add("--options", default="", help="of `mlhubfs mount -o`")
    add("--hole", type=float, default=130, help="seconds to wait for a read in a black hole")
    add("--net", type=Path, default=UP, help="the script that brings the line up [%(default)s]")
    add("--url", help="measure this server, which serves BASE/local, instead of an nginx of ours")
    add("--base", type=Path, help="folder for data, caches and mounts [a temporary one]")
    add("--keep", action="store_true", help="keep the data in BASE for the next time")
    add("--json", type=Path, help="write all samples to this file")
    return parser.parse_args()


def chosen(args: argparse.Namespace, local: Path) -> list[Peer]:
    """Return the peers to measure, and print what is measured and what is missing."""
    wanted = args.peers.split(",") if args.peers else None
    found = []
    for peer in peers(local, args.options):
        if wanted and peer.name not in {*wanted, "mlhubfs", "local"}:
            continue
        print(f"* {peer.name}: {f'MISSING, {peer.needs}' if peer.needs else peer.describe()}")
        if not peer.needs:
            found.append(peer)
    return found


@contextlib.contextmanager
def server_at(line: Line, args: argparse.Namespace, base: Path, root: Path) -> Iterator[Server]:
    """Serve what is in `root`, or name the server that does already."""
    if args.url:
        write_catalog(root, args.url.rstrip("/"))
        yield Server(args.url, base, None)
        return
    with serving(line, root, base / "nginx", args.net if args.net.exists() else None) as server:
        yield server


def run(args: argparse.Namespace, base: Path) -> Bench:
    """Measure and report all rows."""
    sizes = QUICK if args.quick else Sizes()
    runs = 1 if args.quick else args.runs
    bench = Bench(base, sizes, runs=runs, budget=args.budget, limit=args.hole)
    about = machine()
    with data(base, sizes, serve=not args.url) as (local, root):
        print("* " + ", ".join(f"{name} {value}" for name, value in about.items()))
        who = chosen(args, local)
        given = tuple(map(Line.parse, args.delays.split(","))) if args.delays else None
        threads = tuple(map(int, args.threads.split(","))) if args.threads else None
        lines = (Line(0),) if args.url else given  # of somebody else's server nothing is known
        for line, rows in plan(args.workloads.split(","), lines, threads).items():
            try:
                with server_at(line, args, base, root) as server:
                    for row in rows:
                        bench.row(row, server, [one for one in who if takes_part(one, row, server)])
                        report(row, bench.samples)
            except (RuntimeError, subprocess.SubprocessError) as error:
                print(f"\n{line} ms: NOT MEASURED: {error}")
            if args.json:
                samples = [
                    {
                        **key.row._asdict(),
                        "line": str(key.row.line),
                        "pass": key.run,
                        "peer": key.peer,
                        "samples": found,
                    }
                    for key, found in bench.samples.items()
                ]
                args.json.write_text(json.dumps({"machine": about, "figures": samples}, indent=1))
    return bench


def takes_part(peer: Peer, row: Row, server: Server) -> bool:
    """Say whether the peer can do what the row is about."""
    if row.workload == HOLE:
        return server.can_stop and peer.is_mount
    return peer.rows is None or row.workload in peer.rows


def main() -> int:
    """Run the benchmark; return the exit code."""
    args = arguments()
    if not args.url and (os.geteuid() or not shutil.which("nginx")):
        print("be root and have nginx (apt-get install nginx), or give --url", file=sys.stderr)
        return 2
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    base = args.base or Path(tempfile.mkdtemp(prefix="mlhubfs-bench-", dir="/var/tmp"))
    base = base.resolve()
    base.mkdir(parents=True, exist_ok=True)
    print(f"    {' '.join(['python', *sys.argv])}\n")
    try:
        bench = run(args, base)
    except KeyboardInterrupt:
        return 130
    finally:
        if not args.keep and not args.url:
            for name in ("local", "run", "nginx"):
                shutil.rmtree(base / name, ignore_errors=True)
            (base / "local.json").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                base.rmdir()
    if bench.wrong:
        print(f"\nWRONG BYTES: {', '.join(sorted(bench.wrong))}")
    return int("mlhubfs" in bench.wrong)


if __name__ == "__main__":
    sys.exit(main())
