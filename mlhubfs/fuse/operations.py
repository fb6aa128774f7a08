"""What the kernel asks, translated for the tree: paths to nodes, handles to open things.

Owns the handles and nothing else of substance: errors become errnos in `callbacks`, names and
sizes are the tree's, bytes the content's.

What looks simple and is not:

1. The kernel believes a size for as long as `attr_timeout` says, and cuts reads off there. A file
   that turns out to have another size when it is opened (it was replaced, or its catalog told a
   wrong one) is opened with `direct_io`, which asks us for every read until we say it ends.
2. A file that was replaced under an open handle is invalidated in the kernel (libfuse 3), so that
   the next `stat` is answered by us. That call waits for the read that noticed it: a worker's job.
3. A reply to `readdir` has room for hundreds of names (32 kB on Linux 6.16, 4 kB before). It ends
   where the next name would have to be waited for, or names at hand would wait for the next page.
4. The C library takes ENOENT from a listing for its end (the directory might have been removed), so
   a page that the server does not find would cut the listing short without a word: it is EIO.

*Threading.* Every method, from libfuse's threads, at once.
"""

import itertools
import logging
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mlhubfs.errors import BadAnswer, Changed, NotFound
from mlhubfs.fuse.filesystem import Attributes, DirEntry, OpenFile, Totals
from mlhubfs.tree import nodes
from mlhubfs.tree.root import Tree

_log = logging.getLogger("mlhubfs.fuse")
_DIRECTORY = stat.S_IFDIR | 0o555
_FILE = stat.S_IFREG | 0o444
_TOLD = 1 << 14  # sizes remembered: as many files as may be between their stat and their open


class _OpenFile(NamedTuple):
    path: str
    data: nodes.Bytes


class Operations:
    """The file system over `tree`.

    `started` is called when the kernel is there. `later` runs a task on another thread.
    `invalidate` makes the kernel forget a path.
    """

    def __init__(
        self,
        tree: Tree,
        *,
        started: Callable[[], None],
        later: Callable[[Callable[[], object]], object],
        invalidate: Callable[[str], bool],
    ) -> None:
        self._tree = tree
        self._started = started
        self._later = later
        self._invalidate = invalidate
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._files: dict[int, _OpenFile] = {}
        self._listings: dict[int, nodes.Children] = {}
        self._told: OrderedDict[str, int] = OrderedDict()

    def init(self) -> None:
        """Say that the mount is there."""
        self._started()

    def destroy(self) -> None:
        """Do nothing: the composition root takes down what it built."""

    def getattr(self, path: str, fh: int | None) -> Attributes:  # noqa: ARG002 - a path says it all
        """Return the attributes of `path`."""
        found = self._tree.node(path).attributes()
        if not found.is_directory:
            self._tell(path, found.size)
        return _attributes(found)

    def readlink(self, path: str) -> str:
        """Refuse: nothing here is a link."""
        raise NotFound(f"{path} is no symbolic link")

    def open(self, path: str, flags: int) -> OpenFile:  # noqa: ARG002 - the mount is read-only
        """Open a file at the version that its server has now."""
        file = self._tree.file(path)
        data = file.open()
        size = file.attributes().size
        with self._lock:
            number = next(self._numbers)
            self._files[number] = _OpenFile(path, data)
            is_news = self._told.get(path, size) != size
        if is_news:
            self._later(lambda: self._invalidate(path))
        return OpenFile(number, direct_io=is_news)

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes | memoryview:  # noqa: ARG002
        """Return `size` bytes at `offset`, fewer at the end."""
        opened = self._files[fh]
        try:
            return opened.data.read(offset, size)
        except Changed as error:
            _log.warning("%s", error)
            self._later(lambda: self._invalidate(opened.path))
            raise

    def release(self, fh: int) -> None:
        """Forget an open file."""
        with self._lock:
            del self._files[fh]

    def opendir(self, path: str) -> int:
        """Open a directory: its listing stays the same until it is closed."""
        children = self._tree.directory(path).children()
        with self._lock:
            number = next(self._numbers)
            self._listings[number] = children
        return number

    def readdir(self, path: str, fh: int, offset: int) -> Iterator[DirEntry]:
        """Yield the names behind `offset`: 1 is `.`, 2 is `..`, 3 the first child."""
        for number, name in ((1, "."), (2, "..")):
            if offset < number:
                yield DirEntry(name, _UNKNOWN_DIRECTORY, complete=False, next_offset=number)
        try:
            yield from self._children(path, self._listings[fh], max(0, offset - 2))
        except NotFound as error:
            raise BadAnswer(f"the listing of {path} breaks off: {error}") from error  # see 4

    def _children(self, path: str, children: nodes.Children, first: int) -> Iterator[DirEntry]:
        for number, entry in enumerate(children(first), first + 3):
            if entry.attributes is None:
                known = _UNKNOWN_DIRECTORY if entry.is_directory else _UNKNOWN_FILE
                yield DirEntry(entry.name, known, complete=False, next_offset=number)
            else:
                if not entry.is_directory:
                    self._tell(f"{path.rstrip('/')}/{entry.name}", entry.attributes.size)
                yield DirEntry(
                    entry.name, _attributes(entry.attributes), complete=True, next_offset=number
                )
            if not children.is_known(number - 2):
                return  # see 3

    def releasedir(self, fh: int) -> None:
        """Forget an open directory."""
        with self._lock:
            del self._listings[fh]

    def statfs(self) -> Totals:
        """Return zeros: how much the catalog holds cannot be told in constant time."""
        return Totals()

    def _tell(self, path: str, size: int) -> None:
        with self._lock:
            self._told[path] = size
            self._told.move_to_end(path)
            if len(self._told) > _TOLD:
                self._told.popitem(last=False)


_UNKNOWN_DIRECTORY = Attributes(_DIRECTORY, 0, 0.0)
_UNKNOWN_FILE = Attributes(_FILE, 0, 0.0)


def _attributes(node: nodes.Attributes) -> Attributes:
    return Attributes(_DIRECTORY if node.is_directory else _FILE, node.size, node.modified)
