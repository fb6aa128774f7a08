"""One API under one root URL: MLHub's, or any STAC API's.

Owns the routes. Keeps nothing: what was learned is kept in `memory`.

What looks simple and is not, beside what `paging` says of pages:

1. `/collections` pages too, or stops at ten without a link, though it counts more.
2. An id that is empty, `.` or `..` cannot be written in a URL's path.
3. Relative hrefs of assets are meant from the document's own URL. For one that was asked for singly
   and came by a redirect, that is where it came from. Else its `self` link tells: it may be a file
   that the server took in. But servers name the host that they believe they have, so a link to this
   very route, or to where the catalog may not send us, is our own URL.

*Threading.* Stateless; any thread that may wait on the network.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar
from urllib.parse import quote

from mlhubfs.catalog import models
from mlhubfs.catalog.base import are_settled, self_href, settled
from mlhubfs.catalog.paging import Pages
from mlhubfs.errors import BadAnswer, Denied, NotFound
from mlhubfs.transport.client import Body, Stream, Transport

_log = logging.getLogger("mlhubfs.catalog")
T = TypeVar("T")
_MOST_PAGES = 1000  # of collections: a server that sends more goes on for ever
# The last words of conformance classes: what takes CQL2 and STAC's `query`, below a collection and
# at /search.
_HERE = ("features-filter", "ogcapi-features#query")
_THERE = ("item-search#filter", "item-search#query")
_FILTERS = re.compile(r"/ogcapi-features(-1/[\d.]+/conf/core)?/?$")  # any version's


class Api:
    """The catalog behind the API at `root`, asked through `transport`.

    Every method raises the errors of the transport: NotFound, Denied, Unavailable, BadAnswer.
    """

    top: str | None = None

    def __init__(self, transport: Transport, root: str, *, page_size: int) -> None:
        self._transport = transport
        self._page_size = page_size
        self.root = root.rstrip("/")
        self._pages = Pages(transport, self.root)

    def datasets(self) -> list[models.Dataset] | None:
        """Return all datasets, or None where the source has no such thing (a STAC API)."""
        try:
            return models.parse_datasets(self._get("/datasets"))
        except (NotFound, BadAnswer):
            # Not MLHub. If it is no STAC API either, its collections will say so.
            return None

    def dataset(self, id_or_doi: str) -> models.Dataset:
        """Return the dataset with that id, or that DOI (anything with a slash is a DOI)."""
        doi = "/" in id_or_doi
        route = f"/datasets/doi/{quote(id_or_doi)}" if doi else f"/datasets/{_segment(id_or_doi)}"
        return models.parse_dataset(self._get(route))

    def collections(
        self, query: Mapping[str, str] | None = None, *, deadline: float | None = None
    ) -> list[models.Collection]:
        """Return all collections, or those that `query` describes, see `filters`.

        Each page until the monotonic time `deadline`, if that is given.
        """
        pages = list(self._collection_pages(None, query, deadline))
        matched = pages[0].matched or 0
        if sum(len(page.collections) for page in pages) < matched:  # see 1
            pages = list(self._collection_pages(matched, query, deadline))
        found = {
            one.id: self._settled(one, f"/collections/{_quoted(one.id)}")
            for page in pages
            for one in page.collections
        }
        if len(found) < matched:
            _log.warning("%s counts %d collections and lists %d", self.root, matched, len(found))
        return list(found.values())

    def any_collection_id(self) -> str | None:
        """Return the id of a collection, if there is one, without listing all."""
        first = next(self._collection_pages(1)).collections
        return first[0].id if first else None

    def collection(self, collection_id: str) -> models.Collection:
        """Return the collection with that id."""
        route = f"/collections/{_segment(collection_id)}"
        document = self._transport.get_document(self.root + route)
        collection = models.parse_collection(bytes(document.body), time.monotonic())
        return self._settled(_same(collection, collection_id), route, document.url)

    def children(self, collection_id: str) -> list[models.Collection]:  # noqa: ARG002
        """Return nothing: an API has no collections below collections."""
        return []

    def item(self, collection_id: str, item_id: str) -> models.Item:
        """Return the item with that id: one request."""
        route = f"/collections/{_segment(collection_id)}/items/{_segment(item_id)}"
        document = self._transport.get_document(self.root + route)
        item = models.parse_item(bytes(document.body), time.monotonic())
        return self._settled(_same(item, item_id), route, document.url)

    def settled(self, collection_id: str, item: models.Item) -> models.Item:
        """Return an item of a page with absolute hrefs of assets."""
        above, here = _quoted(collection_id), _quoted(item.id)
        return self._settled(item, f"/collections/{above}/items/{here}")

    def page(
        self,
        collection_id: str,
        following: str | None = None,
        *,
        limit: int | None = None,
        deadline: float | None = None,
        query: Mapping[str, str] | None = None,
    ) -> models.Page:
        """Return the first page of a collection's items, or the one that `following` links to.

        `limit` items are asked for where the link does not count pages, of those that `query`
        describes; until the monotonic time `deadline`, if that is given. A query that names
        `collections` is asked of `/search`.
        """
        route = f"/collections/{_segment(collection_id)}/items"
        if query and "collections" in query:
            route = "/search"
        fetched = time.monotonic()
        body, sent = self._pages.ask(
            route,
            following,
            limit=limit,
            otherwise=self._page_size,
            deadline=deadline,
            query=query or {},
            whole={"collections": [collection_id]},
        )
        return models.parse_page(body, fetched, sent)

    def filters(self) -> frozenset[str]:
        """Return `bbox`, `datetime`, `filter` and `query` where the server says it takes them.

        And `ids` where there is a `/search`, `collections` where `filter` and `query` are meant for
        that; `q` where its collections can be searched for texts.
        """
        try:
            classes = models.parse_conformance(self._get(""))
        except (NotFound, BadAnswer):
            return frozenset()
        ends = {one.rstrip("/").rpartition("/")[2] for one in classes}
        languages, there = _languages(ends, *_HERE), _languages(ends, *_THERE)
        if "filter" not in languages and there - languages:
            languages = there | {"collections"}
        if "item-search" in ends:
            languages |= {"ids"}
        if any(_FILTERS.search(one) for one in classes):
            languages |= {"bbox", "datetime"}
        if "collection-search#free-text" in ends or {"collection-search", "free-text"} <= ends:
            languages |= {"q"}
        return frozenset(languages)

    def queryables(self, collection_id: str) -> dict[str, str]:
        """Return property -> type of those that a collection's items can be filtered by."""
        try:
            return models.parse_queryables(
                self._get(f"/collections/{_segment(collection_id)}/queryables")
            )
        except (NotFound, BadAnswer):
            return {}

    def archive(self, collection_id: str) -> models.Archive:
        """Return what the server tells of a collection's archive."""
        route = f"/archive/{_segment(collection_id)}"
        return models.parse_archive(self._get(f"{route}/info"), self.root + route)

    def has_catalog_file(self, dataset_id: str) -> bool:
        """Say whether all items of a dataset can be had in one file."""
        try:
            self._get(f"/catalog/{_segment(dataset_id)}/info")
        except (NotFound, BadAnswer, Denied):
            return False
        return True

    def pour_catalog_file(
        self, dataset_id: str, into: Callable[[Body], T], *, deadline: float
    ) -> T:
        """Return what `into` makes of that file, a gzipped tar, until the monotonic `deadline`."""
        url = f"{self.root}/catalog/{_segment(dataset_id)}"
        return self._transport.pour(url, into, deadline=deadline)

    def pour(self, url: str, into: Callable[[Stream], T], *, limit: int) -> T:
        """Return what `into` makes of the first `limit` bytes of the file at `url`; tried once."""
        return self._transport.pour_range(url, 0, limit, into, once=True)

    def adopter(
        self,
        collection_id: str,  # noqa: ARG002 - of the protocol
    ) -> Callable[[models.Listed], models.Listed]:
        """Return what leaves an item of a mirror as it is: those of pages are as they come."""
        return lambda item: item

    def check_key(self, collection_id: str, *, deadline: float | None = None) -> None:
        """Ask for something that needs the key; raises Denied where it is refused or missing.

        That is an item which will not be there: a page would take its time. `deadline` is a time
        of the monotonic clock.
        """
        collection = _segment(collection_id)
        with contextlib.suppress(NotFound):
            self._transport.get_document(
                f"{self.root}/collections/{collection}/items/{collection}", deadline=deadline
            )

    def _settled(
        self, value: models.ItemOrCollection, route: str, url: str | None = None
    ) -> models.ItemOrCollection:
        """Return what is at `route`, and came from `url` if singly, with absolute hrefs; see 3."""
        if are_settled(value.assets):
            return value
        if url is None or url == self.root + route:
            url = self._own_url(value.document, route)
        return settled(value, url)

    def _own_url(self, document: bytes, route: str) -> str:
        href = self_href(document)
        with contextlib.suppress(BadAnswer):
            url, _ = self._pages.locate(route, href or "")
            if self._transport.may_ask(url):
                return url
        return self.root + route

    def _get(self, route: str) -> bytes:
        return bytes(self._transport.get_document(self.root + route).body)

    def _collection_pages(
        self,
        limit: int | None,
        query: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Iterator[models.CollectionPage]:
        seen = set[str]()
        following: str | None = ""
        while following is not None and following not in seen and len(seen) < _MOST_PAGES:
            seen.add(following)
            fetched = time.monotonic()
            body, _ = self._pages.ask(
                "/collections", following, limit=limit, deadline=deadline, query=query
            )
            page = models.parse_collection_page(body, fetched)
            yield page
            following = page.next


def writable_in_url(identifier: str) -> bool:
    """Say whether an id can be a segment of a URL's path."""
    return identifier not in {"", ".", ".."}


def _languages(ends: set[str], filters: str, queries: str) -> set[str]:
    """Return the parameters that conformance classes with these last words promise."""
    takes_cql2 = {"cql2-text", filters} <= ends
    return ({"filter"} if takes_cql2 else set()) | ({"query"} if queries in ends else set())


def _segment(identifier: str) -> str:
    if not writable_in_url(identifier):
        raise NotFound(f"the id {identifier!r} cannot be looked up by URL")
    return _quoted(identifier)


def _quoted(identifier: str) -> str:
    return quote(identifier, safe="", errors="surrogatepass")


def _same(found: models.ItemOrCollection, wanted: str) -> models.ItemOrCollection:
    # A server that folds case, or that falls back to a list, answers with something else.
    if found.id != wanted:
        raise NotFound(f"asked for {wanted!r}, the server answered with {found.id!r}")
    return found
