"""What the API's answers say, as frozen typed values.

Owns the parsing of JSON, once, at this edge. Tolerates what the four recorded generations of MLHub
and other STAC servers do: unknown fields, missing fields, null for absent. What has no usable id is
passed over and said in the log, for it could not be named.

Each value keeps its JSON (`document`) as it came; what is shown of it is scrubbed in the tree.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from mlhubfs.catalog.paging import Link, next_of
from mlhubfs.errors import BadAnswer

_log = logging.getLogger("mlhubfs.catalog")
T = TypeVar("T")
Json = bytes | msgspec.Raw
LONG_AGO = 1e-9
"""On the monotonic clock: when an item was asked for that the index kept, before this process."""
_CUT = re.compile(r"/download/\.\.\.$|[?&][^=&#]+=\.\.\.(?:[&#]|$)")  # as `index_documents` cuts
_TELLING = 64  # bytes that are found sooner than all of an item's assets, and nearly always tell
_SIZES = 1 << 63  # what a file's size fits in


class CollectionRef(msgspec.Struct, frozen=True):
    """A dataset's mention of a collection."""

    id: str
    types: tuple[str, ...] | None = None
    """`source_imagery`, `labels`, or both."""


class Dataset(msgspec.Struct, frozen=True):
    """MLHub's dataset object: what belongs together, and how to cite it."""

    id: str
    title: str | None = None
    doi: str | None = None
    tags: tuple[str, ...] | None = None
    collections: tuple[CollectionRef, ...] | None = None
    date_modified: str | None = None
    date_added: str | None = None
    description: str | None = None
    document: bytes = b""

    @property
    def collection_ids(self) -> tuple[str, ...]:
        """The ids of its collections in the server's order, each once."""
        return tuple(dict.fromkeys(ref.id for ref in self.collections or ()))

    @property
    def modified(self) -> float:
        """POSIX seconds of its last change, or 0."""
        return parse_time(self.date_modified) or parse_time(self.date_added)


class Archive(msgspec.Struct, frozen=True):
    """A whole collection in one file, a gzipped tar."""

    collection: str
    size: int
    """Bytes."""
    dataset: str | None = None
    types: tuple[str, ...] | None = None
    """As `CollectionRef` has them."""
    url: str = ""
    """Where it is asked for with the API key, and leads to storage from."""


class Asset(msgspec.Struct, frozen=True):
    """One file of an item or a collection."""

    key: str
    href: str
    """Absolute, once the catalog gives it out; empty where the document has none that is a URL."""
    media_type: str | None = None
    size: int | None = None
    """Bytes, where the catalog says so (`file:size`)."""
    checksum: str | None = None
    """Multihash of its bytes (`file:checksum`)."""
    alternates: tuple[str, ...] = ()
    """Other hrefs of the same bytes (`alternate`, of the extension Alternate Assets)."""
    account: str | None = None
    """Azure's account that its `az:` and `abfs:` hrefs are in, where the catalog names one."""

    @property
    def is_cut(self) -> bool:
        """Whether the index has cut the permission out of its link: the item is to be renewed."""
        return _CUT.search(self.href) is not None


class Item(msgspec.Struct, frozen=True):
    """A STAC Item."""

    id: str
    modified: float
    """POSIX seconds of the item's datetime, or 0."""
    assets: tuple[Asset, ...]
    document: bytes
    fetched: float = 0.0
    """When it was asked for, on the monotonic clock: its download links age."""


class Collection(msgspec.Struct, frozen=True):
    """A STAC Collection."""

    id: str
    modified: float
    """POSIX seconds at which its temporal extent ends, else begins, else 0."""
    assets: tuple[Asset, ...]
    document: bytes
    fetched: float = 0.0
    """When it was asked for, on the monotonic clock."""
    is_catalog: bool = False
    """Whether it is a STAC Catalog, which a static catalog may have in its place."""
    has_items: bool = True
    """Whether there may be items, and not only catalogs and collections below it."""
    account: str | None = None
    """Azure's account that its assets, and those of its items, are in (`msft:storage_account`)."""


ItemOrCollection = TypeVar("ItemOrCollection", Item, Collection)


class Listed(msgspec.Struct, frozen=True, gc=False):
    """An item as far as a listing needs it; `parse_item` of its document gives the rest."""

    id: str
    modified: float
    """POSIX seconds of the item's datetime, or 0."""
    document: Json
    """On a page a view of that, lest each page be held twice."""


class Page(msgspec.Struct, frozen=True):
    """One page of a listing of items."""

    items: tuple[Listed, ...]
    next: str | None
    """The cursor of the next page: its href as the server wrote it, or more, see `paging`."""
    matched: int | None
    """How many items the whole listing has, where the server says so."""
    fetched: float = 0.0
    """When it was asked for, on the monotonic clock."""
    size: int = 0
    """Bytes of JSON."""
    is_first: bool = False
    """Whether a listing begins with it, where the pager has told."""


