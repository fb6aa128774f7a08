"""Rows as a table that fits the terminal, and numbers of things.

Pure functions, but for asking how wide the terminal is.
"""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

_GAP = "  "
_NARROWEST = 8  # columns of a cell that is cut


def width() -> int | None:
    """Return the columns of the terminal, None where stdout is none: then nothing is cut."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], width: int | None) -> list[str]:
    """Return the lines of a table, at most `width` columns wide: the widest cells are cut."""
    cells = [heads, *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    while width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        widest = widths.index(max(widths))
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return [
        _GAP.join(_fitted(cell, size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def sheet(fields: Mapping[str, Any], width: int | None) -> list[str]:
    """Return lines of name and value, the values wrapped; fields without a value are left out."""
    told = {name: text for name, value in fields.items() if (text := written(value))}
    margin = max(map(len, told), default=0) + len(_GAP)
    lines = []
    for name, text in told.items():
        room = max(_NARROWEST, width - margin) if width else sys.maxsize
        first, *others = textwrap.wrap(text, room, break_on_hyphens=False)
        lines.append(f"{name:<{margin}}{first}")
        lines += [" " * margin + other for other in others]
    return lines


def plain(text: str) -> str:
    """Return a server's text on one line, without what a terminal would obey."""
    return "".join(one if one.isprintable() else "?" for one in " ".join(text.split()))


def counted(count: int, what: str, shape: str = ",") -> str:
    """Return how many of a thing there are: `1 file`, `2,000 files`."""
    return f"{count:{shape}} {what}{'s' * (count != 1)}"


def written(value: Any) -> str:
    """Return a value of a server's as one line of text; nothing for None."""
    if isinstance(value, list | tuple):
        return ", ".join(map(written, value))
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, bool | dict):
        return plain(msgspec.json.encode(value).decode())
    return "" if value is None else plain(str(value))


def _fitted(cell: str, size: int) -> str:
    return (cell if len(cell) <= size else f"{cell[: size - 1]}…").ljust(size)
