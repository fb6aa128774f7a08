"""Conditions on items, collections and datasets: `labels=Rice fields|Pastures`, `bbox=9,47,10,48`.

Owns their grammar, what each means, and what of them a server can be asked for. Knows neither
sources nor directories.

    where = Where.parse(["cloud_and_shadow=false", "datetime=2017-07-01..2017-07-31"])
    where.matches(item.document)                    # an item, as JSON
    where.admits({"tags": ["agriculture"]})         # a dataset, or anything else that has fields
    catalog.search(collection_id, where)            # items, as they are found

A condition is a name, one of `= != < <= > >=`, and a value, or several with `|` between them: any
of them will do. In names and values `%xx` stands for a byte of UTF-8, as in a URL: `%7C` for `|`,
`%25` for `%`, `%2F` for `/` where the condition is part of a path. All conditions of a Where must
hold. The names that mean something of their own:

* `datetime`: a time (RFC 3339), a date (all of that day, in UTC) or a range `a..b`, also `a/b`,
  whose end or beginning may be left out. Items that last for a while match if they overlap it.
* `bbox`: west,south,east,north, or with heights; west may be more than east, across the
  antimeridian. The item's own bbox has to touch it.
* `text`: a phrase in any text below the fields, whatever its case. `doi`: whatever its case.

Any other name is a property of the item, a field of the dataset. A list or an object matches by any
text, number or boolean in it, so `!=` means: none of them. Booleans match booleans and the texts
`true` and `false`; a missing one is false (MLHub left out `cloud_and_shadow` where it was). Numbers
compare as numbers, times as times, texts otherwise; what cannot be compared does not match.

*Threading.* Values.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple, Self
from urllib.parse import unquote

import msgspec

from mlhubfs.errors import BadCondition

_CONDITION = re.compile(r"([^=!<>]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_RESERVED = re.compile(r"[%|/\x00-\x1f\x7f\ud800-\udfff]")
_RESERVED_IN_NAME = re.compile(r"[%|/=!<>\x00-\x1f\x7f\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d{1,30}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DAY_SECONDS = 86400.0
_OPERATORS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_FLAGS = {"true": True, "false": False}
_OPEN = frozenset({"", ".."})
_UNESCAPED = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*')  # names that msgspec takes for a field's
_TIMES = ("datetime", "start_datetime", "end_datetime")

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
        return any(_holds(member, operator, one) for one in self.operands)

    @cached_property
    def operands(self) -> tuple[Operand, ...]:
        """The values, as whatever they can be compared as."""
        fold = str.casefold if self.name == "doi" else str
        return tuple(_operand(fold(value)) for value in self.values)


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
        first, last = _moments(start or instant or stop), _moments(stop or instant or start)
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
        first = (-math.inf, 0.0) if begin in _OPEN else _moments(begin)
        last = (0.0, math.inf) if end in _OPEN else _moments(end)
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
        return any(_touch(box, one) for one in self.boxes) == (self.operator == "=")

    def _box(self, text: str) -> Box:
        parts = [part.strip() for part in text.split(",")]
        box = box_of([float(part) for part in parts if _NUMBER.fullmatch(part)])
        if box is None or len(parts) not in {4, 6} or box[1] > box[3]:
            raise BadCondition(f"{self}: {text!r} is no box: write west,south,east,north")
        return box


_KINDS: dict[str, type[Condition]] = {"text": Phrase, "datetime": During, "bbox": Within}


@dataclass(frozen=True)
class Where:
    """Conditions that must all hold; none admits everything."""

    conditions: tuple[Condition, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Return the conditions that `texts` write; raises BadCondition."""
        return cls(tuple(parse(text) for text in texts))

    def matches(self, document: bytes) -> bool:
        """Say whether an item's JSON fulfils all conditions; not, where it is no item's."""
        try:
            item = self._decoder.decode(document)
            fields = self._fields(item.properties)
            fields["bbox"] = item.bbox
            return self.admits(fields)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False

    def admits(self, fields: Mapping[str, Any]) -> bool:
        """Say whether fields with these values fulfil all conditions."""
        return all(condition.admits(fields) for condition in self.conditions)

    def query(self, known: Iterable[str] = ("bbox", "datetime")) -> dict[str, str]:
        """Return query parameters of an items request, of those `known`, that hold nothing back.

        The answer may have more than what the conditions admit, never less.
        """
        found: dict[str, str] = {}
        for one in self.conditions:
            if one.name in found or one.name not in known or one.operator == "!=":
                continue
            if isinstance(one, During):
                start = _rfc3339(min(interval[0] for interval in one.intervals))
                stop = _rfc3339(max(interval[1] for interval in one.intervals))
                if {start, stop} != {".."}:
                    found["datetime"] = f"{start}/{stop}"
            elif isinstance(one, Within) and len(one.boxes) == 1:
                found["bbox"] = ",".join(map(_exact, one.boxes[0]))
        return found

    @cached_property
    def _names(self) -> tuple[str, ...] | None:
        """The properties that the conditions look at, None for all."""
        wanted = [one.fields for one in self.conditions]
        names = dict.fromkeys(name for some in wanted for name in some or ())
        return None if None in wanted or not all(map(_UNESCAPED.fullmatch, names)) else tuple(names)

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        # Only what is looked at becomes an object: a third of the time of a whole item.
        properties: Any = dict[str, Any]
        if self._names is not None:
            rename = {f"p{number}": name for number, name in enumerate(self._names)}
            slots = [(slot, Any, None) for slot in rename]
            properties = msgspec.defstruct("Properties", slots, rename=rename, gc=False)
        fields = [("bbox", Any, None), ("properties", properties | None, None)]
        return msgspec.json.Decoder(msgspec.defstruct("Item", fields, gc=False))

    def _fields(self, properties: Any) -> dict[str, Any]:
        if self._names is None or properties is None:
            return dict(properties or {})
        return dict(zip(self._names, msgspec.structs.astuple(properties), strict=True))


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


def _operand(text: str) -> Operand:
    number: float | None = None
    if _INTEGER.fullmatch(text):
        number = int(text)
    elif _NUMBER.fullmatch(text):
        number = float(text)
    return Operand(text, number, _FLAGS.get(text.casefold()), _moments(text))


def _holds(member: object, operator: str, operand: Operand) -> bool:
    order = _order(member, operand)
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


def _order(member: object, operand: Operand) -> int | None:
    """Return -1, 0 or 1 as `member` comes before, at or behind the operand, else None."""
    if isinstance(member, str) and operand.flag is not None:
        member = _FLAGS.get(member.casefold(), member)
    if isinstance(member, bool):
        return None if operand.flag is None else _sign(member, operand.flag)
    if isinstance(member, int | float):
        return None if operand.number is None else _sign(member, operand.number)
    moments = _moments(member) if operand.interval else None
    if moments and operand.interval:
        start, stop = operand.interval
        return -1 if moments[0] < start else int(moments[0] > stop)
    return _sign(str(member), operand.text)


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def _moments(text: object) -> Interval | None:
    """Return the first and last second of a time or a date, None where it is neither."""
    if not isinstance(text, str) or not _DATE.match(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        start = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return start, start + _DAY_SECONDS - 1e-6 if len(text) == 10 else start


def _exact(number: float) -> str:
    """Return a number with all its digits: a box that is rounded misses what touches its edge."""
    return repr(number).removesuffix(".0")


def _rfc3339(seconds: float) -> str:
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


def _touch(one: Box, other: Box) -> bool:
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


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
