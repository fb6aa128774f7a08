"""One document of a static catalog: what it is, and where its links lead.

Owns the parsing of catalog.json, collection.json, and of files that hold items; and what is settled
in a document because its own URL, against which its links are meant, is not kept with it. Asks for
nothing.

*Threading.* Values; what a `Node` learns later is the same whoever learns it.
"""

import json
import posixpath
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import msgspec

from mlhubfs.catalog import models
from mlhubfs.catalog.held import Held
from mlhubfs.catalog.parquet import is_parquet, open_table
from mlhubfs.errors import BadAnswer
from mlhubfs.transport.local import is_local

_STRUCTURE = frozenset("self root parent collection child item items next prev previous".split())
_LINEAGE = frozenset({"source", "derived_from"})


class _Raw(msgspec.Struct):
    type: Any = None
    id: Any = None
    extent: Any = None
    geometry: Any = msgspec.UNSET
    links: list[Any] | None = None
    features: list[msgspec.Raw] | None = None


class Node:
    """A catalog, a collection, or a file of items, at `url`; the URLs of `trail` lead to it."""

    def __init__(
        self,
        url: str,
        *,
        value: models.Collection,
        children: Sequence[str] = (),
        items: Sequence[str] = (),
        held: Held | None = None,
        trail: frozenset[str] = frozenset(),
    ) -> None:
        self.url = url
        self.value = value
        """What it is; its id is its key, see `key_below`."""
        self.children = tuple(children)
        """The URLs of the catalogs and collections below."""
        self.items = tuple(items)
        """The URLs of the items, where they are documents of their own."""
        self.held = held or Held()
        """The items, where the document holds them itself."""
        self.trail = trail
        self.keys: dict[str, str] = {}
        """The keys of the children by their URLs, as far as they are known."""
        self.knows_children = not children
        """Whether all children have been looked at."""
        self.is_named_by_links = None if items else True
        """Whether its items' links are made of their ids, where that is known."""

    @property
    def key(self) -> str:
        """What it is called here."""
        return self.value.id

    @property
    def count(self) -> int:
        """How many items it has."""
        return len(self.items) or len(self.held)


def parse_node(body: bytes, url: str, fetched: float, parent: Node | None = None) -> Node:
    """Return the node in the document `body` at `url`; raises BadAnswer where it is no STAC."""
    if is_parquet(body):
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.flush()
            with open_table(file) as (_, rows):
                return _file_of_items(rows, url, fetched, parent)
    raw = _decode(body)
    if raw.features is not None:
        return _file_of_items(raw.features, url, fetched, parent)
    if raw.type == "Feature" or raw.geometry is not msgspec.UNSET:
        return _file_of_items([msgspec.Raw(body)], url, fetched, parent)
    if not isinstance(raw.id, str) or raw.links is None:
        raise BadAnswer("there is neither a STAC Catalog, a Collection nor an Item")
    document = settle(body, url, kind="Collection" if raw.extent is not None else "Catalog")
    trail = (parent.trail if parent else frozenset()) | {url}
    return Node(
        url,
        value=_value(document, fetched, parent),
        # A link that leads back up would make the directories endless.
        children=[there for there in _targets(raw.links, "child", url) if there not in trail],
        items=_targets(raw.links, "item", url),
        trail=trail,
    )


def settle(body: bytes, url: str, *, kind: str | None = None) -> bytes:
    """Return a document whose links mean the same without its URL.

    Hrefs of assets, and links that lead out of the catalog, become absolute. Links to the items
    that it was made from become relative: that is how the catalog's own layout is told from others.
    `kind` is its type where it tells none, as it was before STAC 1.0.
    """
    try:
        document = msgspec.json.decode(body)
        settle_assets(document, url)
        links = document.get("links")
        for link in links if isinstance(links, list) else ():
            _settle_link(link, url)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, AttributeError) as error:
        raise BadAnswer(f"there is no STAC document: {error}") from None
    if kind:
        document.setdefault("type", kind)
    return msgspec.json.encode(document)


def settle_assets(document: dict[str, Any], url: str) -> None:
    """Make the hrefs of a document's assets absolute, meant from `url`."""
    for asset in (document.get("assets") or {}).values():
        if not isinstance(asset, dict):
            continue
        others = asset.get("alternate")
        for one in (asset, *(others.values() if isinstance(others, dict) else ())):
            if isinstance(one, dict) and isinstance(one.get("href"), str) and one["href"]:
                one["href"] = joined(url, one["href"])


