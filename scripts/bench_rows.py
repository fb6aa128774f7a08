"""The rows of the benchmark's table: what is read, how, and behind which lines."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench_peers import RANDOM, SEQUENTIAL
from bench_reader import RANDOM_SIZE
from bench_server import BANDS, DATA, DOWNLOAD, Line, Sizes

COLD, SECOND, REMOUNTED = "cold", "second", "remounted"
HOLE = "hole"
"""The row that `bench_hole` measures; it is no `Workload`."""


class Row(NamedTuple):
    """A workload as it is measured at once: one table."""

    workload: str
    line: Line
    threads: int


class Key(NamedTuple):
    """What a sample is of."""

    row: Row
    run: str
    peer: str


@dataclass(frozen=True)
class Workload:
    """What is read; `tasks` are for `bench_reader`, given sizes, `Ready.ways` and threads."""

    title: str
    kind: str
    tasks: Callable[[Sizes, dict[str, str], int], list[Any]]
    unit: str
    """What a task is, or MB."""
    lines: tuple[Line, ...]
    profile: str = SEQUENTIAL
    threads: tuple[int, ...] = (1, 8)
    passes: tuple[str, ...] = (COLD,)
    listed: str | None = None
    """A directory that is listed before, off the clock."""


def _big(sizes: Sizes, ways: dict[str, str], threads: int) -> list[Any]:  # noqa: ARG001
    return [f"{ways[DATA]}big/big.bin"]


def _pieces(sizes: Sizes, ways: dict[str, str], threads: int) -> list[Any]:
    chance = random.Random(threads)  # the same offsets for all peers
    count = sizes.random * (1 if threads == 1 else 4)
    path = f"{ways[DATA]}big/big.bin"
    return [(path, chance.randrange(sizes.big - RANDOM_SIZE)) for _ in range(count)]


def _files(sizes: Sizes, ways: dict[str, str], threads: int) -> list[Any]:  # noqa: ARG001
    return [f"{ways[DATA]}files/f{number:04}.bin" for number in range(sizes.files)]


def _windows(sizes: Sizes, ways: dict[str, str], threads: int) -> list[Any]:
    chance = random.Random(threads)
    path = f"{ways[DATA]}scene/scene.tif"
    corners = [[chance.randrange(sizes.scene - 256) for _ in "xy"] for _ in range(sizes.windows)]
    overview = (path, 0, 0, sizes.scene, sizes.scene // 16)
    return [*((path, x, y, 256, 256) for x, y in corners), overview]


def _chips(sizes: Sizes, ways: dict[str, str], threads: int) -> list[Any]:  # noqa: ARG001
    names = [f"{ways[DOWNLOAD]}c{number:04}" for number in range(sizes.chips)]
    return [[f"{name}/{band}.tif" for band in BANDS] for name in names]


WORKLOADS = {
    "sequential": Workload(
        "One big file from start to end",
        "whole",
        _big,
        "MB",
        (Line(0), Line(20), Line(50), Line(100), Line(20, 200)),
        threads=(1,),
        passes=(COLD, REMOUNTED),
    ),
    "random": Workload(
        "Random 16 KiB in the big file",
        "piece",
        _pieces,
        "reads",
        (Line(50),),
        profile=RANDOM,
        passes=(COLD, SECOND, REMOUNTED),
    ),
    "files": Workload(
        "Files of 64 kB in one directory, listed before",
        "whole",
        _files,
        "files",
        (Line(50),),
        listed="files",
    ),
    "cog": Workload(
        "Windows of 256 x 256 and one overview of a COG",
        "window",
        _windows,
        "windows",
        (Line(20), Line(50)),
        profile=RANDOM,
        passes=(COLD, REMOUNTED),
    ),
    "chips": Workload(
        "Chips of three bands of 25 kB behind download redirects",
        "chip",
        _chips,
        "chips",
        (Line(20),),
        passes=(COLD, SECOND, REMOUNTED),
    ),
}


def plan(
    names: list[str], lines: tuple[Line, ...] | None, threads: tuple[int, ...] | None
) -> dict[Line, list[Row]]:
    """Return the rows to measure, by the line that they need; None is what each row has."""
    rows: dict[Line, list[Row]] = {}
    for name in names:
        if name == HOLE:
            line = (lines or (Line(0),))[0]
            rows.setdefault(line, []).append(Row(HOLE, line, 1))
            continue
        workload = WORKLOADS[name]
        many = threads if threads and len(workload.threads) > 1 else workload.threads
        for line in lines or workload.lines:
            # A narrow line tells something of long reads only.
            if not line.mbit or name == "sequential":
                rows.setdefault(line, []).extend(Row(name, line, one) for one in many)
    return rows
