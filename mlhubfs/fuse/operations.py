"""What the kernel asks, translated for the tree: paths to nodes, handles to open things.

Owns the handles and nothing else of substance: errors become errnos in `callbacks`, names and
sizes are the tree's, bytes the content's.

What looks simple and is not:

1. The kernel believes a size for as long as `attr_timeout` says, and cuts reads off there. To open
   a file that turns out to have another size (it was replaced, or its catalog told a wrong one)
   fails with ESTALE: the kernel then looks the name up again, which tells it the size, and opens
   again by itself; the program sees nothing of it. (`direct_io` would do for read(2), but not for
   sendfile and splice, which go by the size and the pages that the kernel knows.)
2. A file that was replaced under an open handle is invalidated in the kernel (libfuse 3), so that
   the next `stat` is answered by us. That call waits for the read that noticed it: a worker's job.
3. A reply to `readdir` has room for hundreds of names (32 kB on Linux 6.16, 4 kB before). It ends
   where the next name would have to be waited for, or names at hand would wait for the next page.
4. The C library takes ENOENT from a listing for its end (the directory might have been removed), so
   a page that the server does not find would cut the listing short without a word: it is EIO.

5. The kernel keeps pages of a file between opens, and all its handles share them. (`auto_cache` has
   libfuse look whether size or time changed, but not before `attr_timeout`, and a replaced file may
   have both unchanged.) So `open` keeps the pages if they are of the edition that it opens, else
   the kernel drops them, and handles of other editions are dead from then on: what they could still
   read from the cache would become pages that the new handles read. While such handles are open,
   new ones use `direct_io`, lest the dead ones read pages of another file than they opened.

6. Where reading ahead fails, the kernel asks once more for the page that is wanted, and only then
   fails: a program would wait for two deadlines instead of one. So the error of a read is the
   answer to the next one of the same bytes too, if that comes at once.

*Threading.* Every method, from libfuse's threads, at once.
"""

import itertools
import logging
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from mlhubfs.errors import BadAnswer, Changed, Denied, MlhubfsError, NotFound, Unavailable
from mlhubfs.fuse.filesystem import Attributes, DirEntry, OpenFile, Totals
from mlhubfs.tree import nodes

_log = logging.getLogger("mlhubfs.fuse")
T = TypeVar("T")
_SECOND_TRY_SECONDS = 0.1  # the kernel's comes within a millisecond, a program's own later
_KNOWN_STEP = 50  # names; asking for each takes a tenth of the time that a name takes
_UNSURE = -1  # a size that no file has
_DIRECTORY = stat.S_IFDIR | 0o555
_FILE = stat.S_IFREG | 0o444
_LINK = stat.S_IFLNK | 0o777
_TOLD = 1 << 14  # sizes remembered: as many files as may be between their stat and their open


class _Failure(NamedTuple):
    until: float
    start: int
    stop: int
    error: MlhubfsError


@dataclass(slots=True)
class _OpenFile:
    path: str
    data: nodes.Bytes
    is_dead: bool = False
    """Whether the file was opened since with other bytes; see 5."""

    failures: list[_Failure] = field(default_factory=list)
    """Reads that failed just now; see 6."""

    def fail(self, offset: int, stop: int, error: MlhubfsError) -> None:
        """Keep the error of a read for the kernel's second try."""
        now = time.monotonic()
        kept = [one for one in self.failures if one.until > now]
        self.failures = [*kept, _Failure(now + _SECOND_TRY_SECONDS, offset, stop, error)]

    def fail_again(self, offset: int) -> None:
        """Raise the error of a read of that offset that has failed just now, once."""
        for one in self.failures:
            if one.start <= offset < one.stop:
                self.failures = [other for other in self.failures if other is not one]
                if time.monotonic() < one.until:
                    raise type(one.error)(str(one.error))

    def check(self) -> None:
        """Raise Changed if it is dead."""
        if self.is_dead:
            raise Changed(f"{self.path} was replaced on the server: open it again")


class Paths(Protocol):
    """What is mounted, by absolute paths; see `tree.root.Tree`."""

    def node(self, path: str) -> nodes.Node:
        """Return the node at `path`."""

    def link(self, path: str) -> nodes.Symlink:
        """Return the link at `path`, which somebody is about to follow."""

    def file(self, path: str) -> nodes.File:
        """Return the file at `path`, links followed."""

    def directory(self, path: str) -> nodes.Directory:
        """Return the directory at `path`, links followed."""


