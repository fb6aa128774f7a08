"""One condition on items, collections or datasets: `labels=Rice|Pastures`, `bbox=9,47,10,48`.

Owns its grammar, and what each kind means. How values compare is in `values`.

A condition is a name, one of `= != < <= > >=`, and a value, or several with `|` between them: any
of them will do. In names and values `%xx` stands for a byte of UTF-8, as in a URL: `%7C` for `|`,
`%25` for `%`, `%2F` for `/` where the condition is part of a path. The names that mean something
of their own:

* `datetime`: a time (RFC 3339), a date (all of that day, in UTC) or a range `a..b`, also `a/b`,
  whose end or beginning may be left out. Items that last for a while match if they overlap it.
* `bbox`: west,south,east,north in degrees, or with heights; west may be more than east, across
  the antimeridian. The item's own bbox has to touch it.
* `text`: a phrase in any text below the fields, whatever its case. `doi`: whatever its case.

Any other name is a property of the item, a field of the dataset. A list or an object matches by any
text, number or boolean in it, so `!=` means: none of them. Booleans match booleans and the texts
`true` and `false`; a missing one is false (MLHub left out `cloud_and_shadow` where it was). What
cannot be compared does not match.

*Threading.* Values.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from mlhubfs.catalog.values import (
    NUMBER,
    Box,
    Interval,
    Operand,
    box_of,
    holds,
    moments,
    operand,
    scalars,
    touch,
)
from mlhubfs.errors import BadCondition

_CONDITION = re.compile(r"([^=!<>]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_RESERVED = re.compile(r"[%|/\x00-\x1f\x7f\ud800-\udfff]")
_RESERVED_IN_NAME = re.compile(r"[%|/=!<>\x00-\x1f\x7f\ud800-\udfff]")
_OPERATORS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_OPEN = frozenset({"", ".."})
_TIMES = ("datetime", "start_datetime", "end_datetime")


@dataclass(frozen=True)
class Condition:
    """A condition on the field `name`: true of any of `values`."""

    name: str
    operator: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        """Return what `parse` understands, fit to be a name in a directory."""
        values = "|".join(_RESERVED.sub(_percent, value) for value in self.values)
        if values.startswith("="):  # `<` and `=` would be read as `<=`
            values = f"%3D{values[1:]}"
        return f"{_RESERVED_IN_NAME.sub(_percent, self.name)}{self.operator}{values}"

    @property
    def fields(self) -> tuple[str, ...] | None:
        """The fields that `admits` looks at; None for all of them."""
        return (self.name,)

    def admits(self, fields: Mapping[str, Any]) -> bool:
        """Say whether fields with these values fulfil the condition."""
        members = list(scalars(fields.get(self.name)))
        if not members and all(one.flag is not None for one in self.operands):
            members = [False]
        if self.operator == "!=":
            return not any(self._holds(one, "=") for one in members)
        return any(self._holds(one, self.operator) for one in members)

    def _holds(self, member: object, operator: str) -> bool:
        if self.name == "doi" and isinstance(member, str):
            member = member.casefold()
        return any(holds(member, operator, one) for one in self.operands)

    @cached_property
    def operands(self) -> tuple[Operand, ...]:
        """The values, as whatever they can be compared as."""
        fold = str.casefold if self.name == "doi" else str
        return tuple(operand(fold(value)) for value in self.values)


@dataclass(frozen=True)
class Phrase(Condition):
    """That a text below any field holds one of `values`."""

    def __post_init__(self) -> None:
        _refuse_order(self)

    @property
    def fields(self) -> None:
        """All: None."""
        return

    def admits(self, fields: Mapping[str, Any]) -> bool:
        """Say whether one of the phrases is in these fields."""
        texts = [one.casefold() for one in scalars(fields) if isinstance(one, str)]
        found = any(value.casefold() in text for value in self.values for text in texts)
        return found == (self.operator == "=")


@dataclass(frozen=True)
class During(Condition):
    """That an item is of one of the times in `values`."""

    intervals: tuple[Interval, ...] = field(init=False, repr=False, compare=False)
    """The times that `values` name, bounds included; those to be avoided where it is `!=`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "intervals", tuple(map(self._interval, self.values)))

    @property
    def fields(self) -> tuple[str, ...]:
        """Where an item says when it is."""
        return _TIMES

    def admits(self, fields: Mapping[str, Any]) -> bool:
        """Say whether an item with these times overlaps one of the intervals."""
        instant, start, stop = (fields.get(one) for one in _TIMES)
        first, last = moments(start or instant or stop), moments(stop or instant or start)
        if first is None or last is None:
            return False
        found = any(last[1] >= begin and first[0] <= end for begin, end in self.intervals)
        return found == (self.operator != "!=")

    def _interval(self, text: str) -> Interval:
        begin, between, end = text.partition("/" if "/" in text else "..")
        if not between:
            end = begin
        elif self.operator not in {"=", "!="}:
            raise BadCondition(f"{self}: give one time, or write datetime={text}")
        first = (-math.inf, 0.0) if begin in _OPEN else moments(begin)
        last = (0.0, math.inf) if end in _OPEN else moments(end)
        if first is None or last is None or {begin, end} <= _OPEN:
            raise BadCondition(
                f"{self}: {text!r} is no time: write 2017-07-01, 2017-07-01T10:30:00Z or "
                "2017-07-01..2017-07-31"
            )
        start, stop = first[0], last[1]
        if start > stop:
            raise BadCondition(f"{self}: {text} ends before it begins")
        match self.operator:
            case "<":
                return -math.inf, math.nextafter(start, -math.inf)
            case "<=":
                return -math.inf, stop
            case ">":
                return math.nextafter(stop, math.inf), math.inf
            case ">=":
                return start, math.inf
        return start, stop


