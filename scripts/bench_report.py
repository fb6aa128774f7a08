"""The benchmark's tables, in Markdown, and what they were made on."""

import math
import os
import platform
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_hole
from bench_rows import COLD, HOLE, REMOUNTED, SECOND, WORKLOADS, Key, Row, Workload

GIB = 1 << 30
Sample = dict[str, Any]
"""Figures, or an `error`."""


def report(row: Row, samples: dict[Key, list[Sample]]) -> None:
    """Print a row's table, in Markdown."""
    mine = {key: found for key, found in samples.items() if key.row == row}
    load = os.getloadavg()[0]
    if row.workload == HOLE:
        print(f"\n### Black hole, seconds (load {load:.1f})\n")
        table = [[key.peer, str(len(good)), *_holes(good, bad)] for key, good, bad in _parts(mine)]
        _print(["peer", "n", *bench_hole.FIGURES], table)
        return
    workload = WORKLOADS[row.workload]
    readers = "1 thread" if row.threads == 1 else f"{row.threads} threads"
    print(f"\n### {workload.title}: {row.line} ms, {readers} (load {load:.1f})\n")
    rate = f"{workload.unit}/s"
    heads = ["pass", "peer", "n", rate, "min-max", "s", "ratio", "requests", "MB (x useful)"]
    ours = {key.run: good for key, good, _ in _parts(mine) if key.peer == "mlhubfs" and good}
    order = {name: index for index, name in enumerate((COLD, SECOND, REMOUNTED))}
    table = []
    for key, good, bad in sorted(_parts(mine), key=lambda part: order[part[0].run]):
        cells = _cells(workload, good, ours.get(key.run)) if good else []
        table.append([key.run, key.peer, str(len(good)), *cells, *bad])
    _print([*heads, "CPU s/GiB", "RSS MiB"], table)


def _parts(
    samples: dict[Key, list[Sample]],
) -> Iterator[tuple[Key, list[Sample], list[str]]]:
    """Yield key, good samples, and the last error if there was one."""
    for key, found in samples.items():
        errors = [one["error"] for one in found if "error" in one]
        yield key, [one for one in found if "error" not in one], errors[-1:]


def _cells(workload: Workload, good: list[Sample], ours: list[Sample] | None) -> list[str]:
    rates = [_amount(workload, one) / one["seconds"] for one in good]
    seconds = _median(good, "seconds")
    crossed, useful = _median(good, "line_bytes"), _median(good, "bytes")
    return [
        _short(statistics.median(rates)),
        f"{_short(min(rates))}-{_short(max(rates))}",
        _short(seconds),
        _short(seconds / _median(ours, "seconds")) if ours else "-",
        _short(_median(good, "requests")),
        f"{_short(crossed / 1e6)} ({_short(crossed / useful)})",
        _short(_median(good, "cpu_per_gib")),
        _short(_median(good, "peak_mib")),
    ]


def _amount(workload: Workload, sample: Sample) -> float:
    return float(sample["bytes"] / 1e6 if workload.unit == "MB" else sample["tasks"])


def _holes(good: list[Sample], bad: list[str]) -> list[str]:
    return [_short(_median(good, name)) for name in bench_hole.FIGURES if good] + bad


def _median(samples: list[Sample], name: str) -> float:
    """Return the median of a figure, or NaN where it was not taken."""
    return statistics.median([one.get(name, math.nan) for one in samples])


def _short(number: float) -> str:
    """Return three digits of it, or all that are before the point."""
    if math.isnan(number):
        return "-"
    return f"{number:.0f}" if number >= 100 or number < 0.0005 else f"{number:.3g}"


def _print(heads: list[str], table: list[list[str]]) -> None:
    for line in (heads, ["---"] * len(heads), *table):
        print(f"| {' | '.join(line)} |")


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((one.partition(": ")[2] for one in lines if one.startswith("model name")), "?")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr
    return {
        "cpu": f"{os.cpu_count()} x {model}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": nginx.strip().rpartition(" ")[2],
        "load": f"{os.getloadavg()[0]:.1f} at the start",
    }
