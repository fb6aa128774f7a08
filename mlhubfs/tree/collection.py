"""A collection's directory: its JSON, its own files, its items.

Owns the streaming of names and the look-up of one without a listing. In a static catalog, the same
is the directory of a catalog, and either may have catalogs and collections below.
"""

import contextlib
import posixpath
from collections.abc import Callable, Iterator, Sequence

from mlhubfs.catalog.models import Asset, Collection
from mlhubfs.content.asset import AssetRef, Location
from mlhubfs.errors import BadAnswer, Denied, NotFound, Unavailable
from mlhubfs.tree import documents
from mlhubfs.tree.archive import ARCHIVE, archive_file
from mlhubfs.tree.choices import Items, choose_below
from mlhubfs.tree.hrefs import Hrefs
from mlhubfs.tree.item import AssetFile, ItemDirectory, file_names, located, to_ref
from mlhubfs.tree.names import decode, encode, is_cut
from mlhubfs.tree.nodes import (
    Attributes,
    Children,
    Directory,
    Document,
    Entry,
    Node,
    directory_attributes,
    numbered,
)
from mlhubfs.tree.surroundings import RESERVED_IN_COLLECTION, Above, Surroundings
from mlhubfs.tree.where import WHERE, Choice, WhereDirectory

COMMON = "_common"

LINKED_ITEMS = 1000
"""A collection of more items has no `item` links in its collection.json: to know the size of that
file, every `ls -l` would have to walk the whole collection first (590,326 items: hours)."""


class CollectionDirectory(Directory):
    """The collection, or catalog, `collection_id` at `path`, from the mount's root.

    `above` ends in the name of its own JSON.
    `modified` is its time where that is known without the collection's JSON: whoever goes through
    to an item must not pay a request for it. Else it is the end of the temporal extent.
    """

    reserved = RESERVED_IN_COLLECTION
    """The names that no item and nothing below may have."""

    def __init__(
        self,
        around: Surroundings,
        path: str,
        collection_id: str,
        *,
        above: Above,
        modified: Callable[[], float] | None = None,
    ) -> None:
        self._around = around
        self._path = path
        self._id = collection_id
        self._above = above
        self._modified = modified or (lambda: self._collection().modified)

    @property
    def collection_id(self) -> str:
        """Which collection it is."""
        return self._id

    def attributes(self) -> Attributes:
        """Return its time."""
        return directory_attributes(self._modified())

    def children(self) -> Children:
        """Return the JSON, `_common` where there is one, what is below, items as pages come."""
        entries = [Entry(self._above[-1], is_directory=False)]
        collection = self._collection()
        if collection.assets:
            attributes = directory_attributes(collection.modified)
            entries.append(Entry(COMMON, is_directory=True, attributes=attributes))
        entries += self._views()
        children = self._around.catalog.children(self._id)
        for child_id, child in children.items():
            attributes = directory_attributes(child.modified)
            name = encode(child_id, self.reserved)
            entries.append(Entry(name, is_directory=True, attributes=attributes))
        if not collection.has_items:
            return numbered(entries)
        listing = self._around.catalog.listing(self._id)

        def iterate(start: int) -> Iterator[Entry]:
            yield from entries[start:]
            for item_id, modified in listing.iterate(max(0, start - len(entries))):
                yield Entry(
                    encode(item_id, self.reserved),
                    is_directory=True,
                    attributes=directory_attributes(modified),
                )

        def is_known(number: int) -> bool:
            return number < len(entries) + len(listing) or listing.complete

        def count() -> int | None:
            known = len(listing) if listing.complete else listing.matched
            return None if known is None else len(entries) + known

        return Children(iterate, is_known, count)

    def child(self, name: str) -> Node:
        """Return the child with that name: for an item, one request at most."""
        if name == self._above[-1]:
            return Document(self._render, self._collection().modified)
        if name == COMMON and self._collection().assets:
            return CommonDirectory(self._around, self._id)
        if name == WHERE:
            return WhereDirectory(self._choice(), posixpath.join(self._path, WHERE))
        if name == ARCHIVE:
            return archive_file(self._around, self._id, self._modified)
        identifier = decode(name, self.reserved)
        catalog = self._around.catalog
        path = posixpath.join(self._path, name)
        if identifier is None and not is_cut(name):
            raise NotFound(f"{self._path} has no {name!r}")
        if identifier is None or catalog.listed(self._id, identifier) is None:
            below = self._below(name, identifier)
            if below:
                above = (*self._above, json_name(below))
                return CollectionDirectory(self._around, path, below.id, above=above)
            if identifier is None:
                identifier = catalog.find(
                    self._id, lambda one: encode(one, self.reserved) == name
                ).id
            catalog.item(self._id, identifier)
        return ItemDirectory(self._around, path, self._id, identifier, above=self._above)

    def _below(self, name: str, identifier: str | None) -> Collection | None:
        """Return the catalog or collection below with that name, None where it is an item's."""
        catalog = self._around.catalog
        if catalog.top is None:
            return None
        if identifier is None:
            children = catalog.children(self._id).items()
            return next((one for key, one in children if encode(key, self.reserved) == name), None)
        try:
            return catalog.child(self._id, identifier)
        except NotFound:
            return None

    def identities(self) -> list[tuple[str, ...]]:
        """Return that of the collection, and those of what is below it."""
        catalog = self._around.catalog
        ids = (self._id, *(one.id for one in catalog.below(self._id)))
        return [(catalog.root, one) for one in ids]

    def _collection(self) -> Collection:
        return self._around.catalog.collection(self._id)

    def _choice(self) -> Choice:
        if self._around.catalog.top is None or self._collection().has_items:
            return Items(self._around, self._path, self._id, self._modified)
        return choose_below(self._around, self._id, self._modified)

    def _views(self) -> list[Entry]:
        if not self._around.show_views:
            return []
        views = [Entry(WHERE, is_directory=True)]
        with contextlib.suppress(NotFound, Denied, Unavailable, BadAnswer):
            archive = archive_file(self._around, self._id, self._modified)
            attributes = archive.known_attributes()
            views.append(Entry(ARCHIVE, is_directory=False, attributes=attributes))
        return views

    def _render(self) -> bytes:
        return self.describe(self._linked_items())

    def describe(self, item_ids: Sequence[str] = ()) -> bytes:
        """Return its JSON, with links to items with these ids."""
        collection = self._collection()
        children = self._around.catalog.children(self._id)
        return documents.collection_json(
            collection,
            above=self._above,
            files=common_files(collection, self._around.hrefs),
            child_names=[
                f"{encode(key, self.reserved)}/{json_name(one)}" for key, one in children.items()
            ],
            item_names=[encode(one, self.reserved) for one in item_ids],
            scrub=self._around.scrub,
        )

    def _linked_items(self) -> list[str]:
        if not self._collection().has_items:
            return []
        listing = self._around.catalog.listing(self._id)
        try:
            listing.reach(0)
            if (listing.matched or 0) > LINKED_ITEMS or listing.reach(LINKED_ITEMS):
                return []
        except Denied:
            return []  # the collection is public, its items need a key
        return [item_id for item_id, _ in listing.iterate()]


