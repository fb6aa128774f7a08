"""The names of one collection as its readers see them: in order, at positions that stay.

Owns one generation of a collection's names while anybody reads them: what is known of it, who
takes it further, and the going on in memory where the index on disk fails. Does not judge pages:
`walker`.

A page is asked for when a reader wants names of the one before it: one is read ahead, no more, and
one reader's page is all readers' page, those of other processes too. Whatever was asked for is
stored, though its reader may have gone. Where another process is at it, its progress is looked for
in the index every _LOOK_SECONDS.

*Threading.* Any thread may iterate; pages come in a flight of the workers. What is known is one
immutable Walk, replaced as a whole.
"""

import contextlib
import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from mlhubfs.catalog.index_memory import MemoryIndex
from mlhubfs.catalog.index_walk import Walk
from mlhubfs.catalog.models import Listed
from mlhubfs.catalog.walker import AnyIndex, Walker
from mlhubfs.errors import IndexUnusable, MlhubfsError, TimedOut, WalkGone
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.catalog")
_LOOK_SECONDS = 0.02  # another process has no way to wake us
_STALE_SECONDS = 10.0  # an error of a page that was read ahead is told to who comes by then
_BATCH = 1000  # names read from the index at once: 1 ms, 150 kB
_BATCHES = 8  # kept for readers side by side; a reply to the kernel holds some 150 names


