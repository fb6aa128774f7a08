"""What is fetched ahead of a read, by the pattern of the reads before it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlhubfs.content.blocks import BLOCK, EXTENT, blocks_of
from mlhubfs.content.readahead import EASY_WINDOW, LAST_WINDOW, Readahead

SIZE = 1 << 30
KERNEL = 128 << 10


class Line:
    """A reader at the end of a line: what it has fetched, and a clock that moves as it reads."""

    def __init__(self, size=SIZE, *, seconds_per_read=0.001):
        self.size = size
        self.now = 0.0
        self.seconds_per_read = seconds_per_read
        self.readahead = Readahead(size, clock=lambda: self.now)
        self.fetched = set()
        self.requests = 0
        self.waits = 0

    def read(self, start, length=KERNEL):
        stop = min(start + length, self.size)
        needed = set(blocks_of(start, stop))
        waits = not needed <= self.fetched
        self.waits += waits
        self.now += self.seconds_per_read
        for begin, end in self.readahead.note(start, stop, waits=waits):
            assert 0 <= begin < end <= self.size
            assert begin % BLOCK == 0
            new = set(blocks_of(begin, end)) - self.fetched
            self.requests += bool(new)
            self.fetched |= new
        if not needed <= self.fetched:
            self.requests += 1
            self.fetched |= needed

    @property
    def fetched_bytes(self):
        return len(self.fetched) * BLOCK


def test_sequential_reading_soon_waits_no_more():
    """After its first windows, a program that reads on and on finds everything at hand."""
    line = Line()
    for start in range(0, 256 << 20, KERNEL):
        line.read(start)
    assert line.waits <= 3
    assert line.requests < 1.2 * (256 << 20) / EXTENT


def test_window_doubles_while_the_reader_waits_and_gains():
    """A reader that waits at every window's end gets twice the window, up to 64 MiB."""
    readahead = Readahead(SIZE, clock=lambda: 0.0)
    windows = []
    for start in range(0, SIZE, KERNEL):
        for _begin, end in readahead.note(start, start + KERNEL, waits=True):
            windows.append(end - (start + KERNEL))
    assert LAST_WINDOW <= max(windows) < LAST_WINDOW + EXTENT


