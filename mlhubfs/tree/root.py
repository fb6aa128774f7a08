"""The mount's root: datasets, the collections that no dataset names, and README.txt.

`Tree` is the way in: from a path to a node.
"""

import posixpath
import threading
from collections import OrderedDict
from collections.abc import Iterator

from mlhubfs.errors import IsADirectory, NotADirectory, NotFound
from mlhubfs.tree import documents
from mlhubfs.tree.collection import CollectionDirectory
from mlhubfs.tree.dataset import DatasetDirectory
from mlhubfs.tree.names import decode, encode, is_cut
from mlhubfs.tree.nodes import (
    Attributes,
    Children,
    Directory,
    Document,
    Entry,
    File,
    Node,
    directory_attributes,
)
from mlhubfs.tree.surroundings import RESERVED_IN_ROOT, Surroundings

_README = "README.txt"
_DIRECTORIES = 4096  # nodes kept by path; each asks the catalog anew, so none grows old


class Root(Directory):
    """The root directory of a mount."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def attributes(self) -> Attributes:
        """Return the latest time of the datasets."""
        datasets = self._around.catalog.datasets().values()
        return directory_attributes(max((one.modified for one in datasets), default=0.0))

    def children(self) -> Children:
        """Return README.txt, the datasets, then the collections without one."""
        catalog = self._around.catalog
        entries = [Entry(_README, is_directory=False)]
        for dataset in catalog.datasets().values():
            name = encode(dataset.id, RESERVED_IN_ROOT)
            attributes = directory_attributes(dataset.modified)
            entries.append(Entry(name, is_directory=True, attributes=attributes))

        def iterate(start: int) -> Iterator[Entry]:
            yield from entries[start:]
            loose = list(catalog.loose_collections().values())
            for collection in loose[max(0, start - len(entries)) :]:
                yield Entry(
                    encode(collection.id, RESERVED_IN_ROOT),
                    is_directory=True,
                    attributes=directory_attributes(collection.modified),
                )

        return Children(iterate)

    def child(self, name: str) -> Node:
        """Return README.txt, a dataset without a request, or a collection with one."""
        catalog = self._around.catalog
        datasets = catalog.datasets()
        if name == _README:
            return Document(
                lambda: documents.readme(catalog.root, len(datasets), catalog.problems()),
                self.attributes().modified,
            )
        identifier = decode(name, RESERVED_IN_ROOT)
        if identifier is None and is_cut(name):
            known = [*datasets, *catalog.loose_collections()]
            identifier = next((one for one in known if encode(one, RESERVED_IN_ROOT) == name), None)
        if identifier is None:
            raise NotFound(f"there is no {name!r}")
        if identifier in datasets:
            return DatasetDirectory(self._around, f"/{name}", identifier)
        for dataset in datasets.values():
            if identifier in dataset.collection_ids:
                raise NotFound(f"the collection {identifier} stands in the dataset {dataset.id}")
        catalog.collection(identifier)
        return CollectionDirectory(self._around, f"/{name}", identifier)


class Tree:
    """The nodes of one mount, by path. Any thread."""

    def __init__(self, around: Surroundings) -> None:
        self._lock = threading.Lock()
        self._directories: OrderedDict[str, Directory] = OrderedDict()
        self._root = Root(around)

    def node(self, path: str) -> Node:
        """Return the node at an absolute path; raises NotFound or NotADirectory."""
        if path == "/":
            return self._root
        with self._lock:
            known = self._directories.get(path)
            if known:
                self._directories.move_to_end(path)
                return known
        above, name = posixpath.split(path)
        node = self.directory(above).child(name)
        if isinstance(node, Directory):
            with self._lock:
                # Two threads may have made it: the first stays, for it knows what was listed.
                node = self._directories.setdefault(path, node)
                if len(self._directories) > _DIRECTORIES:
                    self._directories.popitem(last=False)
        return node

    def directory(self, path: str) -> Directory:
        """Return the directory at `path`."""
        node = self.node(path)
        if not isinstance(node, Directory):
            raise NotADirectory(f"{path} is a file")
        return node

    def file(self, path: str) -> File:
        """Return the file at `path`."""
        node = self.node(path)
        if not isinstance(node, File):
            raise IsADirectory(f"{path} is a directory")
        return node
