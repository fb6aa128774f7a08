"""What a program will read next, judged by what it has read so far.

Owns the patterns of one open file: streams (forward, backward), strides, jumps. Pure decisions over
byte offsets; fetches nothing, waits for nothing.

*Streams.* A read that begins where an earlier one ended, or nearly, goes on with its stream.
"Nearly": the kernel sends the pieces of one read side by side, and threads take them up in any
order. Up to `STREAMS` are followed at once, for threads that share a handle. A stream that has used
up what was fetched for it gets a window of `FIRST_WINDOW`, which grows fourfold: to `EASY_WINDOW`
at once, for whole extents cost least, and on to `LAST_WINDOW` while its reader has to wait and more
parts side by side make it faster (`_Pace`).

*Jumps.* A read elsewhere begins a new stream, and gets what recent streams came to: a COG's tiles
are read in runs of some hundred kB, so after the first few a whole tile is one request, while
single reads of 16 kB stay single blocks.

*Strides.* Jumps of one length, three times, announce the next ones.

*Threading.* None: the reader that owns it holds a lock.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mlhubfs.content.blocks import BLOCK, EXTENT

FIRST_WINDOW = 1 << 20
EASY_WINDOW = 2 * EXTENT
LAST_WINDOW = 64 << 20  # 300 MB/s at 200 ms; what 16 parts of 4 MiB bring side by side
STREAMS = 4
SLACK = 2 * BLOCK  # how far ahead or behind a piece of the same read may come, at least
LONGEST_JUMP = 1 << 20
STRIDES_AHEAD = 8
_GROWTH = 4  # each step costs a round trip, and the slow start of the connections that it adds
_TOP_UP = 4 * EXTENT  # a large window is filled up by this much, not only when half is used
_ENOUGH_GAIN = 1.15  # a larger window that is not this much faster was not worth it
_MISSES = 2  # times in a row: once may be the slow start of the connections that it added
_REMEMBERED_RUNS = 8


@dataclass
class _Pace:
    """Whether a larger window makes the reader faster."""

    bytes: int = 0
    since: float = 0.0
    best: float = 0.0
    waits: int = 0
    misses: int = 0
    is_settled: bool = False


@dataclass
class _Stream:
    base: int
    """Where it began."""
    front: int
    """How far it was read: the highest byte, or the lowest of a backward one."""
    ahead: int
    """How far it was fetched."""
    step: int = 1
    """1 forward, -1 backward."""
    window: int = 0
    reads: int = 1
    pace: _Pace = field(default_factory=_Pace)


class Readahead:
    """The reading of one file of `size` bytes."""

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._streams: list[_Stream] = []
        self._runs: deque[int] = deque(maxlen=_REMEMBERED_RUNS)
        self._jumps: deque[int] = deque(maxlen=4)
        self._strides = 0

    def note(
        self, start: int, stop: int, *, waits: bool, lost: bool = False
    ) -> list[tuple[int, int]]:
        """Take note of a read of [start, stop); return the byte ranges worth fetching now.

        `waits` says that not all of it is at hand, `lost` that it is not on its way either, though
        it may have been fetched ahead: that fetch failed, or memory was short. The ranges include
        what the read itself needs only by chance.
        """
        stream = self._stream_at(start, stop)
        if stream is None:
            return self._jump(start, stop)
        self._streams.remove(stream)
        self._streams.append(stream)
        stream.pace.waits += waits
        if lost and stream.step > 0:
            stream.ahead = min(stream.ahead, start // BLOCK * BLOCK)
        elif lost:
            stream.ahead = max(stream.ahead, min(-(-stop // BLOCK) * BLOCK, self._size))
        return self._go_on(stream, start, stop)

    def deny(self) -> None:
        """Take note that memory is short: all windows begin anew."""
        for stream in self._streams:
            stream.window = min(stream.window, FIRST_WINDOW)
            stream.pace.is_settled = True

    def _stream_at(self, start: int, stop: int) -> _Stream | None:
        slack = max(SLACK, 2 * (stop - start))
        for stream in reversed(self._streams):
            if stream.step > 0:
                if abs(start - stream.front) <= slack and start >= stream.base:
                    return stream
            elif abs(stop - stream.front) <= slack:
                return stream
        # The second read of a stream may be the one that shows it to go backward.
        for stream in reversed(self._streams):
            if stream.reads == 1 and 0 <= stream.base - stop <= BLOCK:
                stream.step, stream.front, stream.ahead = -1, stream.base, stream.base
                return stream
        return None

    def _go_on(self, stream: _Stream, start: int, stop: int) -> list[tuple[int, int]]:
        stream.reads += 1
        stream.pace.bytes += stop - start
        if stream.step < 0:
            return self._go_back(stream, start)
        stream.front = max(stream.front, stop)
        left = stream.ahead - stream.front
        # What a jump brought is to be used up first: it may be all that the program wants.
        if (
            stream.ahead >= self._size
            or left > max(stream.window // 2, stream.window - _TOP_UP)
            or (not stream.window and left > 0)
        ):
            return []
        self._widen(stream)
        begin = max(stream.ahead, start // BLOCK * BLOCK)
        unit = EXTENT if stream.window >= EASY_WINDOW else BLOCK
        stream.ahead = min(-(-(stream.front + stream.window) // unit) * unit, self._size)
        return [(begin, stream.ahead)] if begin < stream.ahead else []

    def _go_back(self, stream: _Stream, start: int) -> list[tuple[int, int]]:
        stream.front = min(stream.front, start)
        if stream.ahead <= 0 or stream.front - stream.ahead > stream.window // 2:
            return []
        self._widen(stream)
        end = stream.ahead
        stream.ahead = max(0, (stream.front - stream.window) // BLOCK * BLOCK)
        return [(stream.ahead, end)] if stream.ahead < end else []

    def _widen(self, stream: _Stream) -> None:
        """Widen the window of a stream whose reader waits, as long as that makes it faster."""
        pace, now = stream.pace, self._clock()
        if not stream.window:
            stream.window = FIRST_WINDOW
        elif stream.window < EASY_WINDOW:
            stream.window = min(_GROWTH * stream.window, EASY_WINDOW)
        elif pace.waits and not pace.is_settled:
            rate = pace.bytes / max(now - pace.since, 1e-6)
            # The first windows tell nothing: the round trip is most of them.
            if stream.window > EASY_WINDOW and rate < pace.best * _ENOUGH_GAIN:
                pace.misses += 1
                pace.is_settled = pace.misses == _MISSES
            else:
                pace.misses = 0
                stream.window = min(_GROWTH * stream.window, LAST_WINDOW)
            pace.best = max(pace.best, rate)
        pace.bytes, pace.since, pace.waits = 0, now, 0

    def _jump(self, start: int, stop: int) -> list[tuple[int, int]]:
        if len(self._streams) == STREAMS:
            self._runs.append(self._length(self._streams.pop(0)))
        begin = start // BLOCK * BLOCK
        end = min(max(stop, start + self._typical_run()), self._size)
        end = min(-(-end // BLOCK) * BLOCK, self._size)
        self._streams.append(_Stream(start, stop, end))
        self._jumps.append(start)
        return [(begin, end), *self._strided(end - begin)]

    def _typical_run(self) -> int:
        """Return what streams came to of late: the longest but one, for one may be a fluke."""
        lengths = sorted([*self._runs, *(self._length(one) for one in self._streams)])
        return min(lengths[-2], LONGEST_JUMP) if len(lengths) > 1 else 0

    @staticmethod
    def _length(stream: _Stream) -> int:
        return abs(stream.front - stream.base)

    def _strided(self, length: int) -> list[tuple[int, int]]:
        jumps = list(self._jumps)
        steps = {after - before for before, after in itertools.pairwise(jumps)}
        if len(jumps) < 4 or len(steps) != 1:
            self._strides = 0
            return []
        (step,) = steps
        reach = min(max(1, 2 * self._strides), STRIDES_AHEAD)
        # What earlier jumps have announced has been fetched: only the farther ones are news.
        news = range(max(1, self._strides), reach + 1) if self._strides else range(1, 2)
        self._strides = reach
        found = []
        for number in news:
            begin = (jumps[-1] + number * step) // BLOCK * BLOCK
            if 0 <= begin < self._size:
                found.append((begin, min(begin + length, self._size)))
        return found