class CollectionPage(msgspec.Struct, frozen=True):
    """One page of a listing of collections."""

    collections: list[Collection]
    next: str | None
    matched: int | None


class _RawAsset(msgspec.Struct):
    href: Any = None
    type: Any = None
    size: Any = msgspec.field(default=None, name="file:size")
    checksum: Any = msgspec.field(default=None, name="file:checksum")
    alternate: Any = None
    xarray_options: Any = msgspec.field(default=None, name="xarray:storage_options")
    table_options: Any = msgspec.field(default=None, name="table:storage_options")
    refs: Any = msgspec.field(default=None, name="storage:refs")


# What is no object is passed over; told apart while it is decoded, which costs the others nothing.
_RawAssets = dict[str, _RawAsset | list[Any] | str | float | bool | None]


class _RawProperties(msgspec.Struct):
    datetime: Any = None
    start_datetime: Any = None


class _RawItemProperties(_RawProperties):
    schemes: Any = msgspec.field(default=None, name="storage:schemes")


class _RawItem(msgspec.Struct):
    id: str
    properties: _RawItemProperties | None = None
    assets: _RawAssets | None = None


class _RawListed(msgspec.Struct):
    id: str
    properties: _RawProperties | None = None
    assets: msgspec.Raw = msgspec.Raw(b"null")


class _RawCollection(msgspec.Struct):
    id: str
    type: Any = None
    extent: Any = None
    links: msgspec.Raw = msgspec.Raw(b"null")
    assets: _RawAssets | None = None
    schemes: Any = msgspec.field(default=None, name="storage:schemes")
    account: Any = msgspec.field(default=None, name="msft:storage_account")


class _RawCollections(msgspec.Struct):
    collections: list[msgspec.Raw]
    links: list[Link] | None = None
    matched: int | None = msgspec.field(default=None, name="numberMatched")


class _Landing(msgspec.Struct):
    classes: list[str] | None = msgspec.field(default=None, name="conformsTo")


class _RawQueryables(msgspec.Struct):
    properties: dict[str, Any] | None = None


class _Context(msgspec.Struct):
    matched: int | None = None


class _RawPage(msgspec.Struct):
    features: list[msgspec.Raw]
    links: list[Link] | None = None
    context: _Context | None = None
    matched: int | None = msgspec.field(default=None, name="numberMatched")


def parse_conformance(body: bytes) -> list[str]:
    """Return the conformance classes that a landing page names."""
    return _decode(body, _Landing, "a landing page").classes or []


def parse_queryables(body: bytes) -> dict[str, str]:
    """Return property -> type, of those that a collection can be filtered by and that have one."""
    properties = _decode(body, _RawQueryables, "a list of queryables").properties or {}
    types = {name: one.get("type") for name, one in properties.items() if isinstance(one, dict)}
    return {name: kind for name, kind in types.items() if isinstance(kind, str)}


def parse_datasets(body: bytes) -> list[Dataset]:
    """Return the datasets of a `GET /datasets` answer, a bare array."""
    return list(each(_decode(body, list[msgspec.Raw], "a list of datasets"), parse_dataset))


def parse_dataset(body: bytes) -> Dataset:
    """Return one dataset object."""
    dataset = _decode(body, Dataset, "a dataset")
    return msgspec.structs.replace(dataset, document=bytes(body))


def parse_archive(body: bytes, url: str) -> Archive:
    """Return a `GET /archive/{id}/info` answer."""
    archive = _decode(body, Archive, "about an archive")
    return msgspec.structs.replace(archive, url=url)


def parse_collections(body: bytes, fetched: float) -> list[Collection]:
    """Return the collections of a `GET /collections` answer."""
    return parse_collection_page(body, fetched).collections


def parse_collection_page(body: bytes | bytearray, fetched: float) -> CollectionPage:
    """Return one page of a `GET /collections` answer."""
    raw = _decode(body, _RawCollections, "a list of collections")
    collections = list(each(raw.collections, lambda one: parse_collection(one, fetched)))
    return CollectionPage(collections, next_of(raw.links, {}), raw.matched)


def parse_collection(body: bytes, fetched: float) -> Collection:
    """Return one STAC Collection, or Catalog."""
    raw = _decode(body, _RawCollection, "a STAC Collection")
    links = bytes(raw.links)
    account = raw.account if isinstance(raw.account, str) else None
    return Collection(
        raw.id,
        _extent_time(raw.extent),
        _assets(raw.assets, raw.schemes, account),
        bytes(body),
        fetched,
        is_catalog=raw.type == "Catalog",
        # Not parsed, for there may be 100,000: `item` is a static catalog's, `items` an API's.
        has_items=b'"item' in links or b'"child"' not in links,
        account=account,
    )