class Listing:
    """The names of the walk `walk` of `index`, which `walker` takes further.

    `patience` is how many seconds another process may be at it without getting further.
    """

    def __init__(
        self, walk: Walk, index: AnyIndex, walker: Walker, workers: Workers, *, patience: float
    ) -> None:
        self.name = walk.collection
        self._walker = walker
        self._workers = workers
        self._patience = patience
        self._batches: OrderedDict[int, list[tuple[str, float]]] = OrderedDict()
        self._ahead = 0
        self._failed: tuple[float, MlhubfsError] | None = None
        self._lock = threading.Lock()
        self._walk: Walk = walk
        self._index: AnyIndex = index
        self._bind(index, walk)

    def __len__(self) -> int:
        """Return the number of items known so far."""
        return self._walk.count

    @property
    def number(self) -> int:
        """The number of its walk."""
        return self._walk.number

    @property
    def in_memory(self) -> bool:
        """Whether it will be gone with this process."""
        return isinstance(self._index, MemoryIndex)

    @property
    def complete(self) -> bool:
        """Whether the walk has ended."""
        return self._walk.state != "walking"

    @property
    def problem(self) -> str | None:
        """Why the names may be fewer than the collection's, where that is so."""
        return self._walk.problem

    @property
    def matched(self) -> int | None:
        """How many items the server says there are, where it does."""
        return self._walk.matched

    @property
    def touched(self) -> float:
        """POSIX seconds at which the last page came, or the listing was found unchanged."""
        return self._walk.touched

    def modified(self, item_id: str) -> float | None:
        """Return the POSIX time of an item that is known by now, else None."""
        return self._index.known(self.name, item_id)

    def iterate(self, start: int = 0) -> Iterator[tuple[str, float]]:
        """Yield (id, POSIX time) from the item number `start` on, fetching pages as needed."""
        position = start
        while self._come_to(position):
            index = self._index
            try:
                batch = self._batch(position)
            except IndexUnusable as error:
                self._go_on_in_memory(index, error)
                continue
            for one in batch:
                yield one
                position += 1
                if position >= self._ahead and not self.complete:
                    break

    def documents(self) -> Iterator[list[Listed]]:
        """Yield some items at a time, with their JSON as the index has it; fetches pages as needed.

        Raises IndexUnusable where it has none: `in_memory`, or the disk fails.
        """
        index, number = self._index, self.number
        if isinstance(index, MemoryIndex):
            raise IndexUnusable(f"the listing of {self.name} is in memory only")
        position = 0
        while self._come_to(position):
            batch = index.documents(number, position)
            if not batch:
                raise IndexUnusable(f"the listing of {self.name} goes on in memory")
            yield batch
            position += len(batch)

    def reach(self, position: int) -> bool:
        """Fetch pages until item number `position` is known; say whether there is one."""
        walk = self._walk
        if walk.state != "walking":
            return position < walk.count
        while position >= walk.count and walk.state == "walking":
            self._walker.note_waiting()
            self._raise_failure()
            try:
                self._workers.once(self._key(walk), lambda seen=walk: self._advance(seen))  # type: ignore[misc]
            except MlhubfsError:
                self._failed = None
                raise
            walk = self._walk
        return position < walk.count

    def _come_to(self, position: int) -> bool:
        """As `reach`, for one who reads on: at the last page that is known the next is fetched."""
        self._walker.want(position)
        if not self.reach(position):
            return False
        walk = self._walk
        if position >= self._ahead and walk.state == "walking":
            self._ahead = walk.count
            self._workers.flight(self._key(walk), lambda: self._advance(walk))
        return True

    def _raise_failure(self) -> None:
        """Raise what became of the page that was to be read ahead, unless that is long ago."""
        failed, self._failed = self._failed, None
        if failed and time.monotonic() - failed[0] < _STALE_SECONDS:
            raise failed[1]

    def look(self) -> None:
        """See how far the walk has come, by whomever."""
        walk = self._index.walk(self._walk.number)
        if walk is not None and walk != self._walk:
            self._walk = walk

    def _bind(self, index: AnyIndex, walk: Walk) -> None:
        self._index = index
        self._walk = walk
        # An open directory may outlive the serving of its walk: it is held until the last reader of
        # this object has gone.
        weakref.finalize(self, index.hold(walk.number).release)

    def _advance(self, seen: Walk) -> None:
        """Have one more page than when the walk was `seen`."""
        if self._walk is not seen:
            return  # another reader's flight landed between our look and our start
        index = self._index
        try:
            self._await_progress(index, seen)
        except IndexUnusable as error:
            self._go_on_in_memory(index, error)
        except MlhubfsError as error:
            self._failed = (time.monotonic(), error)
            raise
        walk = self._walk
        if self._walker.is_ahead and walk.state == "walking":
            self._workers.submit(
                lambda: self._workers.flight(self._key(walk), lambda: self._advance(walk))
            )

    def _key(self, seen: Walk) -> str:
        return f"walk {id(self)} {seen.number} {seen.rewinds} {seen.pages}"

    def _await_progress(self, index: AnyIndex, seen: Walk) -> None:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                is_ours = self._walker.advance(index, seen)
            except WalkGone:
                is_ours = True  # it has ended
            self.look()
            if is_ours or self._walk != seen:
                return
            if time.monotonic() > deadline:
                raise TimedOut(f"another mount walks {self.name}, and does not come on")
            time.sleep(_LOOK_SECONDS)

    def _go_on_in_memory(self, index: AnyIndex, error: IndexUnusable) -> None:
        """Take what is known of the walk into memory, as far as it can be read, and go on there.

        What cannot be read is walked again: the server's order is the same, so positions stay.
        """
        if isinstance(index, MemoryIndex) or index.is_closed:
            raise error
        with self._lock:
            if self._index is not index:
                return  # another reader was here before us
            _log.warning("%s; the listing of %s goes on in memory", error, self.name)
            known, names = self._walk, list[tuple[str, float]]()
            with contextlib.suppress(MlhubfsError):
                names = [(item_id, modified) for _, item_id, modified in index.names(known.number)]
            memory = MemoryIndex()
            walk = memory.begin(self.name, names[: known.count])
            with memory.claim(self.name) as claim:  # type: ignore[union-attr]  # nobody else has it
                if len(names) < known.count:
                    walk = claim.rewind()
                elif known.state != "walking":
                    walk = claim.finish(known.problem)
                elif known.cursor is not None:
                    walk = claim.append([], cursor=known.cursor, matched=known.matched)
            self._batches.clear()
            self._bind(memory, walk)

    def _batch(self, position: int) -> list[tuple[str, float]]:
        """Return the names from `position` on, as many as are at hand; at least one."""
        number, offset = divmod(position, _BATCH)
        batch = self._batches.get(number)
        if batch is None or offset >= len(batch):
            batch = self._read(number * _BATCH)
            self._batches[number] = batch
            while len(self._batches) > _BATCHES:
                self._batches.popitem(last=False)
        return batch[offset:] if offset else batch

    def _read(self, first: int) -> list[tuple[str, float]]:
        names = self._index.names(self._walk.number, first)
        return [(item_id, modified) for _, item_id, modified in islice(names, _BATCH)]