def test_window_stays_where_a_larger_one_brings_nothing():
    """On a line that is full, doubling the window stops soon: parts that only queue are waste."""
    line = Line(seconds_per_read=KERNEL / 25e6)  # 200 Mbit/s, whatever the window
    widest = 0
    for start in range(0, SIZE // 2, KERNEL):
        for begin, end in line.readahead.note(start, start + KERNEL, waits=True):
            widest = max(widest, end - begin)
        line.now += line.seconds_per_read
    assert widest <= LAST_WINDOW // 2


def test_one_slow_window_does_not_stop_the_doubling():
    """The connections that a larger window adds are slow to begin with; then it is faster."""
    line = Line()
    widest = slow = 0
    for start in range(0, SIZE, KERNEL):
        for _begin, end in line.readahead.note(start, start + KERNEL, waits=True):
            if end - start > max(widest, 4 * EXTENT):
                slow = end - start
            widest = max(widest, end - start)
        slow -= KERNEL
        line.now += KERNEL / widest * (10 if slow > widest // 2 else 1)  # else as wide, so fast
    assert widest >= LAST_WINDOW


def test_large_reads_that_swap_places_are_one_stream():
    """Two reads of 1 MiB that the kernel has under way may come in any order."""
    line = Line()
    for start in range(0, 64 << 20, 2 << 20):
        for swapped in (start + (1 << 20), start) if start else (start, start + (1 << 20)):
            line.read(swapped, 1 << 20)
    assert line.waits <= 6


def test_single_reads_elsewhere_bring_their_blocks_only():
    """Random reads of 16 kB fetch one or two blocks each."""
    line = Line()
    offsets = random.Random(1)
    reads = 200
    for _ in range(reads):
        line.read(offsets.randrange(SIZE - 16384), 16384)
    assert line.fetched_bytes <= reads * 2 * BLOCK
    assert line.fetched_bytes <= 64 * reads * 16384


def test_tiles_become_one_request_each():
    """After some tiles of 400 kB, read in the kernel's pieces, a tile is one request."""
    line = Line()
    offsets = random.Random(2)
    for number in range(40):
        if number == 8:
            before, bytes_before = line.requests, line.fetched_bytes
        tile = offsets.randrange(SIZE - (1 << 20))
        for start in range(tile, tile + 400_000, KERNEL):
            line.read(start, min(KERNEL, tile + 400_000 - start))
    assert line.requests - before <= 32 * 1.1
    assert line.fetched_bytes - bytes_before <= 32 * 400_000 * 1.5


def test_backward_reading_is_seen():
    """A file read from its end to its start waits for a few windows only."""
    line = Line(size=64 << 20)
    for start in range((64 << 20) - KERNEL, -1, -KERNEL):
        line.read(start)
    assert line.waits < 20
    assert line.fetched_bytes == 64 << 20


def test_strides_are_seen():
    """Reads at equal distances are at hand before they are made, and what lies between is not."""
    line = Line()
    for number in range(100):
        line.read(number * (5 << 20), 16384)
    assert line.waits < 10
    assert line.fetched_bytes < 120 * BLOCK


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_that_share_a_handle_keep_their_streams(threads):
    """Up to four, each reading its own part of one open file, all find their bytes ready."""
    line = Line()
    part = 32 << 20
    for step in range(0, part, KERNEL):
        for thread in range(threads):
            line.read(thread * (SIZE // 8) + step)
    assert line.waits < 6 * threads


def test_pieces_out_of_order_are_one_stream():
    """The kernel's pieces, taken up in any order by threads, do not break a stream."""
    line = Line()
    shuffle = random.Random(3)
    for start in range(0, 128 << 20, 2 * KERNEL):
        pieces = [start, start + KERNEL]
        shuffle.shuffle(pieces)
        for piece in pieces:
            line.read(piece)
    assert line.waits < 12


@pytest.mark.parametrize("step", [1, -1], ids=["forward", "backward"])
def test_what_was_lost_is_fetched_again_in_windows(step):
    """When blocks that were fetched ahead are gone, the stream begins to fetch anew from there."""
    readahead = Readahead(64 << 20, clock=lambda: 0.0)
    reads = [32 * EXTENT // 4 + step * number * KERNEL for number in range(30)]
    for start in reads:
        readahead.note(start, start + KERNEL, waits=False)
    start = reads[-1] + step * KERNEL
    assert readahead.note(start, start + KERNEL, waits=True) == []
    start += step * KERNEL
    ((begin, end),) = readahead.note(start, start + KERNEL, waits=True, lost=True)
    assert begin <= start < start + KERNEL <= end
    assert end - begin >= 1 << 20


def test_short_memory_makes_windows_small():
    """When memory was short, a stream goes on with the first window."""
    line = Line()
    for start in range(0, 64 << 20, KERNEL):
        line.read(start)
    line.readahead.deny()
    widest = 0
    for start in range(64 << 20, 128 << 20, KERNEL):
        for begin, end in line.readahead.note(start, start + KERNEL, waits=True):
            widest = max(widest, end - begin)
    assert widest <= EASY_WINDOW + EXTENT


@given(
    st.integers(1, 8 << 20),
    st.lists(st.tuples(st.integers(0, 8 << 20), st.integers(1, 1 << 20), st.booleans())),
)
def test_ranges_lie_in_the_file(size, reads):
    """Whatever is read, what is fetched ahead lies in the file and begins at a block."""
    readahead = Readahead(size, clock=lambda: 0.0)
    for start, length, waits in reads:
        if start < size:
            for begin, end in readahead.note(start, min(start + length, size), waits=waits):
                assert 0 <= begin < end <= size
                assert begin % BLOCK == 0
