"""One API under one root URL: MLHub's, or any STAC API's that pages by GET.

Owns the routes and the traps of paging. Keeps nothing: what was learned is kept in `memory`.

What looks simple and is not:

1. A `next` link names the host that the server believes it has: http for https, an internal name, a
   staging host. Where it points into the items of the same collection, only its query is taken, and
   asked at our own root, which is also the one place that the key may go to.
2. `next` links were recorded with the caller's key inside; the key is cut out.
3. The 2022 server leaves `limit` out of its `next` links: it is sent again.
4. A link that counts pages (`page=3`) means pages of the same size: the limit stays as it is.
5. An id that is empty, `.` or `..` cannot be written in a URL's path.

*Threading.* Stateless; any thread that may wait on the network.
"""

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import parse_qsl, quote, unquote, urljoin, urlsplit

from mlhubfs.catalog import models
from mlhubfs.errors import BadAnswer, Denied, NotFound
from mlhubfs.transport.client import Body, Transport, without_key

T = TypeVar("T")
_PAGE_NUMBERS = frozenset({"page", "page_number", "pageNumber", "p"})
_FILTERS = re.compile(r"/ogcapi-features(-1/[\d.]+/conf/core)?/?$")  # any version's


class Api:
    """The catalog behind the API at `root`, asked through `transport`.

    Every method raises the errors of the transport: NotFound, Denied, Unavailable, BadAnswer.
    """

    def __init__(self, transport: Transport, root: str, *, page_size: int) -> None:
        self._transport = transport
        self._page_size = page_size
        self.root = root.rstrip("/")

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

    def collections(self) -> list[models.Collection]:
        """Return all collections."""
        return models.parse_collections(self._get("/collections"), time.monotonic())

    def collection(self, collection_id: str) -> models.Collection:
        """Return the collection with that id."""
        body = self._get(f"/collections/{_segment(collection_id)}")
        collection = models.parse_collection(body, time.monotonic())
        return _same(collection, collection_id)

    def item(self, collection_id: str, item_id: str) -> models.Item:
        """Return the item with that id: one request."""
        body = self._get(f"/collections/{_segment(collection_id)}/items/{_segment(item_id)}")
        return _same(models.parse_item(body, time.monotonic()), item_id)

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
        describes; until the monotonic time `deadline`, if that is given.
        """
        route = f"/collections/{_segment(collection_id)}/items"
        url, params = self.root + route, []
        if following:
            try:
                parts = urlsplit(without_key(urljoin(url, following)))
            except ValueError:
                raise BadAnswer(f"a next link of {collection_id} is no URL") from None
            params = parse_qsl(parts.query, keep_blank_values=True)
            if not unquote(parts.path).rstrip("/").endswith(unquote(route)):
                url = parts._replace(query="", fragment="").geturl()
        if any(name in _PAGE_NUMBERS for name, _ in params):
            limit = None
        if limit:
            params = [(name, value) for name, value in params if name != "limit"]
        if not any(name == "limit" for name, _ in params):
            params.append(("limit", str(limit or self._page_size)))
        given = {name for name, _ in params}
        params += [one for one in (query or {}).items() if one[0] not in given]
        fetched = time.monotonic()
        document = self._transport.get_document(url, params, deadline=deadline)
        return models.parse_page(document.body, fetched)

    def filters(self) -> frozenset[str]:
        """Return `bbox` and `datetime` where the server says that its items can be asked for so."""
        try:
            classes = models.parse_conformance(self._get(""))
        except (NotFound, BadAnswer):
            return frozenset()
        if any(_FILTERS.search(one) for one in classes):
            return frozenset({"bbox", "datetime"})
        return frozenset()

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

    def _get(self, route: str) -> bytes:
        return bytes(self._transport.get_document(self.root + route).body)


def writable_in_url(identifier: str) -> bool:
    """Say whether an id can be a segment of a URL's path."""
    return identifier not in {"", ".", ".."}


def _segment(identifier: str) -> str:
    if not writable_in_url(identifier):
        raise NotFound(f"the id {identifier!r} cannot be looked up by URL")
    return quote(identifier, safe="", errors="surrogatepass")


def _same(found: models.ItemOrCollection, wanted: str) -> models.ItemOrCollection:
    # A server that folds case, or that falls back to a list, answers with something else.
    if found.id != wanted:
        raise NotFound(f"asked for {wanted!r}, the server answered with {found.id!r}")
    return found
