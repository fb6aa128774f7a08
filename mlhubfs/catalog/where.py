"""Conditions that must all hold, of items, collections and datasets.

Owns what of an item's JSON is looked at for them, and what of them a server can be asked for. What
a condition is, is said in `conditions`. Knows neither sources nor directories.

    where = Where.parse(["cloud_and_shadow=false", "datetime=2017-07-01..2017-07-31"])
    where.matches(item.document)                    # an item, as JSON
    where.admits({"tags": ["agriculture"]})         # a dataset, or anything else that has fields
    catalog.search(collection_id, where)            # items, as they are found

*Threading.* Values.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import msgspec

from mlhubfs.catalog.conditions import Condition, During, Within, parse
from mlhubfs.catalog.values import exact, rfc3339

_UNESCAPED = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*')  # names that msgspec takes for a field's


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
                start = rfc3339(min(interval[0] for interval in one.intervals))
                stop = rfc3339(max(interval[1] for interval in one.intervals))
                if {start, stop} != {".."}:
                    found["datetime"] = f"{start}/{stop}"
            elif isinstance(one, Within) and len(one.boxes) == 1:
                found["bbox"] = ",".join(map(exact, one.boxes[0]))
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
