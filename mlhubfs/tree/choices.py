"""What `@where` chooses from: datasets, the collections of a dataset, the items of a collection.

In a static catalog, where a catalog has no items of its own: the collections below.

Owns what each tells of itself to conditions, and which conditions are worth suggesting: values that
occur, where they are few, else their range. Of items, those at hand are looked at for that.
"""

import contextlib
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from mlhubfs.catalog.conditions import Condition, condition
from mlhubfs.catalog.models import Collection, Dataset
from mlhubfs.catalog.values import scalars
from mlhubfs.catalog.where import Where
from mlhubfs.errors import BadCondition, Denied, NotFound
from mlhubfs.tree.documents import read
from mlhubfs.tree.names import LONGEST, decode, encode, is_cut
from mlhubfs.tree.nodes import Children, Entry, numbered
from mlhubfs.tree.surroundings import (
    RESERVED_IN_COLLECTION,
    RESERVED_IN_DATASET,
    RESERVED_IN_ROOT,
    Surroundings,
)
from mlhubfs.tree.where import Choice, MakeEntry

_FEW = 50  # values of a property that are suggested one by one: BigEarthNet has 43 classes

_NAMES = ("tags", "text", "doi")
_BOUNDS = {"minimum": ">=", "maximum": "<="}


class _Member(NamedTuple):
    name: str
    path: str
    modified: float
    fields: Mapping[str, Any]


class Few(Choice):
    """A choice from `members`, by the fields `names`; the values of `shown` are suggested.

    `members` brings those that may fulfil conditions, `named` those that may have a name, where
    that is less than all. `modified` is the time of the directories, where it is not the latest of
    the members'.
    """

    def __init__(
        self,
        members: Callable[[Where], Iterable[_Member]],
        *,
        what: str,
        names: tuple[str, ...],
        shown: tuple[str, ...],
        modified: Callable[[], float] | None = None,
        named: Callable[[str], Iterable[_Member]] | None = None,
    ) -> None:
        self._members = members
        self._named = named or (lambda _: members(Where()))
        self._what = what
        self._names = names
        self._shown = shown
        self._modified = modified

    def modified(self) -> float:
        """Return the latest time of what there is."""
        if self._modified:
            return self._modified()
        return max((one.modified for one in self._members(Where())), default=0.0)

    def check(self, condition: Condition) -> None:
        """Refuse what these do not have."""
        if condition.name not in self._names:
            raise BadCondition(
                f"{condition.name!r} is no filter of {self._what}: those are "
                + ", ".join(self._names)
            )

    def suggestions(self) -> Iterator[Condition]:
        """Yield each value that occurs."""
        for name in self._shown:
            members = self._members(Where())
            values = {value for one in members for value in scalars(one.fields.get(name))}
            yield from (condition(name, (value,)) for value in sorted(map(str, values)))

    def children(self, where: Where, entry: MakeEntry) -> Children:
        """Return those that fulfil the conditions, in the server's order."""
        return numbered(
            [
                entry(one.name, one.path, one.modified)
                for one in self._members(where)
                if where.admits(one.fields)
            ]
        )

    def find(self, where: Where, name: str) -> tuple[str, float]:
        """Look through those that may have the name."""
        for one in self._named(name):
            if one.name == name and where.admits(one.fields):
                return one.path, one.modified
        raise NotFound(f"none of these {self._what} is called {name!r}")


def choose_datasets(around: Surroundings) -> Few:
    """Return the choice of the root: datasets, or collections where the source has no datasets."""
    catalog = around.catalog

    def members(where: Where) -> Iterator[_Member]:
        def fulfil(collection: Collection) -> bool:
            return not where.conditions or where.admits(_fields(around, collection))

        datasets = catalog.datasets().values()
        for dataset in datasets:
            path = around.dataset_path(dataset.id)
            fields = read(dataset.document, around.scrub)
            yield _Member(posixpath.basename(path), path, dataset.modified, fields)
        if not datasets:
            yield from _collections(around, "/", catalog.collections_that(fulfil, where))

    def named(name: str) -> Iterable[_Member]:
        identifier = decode(name, RESERVED_IN_ROOT)
        if identifier is None or catalog.datasets():
            return members(Where())
        return _collections(around, "/", [catalog.collection(identifier)])

    def modified() -> float:
        return max((one.modified for one in catalog.datasets().values()), default=0.0)

    return Few(
        members,
        what="datasets",
        names=_NAMES,
        shown=("tags", "doi"),
        modified=modified,
        named=named,
    )


def choose_below(around: Surroundings, key: str, modified: Callable[[], float]) -> Few:
    """Return the choice of a static catalog's directory: the collections below, at any level."""

    def members(_: Where) -> Iterator[_Member]:
        found = (one for one in around.catalog.below(key) if one.has_items)
        return _collections(around, around.collection_path(key), found)

    return Few(members, what="collections", names=_NAMES, shown=("tags", "doi"), modified=modified)


