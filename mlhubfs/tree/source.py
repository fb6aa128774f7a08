"""`@source` of a label item: links to the imagery that the label was made from.

Owns their names. Where they lead is taken from the item's own `source` links, whatever root those
name; whether anything is there is found out by who follows one, for there may be hundreds.
"""

import posixpath
from collections.abc import Callable

from mlhubfs.catalog.models import Item
from mlhubfs.errors import NotFound
from mlhubfs.tree import documents
from mlhubfs.tree.names import encode
from mlhubfs.tree.nodes import (
    Attributes,
    Children,
    Directory,
    Entry,
    Node,
    Symlink,
    directory_attributes,
    numbered,
)
from mlhubfs.tree.surroundings import RESERVED_IN_COLLECTION, Surroundings

SOURCE = "@source"


class SourceDirectory(Directory):
    """The imagery of the item that `load` returns; at `path`, from the mount's root."""

    def __init__(self, around: Surroundings, path: str, load: Callable[[], Item]) -> None:
        self._around = around
        self._path = path
        self._load = load

    def attributes(self) -> Attributes:
        """Return the item's time."""
        return directory_attributes(self._load().modified)

    def children(self) -> Children:
        """Return the links in the item's order; no request an item."""
        item = self._load()
        return numbered(
            [
                Entry(name, is_directory=False, attributes=self._link(*ids, item).attributes())
                for name, ids in find_sources(item, self._around.scrub).items()
            ]
        )

    def child(self, name: str) -> Node:
        """Return a link."""
        item = self._load()
        ids = find_sources(item, self._around.scrub).get(name)
        if ids is None:
            raise NotFound(f"{item.id} has no source {name!r}")
        return self._link(*ids, item)

    def _link(self, collection_id: str, item_id: str, item: Item) -> Symlink:
        dataset = posixpath.dirname(posixpath.dirname(posixpath.dirname(self._path)))
        there = self._around.item_path(collection_id, item_id, beside=dataset)
        return Symlink(posixpath.relpath(there, self._path), item.modified)


def find_sources(item: Item, scrub: documents.Scrub) -> dict[str, tuple[str, str]]:
    """Return name -> (collection id, item id) of the imagery that an item names."""
    names: dict[str, tuple[str, str]] = {}
    for ids in dict.fromkeys(documents.source_items(documents.read(item.document, scrub))):
        collection_id, item_id = ids
        name = encode(item_id, RESERVED_IN_COLLECTION)
        if name in names:  # of another collection: ids are unique in one only
            name = encode(f"{item_id}~{collection_id}", RESERVED_IN_COLLECTION)
        names[name] = ids
    return names
