"""The catalog as the tree sees it: every look-up through the memory, no listing for a known name.

Owns which answer teaches what: a page of items fills the memory of items, the list of datasets
names the collections. Does not know routes (`api`) nor files (`tree`).

*Threading.* Any thread; those that serve the kernel wait interruptibly, in the workers.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from mlhubfs.catalog.api import writable_in_url
from mlhubfs.catalog.listing import MOST_EMPTY_PAGES, Listing
from mlhubfs.catalog.memory import Memory
from mlhubfs.catalog.models import Collection, Dataset, Item, Page
from mlhubfs.errors import BadAnswer, NotFound
from mlhubfs.transport.workers import Workers

# A page of MLHub's is 630 kB, an item 6.3 kB: the items of the pages last read, about 10,000.
_ITEM_BYTES = 64 << 20
_COLLECTIONS = 2000  # the largest public catalogs have some hundreds
_PLAIN_ID = re.compile(r"[A-Za-z0-9._~:-]+")


class Source(Protocol):
    """Where a catalog comes from; see `api.Api` for the meaning of each method."""

    root: str

    def datasets(self) -> list[Dataset] | None:
        """Return all datasets, or None where the source has no such thing."""

    def dataset(self, id_or_doi: str) -> Dataset:
        """Return the dataset with that id or DOI."""

    def collections(self) -> list[Collection]:
        """Return all collections."""

    def collection(self, collection_id: str) -> Collection:
        """Return the collection with that id."""

    def item(self, collection_id: str, item_id: str) -> Item:
        """Return the item with that id."""

    def page(self, collection_id: str, following: str | None = None) -> Page:
        """Return the first page of a collection's items, or the one that `following` links to."""


class Catalog:
    """Datasets, collections and items of one source; times are seconds."""

    def __init__(
        self, source: Source, workers: Workers, *, ttl: float, negative_ttl: float
    ) -> None:
        self._source = source
        self._workers = workers
        self._ttl = ttl
        self._lists = Memory(workers, ttl=ttl, negative_ttl=negative_ttl, capacity=2)
        self._collections = Memory(
            workers, ttl=ttl, negative_ttl=negative_ttl, capacity=_COLLECTIONS
        )
        self._items = Memory(
            workers,
            ttl=ttl,
            negative_ttl=negative_ttl,
            capacity=_ITEM_BYTES,
            weigh=lambda item: len(item.document) + 1000,
        )
        self._listings: dict[str, Listing] = {}
        self._has_datasets = False

    @property
    def root(self) -> str:
        """The root URL of the source."""
        return self._source.root

    def datasets(self) -> dict[str, Dataset]:
        """Return id -> dataset in the server's order; empty where the source knows no datasets."""
        return self._lists.get("datasets", self._load_datasets)

    def loose_collections(self) -> dict[str, Collection]:
        """Return id -> collection of those that no dataset names."""
        named = {ref for dataset in self.datasets().values() for ref in dataset.collection_ids}
        collections = self._lists.get("collections", self._load_collections)
        return {key: one for key, one in collections.items() if key not in named}

    def collection(self, collection_id: str) -> Collection:
        """Return a collection by its id: one request, or none."""
        return self._collections.get(
            f"collection {collection_id}", lambda: self._source.collection(collection_id)
        )

    def item(self, collection_id: str, item_id: str) -> Item:
        """Return an item by its id: one request, or none."""
        return self._items.get(
            _item_key(collection_id, item_id), lambda: self._look_up(collection_id, item_id)
        )

    def renewed_item(self, collection_id: str, item_id: str, after: float) -> Item:
        """Return the item as asked for after the monotonic time `after`: its links are newer."""
        return self._items.renew(
            _item_key(collection_id, item_id),
            lambda: self._look_up(collection_id, item_id),
            lambda item: item.fetched > after,
        )

    def renewed_collection(self, collection_id: str, after: float) -> Collection:
        """Return the collection as asked for after the monotonic time `after`."""
        return self._collections.renew(
            f"collection {collection_id}",
            lambda: self._source.collection(collection_id),
            lambda collection: collection.fetched > after,
        )

    def listed(self, collection_id: str, item_id: str) -> float | None:
        """Return the POSIX time of an item that a current listing names, without a request."""
        listing = self._listings.get(collection_id)
        return listing.modified(item_id) if listing and self._is_current(listing) else None

    def listing(self, collection_id: str) -> Listing:
        """Return the walk of a collection's items that is under way or fresh, or a new one."""
        listing = self._listings.get(collection_id)
        if listing is None or not self._is_current(listing):
            # Two readers may both get here: the walk that loses its place in the table still
            # serves the reader that holds it.
            listing = Listing(
                collection_id, lambda following: self._page(collection_id, following), self._workers
            )
            self._listings[collection_id] = listing
        return listing

    def find(self, collection_id: str, is_wanted: Callable[[str], bool]) -> Item:
        """Return the first item whose id `is_wanted` accepts, walking all pages if need be.

        For the names that do not tell an id that can be asked for.
        """
        for item_id, _modified in self.listing(collection_id).iterate():
            if is_wanted(item_id):
                return self.item(collection_id, item_id)
        raise NotFound(f"no such item in {collection_id}")

    def problems(self) -> list[str]:
        """Return a line for each listing that is known to be incomplete."""
        return [f"{one.name}: {one.problem}" for one in self._listings.values() if one.problem]

    def _look_up(self, collection_id: str, item_id: str) -> Item:
        if writable_in_url(item_id):
            try:
                return self._source.item(collection_id, item_id)
            except NotFound:
                # Some servers cannot route an id with a slash, though they list it; no program asks
                # for such a name on the off chance. Others fail at what else URLs must escape.
                listed = self.listed(collection_id, item_id) is not None
                if _PLAIN_ID.fullmatch(item_id) or not (listed or "/" in item_id):
                    raise
        for item in self._walk(collection_id):
            if item.id == item_id:
                return item
        raise NotFound(f"no item {item_id!r} in {collection_id}")

    def _walk(self, collection_id: str) -> Iterator[Item]:
        seen = set[str | None]()
        following: str | None = None
        empty_pages = 0
        while following not in seen and empty_pages < MOST_EMPTY_PAGES:
            seen.add(following)
            page = self._source.page(collection_id, following)
            empty_pages = 0 if page.items else empty_pages + 1
            yield from page.items
            following = page.next
            if following is None:
                return

    def _page(self, collection_id: str, following: str | None) -> Page:
        page = self._source.page(collection_id, following)
        for item in page.items:
            self._items.put(_item_key(collection_id, item.id), item)
        return page

    def _load_datasets(self) -> dict[str, Dataset]:
        datasets = self._source.datasets()
        if datasets is None and self._has_datasets:
            # A portal's page or a proxy's 404: for this the mount must not look empty.
            raise BadAnswer(f"{self.root} no longer answers with its datasets")
        self._has_datasets = datasets is not None
        return {one.id: one for one in datasets or ()}

    def _load_collections(self) -> dict[str, Collection]:
        collections = {one.id: one for one in self._source.collections()}
        for key, one in collections.items():
            self._collections.put(f"collection {key}", one)
        return collections

    def _is_current(self, listing: Listing) -> bool:
        return time.monotonic() - listing.touched < self._ttl


def _item_key(collection_id: str, item_id: str) -> str:
    return f"item {collection_id!r} {item_id!r}"  # unambiguous, whatever the ids hold
