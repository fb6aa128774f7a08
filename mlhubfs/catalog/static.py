"""A static catalog: JSON documents that link to each other, wherever they are.

Owns the way from a name to a document. Keeps the documents of catalogs and collections for a while,
because their links are needed page after page; items are kept by who asks for them.

A directory's names are ids, and an id stands in the document only. So a listing fetches the items,
page by page and side by side, instead of guessing names from links: a guess that is wrong would be
a name that does not open, and the items are what whoever lists asks for next (times, stac.json);
they go into the index with the names. To look up one id nothing is listed: the layouts that are in
use put the id into the link, so the document is asked for that is likely to have it, and believed
when it says so. Where none is likely, the first item tells whether this catalog's links are made of
ids: then there is no such item; if not, all of them are looked at.

Catalogs and collections are called by key (see `node`): a key is unique where ids need not be.

*Threading.* Any thread that may wait on the network; one lock, never held over a request. Documents
are fetched side by side by `fetchers`, whose tasks wait for no others.
"""

import contextlib
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from cachetools import LRUCache

from mlhubfs.catalog import models
from mlhubfs.catalog.node import (
    TOP,
    Node,
    key_above,
    key_below,
    likely,
    likely_ids,
    mend,
    parse_node,
    settle,
)
from mlhubfs.errors import (
    BadAnswer,
    Denied,
    Interrupted,
    MlhubfsError,
    NotFound,
    Offline,
    Rejected,
    Unavailable,
)
from mlhubfs.transport.client import Body, Document, Stream, Transport, describe
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.catalog")
T = TypeVar("T")
_PAGE = 100  # items fetched before their names are shown; more would only come later
_LINKS = 500_000  # kept of all nodes together, some 100 bytes each


