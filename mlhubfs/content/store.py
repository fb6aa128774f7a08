"""The blocks of all files: in memory, on disk, on their way. Each is brought once, whoever asks.

Owns the memory budget and the table of what is under way. Does not know assets: bytes are named by
the key of a version, and fetched by a function that is given.

*Budget.* What is in memory and what is on its way take at most `budget` bytes together; `buffers`
says what goes first. What is read ahead, and not read yet, gets three quarters of it at most: more
is refused, and `start` says so. What a reader waits for is always fetched, with an empty memory if
need be: there are as many of these as there are readers.

*Priority.* Reading ahead uses at most `_AHEAD` requests at a time, an eighth of the network's
workers: a read that somebody waits for never queues behind one that somebody may want.

*Threading.* Any thread; one lock for the tables, never held over disk or network.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from mlhubfs.content.blocks import BLOCK, blocks_of, cut, parts, runs, span
from mlhubfs.content.buffers import Blocks, Buffers
from mlhubfs.errors import BadAnswer, Interrupted
from mlhubfs.transport.workers import Workers

_AHEAD = 32

Fetch = Callable[[int, int], bytes | memoryview]
"""(start, stop) -> the bytes [start, stop) of one version, or all of its bytes."""


class BlockCache(Protocol):
    """Where blocks are kept between mounts; may forget anything at any time."""

    def read(self, key: str, numbers: Iterable[int], size: int) -> Blocks:
        """Return those blocks of the version `key`, of `size` bytes, that are there and sound."""

    def lacks(self, key: str, size: int) -> list[range]:
        """Return the runs of blocks that are not there, within extents; none is looked into."""

    def write(self, key: str, first: int, data: bytes | memoryview, size: int) -> None:
        """Keep `data`, which begins with block `first`; returns at once."""


class _Landed(NamedTuple):
    """What came of a run: its blocks, and what is still on its way because disk did not have it."""

    blocks: Blocks
    rest: "list[_Coming]"


@dataclass(eq=False)
class _Coming:
    """A run of blocks on its way."""

    key: str
    run: range
    size: int
    """Bytes of the whole asset."""
    fetch: Fetch
    is_ahead: bool
    """Whether nobody waits for it yet."""
    future: Future[_Landed] = field(default_factory=Future)

    @property
    def bytes(self) -> int:
        start, stop = span(self.run, self.size)
        return stop - start


class BlockStore:
    """Blocks of 128 KiB by (version key, number)."""

    def __init__(
        self, cache: BlockCache | None, *, network: Workers, disk: Workers, budget: int
    ) -> None:
        self._cache = cache
        self._network = network
        self._disk = disk
        self._budget = budget
        self._lock = threading.Lock()
        self._held = Buffers()
        self._coming: dict[tuple[str, int], _Coming] = {}
        self._coming_bytes = 0
        self._ahead = 0

    def peek(self, key: str, numbers: range) -> Blocks:
        """Return those of the blocks that are in memory."""
        with self._lock:
            return self._peek(key, numbers)

    def at_hand(self, key: str, start: int, stop: int) -> memoryview | None:
        """Return the bytes [start, stop) if they are in memory, in one piece."""
        with self._lock:
            return self._held.use_bytes(key, start, stop)

    def has(self, key: str, numbers: range) -> bool:
        """Say whether each of the blocks is in memory or on its way."""
        with self._lock:
            return all((key, n) in self._held or (key, n) in self._coming for n in numbers)

    def lacks(self, key: str, size: int) -> list[range]:
        """Return the runs of blocks that disk does not have, within extents."""
        cache = self._cache
        if cache is None:
            return list(parts(blocks_of(0, size)))
        return self._disk.wait(self._disk.submit(lambda: cache.lacks(key, size)))

    def get(self, key: str, numbers: range, size: int, fetch: Fetch) -> Blocks:
        """Return the blocks, brought here if need be; raises what `fetch` raises."""
        with self._lock:
            found = self._peek(key, numbers)
            missing = [number for number in numbers if number not in found]
            needed = set(missing)
            joined = [self._coming[key, n] for n in missing if (key, n) in self._coming]
            for one in joined:
                self._ahead -= one.is_ahead
                one.is_ahead = False
            claimed = self._claim(
                key, [n for n in missing if (key, n) not in self._coming], size, fetch
            )
        self._bring(claimed)
        awaited = list(dict.fromkeys((*joined, *claimed)))
        while awaited:
            landed = self._network.wait(awaited.pop().future)
            found.update(landed.blocks)
            awaited += [one for one in landed.rest if not found.keys() >= set(one.run) & needed]
        return found

    def start(self, key: str, wanted: range, size: int, fetch: Fetch) -> bool:
        """Begin to bring blocks that may be read soon; say whether there was room for all."""
        for part in parts(wanted):
            with self._lock:
                missing = [
                    n for n in part if (key, n) not in self._held and (key, n) not in self._coming
                ]
                if missing and not self._has_room_ahead(len(missing) * BLOCK):
                    return False
                claimed = self._claim(key, missing, size, fetch, is_ahead=True)
            self._bring(claimed)
        return True

    def keep(self, key: str, first: int, data: bytes | memoryview, size: int) -> None:
        """Keep bytes that came along with something else; they begin with block `first`."""
        with self._lock:
            self._held.add(key, cut(data, first))
            self._make_room()
        if self._cache is not None:
            self._cache.write(key, first, data, size)

    def _peek(self, key: str, numbers: range) -> Blocks:
        found = {}
        for number in numbers:
            block = self._held.use(key, number)
            if block is not None:
                found[number] = block
        return found

    def _has_room_ahead(self, more: int) -> bool:
        limit = self._budget * 3 // 4 - self._coming_bytes - more
        if self._held.unread > limit:
            self._held.drop_stale()
        return self._ahead < _AHEAD and self._held.unread <= limit

    def _claim(
        self,
        key: str,
        numbers: list[int],
        size: int,
        fetch: Fetch,
        *,
        is_ahead: bool = False,
    ) -> list[_Coming]:
        """Put blocks into the table of what is on its way, as runs within extents."""
        claimed = [
            _Coming(key, part, size, fetch, is_ahead)
            for run in runs(numbers)
            for part in parts(run)
        ]
        for one in claimed:
            self._coming_bytes += one.bytes
            self._ahead += is_ahead
            self._coming.update({(key, number): one for number in one.run})
        self._make_room()
        return claimed

    def _bring(self, claimed: list[_Coming]) -> None:
        """Start to bring claimed runs: from disk what is there, from the network the rest."""
        for one in claimed:
            if self._cache is not None:
                self._submit(self._disk, partial(self._read, one, self._cache), one)
            else:
                self._submit(self._network, partial(self._fetch, one), one)

    def _submit(self, workers: Workers, task: Callable[[], None], coming: _Coming) -> None:
        try:
            workers.submit(task)
        except Interrupted as error:
            self._land(coming, {}, error)

    def _read(self, coming: _Coming, cache: BlockCache) -> None:
        """Read what disk has, and have the gaps fetched."""
        try:
            found = cache.read(coming.key, coming.run, coming.size)
        except BaseException as error:  # noqa: BLE001 - handed on to every waiter
            self._land(coming, {}, error)
            return
        for gap in self._land(coming, found):
            self._submit(self._network, partial(self._fetch, gap), gap)

    def _fetch(self, coming: _Coming) -> None:
        start, stop = span(coming.run, coming.size)
        try:
            data = coming.fetch(start, stop)
            first = _first_block(coming, len(data))
            if self._cache is not None:
                self._cache.write(coming.key, first, data, coming.size)
        except BaseException as error:  # noqa: BLE001 - handed on to every waiter
            self._land(coming, {}, error)
        else:
            self._land(coming, cut(data, first))

    def _land(
        self, coming: _Coming, blocks: Blocks, error: BaseException | None = None
    ) -> list[_Coming]:
        """Take a run out of the table, its blocks into memory; return its gaps, put in again.

        In one step under the lock, so that who looks in both places finds it in one of them.
        """
        with self._lock:
            for number in coming.run:
                del self._coming[coming.key, number]
            self._coming_bytes -= coming.bytes
            self._ahead -= coming.is_ahead
            self._held.add(coming.key, blocks, is_ahead=coming.is_ahead)
            gaps = [] if error else [number for number in coming.run if number not in blocks]
            rest = self._claim(
                coming.key, gaps, coming.size, coming.fetch, is_ahead=coming.is_ahead
            )
        if error:
            coming.future.set_exception(error)
        else:
            coming.future.set_result(_Landed(blocks, rest))
        return rest

    def _make_room(self) -> None:
        self._held.shrink(self._budget - self._coming_bytes)


def _first_block(coming: _Coming, length: int) -> int:
    """Return where the bytes begin that came for a run: at the run, or all of the asset came."""
    if length == coming.size:
        return 0
    if length != coming.bytes:
        raise BadAnswer(f"{length} bytes came for {coming.bytes}")
    return coming.run.start
