"""What stands in the tree: directories, files and links, as the kernel's side and the CLI see them.

Owns the shapes only; the kinds are in the modules beside this one. A view shows what stands
elsewhere: its name begins with `@`, and the members of its directories are symbolic links.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple, Protocol


class Attributes(NamedTuple):
    """What `stat` tells of a node."""

    is_directory: bool
    size: int
    """Bytes; 0 for a directory."""
    modified: float
    """POSIX seconds, the same at every call; 0 where the catalog tells no time."""
    is_link: bool = False


class Entry(NamedTuple):
    """One name of a directory."""

    name: str
    is_directory: bool
    attributes: Attributes | None = None
    """Where they are known without a request; a link's always are."""


class Bytes(Protocol):
    """An open file."""

    @property
    def edition(self) -> Hashable:
        """What is equal for two openings of a file that give the same bytes, and only for those."""

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return the bytes [offset, offset + size), fewer at the end of the file."""


class _Node:
    def identities(self) -> list[tuple[str, ...]]:
        """Return with what the identities of the assets begin whose bytes stand here or below."""
        return []


class File(_Node, ABC):
    """A node with bytes. `program` is equal for all that one program asks; None is one too."""

    @abstractmethod
    def attributes(self, program: Hashable = None) -> Attributes:
        """Return size and time; may ask the network."""

    @abstractmethod
    def open(self, program: Hashable = None) -> Bytes:
        """Return the file's bytes, of one version."""


class Children:
    """The names of a directory, as they stood when it was opened; `count` of them, where known.

    `children(number)` iterates from the name of that number on, waiting where it has to. `is_known`
    says whether a name, or the end in its place, can be told without waiting for the network.
    """

    def __init__(
        self,
        iterate: Callable[[int], Iterator[Entry]],
        is_known: Callable[[int], bool] = lambda _: True,
        count: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._iterate = iterate
        self.count = count
        self.is_known = is_known

    def __call__(self, start: int) -> Iterator[Entry]:
        """Iterate from the name with the number `start` on."""
        return self._iterate(start)


class Directory(_Node, ABC):
    """A node with children."""

    @abstractmethod
    def attributes(self) -> Attributes:
        """Return the time; may ask the network."""

    @abstractmethod
    def children(self) -> Children:
        """Return the directory's names; they may come from the network as they are taken."""

    @abstractmethod
    def child(self, name: str) -> "Node":
        """Return the child with that name; raises NotFound. Never lists."""


class Symlink:
    """A node that leads to another one, by the path `target` relative to its own directory."""

    def __init__(self, target: str, modified: float) -> None:
        self.target = target
        self._modified = modified

    def attributes(self) -> Attributes:
        """Return its own size and time, not those of what it leads to."""
        size = len(self.target.encode("utf-8", "surrogateescape"))
        return Attributes(is_directory=False, size=size, modified=self._modified, is_link=True)


Node = File | Directory | Symlink


class Document(File):
    """A file that the tree makes itself: JSON of the catalog, the README."""

    def __init__(self, render: Callable[[], bytes], modified: float) -> None:
        self._render = render
        self._modified = modified

    def attributes(self, program: Hashable = None) -> Attributes:  # noqa: ARG002 - as `open`
        """Return the size of the document as it is now."""
        return Attributes(is_directory=False, size=len(self._render()), modified=self._modified)

    def open(self, program: Hashable = None) -> Bytes:  # noqa: ARG002 - nothing is to be guessed
        """Return the document as it is now."""
        return _Text(self._render())


class _Text:
    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def edition(self) -> Hashable:
        return hashlib.blake2b(self._data, digest_size=16).digest()

    def read(self, offset: int, size: int) -> bytes | memoryview:
        return self._data[offset : offset + size]


def directory_attributes(modified: float) -> Attributes:
    """Return the attributes of a directory changed at `modified`, in POSIX seconds."""
    return Attributes(is_directory=True, size=0, modified=modified)


def numbered(entries: list[Entry]) -> Children:
    """Return a fixed list of entries as children."""
    return Children(lambda start: iter(entries[start:]), count=lambda: len(entries))
