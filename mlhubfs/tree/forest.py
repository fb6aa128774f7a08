"""Several trees in one mount, each below a directory of its name.

*Threading.* Any thread.
"""

from collections.abc import Mapping
from typing import NoReturn

from mlhubfs.errors import IsADirectory, NotFound
from mlhubfs.tree.nodes import (
    Attributes,
    Children,
    Directory,
    Entry,
    File,
    Node,
    Symlink,
    directory_attributes,
    numbered,
)
from mlhubfs.tree.root import Tree


class Forest:
    """The nodes of `trees`, by paths that begin with a tree's name."""

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        self._trees = trees
        self._top = _Top(trees)

    def node(self, path: str) -> Node:
        """Return the node at an absolute path; see `Tree`."""
        return self._top if path == "/" else self._tree(path).node(_inner(path))

    def link(self, path: str) -> Symlink:
        """Return the link at `path`, which leads to another place of its own tree."""
        return self._tree(path).link(_inner(path))

    def directory(self, path: str) -> Directory:
        """Return the directory at `path`, or that to which a link there leads."""
        return self._top if path == "/" else self._tree(path).directory(_inner(path))

    def file(self, path: str) -> File:
        """Return the file at `path`, or that to which a link there leads."""
        if path == "/":
            raise IsADirectory("/ is a directory")
        return self._tree(path).file(_inner(path))

    def _tree(self, path: str) -> Tree:
        name = path.split("/")[1]
        return self._trees[name] if name in self._trees else _refuse(name)


class _Top(Directory):
    """The root directory: one directory for each tree."""

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        self._trees = trees

    def attributes(self) -> Attributes:
        """Return no time: to find the latest would ask every source."""
        return directory_attributes(0.0)

    def children(self) -> Children:
        """Return the names in their given order."""
        return numbered([Entry(name, is_directory=True) for name in self._trees])

    def child(self, name: str) -> Node:
        """Return the root of a tree."""
        return self._trees[name].node("/") if name in self._trees else _refuse(name)

    def identities(self) -> list[tuple[str, ...]]:
        """Return those of all sources."""
        roots = (self.child(name) for name in self._trees)
        return [one for root in roots if isinstance(root, Directory) for one in root.identities()]


def _inner(path: str) -> str:
    return "/" + "/".join(path.split("/")[2:])


def _refuse(name: str) -> NoReturn:
    raise NotFound(f"there is no source {name!r} here")
