"""Several trees in one mount, each below a directory of its name.

The directory of a tree that is not there yet has attributes, so that the others are listed and
looked at without waiting for it; what is asked of it beyond that waits, or fails.

*Threading.* Any thread.
"""

from collections.abc import Mapping
from typing import NoReturn, Protocol

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


class Branch(Protocol):
    """Where a tree comes from."""

    @property
    def tree(self) -> Tree | None:
        """The tree, if it is there."""

    def grow(self) -> Tree:
        """Return the tree, or raise why it cannot be there."""


class Forest:
    """The nodes of the trees of `branches`, by paths that begin with their names."""

    def __init__(self, branches: Mapping[str, Branch]) -> None:
        self._branches = branches
        self._top = _Top(branches)

    def node(self, path: str) -> Node:
        """Return the node at an absolute path; see `Tree`."""
        return self._top if path == "/" else _node(self._branch(path), _inner(path))

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
        return self._branch(path).grow()

    def _branch(self, path: str) -> Branch:
        name = path.split("/")[1]
        return self._branches[name] if name in self._branches else _refuse(name)


class _Top(Directory):
    """The root directory: one directory for each tree."""

    def __init__(self, branches: Mapping[str, Branch]) -> None:
        self._branches = branches

    def attributes(self) -> Attributes:
        """Return no time: to find the latest would ask every source."""
        return directory_attributes(0.0)

    def children(self) -> Children:
        """Return the names in their given order."""
        return numbered([Entry(name, is_directory=True) for name in self._branches])

    def child(self, name: str) -> Node:
        """Return the root of a tree."""
        return _node(self._branches[name], "/") if name in self._branches else _refuse(name)


class _Bud(Directory):
    """The root directory of a tree that is not there yet."""

    def __init__(self, branch: Branch) -> None:
        self._branch = branch

    def attributes(self) -> Attributes:
        """Return no time, and wait for nothing."""
        return directory_attributes(0.0)

    def children(self) -> Children:
        """Return the tree's, if it is there now."""
        return self._branch.grow().directory("/").children()

    def child(self, name: str) -> Node:
        """Return the tree's, if it is there now."""
        return self._branch.grow().node(f"/{name}")


def _node(branch: Branch, path: str) -> Node:
    if path == "/" and branch.tree is None:
        return _Bud(branch)
    return branch.grow().node(path)


def _inner(path: str) -> str:
    return "/" + "/".join(path.split("/")[2:])


def _refuse(name: str) -> NoReturn:
    raise NotFound(f"there is no source {name!r} here")