class CommonDirectory(Directory):
    """The files of the collection itself."""

    def __init__(self, around: Surroundings, collection_id: str) -> None:
        self._around = around
        self._id = collection_id

    @property
    def collection_id(self) -> str:
        """Which collection it is."""
        return self._id

    def attributes(self) -> Attributes:
        """Return the collection's own time."""
        return directory_attributes(self._collection().modified)

    def children(self) -> Children:
        """Return the collection's assets."""
        names = common_files(self._collection(), self._around.hrefs)
        return numbered([Entry(name, is_directory=False) for name in names])

    def child(self, name: str) -> Node:
        """Return an asset's file."""
        collection = self._collection()
        asset = common_files(collection, self._around.hrefs).get(name)
        if asset is None:
            raise NotFound(f"{self._id} has no file {name!r} of its own")
        return AssetFile(
            self._around.content, self._ref(asset), size=asset.size, modified=collection.modified
        )

    def identities(self) -> list[tuple[str, ...]]:
        """Return that of the collection, with no item."""
        return [(self._around.catalog.root, self._id, "")]

    def _collection(self) -> Collection:
        return self._around.catalog.collection(self._id)

    def _ref(self, asset: Asset) -> AssetRef:
        catalog = self._around.catalog

        def locate(after: float) -> Location:
            collection = (
                catalog.renewed_collection(self._id, after) if after else self._collection()
            )
            found = next((one for one in collection.assets if one.key == asset.key), None)
            if found is None:
                raise NotFound(f"{self._id} no longer has the asset {asset.key!r}")
            return located(found, collection.fetched, self._around.hrefs)

        identity = (catalog.root, self._id, "", asset.key)
        return to_ref(identity, locate, asset)


def common_files(collection: Collection, hrefs: Hrefs) -> dict[str, Asset]:
    """Return file name -> asset for the collection's own assets that can be read here."""
    return file_names(collection.assets, frozenset(), hrefs)


def json_name(collection: Collection) -> str:
    """Return what the document of a collection's directory, or of a catalog's, is called."""
    return "catalog.json" if collection.is_catalog else "collection.json"
