"""Conditions in the languages that servers filter by: CQL2, STAC's older `query`, and free text.

Owns which conditions can be told to a server without losing items. Ours are lenient: a list matches
by any member, a missing boolean is false, `true` may be written as a text. A server compares as its
data base does. So only properties are told whose type the server publishes (its queryables), and
what a missing value would take away from the answer is asked for as well, or not told.

Free text (`q`) cannot be told without losing collections. Ours is a phrase, in words or parts of
words, in any text. Servers look in title, description and keywords, the specification asks for no
more; and for words: pgstac by their stems, without those that are too common. So an answer is
looked through for what is ours, and one that leaves nothing is not believed: a part of a word is
the likely reason. Nor can what has a meaning there be told: to pgstac, `sentinel-2` is what has
"sentinel" and not "2", and quotes, `+`, brackets or a comma are no less of a language.

*Threading.* Functions without state.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec

from mlhubfs.catalog.conditions import Condition, Phrase
from mlhubfs.catalog.values import Operand
from mlhubfs.catalog.where import Where

_NUMBERS = frozenset({"number", "integer"})
_OPERATORS = {"=": "eq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_WORDS = re.compile(r"\w+( \w+)*")
_Express = Callable[[Condition, str], Any]


def express(
    where: Where, languages: Collection[str], types: Mapping[str, str]
) -> tuple[dict[str, str], Where]:
    """Return the query parameters that say most of `where`, and the conditions that this is of.

    `languages` are the parameters that the server takes: `filter` (CQL2 text), `query`. `types` is
    property -> `string`, `number`, `integer` or `boolean`.
    """
    if "filter" in languages:
        told = list(_told(where, types, _as_cql2))
        if told:
            text = " AND ".join(text for _, text in told)
            return {"filter": text, "filter-lang": "cql2-text"}, _of(told)
    if "query" in languages:
        told = list(_told(where, types, _as_query))
        if told:
            query: dict[str, dict[str, Any]] = {}
            for condition, terms in told:
                query.setdefault(condition.name, {}).update(terms)
            return {"query": msgspec.json.encode(query).decode()}, _of(told)
    return {}, Where()


def free_text(where: Where) -> str | None:
    """Return what `q` can be asked for: the phrases of one condition, with commas as `or`."""
    phrases = [one for one in where.conditions if isinstance(one, Phrase) and one.operator == "="]
    told = (",".join(one.values) for one in phrases if all(map(_WORDS.fullmatch, one.values)))
    return next(told, None)


def _told(where: Where, types: Mapping[str, str], say: _Express) -> Iterator[tuple[Condition, Any]]:
    for one in where.conditions:
        # "Not these" holds where there is nothing, too.
        if type(one) is Condition and one.operator != "!=":
            said = say(one, types.get(one.name, ""))
            if said:
                yield one, said


def _of(told: list[tuple[Condition, Any]]) -> Where:
    return Where(tuple(condition for condition, _ in told))


def _as_cql2(condition: Condition, kind: str) -> str:
    name = '"{}"'.format(condition.name.replace('"', '""'))
    parts = [_compare(name, condition.operator, value, kind) for value in condition.operands]
    return f"({' OR '.join(parts)})" if parts and all(parts) else ""


def _compare(name: str, operator: str, value: Operand, kind: str) -> str:
    if kind == "boolean" and operator == "=" and value.flag is False:
        return f"({name} = false OR {name} IS NULL)"
    literal = _literal(value, kind, operator)
    if literal is None:
        return ""
    if isinstance(literal, str):
        quoted = literal.replace("'", "''")
        return f"{name} {operator} '{quoted}'"
    return f"{name} {operator} {str(literal).lower()}"


def _as_query(condition: Condition, kind: str) -> dict[str, Any] | None:
    """Return the terms of STAC's `query`, which has no `or`, and knows nothing of nothing."""
    literals = [_literal(value, kind, condition.operator) for value in condition.operands]
    if any(one is None or one is False for one in literals):
        return None
    if len(literals) == 1:
        return {_OPERATORS[condition.operator]: literals[0]}
    return {"in": literals} if condition.operator == "=" else None


def _literal(value: Operand, kind: str, operator: str) -> bool | float | str | None:
    """Return a value as one of that type, None where ours would not compare it so."""
    if kind in _NUMBERS:
        return value.number
    if kind == "boolean" and operator == "=":
        return value.flag
    # What reads as a time or a boolean is compared as one here, and as a text there.
    if kind == "string" and operator == "=" and value.flag is None and value.interval is None:
        return value.text
    return None