class StaticCatalog:
    """The catalog whose first document is at `root`; a node is trusted for `ttl` seconds.

    `first` is that document, where it is at hand.
    Every method raises the errors of the transport: NotFound, Denied, Unavailable, BadAnswer.
    """

    top: str = TOP

    def __init__(
        self,
        transport: Transport,
        root: str,
        *,
        fetchers: Workers,
        ttl: float,
        first: Document | None = None,
    ) -> None:
        self.root = root
        self._transport = transport
        self._fetchers = fetchers
        self._ttl = ttl
        self._lock = threading.Lock()
        self._nodes: LRUCache[str, Node] = LRUCache(
            _LINKS,
            # One with more than that is kept alone: its pages are wanted one after the other.
            getsizeof=lambda node: min(_LINKS, 100 + len(node.children) + node.count),
        )
        if first:
            self._load(root, first=first)

    def datasets(self) -> list[models.Dataset] | None:
        """Return None: a static catalog has no such thing."""
        return None

    def dataset(self, id_or_doi: str) -> models.Dataset:
        """Raise NotFound."""
        raise NotFound(f"a static catalog has no dataset {id_or_doi!r}")

    def collections(
        self,
        query: Mapping[str, str] | None = None,  # noqa: ARG002 - of the protocol
        *,
        deadline: float | None = None,  # noqa: ARG002
    ) -> list[models.Collection]:
        """Return those below the first document; the others are below them, see `children`."""
        return self.children(TOP)

    def any_collection_id(self) -> str:
        """Return that of the first document."""
        return TOP

    def collection(self, collection_id: str) -> models.Collection:
        """Return the catalog or collection with that key."""
        return self._node(collection_id).value

    def children(self, collection_id: str) -> list[models.Collection]:
        """Return the catalogs and collections directly below, each document asked for."""
        return [node.value for node in self._children(self._node(collection_id))]

    def item(self, collection_id: str, item_id: str) -> models.Item:
        """Return the item with that id: one request, where its link is made of its id."""
        node = self._node(collection_id)
        held = node.held.get(item_id)
        if held:
            return models.parse_item(held.document, node.value.fetched)
        for url in likely(node.items, item_id):
            try:
                item = self._item(url)
            except (NotFound, BadAnswer) as error:
                _log.debug("%s", error)
                continue
            if item.id == item_id:
                return item
        if not self._is_named_by_links(node):
            for start in range(0, node.count, _PAGE):
                for item in self._some(self._item, node.items[start : start + _PAGE]):
                    if item.id == item_id:
                        return item
        raise NotFound(f"no item {item_id!r} in {describe(node.url)}")

    def settled(self, collection_id: str, item: models.Item) -> models.Item:  # noqa: ARG002
        """Return the item: each document is settled as it comes."""
        return item

    def page(
        self,
        collection_id: str,
        following: str | None = None,
        *,
        limit: int | None = None,
        deadline: float | None = None,  # noqa: ARG002 - each document has its own
        query: Mapping[str, str] | None = None,  # noqa: ARG002 - see `filters`
    ) -> models.Page:
        """Return some items in the order of their links, fetched side by side.

        `following` is how many came before, and which document said so: when that changes, the
        order may, and the cursor is refused.
        """
        node = self._node(collection_id)
        edition = f"{zlib.crc32(node.value.document):x}"
        before, _, known = (following or f"0 {edition}").partition(" ")
        if known != edition:
            raise Rejected(f"{describe(node.url)} has changed while it was listed")
        start = int(before)
        stop = start + min(limit or _PAGE, _PAGE)
        fetched = time.monotonic()
        items = tuple(node.held.some(start, stop))
        if node.items:
            items = tuple(self._some(self._listed, node.items[start:stop]))
        return models.Page(
            items,
            f"{stop} {edition}" if stop < node.count else None,
            node.count,
            fetched,
            sum(len(item.document) for item in items),
        )

    def filters(self) -> frozenset[str]:
        """Return nothing: files do not filter."""
        return frozenset()

    def queryables(self, collection_id: str) -> dict[str, str]:  # noqa: ARG002 - of the protocol
        """Return nothing."""
        return {}

    def archive(self, collection_id: str) -> models.Archive:
        """Raise NotFound."""
        raise NotFound(f"a static catalog has no archive of {collection_id!r}")

    def has_catalog_file(self, dataset_id: str) -> bool:  # noqa: ARG002 - of the protocol
        """Say that there is none."""
        return False

    def pour_catalog_file(
        self,
        dataset_id: str,
        into: Callable[[Body], T],  # noqa: ARG002 - of the protocol
        *,
        deadline: float,  # noqa: ARG002 - of the protocol
    ) -> T:
        """Raise NotFound."""
        raise NotFound(f"a static catalog has no file of {dataset_id!r}")

    def pour(self, url: str, into: Callable[[Stream], T], *, limit: int) -> T:
        """Return what `into` makes of the first `limit` bytes of the file at `url`; tried once."""
        return self._transport.pour_range(url, 0, limit, into, once=True)

    def adopter(self, collection_id: str) -> Callable[[models.Listed], models.Listed]:
        """Return what settles an item of a mirror at the URL of the document that has its id."""
        node = self._node(collection_id)
        urls = {name: url for url in node.items for name in likely_ids(url)}

        def adopt(item: models.Listed) -> models.Listed:
            if item.id not in urls:
                raise BadAnswer(f"no link of {describe(node.url)} leads to {item.id!r}")
            return models.parse_listed(settle(bytes(item.document), urls[item.id]))

        return adopt

    def _node(self, key: str) -> Node:
        kept = self._kept(key)
        if kept:
            return kept
        if key == TOP:
            return self._top()
        above, identifier = key_above(key)
        return self._child(self._node(above), identifier)

    def _top(self) -> Node:
        try:
            return self._load(self.root)
        except NotFound as error:  # the mount point must not be missing, with what is open below it
            with self._lock:
                was_there = TOP in self._nodes
            if not was_there:
                raise
            raise Unavailable(f"what is mounted is gone: {error}") from None

    def _child(self, parent: Node, identifier: str) -> Node:
        """Return the child with that id: one request, where its link is made of its id."""
        key = key_below(parent.key, identifier)
        # Of a copy: who lists the children learns their keys meanwhile.
        known = [url for url, child in list(parent.keys.items()) if child == key]
        for url in known or likely(parent.children, identifier):
            try:
                node = self._load(url, parent)
            except (NotFound, BadAnswer) as error:
                _log.debug("%s", error)
                continue
            if node.key == key:
                return node
        if not parent.knows_children:
            for node in self._children(parent):
                if node.key == key:
                    return node
        raise NotFound(f"no {identifier!r} below {describe(parent.url)}")

    def _children(self, parent: Node) -> list[Node]:
        found: dict[str, Node] = {}
        unasked: list[Unavailable] = []

        def fresh(url: str) -> Node | None:
            try:
                return self._fresh(url, parent)
            except Offline:
                raise  # what is kept answers
            except Unavailable as error:  # its host may be gone for good, and the others are not
                _log.warning("passed over: %s", error)
                unasked.append(error)
                return None

        for node in self._some(fresh, parent.children):
            if node and node is not found.setdefault(node.key, node):
                _log.warning("%s has the id of another there: it is left out", describe(node.url))
        if unasked and not found and not parent.count:
            raise unasked[0]
        parent.knows_children = not unasked
        return list(found.values())

    def _fresh(self, url: str, parent: Node) -> Node:
        key = parent.keys.get(url)
        kept = self._kept(key) if key else None
        return kept or self._load(url, parent)

    def _kept(self, key: str) -> Node | None:
        with self._lock:
            node = self._nodes.get(key)
        return node if node and time.monotonic() - node.value.fetched < self._ttl else None

    def _load(self, url: str, parent: Node | None = None, *, first: Document | None = None) -> Node:
        fetched = time.monotonic()
        node = self._parse(url, lambda body, at: parse_node(body, at, fetched, parent), first)
        if parent:
            parent.keys[url] = node.key
        with self._lock:
            self._nodes[node.key] = node
        return node

    def _item(self, url: str) -> models.Item:
        fetched = time.monotonic()
        return self._parse(url, lambda body, at: models.parse_item(settle(body, at), fetched))

    def _listed(self, url: str) -> models.Listed:
        return self._parse(url, lambda body, at: models.parse_listed(settle(body, at)))

    def _parse(
        self, url: str, parse: Callable[[bytes, str], T], document: Document | None = None
    ) -> T:
        document = document or self._transport.get_document(url)
        body = bytes(document.body)
        try:
            try:
                return parse(body, document.url)
            except BadAnswer:
                mended = mend(body)
                if mended is None:
                    raise
                return parse(mended, document.url)
        except BadAnswer as error:
            raise BadAnswer(f"{describe(url)}: {error}") from None

    def _is_named_by_links(self, node: Node) -> bool:
        for url in node.items[:_PAGE]:
            if node.is_named_by_links is not None:
                break
            # A dead link tells nothing of others.
            with contextlib.suppress(NotFound, BadAnswer, Denied):
                node.is_named_by_links = any(likely((url,), self._item(url).id))
        return bool(node.is_named_by_links)

    def _some(self, load: Callable[[str], T], urls: Sequence[str]) -> Iterator[T]:
        """Yield what is at the URLs, in their order, fetched side by side.

        What is not there, or not what it should be, is passed over, whatever the others are.
        """
        is_over = threading.Event()

        def attempt(url: str) -> T | MlhubfsError:
            if is_over.is_set():
                raise Interrupted("another document failed")
            try:
                return load(url)
            except (NotFound, BadAnswer, Denied) as error:
                return error

        futures = [self._fetchers.submit(partial(attempt, url)) for url in urls]
        try:
            for future in futures:
                outcome = self._fetchers.wait(future)
                if isinstance(outcome, MlhubfsError):
                    _log.warning("passed over: %s", outcome)
                else:
                    yield outcome
        finally:
            is_over.set()