def _collections(
    around: Surroundings, above: str, collections: Iterable[Collection]
) -> Iterator[_Member]:
    """Yield collections below the directory `above`; what lies deeper is called by its path."""
    for one in collections:
        path = around.collection_path(one.id)
        way = posixpath.relpath(path, above)
        name = way.replace("/", "%2F")
        yield _Member(
            name if len(name.encode()) <= LONGEST else encode(way),
            path,
            one.modified,
            _fields(around, one),
        )


def _fields(around: Surroundings, collection: Collection) -> dict[str, Any]:
    """Return what a collection tells of itself, by the names that datasets have for it."""
    fields: dict[str, Any] = read(collection.document, around.scrub)
    return fields | {"tags": fields.get("keywords"), "doi": fields.get("sci:doi")}


def choose_collections(path: str, dataset: Callable[[], Dataset]) -> Few:
    """Return the choice of a dataset, which is at `path`."""

    def members(_: Where) -> Iterator[_Member]:
        types = defaultdict[str, list[str]](list)
        for ref in dataset().collections or ():
            types[ref.id] += ref.types or ()
        for collection_id, found in types.items():
            name = encode(collection_id, RESERVED_IN_DATASET)
            there = posixpath.join(path, name)
            yield _Member(name, there, dataset().modified, {"types": found})

    return Few(members, what="collections", names=("types",), shown=("types",))


class Items(Choice):
    """The items of a collection, which is at `path`."""

    def __init__(
        self,
        around: Surroundings,
        path: str,
        collection_id: str,
        modified: Callable[[], float],
    ) -> None:
        self._catalog = around.catalog
        self._read = partial(read, scrub=around.scrub)
        self._path = path
        self._id = collection_id
        self._modified = modified

    def modified(self) -> float:
        """Return the time of the collection."""
        return self._modified()

    def check(self, condition: Condition) -> None:
        """Allow everything: an item may have any property."""

    def suggestions(self) -> Iterator[Condition]:
        """Yield conditions on what the collection sums up, and on what some of its items have."""
        collection = self._read(self._catalog.collection(self._id).document)
        told: dict[str, list[Any]] = defaultdict(list)
        for name, summary in _pairs(collection.get("summaries")):
            told[name] += _values(summary) if isinstance(summary, list) else ()
            for bound, operator in _BOUNDS.items() if isinstance(summary, dict) else ():
                if bound in summary:
                    yield from _conditions(name, operator, str(summary[bound]))
        for name, values in self._properties():
            told[name] += _values(values)
        for name in sorted(told):
            for operator, value in _suggest(name, told[name]):
                yield from _conditions(name, operator, value)

    def children(self, where: Where, entry: MakeEntry) -> Children:
        """Return the items as they are found."""
        matches = self._catalog.matches(self._id, where)

        def iterate(start: int) -> Iterator[Entry]:
            for item_id, modified in matches.iterate(start):
                path = self._path_of(item_id)
                yield entry(posixpath.basename(path), path, modified)

        return Children(iterate, lambda number: number < len(matches) or matches.complete)

    def find(self, where: Where, name: str) -> tuple[str, float]:
        """Ask for the item, and look at it."""
        item_id = decode(name, RESERVED_IN_COLLECTION)
        if item_id is not None:
            item = self._catalog.item(self._id, item_id)
        elif is_cut(name):
            item = self._catalog.find(
                self._id, lambda one: encode(one, RESERVED_IN_COLLECTION) == name
            )
        else:
            raise NotFound(f"{self._path} has no {name!r}")
        if not where.matches(item.document):
            raise NotFound(f"{item.id} does not fulfil {', '.join(map(str, where.conditions))}")
        return self._path_of(item.id), item.modified

    def _path_of(self, item_id: str) -> str:
        return posixpath.join(self._path, encode(item_id, RESERVED_IN_COLLECTION))

    def _properties(self) -> Iterator[tuple[str, Any]]:
        try:
            items = self._catalog.sample(self._id)
        except Denied:
            return  # the collection is public, its items need a key
        for item in items:
            yield from _pairs(self._read(item.document).get("properties"))


def _pairs(value: object) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _values(value: Any) -> Iterator[Any]:
    """Yield what a property can be compared with; of `label:classes`, the classes."""
    for one in value if isinstance(value, list) else [value]:
        yield from scalars(one["classes"] if isinstance(one, dict) and "classes" in one else one)


def _conditions(name: str, operator: str, value: str) -> Iterator[Condition]:
    with contextlib.suppress(BadCondition):  # a time or a box that is none
        yield condition(name, (value,), operator)


def _suggest(name: str, values: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield operator and value for each value where there are few, else for their range."""
    distinct = set(values)
    if name == "datetime":
        days = sorted(str(value)[:10] for value in distinct)
        if days:
            yield "=", f"{days[0]}..{days[-1]}"
    elif any(value in {"true", "false"} or isinstance(value, bool) for value in distinct):
        yield from (("=", flag) for flag in ("false", "true"))
    elif len(distinct) <= _FEW:
        ordered = sorted(distinct, key=lambda value: (isinstance(value, str), value))
        yield from (("=", str(value)) for value in ordered)
    elif all(isinstance(value, int | float) for value in distinct):
        yield ">=", str(min(distinct))
        yield "<=", str(max(distinct))
