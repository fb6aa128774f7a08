"""What users ask for, in Python's values: names, and conditions as the catalog has them.

Pure functions; what a condition means is `catalog.conditions`'s.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from mlhubfs.catalog.conditions import condition, parse
from mlhubfs.catalog.where import Where
from mlhubfs.errors import NotFound

Conditions = str | Iterable[str] | Mapping[str, Any]
"""`"labels=Rice fields|Pastures"`, several of these, or name -> value, or values of which one."""
Bounds = str | Iterable[float]
"""West, south, east, north in degrees, also as a text with commas."""
Moment = str | dt.date | None
"""RFC 3339, a date (all of that day), or None for an open end."""
Times = Moment | tuple[Moment, Moment]
"""A moment, or the first and the last one."""


def check_name(name: object) -> None:
    """Raise NotFound unless it is a text: None, say, of a variable that is not set."""
    if not isinstance(name, str):
        raise NotFound(f"{name!r} names nothing: give a text")


def of_items(where: Conditions, bbox: Bounds | None, datetime: Times) -> Where:
    """Return the conditions on items; raises BadCondition."""
    if isinstance(where, str):
        where = (where,)
    if isinstance(where, Mapping):
        found = [condition(name, _values(value)) for name, value in where.items()]
    else:
        found = [parse(one) for one in where]
    if bbox is not None:
        text = bbox if isinstance(bbox, str) else ",".join(map(str, bbox))
        found.append(condition("bbox", (text,)))
    if datetime is not None:
        found.append(condition("datetime", (_times(datetime),)))
    return Where(tuple(found))


def of_datasets(tags: str | Iterable[str], text: str | Iterable[str]) -> Where:
    """Return the conditions on datasets: all of the tags, all of the phrases."""
    wanted = [condition("tags", (tag,)) for tag in _several(tags)]
    return Where((*wanted, *(condition("text", (phrase,)) for phrase in _several(text))))


def _several(value: str | Iterable[str]) -> Iterable[str]:
    return (value,) if isinstance(value, str) else value


def _values(value: Any) -> tuple[str, ...]:
    several = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else value
    return tuple(_written(one) for one in several)


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value)


def _times(value: Times) -> str:
    if isinstance(value, tuple):
        return "..".join(_written(one or "") for one in value)
    return _written(value)