def mend(body: bytes) -> bytes | None:
    """Return a document that only Python's json reads as JSON; None where that does not either.

    A byte order mark goes, NaN and Infinity, which `json.dump` writes, become null.
    """
    try:
        return msgspec.json.encode(json.loads(body))
    except (ValueError, RecursionError):  # a lone surrogate too: no UTF-8 has it
        return None


def key_below(key: str, identifier: str) -> str:
    """Return the key of the child with that id: the ids from the root on, joined by slashes."""
    segment = identifier.replace("%", "%25").replace("/", "%2F")
    if segment in {".", ".."}:
        segment = segment.replace(".", "%2E")
    return segment if key == TOP else f"{key}/{segment}"


def key_above(key: str) -> tuple[str, str]:
    """Return the key of the parent, and the id of the child."""
    above, _, segment = key.rpartition("/")
    return above or TOP, unquote(segment)


TOP = "."
"""The key of the document that a catalog begins with."""


def likely(urls: Sequence[str], identifier: str) -> Iterator[str]:
    """Return the URLs that may be those of what has that id, by the layouts that are in use.

    Those are `<id>/<id>.json`, which STAC recommends, `<id>.json`, and `<id>/catalog.json`.
    """
    return (url for url in urls if identifier in likely_ids(url))


def likely_ids(url: str) -> set[str]:
    """Return what may be the id of the document at a URL, by these layouts."""
    above, last = posixpath.split(_path(url))
    return {posixpath.splitext(last)[0], last, posixpath.basename(above)}


def joined(base: str, href: str) -> str:
    """Return where `href` leads from the document at `base`; as it is where it is no URL.

    A disk knows neither queries nor fragments: there, `?` and `#` are of the name, escaped or not.
    """
    try:
        if is_local(base) and urlsplit(href).scheme in {"", "file"}:
            href = href.replace("?", "%3F").replace("#", "%23")
        return urljoin(base, href)
    except ValueError:
        return href


def _file_of_items(
    bodies: Iterable[models.Json], url: str, fetched: float, parent: Node | None
) -> Node:
    held = Held(models.each(bodies, lambda body: models.parse_listed(settle(bytes(body), url))))
    name = posixpath.basename(unquote(urlsplit(url).path))
    document = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": posixpath.splitext(name)[0] or "items",
        "description": f"The items of {name}",
        "links": [{"rel": "item", "href": url}],
    }
    return Node(url, value=_value(msgspec.json.encode(document), fetched, parent), held=held)


def _value(document: bytes, fetched: float, parent: Node | None) -> models.Collection:
    value = models.parse_collection(document, fetched)
    key = key_below(parent.key, value.id) if parent else TOP
    return msgspec.structs.replace(value, id=key)


def _decode(body: bytes) -> _Raw:
    try:
        return msgspec.json.decode(body, type=_Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"there is no STAC document: {error}") from None


def _targets(links: list[Any], rel: str, base: str) -> list[str]:
    """Return where the links of one kind lead, each target once."""
    hrefs = [
        link.get("href") for link in links if isinstance(link, dict) and link.get("rel") == rel
    ]
    urls = (urldefrag(joined(base, href))[0] for href in hrefs if isinstance(href, str) and href)
    return list(dict.fromkeys(urls))


def _settle_link(link: Any, url: str) -> None:
    if not isinstance(link, dict) or not isinstance(link.get("href"), str):
        return
    if link.get("rel") in _LINEAGE:
        link["href"] = _relative(url, link["href"])
    elif link.get("rel") not in _STRUCTURE and urlsplit(url).scheme != "file":
        link["href"] = joined(url, link["href"])


def _path(url: str) -> str:
    try:
        return unquote(urlsplit(url).path)
    except ValueError:  # a link may be anything
        return ""


def _relative(base: str, href: str) -> str:
    try:
        here, there = urlsplit(base), urlsplit(joined(base, href))
    except ValueError:
        return href
    if here[:2] != there[:2]:
        return href
    return posixpath.relpath(there.path, posixpath.dirname(here.path))
