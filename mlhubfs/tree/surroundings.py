"""What every node is given: the catalog, the content, and the way from an id to a path."""

import posixpath
from dataclasses import dataclass, field

from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.node import key_above
from mlhubfs.content.content import Content
from mlhubfs.errors import NotFound
from mlhubfs.tree.documents import Scrub
from mlhubfs.tree.guesses import Guesses
from mlhubfs.tree.hrefs import Hrefs
from mlhubfs.tree.names import encode

RESERVED_IN_ROOT = frozenset({"README.txt"})
RESERVED_IN_DATASET = frozenset({"catalog.json", "dataset.json"})
RESERVED_IN_COLLECTION = frozenset({"catalog.json", "collection.json", "_common"})
Above = tuple[str, ...]
"""The names of the JSON files of a directory and those above it that have one, the outermost first:
what a directory's links lead up to."""


@dataclass(frozen=True)
class Surroundings:
    """The collaborators of the nodes of one mount."""

    catalog: Catalog
    content: Content
    scrub: Scrub
    show_views: bool = False
    """Whether views are listed; they are found by name anyway."""
    guesses: Guesses | None = None
    """Where None, no file is fetched before it is opened."""
    hrefs: Hrefs = field(default_factory=Hrefs)
    """Which assets can be opened."""

    def dataset_path(self, dataset_id: str) -> str:
        """Return the path of a dataset's directory, absolute from the mount's root."""
        return posixpath.join("/", encode(dataset_id, RESERVED_IN_ROOT))

    def collection_path(self, collection_id: str, *, beside: str = "/") -> str:
        """Return the path of a collection's directory, absolute from the mount's root.

        A collection that no dataset names stands at the root. One that the source does not have
        would stand in the directory `beside`: a link to it is dead, but as in the archives. Those
        of a static catalog are called by their path already.
        """
        if self.catalog.top is not None:
            return self._nested_path(collection_id)
        for dataset in self.catalog.datasets().values():
            if collection_id in dataset.collection_ids:
                above = self.dataset_path(dataset.id)
                return posixpath.join(above, encode(collection_id, RESERVED_IN_DATASET))
        if beside != "/":
            try:
                self.catalog.collection(collection_id)
            except NotFound:
                return posixpath.join(beside, encode(collection_id, RESERVED_IN_DATASET))
        return posixpath.join("/", encode(collection_id, RESERVED_IN_ROOT))

    def _nested_path(self, key: str) -> str:
        names = list[str]()
        while key != self.catalog.top:
            key, identifier = key_above(key)
            reserved = RESERVED_IN_ROOT if key == self.catalog.top else frozenset[str]()
            names.append(encode(identifier, RESERVED_IN_COLLECTION | reserved))
        return "/" + "/".join(reversed(names))

    def item_path(self, collection_id: str, item_id: str, *, beside: str = "/") -> str:
        """Return the path of an item's directory, absolute from the mount's root."""
        return posixpath.join(
            self.collection_path(collection_id, beside=beside),
            encode(item_id, RESERVED_IN_COLLECTION),
        )