def parse_item(body: Json, fetched: float) -> Item:
    """Return one STAC Item."""
    raw = _decode(body, _RawItem, "a STAC Item")
    properties = raw.properties or _RawItemProperties()
    modified = parse_time(properties.datetime) or parse_time(properties.start_datetime)
    assets = _assets(raw.assets, properties.schemes)
    return Item(raw.id, modified, assets, bytes(body), fetched)


def parse_page(
    body: bytes | bytearray, fetched: float, sent: Mapping[str, Any] | None = None
) -> Page:
    """Return one page of items, a FeatureCollection, that was asked for with `sent`."""
    raw = _decode(body, _RawPage, "a page of items")
    matched = raw.context.matched if raw.context else None
    if matched is None:
        matched = raw.matched
    return Page(
        tuple(each(raw.features, parse_listed)),
        next_of(raw.links, sent or {}),
        matched,
        fetched,
        len(body),
    )


def parse_archived(body: bytes, mend: Callable[[bytes], bytes]) -> Listed:
    """Return what a listing needs of one STAC Item, the JSON of its assets mended."""
    raw = _decode(body, _RawListed, "a STAC Item")
    assets = bytes(raw.assets)
    at = body.find(assets[:_TELLING])
    if not body.startswith(assets, at):
        at = body.find(assets)
    if at < 0:
        return _to_listed(raw, body)  # it has none
    return _to_listed(raw, body[:at] + mend(assets) + body[at + len(assets) :])


def parse_listed(body: Json) -> Listed:
    """Return what a listing needs of one STAC Item."""
    return _to_listed(_decode(body, _RawListed, "a STAC Item"), body)


def _to_listed(raw: _RawListed, document: Json) -> Listed:
    if bytes(memoryview(raw.assets)[:1]) not in {b"{", b"n"}:
        raise BadAnswer("the server's answer is not a STAC Item: its assets are no object")
    properties = raw.properties
    modified = 0.0
    if properties:
        modified = parse_time(properties.datetime) or parse_time(properties.start_datetime)
    return Listed(raw.id, modified, document)


def parse_time(text: object) -> float:
    """Return POSIX seconds of an RFC 3339 time, or 0.0 where `text` is none."""
    if not isinstance(text, str) or not text:
        return 0.0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _decode(body: Json | bytearray, kind: type[T], meant: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"the server's answer is not {meant}: {error}") from None


def each(raws: Iterable[Json], parse: Callable[[Any], T]) -> Iterator[T]:
    """Yield what `parse` makes of each; what is not usable is passed over."""
    for raw in raws:
        try:
            yield parse(raw)
        except BadAnswer as error:
            _log.warning("passed over in a listing: %s", error)


def _assets(raw: _RawAssets | None, schemes: Any, account: str | None = None) -> tuple[Asset, ...]:
    return tuple(
        Asset(
            key,
            one.href if _is_url(one.href) else "",
            one.type if isinstance(one.type, str) else None,
            one.size if type(one.size) is int and 0 <= one.size < _SIZES else None,
            one.checksum if isinstance(one.checksum, str) else None,
            _alternates(one.alternate),
            _account(one, schemes) or account,
        )
        for key, one in (raw or {}).items()
        if isinstance(one, _RawAsset)
    )


def _account(asset: _RawAsset, schemes: Any) -> str | None:
    """Return Azure's account by fsspec's options, as Planetary Computer has them, or `schemes`.

    Those are of the extension Storage, version 2; its first one named none.
    """
    if not (asset.xarray_options or asset.table_options or asset.refs):
        return None
    named = [(one, "account_name") for one in (asset.xarray_options, asset.table_options)]
    if isinstance(asset.refs, list) and isinstance(schemes, dict):
        named += [(schemes.get(ref), "account") for ref in asset.refs if isinstance(ref, str)]
    names = (one.get(key) for one, key in named if isinstance(one, dict))
    return next((name for name in names if isinstance(name, str)), None)


def _alternates(raw: Any) -> tuple[str, ...]:
    others = raw.values() if isinstance(raw, dict) else ()
    hrefs = (other.get("href") for other in others if isinstance(other, dict))
    return tuple(href for href in hrefs if isinstance(href, str) and _is_url(href))


def _is_url(href: object) -> bool:
    if not isinstance(href, str) or not href:
        return False
    try:
        urlsplit(href)
    except ValueError:
        return False
    return True


def _extent_time(extent: Any) -> float:
    try:
        start, end = extent["temporal"]["interval"][0]
    except (TypeError, KeyError, IndexError, ValueError):
        return 0.0
    return parse_time(end) or parse_time(start)
