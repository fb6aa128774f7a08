"""Values of JSON and of conditions, and how they compare: numbers, flags, times, boxes, texts.

Owns what equals what: numbers compare as numbers, times as times, booleans with the texts `true`
and `false` too, and all else as text. What cannot be compared is in no order.

*Threading.* Functions without state.
"""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

_INTEGER = re.compile(r"[+-]?\d{1,30}")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DAY_SECONDS = 86400.0
_FLAGS = {"true": True, "false": False}

Interval = tuple[float, float]
"""The first and the last POSIX second, or infinity."""
Box = tuple[float, float, float, float]
"""West, south, east, north, in degrees."""


class Operand(NamedTuple):
    """A value, as whatever it can be compared as."""

    text: str
    number: float | None
    flag: bool | None
    interval: Interval | None


def scalars(value: Any) -> Iterator[Any]:
    """Yield the texts, numbers and booleans in a JSON value."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        if value is not None:
            yield value
        return
    for one in value:
        yield from scalars(one)


def operand(text: str) -> Operand:
    """Return the value that a condition's text writes."""
    number: float | None = None
    if _INTEGER.fullmatch(text):
        number = int(text)
    elif NUMBER.fullmatch(text):
        number = float(text)
    return Operand(text, number, _FLAGS.get(text.casefold()), moments(text))


def holds(member: object, operator: str, other: Operand) -> bool:
    """Say whether a value of JSON is `operator` (but `!=`) the operand."""
    order = _order(member, other)
    match operator:
        case "=":
            return order == 0
        case "<":
            return order == -1
        case ">":
            return order == 1
        case "<=":
            return order in {-1, 0}
    return order in {0, 1}


def _order(member: object, other: Operand) -> int | None:
    """Return -1, 0 or 1 as `member` comes before, at or behind the other, else None."""
    if isinstance(member, str) and other.flag is not None:
        member = _FLAGS.get(member.casefold(), member)
    if isinstance(member, bool):
        return None if other.flag is None else _sign(member, other.flag)
    if isinstance(member, int | float):
        return None if other.number is None else _sign(member, other.number)
    found = moments(member) if other.interval else None
    if found and other.interval:
        start, stop = other.interval
        return -1 if found[0] < start else int(found[0] > stop)
    return _sign(str(member), other.text)


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def moments(text: object) -> Interval | None:
    """Return the first and last second of a time or a date, None where it is neither."""
    if not isinstance(text, str) or not _DATE.match(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        start = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return start, start + _DAY_SECONDS - 1e-6 if len(text) == 10 else start


def exact(number: float) -> str:
    """Return a number with all its digits: a box that is rounded misses what touches its edge."""
    return repr(number).removesuffix(".0")


def rfc3339(seconds: float) -> str:
    """Return a time in UTC, `..` where there is none to write."""
    try:
        text = datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError):  # infinity, and what is before the year 1 in UTC
        return ".."
    return text.replace("+00:00", "Z")


def box_of(value: object) -> Box | None:
    """Return a `bbox` of JSON, None where it is none."""
    if not isinstance(value, list) or len(value) not in {4, 6}:
        return None
    if not all(type(one) in {int, float} and math.isfinite(one) for one in value):
        return None
    half = len(value) // 2
    return value[0], value[1], value[half], value[half + 1]


def touch(one: Box, other: Box) -> bool:
    """Say whether two boxes have a point in common."""
    if one[3] < other[1] or one[1] > other[3]:
        return False
    return any(
        west <= other_east and east >= other_west
        for west, east in _spans(one)
        for other_west, other_east in _spans(other)
    )


def _spans(box: Box) -> list[tuple[float, float]]:
    west, _, east, _ = box
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
