"""The catalog as the tree sees it: look-ups through what is known, no listing for a known name.

Owns which answer teaches what, and the order in which an item is looked for: in memory, on pages
that came last, in the index, at the server; and in the index whatever its age, where the server
cannot be reached. Does not know routes (`api`) nor files (`tree`).

*Threading.* Any thread; those that serve the kernel wait interruptibly, in the workers.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice

import msgspec

from mlhubfs.catalog.api import writable_in_url
from mlhubfs.catalog.base import are_settled
from mlhubfs.catalog.bulk import CatalogFile
from mlhubfs.catalog.doi import bare
from mlhubfs.catalog.filters import free_text
from mlhubfs.catalog.index import Index
from mlhubfs.catalog.listing import Listing
from mlhubfs.catalog.listings import Listings
from mlhubfs.catalog.matches import Matches
from mlhubfs.catalog.memory import Memory
from mlhubfs.catalog.mirror import Mirror
from mlhubfs.catalog.models import (
    LONG_AGO,
    Archive,
    Asset,
    Collection,
    Dataset,
    Item,
    Listed,
    Page,
    parse_item,
)
from mlhubfs.catalog.node import key_above, key_below
from mlhubfs.catalog.pager import Pager
from mlhubfs.catalog.recent import Recent
from mlhubfs.catalog.search import FIRST_SECONDS, Search
from mlhubfs.catalog.source import Source
from mlhubfs.catalog.stored import Stored
from mlhubfs.catalog.walker import AnyIndex, Bulk, Walker
from mlhubfs.catalog.where import Where
from mlhubfs.errors import BadAnswer, Denied, MlhubfsError, NotFound, Offline, Unavailable
from mlhubfs.transport.buckets import lacks_account
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.catalog")
# A page of MLHub's is 630 kB, an item 6.3 kB. Without an index: the items of the pages last read,
# about 10,000; with one only their links are missed, so those of the first 1,100 must do.
_PAGE_BYTES = 64 << 20
_PAGE_BYTES_INDEXED = 8 << 20
_ITEM_BYTES = 16 << 20
_ASSET_BYTES = 500  # what an asset takes in memory, over its JSON
_COLLECTIONS = 2000  # the largest public catalogs have some hundreds
_CHILDREN = 20_000  # of the catalogs last looked into
_PLAIN = ("https://", "http://")
_PLAIN_ID = re.compile(r"[A-Za-z0-9._~:-]+")


class Catalog:
    """Datasets, collections and items of one source; times are seconds.

    What is listed goes into `index`, where there is one. Pages have at most `page_size` items.
    `patience` is how long another process may walk a collection without getting further.
    `is_offline` says that nothing is asked of the source: then nothing is too old.
    """

    def __init__(
        self,
        source: Source,
        workers: Workers,
        *,
        ttl: float,
        negative_ttl: float,
        index: Index | None = None,
        page_size: int = 100,
        patience: float = 60.0,
        is_offline: bool = False,
    ) -> None:
        self._source = source
        self._workers = workers
        self._page_size = page_size
        self._index_ttl = None if is_offline else ttl
        self._stored = Stored(index)
        self._recent = Recent(_PAGE_BYTES_INDEXED if index else _PAGE_BYTES)
        self.listings = Listings(
            self._stored,
            workers,
            self._make_walker,
            ttl=float("inf") if is_offline else ttl,
            patience=patience,
        )
        """The listings of its collections."""
        self._search = Search(
            source,
            self._stored,
            page_size=page_size,
            filters=self._filters,
            learn=self._recent.learn,
        )
        self._lists = Memory(workers, ttl=ttl, negative_ttl=negative_ttl, capacity=_COLLECTIONS)
        self._collections = Memory(
            workers, ttl=ttl, negative_ttl=negative_ttl, capacity=_COLLECTIONS
        )
        self._children = Memory(
            workers,
            ttl=ttl,
            negative_ttl=negative_ttl,
            capacity=_CHILDREN,
            weigh=lambda found: 1 + len(found),
        )
        self._items = Memory(
            workers,
            ttl=ttl,
            negative_ttl=negative_ttl,
            capacity=_ITEM_BYTES,
            weigh=lambda item: len(item.document) + 1000 + _ASSET_BYTES * len(item.assets),
        )
        self._has_datasets = False
        self._last_datasets: dict[str, Dataset] = {}

    @property
    def root(self) -> str:
        """The root URL of the source."""
        return self._source.root

    @property
    def top(self) -> str | None:
        """The id of the document that all others hang from: a static catalog has one."""
        return self._source.top

    def datasets(self) -> dict[str, Dataset]:
        """Return id -> dataset in the server's order; empty where the source knows no datasets."""
        return self._lists.get("datasets", self._load_datasets)

    def dataset(self, id_or_doi: str) -> Dataset:
        """Return the dataset with that id, or that DOI: what holds a slash is a DOI.

        Of several with one DOI it is the first; letters count whatever their case.
        """
        known = self.datasets()
        if "/" not in id_or_doi:
            if id_or_doi not in known:
                raise NotFound(f"no dataset {id_or_doi!r} at {self.root}")
            return known[id_or_doi]
        doi = bare(id_or_doi)
        for one in known.values():
            if one.doi and bare(one.doi).casefold() == doi.casefold():
                return one
        # The first servers left the DOIs out of the list, and found them nevertheless.
        return self._source.dataset(doi)

    def collections(self) -> dict[str, Collection]:
        """Return id -> collection of all, in the server's order."""
        return self._lists.get("collections", self._load_collections)

    def loose_collections(self) -> dict[str, Collection]:
        """Return id -> collection of those that no dataset names."""
        named = {ref for dataset in self.datasets().values() for ref in dataset.collection_ids}
        return {key: one for key, one in self.collections().items() if key not in named}

    def collections_that(
        self, fulfil: Callable[[Collection], bool], where: Where
    ) -> list[Collection]:
        """Return the collections that `fulfil`; `where` admits all of those.

        Where their list is not at hand, a server that searches texts is asked in its place; see
        `filters` for what that may pass over.
        """
        text = free_text(where)
        if text and self._lists.peek("collections") is None and "q" in self._filters():
            found = [one for one in self._found(text) if fulfil(one)]
            if found:
                return found
        return [one for one in self.collections().values() if fulfil(one)]

    def any_collection_id(self) -> str | None:
        """Return one, if there is one; reads the list, where searches cannot do without it."""
        if "q" in self._filters():
            return self._source.any_collection_id()
        return next(iter(self.collections()), None)

    def collection(self, collection_id: str) -> Collection:
        """Return a collection by its id: one request, or none."""
        return self._collections.get(
            f"collection {collection_id}", lambda: self._load_collection(collection_id)
        )

    def archive(self, collection_id: str) -> Archive:
        """Return what is known of a collection's archive; raises NotFound where there is none."""
        if not self.datasets():
            raise NotFound(f"{self.root} has no archives: it is not MLHub's API")
        return self._lists.get(
            f"archive {collection_id}", lambda: self._load_archive(collection_id)
        )

    def children(self, collection_id: str) -> dict[str, Collection]:
        """Return id -> catalog or collection of those below one; their own `id` is to ask by."""
        if self.top is None:
            return {}
        return self._children.get(collection_id, lambda: self._load_children(collection_id))

    def below(self, collection_id: str) -> Iterator[Collection]:
        """Yield the catalogs and collections below one, at any depth, each before its own."""
        ways = [iter(self.children(collection_id).values())]
        while ways:
            child = next(ways[-1], None)
            if child is None:
                ways.pop()
            else:
                yield child
                ways.append(iter(self.children(child.id).values()))

    def child(self, collection_id: str, child_id: str) -> Collection:
        """Return the catalog or collection with that id below one: mostly one request."""
        if self.top is None:
            raise NotFound(f"there is nothing but items in {collection_id}")
        return self.collection(key_below(collection_id, child_id))

    def item(self, collection_id: str, item_id: str) -> Item:
        """Return an item by its id: one request, or none. Its links may be cut, or old."""
        key = _item_key(collection_id, item_id)
        kept: Item | None = self._items.peek(key)
        known = (
            kept
            or self._recent.item(collection_id, item_id, self._items.oldest())
            or self._stored.item(collection_id, item_id, ttl=self._index_ttl)
        )
        if known is None:
            return self._items.get(key, lambda: self._load_item(collection_id, item_id))
        if kept is None:
            known = self._settled(collection_id, known)
            self._items.put(key, known)
        return known

    def renewed_item(self, collection_id: str, item_id: str, after: float) -> Item:
        """Return the item as asked for after the monotonic time `after`: its links are newer."""
        return self._items.renew(
            _item_key(collection_id, item_id),
            lambda: self._settled(
                collection_id,
                self._recent.item(collection_id, item_id, after)
                or self._look_up(collection_id, item_id),
            ),
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
        modified = self._stored.known(collection_id, item_id, ttl=self._index_ttl)
        return self.listings.known(collection_id, item_id) if modified is None else modified

    def listing(self, collection_id: str) -> Listing:
        """Return the names of a collection's items, as they are to be shown now."""
        return self.listings.listing(collection_id)

    def find(self, collection_id: str, is_wanted: Callable[[str], bool]) -> Item:
        """Return the first item whose id `is_wanted` accepts, walking all pages if need be.

        For the names that do not tell an id that can be asked for.
        """
        for item_id, _modified in self.listing(collection_id).iterate():
            if is_wanted(item_id):
                return self.item(collection_id, item_id)
        raise NotFound(f"no such item in {collection_id}")

    def search(self, collection_id: str, where: Where, limit: int | None = None) -> Iterator[Item]:
        """Yield at most `limit` items that fulfil the conditions, as they are found.

        Who takes no more ends the search. What `item` says of links holds here too.
        """
        batches = self._search.batches(self.listing(collection_id), where)
        for found in islice(chain.from_iterable(batches), limit):
            recent = self._recent.item(collection_id, found.id, self._items.oldest())
            yield self._settled(collection_id, recent or parse_item(found.document, LONG_AGO))

    def matches(self, collection_id: str, where: Where) -> Matches:
        """Return the names of such items, for a directory of them."""
        return Matches(self._search.batches(self.listing(collection_id), where), self._workers)

    def sample(self, collection_id: str) -> list[Listed]:
        """Return some items: a thousand where they are indexed, else those of the first page."""
        batches = self._search.batches(self.listing(collection_id), Where())
        return next((batch for batch in batches if batch), [])

    def problems(self) -> list[str]:
        """Return a line for each listing that is known to be incomplete."""
        return self.listings.problems()

    def _load_item(self, collection_id: str, item_id: str) -> Item:
        try:
            item = self._settled(collection_id, self._look_up(collection_id, item_id))
        except Unavailable:
            stored = self._stored.item(collection_id, item_id, ttl=None)
            if stored is None:
                raise
            return self._settled(collection_id, stored)
        self._stored.keep_item(collection_id, item)
        return item

    def _settled(self, collection_id: str, item: Item) -> Item:
        """Return the item with absolute hrefs, and with the collection's account for Azure's."""
        odd = [one for one in item.assets if one.alternates or not one.href.startswith(_PLAIN)]
        if not odd:  # nearly always, and 1 us
            return item
        if not are_settled(odd):
            item = self._source.settled(collection_id, item)
        if not any(_wants_account(asset) for asset in odd):
            return item
        try:
            account = self.collection(collection_id).account
        except (NotFound, Offline):
            return item
        assets = (
            msgspec.structs.replace(asset, account=asset.account or account)
            for asset in item.assets
        )
        return msgspec.structs.replace(item, assets=tuple(assets))

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
        found = self._search.by_id(collection_id, item_id)
        for page in chain((found,) if found else (), self._search.pages(collection_id, {})):
            for item in page.items:
                if item.id == item_id:
                    return parse_item(item.document, page.fetched)
        raise NotFound(f"no item {item_id!r} in {collection_id}")

    def _filters(self) -> frozenset[str]:
        try:
            return self._lists.get("filters", self._source.filters)
        except MlhubfsError:
            return frozenset()  # the search will say what is wrong, if it needs the server at all

    def _found(self, text: str) -> list[Collection]:
        """Return the collections that the server finds a text in; nothing where it fails at it."""
        try:
            return self._lists.get(f"q {text}", lambda: self._load_found(text))
        except (BadAnswer, Denied, NotFound, Unavailable) as error:
            _log.info("%s does not search its collections: %s", self.root, error)
            return []

    def _make_walker(self, collection_id: str, index: AnyIndex) -> Walker:
        def ask(cursor: str | None, limit: int, deadline: float | None) -> Page:
            return self._source.page(collection_id, cursor, limit=limit, deadline=deadline)

        return Walker(
            collection_id,
            Pager(ask, most=self._page_size, begin=self._workers.begin),
            bulk=self._make_bulk(collection_id, index),
            later=self._workers.submit,
            learn=lambda page: self._recent.learn(collection_id, page),
        )

    def _make_bulk(self, collection_id: str, index: AnyIndex) -> Bulk | None:
        for dataset in self._last_datasets.values():
            if collection_id in dataset.collection_ids:
                return CatalogFile(self._source, dataset, index, self._workers.begin)
        if not isinstance(index, Index):
            return None
        collection = partial(self.collection, collection_id)
        return Mirror(self._source, collection, index, self._workers.begin)

    def _load_datasets(self) -> dict[str, Dataset]:
        try:
            datasets = self._source.datasets()
        except Offline:
            try:
                datasets = self._stored.datasets()
            except LookupError:
                raise Offline(
                    f"offline, and nothing is kept of {self.root}: mount it once without `offline`"
                ) from None
        else:
            if datasets is None and self._has_datasets:
                # A portal's page or a proxy's 404: for this the mount must not look empty.
                raise BadAnswer(f"{self.root} no longer answers with its datasets")
            self._stored.keep_datasets(datasets)
        self._has_datasets = datasets is not None
        self._last_datasets = {one.id: one for one in datasets or ()}
        return self._last_datasets

    def _load_archive(self, collection_id: str) -> Archive:
        try:
            archive = self._source.archive(collection_id)
        except Offline:
            stored = self._stored.archive(collection_id)
            if stored is None:
                raise
            return stored
        self._stored.keep_archive(msgspec.structs.replace(archive, collection=collection_id))
        return archive

    def _load_collections(self) -> dict[str, Collection]:
        if self.top is not None:
            found = [self.collection(self.top), *self.below(self.top)]
            return {one.id: one for one in found if one.has_items}
        try:
            found = self._source.collections()
            self._stored.keep_collections(found)
        except Offline:
            stored = self._stored.collections()
            if stored is None and not self._has_datasets:
                raise
            found = stored or []
        return {one.id: one for one in self._learn(found)}

    def _load_found(self, text: str) -> list[Collection]:
        deadline = time.monotonic() + FIRST_SECONDS
        return self._learn(self._source.collections({"q": text}, deadline=deadline))

    def _learn(self, found: list[Collection]) -> list[Collection]:
        for one in found:
            self._collections.put(f"collection {one.id}", one)
        return found

    def _load_collection(self, collection_id: str) -> Collection:
        try:
            collection = self._source.collection(collection_id)
            self._stored.keep_collection(collection)
        except Offline:
            stored = self._stored.collection(collection_id)
            if stored is None and self.top is not None:
                above, child_id = key_above(collection_id)
                beside = self._stored.children(above) or ()
                stored = next((one for one in beside if one.id == child_id), None)
            if stored is None:
                raise
            return msgspec.structs.replace(stored, id=collection_id)
        return collection

    def _load_children(self, collection_id: str) -> dict[str, Collection]:
        try:
            found = self._source.children(collection_id)
            self._stored.keep_children(collection_id, found)
        except Offline:
            stored = self._stored.children(collection_id)
            if stored is None:
                raise
            found = [
                msgspec.structs.replace(one, id=key_below(collection_id, one.id)) for one in stored
            ]
        return {key_above(one.id)[1]: one for one in self._learn(found)}


def _wants_account(asset: Asset) -> bool:
    hrefs = (asset.href, *asset.alternates)
    return asset.account is None and any(lacks_account(href) for href in hrefs)


def _item_key(collection_id: str, item_id: str) -> str:
    return f"item {collection_id!r} {item_id!r}"  # unambiguous, whatever the ids hold
