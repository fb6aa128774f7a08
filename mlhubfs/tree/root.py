"""The mount's root: datasets, the collections that no dataset names, and README.txt.

`Tree` is the way in: from a path to a node.
"""

import logging
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Iterator

from mlhubfs.errors import IsADirectory, NotADirectory, NotFound
from mlhubfs.tree import documents
from mlhubfs.tree.choices import choose_datasets
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
    Symlink,
    directory_attributes,
)
from mlhubfs.tree.surroundings import RESERVED_IN_ROOT, Surroundings
from mlhubfs.tree.top import TopDirectory
from mlhubfs.tree.where import WHERE, WhereDirectory

_log = logging.getLogger("mlhubfs.tree")
_README = "README.txt"
_FOLLOWED = 1000  # links remembered until what they lead to is looked up
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
        if self._around.show_views:
            entries.append(Entry(WHERE, is_directory=True))
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
        if name == WHERE:
            return WhereDirectory(choose_datasets(self._around), f"/{WHERE}")
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
        return CollectionDirectory(self._around, f"/{name}", identifier, above=("collection.json",))

    def identities(self) -> list[tuple[str, ...]]:
        """Return that of the source."""
        return [(self._around.catalog.root,)]


class Tree:
    """The nodes of one mount, by path. Any thread."""

    def __init__(self, around: Surroundings) -> None:
        self._lock = threading.Lock()
        self._directories: OrderedDict[str, Directory] = OrderedDict()
        self._followed: OrderedDict[str, str] = OrderedDict()
        top = around.catalog.top
        self._root = Root(around) if top is None else TopDirectory(around, top)

    def node(self, path: str) -> Node:
        """Return the node at an absolute path; raises NotFound or NotADirectory.

        Links above it are followed; if it is one itself, that is returned.
        """
        return self._find(path)[1]

    def link(self, path: str) -> Symlink:
        """Return the link at `path`, which somebody is about to follow."""
        path, node = self._find(path)
        if not isinstance(node, Symlink):
            raise NotFound(f"{path} is no symbolic link")
        self._note(path, node)
        return node

    def followed(self, path: str) -> File | Directory:
        """Return the node at `path`, or the one that the link there leads to."""
        return self._follow(*self._find(path))[1]

    def directory(self, path: str) -> Directory:
        """Return the directory at `path`, or that to which a link there leads."""
        node = self.followed(path)
        if not isinstance(node, Directory):
            raise NotADirectory(f"{path} is a file")
        return node

    def file(self, path: str) -> File:
        """Return the file at `path`, or that to which a link there leads."""
        node = self.followed(path)
        if not isinstance(node, File):
            raise IsADirectory(f"{path} is a directory")
        return node

    def _find(self, path: str) -> tuple[str, Node]:
        """Return the node at `path`, and its own path, in which no link is above it."""
        names = list[str]()
        node: Node | None
        while (node := self._held(path)) is None:
            path, _, name = path.rpartition("/")
            names.append(name)
        while names:  # not by recursion: Python's stack is shorter than paths may be
            path, above = self._follow(path, node)
            if not isinstance(above, Directory):
                raise NotADirectory(f"{path} is a file")
            path = f"{path.rstrip('/')}/{names.pop()}"
            node = self._child(above, path)
        return path, node

    def _follow(self, path: str, node: Node) -> tuple[str, File | Directory]:
        """Return where the link at `path` leads, and what is there; or what was given."""
        while isinstance(node, Symlink):  # ends: a link leads out of a view, to no other one
            path, node = self._find(self._note(path, node))
        return path, node

    def _held(self, path: str) -> Directory | None:
        """Return the directory at `path` if it has been made before."""
        if path in {"/", ""}:
            return self._root
        with self._lock:
            known = self._directories.get(path)
            if known:
                self._directories.move_to_end(path)
            return known

    def _child(self, above: Directory, path: str) -> Node:
        """Return the node at `path`, a child of `above`."""
        try:
            node = above.child(posixpath.basename(path))
        except NotFound as error:
            self._report_dead_link(path, error)
            raise
        if isinstance(node, Directory):
            with self._lock:
                # Two threads may have made it: the first stays, for it knows what was listed.
                node = self._directories.setdefault(path, node)
                if len(self._directories) > _DIRECTORIES:
                    self._directories.popitem(last=False)
        return node

    def _note(self, path: str, link: Symlink) -> str:
        """Remember that somebody is about to follow the link at `path`; return where it leads."""
        target = target_of(path, link)
        with self._lock:
            # Its directory too: that is what is found missing where a whole collection is.
            self._followed[target] = self._followed[posixpath.dirname(target)] = path
            while len(self._followed) > _FOLLOWED:
                self._followed.popitem(last=False)
        return target

    def _report_dead_link(self, path: str, error: NotFound) -> None:
        """Say that a link has led nowhere, if it was one that led here."""
        with self._lock:
            link = self._followed.pop(path, None)
        if link:
            _log.info("%r leads to nothing: %s", link, error)


def target_of(path: str, link: Symlink) -> str:
    """Return the absolute path that the link at `path` leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link.target))