@dataclass(frozen=True)
class Within(Condition):
    """That an item's bbox touches one of those in `values`."""

    boxes: tuple[Box, ...] = field(init=False, repr=False, compare=False)
    """The boxes that `values` name."""

    def __post_init__(self) -> None:
        _refuse_order(self)
        object.__setattr__(self, "boxes", tuple(map(self._box, self.values)))

    @property
    def fields(self) -> tuple[str, ...]:
        """Where an item says where it is."""
        return ("bbox",)

    def admits(self, fields: Mapping[str, Any]) -> bool:
        """Say whether an item with this bbox is in one of the boxes."""
        box = box_of(fields.get("bbox"))
        if box is None:
            return False
        return any(touch(box, one) for one in self.boxes) == (self.operator == "=")

    def _box(self, text: str) -> Box:
        parts = [part.strip() for part in text.split(",")]
        box = box_of([float(part) for part in parts if NUMBER.fullmatch(part)])
        if box is None or len(parts) not in {4, 6} or box[1] > box[3]:
            raise BadCondition(f"{self}: {text!r} is no box: write west,south,east,north")
        west, south, east, north = map(abs, box)
        if max(west, east) > 180 or max(south, north) > 90:  # metres, say, which would find nothing
            raise BadCondition(
                f"{self}: {text!r} is not in degrees: west and east are from -180 to 180 (west is "
                "more than east across the antimeridian), south and north from -90 to 90"
            )
        return box


_KINDS: dict[str, type[Condition]] = {"text": Phrase, "datetime": During, "bbox": Within}


def parse(text: str) -> Condition:
    """Return the condition that `text` writes, `name=value`; raises BadCondition."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise BadCondition(
            f"{text!r} is no condition: write name=value, with one of = != < <= > >= in between"
        )
    name, operator, values = match.groups()
    return condition(unquote(name), (unquote(one) for one in values.split("|")), operator)


def condition(name: str, values: Iterable[str], operator: str = "=") -> Condition:
    """Return the condition that `name` is any of `values`; raises BadCondition."""
    if operator not in _OPERATORS:
        raise BadCondition(f"{operator!r} is no operator: take one of = != < <= > >=")
    return _KINDS.get(name, Condition)(name, operator, tuple(values))


def _refuse_order(condition: Condition) -> None:
    if condition.operator not in {"=", "!="}:
        raise BadCondition(f"{condition}: {condition.name} is known with = and != only")


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