class Operations:
    """The file system over `tree`.

    `started` is called when the kernel is there. `caller` tells for which thread the kernel asks,
    so that the tree knows who reads what. `later` runs a task on another thread.
    `invalidate` makes the kernel forget a path.
    """

    def __init__(
        self,
        tree: Paths,
        *,
        started: Callable[[], None],
        caller: Callable[[], int],
        later: Callable[[Callable[[], object]], object],
        invalidate: Callable[[str], bool],
    ) -> None:
        self._tree = tree
        self._started = started
        self._caller = caller
        self._later = later
        self._invalidate = invalidate
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._files: dict[int, _OpenFile] = {}
        self._listings: dict[int, nodes.Children] = {}
        self._told: OrderedDict[str, int] = OrderedDict()
        self._paged: OrderedDict[str, Hashable] = OrderedDict()
        self._dead: set[str] = set()

    def init(self) -> None:
        """Say that the mount is there."""
        self._started()

    def destroy(self) -> None:
        """Do nothing: the composition root takes down what it built."""

    def getattr(self, path: str, fh: int | None) -> Attributes:  # noqa: ARG002 - a path says it all
        """Return the attributes of `path`."""
        node = self._tree.node(path)
        if not isinstance(node, nodes.File):
            return _attributes(node.attributes())
        found = node.attributes(self._caller())
        self._tell(path, found.size)
        return _attributes(found)

    def readlink(self, path: str) -> str:
        """Return where a link leads."""
        return self._tree.link(path).target

    def open(self, path: str, flags: int) -> OpenFile:  # noqa: ARG002 - the mount is read-only
        """Open a file at the version that its server has now."""
        file = self._tree.file(path)
        data = file.open(self._caller())
        size, edition = file.attributes().size, data.edition
        with self._lock:
            if self._told.get(path, size) != size:
                raise Changed(f"{path} has another size than the kernel was told")  # see 1
            keeps = self._paged.get(path) == edition
            dead = [] if keeps and path not in self._dead else self._bury(path, edition)
            _remember(self._paged, path, edition)
            number = next(self._numbers)
            self._files[number] = _OpenFile(path, data)
        return OpenFile(number, direct_io=bool(dead), keep_cache=keeps)

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes | memoryview:  # noqa: ARG002
        """Return `size` bytes at `offset`, fewer at the end."""
        opened = self._files[fh]
        opened.fail_again(offset)
        try:
            data = opened.data.read(offset, size)
            opened.check()
        except (Unavailable, BadAnswer, Denied, NotFound) as error:
            opened.fail(offset, offset + size, error)
            raise
        except Changed as error:
            _log.warning("%s", error)
            self._later(lambda: self._invalidate(opened.path))
            raise
        return data

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
        sure = 0
        for number, entry in enumerate(children(first), first + 3):
            if entry.attributes is None:
                known = _UNKNOWN_DIRECTORY if entry.is_directory else _UNKNOWN_FILE
                yield DirEntry(entry.name, known, complete=False, next_offset=number)
            else:
                if not (entry.is_directory or entry.attributes.is_link):
                    self._mention(f"{path.rstrip('/')}/{entry.name}", entry.attributes.size)
                yield DirEntry(
                    entry.name, _attributes(entry.attributes), complete=True, next_offset=number
                )
            if number <= sure:
                continue
            if children.is_known(number - 2 + _KNOWN_STEP):
                sure = number + _KNOWN_STEP
            elif not children.is_known(number - 2):
                return  # see 3

    def releasedir(self, fh: int) -> None:
        """Forget an open directory."""
        with self._lock:
            del self._listings[fh]

    def statfs(self) -> Totals:
        """Return zeros: how much the catalog holds cannot be told in constant time."""
        return Totals()

    def _bury(self, path: str, edition: Hashable) -> list[_OpenFile]:
        """Declare the handles of other editions dead, and return those. Under the lock."""
        dead = [one for one in self._files.values() if one.path == path]
        dead = [one for one in dead if one.is_dead or one.data.edition != edition]
        for one in dead:
            one.is_dead = True
        if dead:
            self._dead.add(path)
        else:
            self._dead.discard(path)
        return dead

    def _tell(self, path: str, size: int) -> None:
        with self._lock:
            _remember(self._told, path, size)

    def _mention(self, path: str, size: int) -> None:
        """Note a size that the kernel may have taken from a listing, or not."""
        with self._lock:
            known = self._told.get(path, size)
            _remember(self._told, path, size if known == size else _UNSURE)


def _remember(table: OrderedDict[str, T], path: str, value: T) -> T:
    table[path] = value
    table.move_to_end(path)
    if len(table) > _TOLD:
        table.popitem(last=False)
    return value


_UNKNOWN_DIRECTORY = Attributes(_DIRECTORY, 0, 0.0)
_UNKNOWN_FILE = Attributes(_FILE, 0, 0.0)


def _attributes(node: nodes.Attributes) -> Attributes:
    mode = _LINK if node.is_link else _DIRECTORY if node.is_directory else _FILE
    return Attributes(mode, node.size, node.modified)
