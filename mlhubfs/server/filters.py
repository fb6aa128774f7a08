"""What `bbox` and `datetime` of a query ask for, and which items they admit.

Owns the two grammars and the comparison. Knows neither HTTP nor files. Boxes and times are closed:
an item that touches the boundary is in. A date without a time means the whole day.

*Threading.* Pure values and functions.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Bounds = tuple[float, float, float, float, float, float]
"""West, south, east, north, and the first and last second since 1970. NaN admits nothing."""

_NOWHERE: Bounds = (math.nan,) * 6
_DAY_SECONDS = 86400.0
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_WORLD = (-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class Filter:
    """A box and a closed interval of seconds."""

    box: tuple[float, float, float, float]
    start: float
    stop: float
    everywhere: bool = False
    """Whether items without a box are admitted, because no box was asked for."""
    always: bool = False
    """Whether items without a time are admitted, because no time was asked for."""

    def admits(self, bounds: Bounds) -> bool:
        """Return whether an item with `bounds` is asked for."""
        west, south, east, north, start, stop = bounds
        wanted = self.box
        if not self.everywhere:
            across = (
                east >= wanted[0] and west <= wanted[2]
                if wanted[0] <= wanted[2]
                else east >= wanted[0] or west <= wanted[2]  # a box over the antimeridian
            )
            if not (across and north >= wanted[1] and south <= wanted[3]):
                return False
        return self.always or (stop >= self.start and start <= self.stop)


def parse_filter(bbox: str | None, when: str | None) -> Filter | None:
    """Return what the two parameters ask for, None where both are absent; else ValueError."""
    if not bbox and not when:
        return None
    start, stop = _parse_interval(when) if when else (-math.inf, math.inf)
    box = _parse_box(bbox) if bbox else _WORLD
    return Filter(box, start, stop, everywhere=not bbox, always=not when)


def item_bounds(item: Mapping[str, Any]) -> Bounds:
    """Return where and when `item` is, NaN for what it does not say."""
    west, south, east, north, start, stop = _NOWHERE
    box, properties = item.get("bbox"), item.get("properties")
    if isinstance(box, list) and len(box) in {4, 6} and all(map(_is_number, box)):
        half = len(box) // 2
        west, south, east, north = box[0], box[1], box[half], box[half + 1]
    if isinstance(properties, dict):
        instant = properties.get("datetime")
        start = _second(properties.get("start_datetime") or instant)
        stop = _second(properties.get("end_datetime") or instant)
    return west, south, east, north, start, stop


def _parse_box(text: str) -> tuple[float, float, float, float]:
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) not in {4, 6} or not all(map(math.isfinite, numbers)):
        raise ValueError("expected west,south,east,north")
    half = len(numbers) // 2
    return numbers[0], numbers[1], numbers[half], numbers[half + 1]


def _parse_interval(text: str) -> tuple[float, float]:
    first, slash, last = text.partition("/")
    if not slash:
        last = first
    if first in {"", ".."} and last in {"", ".."}:
        raise ValueError("expected an instant, or an interval with at least one end")
    start = -math.inf if first in {"", ".."} else _parse_time(first)
    stop = math.inf if last in {"", ".."} else _parse_time(last, end=True)
    if start > stop:
        raise ValueError("the interval ends before it begins")
    return start, stop


def _parse_time(text: str, *, end: bool = False) -> float:
    moment = datetime.fromisoformat(text)
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if end and _DATE.fullmatch(text):
        return math.nextafter(seconds + _DAY_SECONDS, -math.inf)
    return seconds


def _second(value: object) -> float:
    if not isinstance(value, str):
        return math.nan
    try:
        return _parse_time(value)
    except (ValueError, OverflowError):
        return math.nan


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
