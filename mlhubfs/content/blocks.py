"""Which blocks a read needs, and which requests bring them. Pure functions.

A block is `BLOCK` bytes of an asset, aligned, the last one less: the unit of memory and of
checksums. An extent is `EXTENT` bytes, aligned: what one request brings of a file that is read on
and on, and one value of the disk cache where it is whole. A run is a range of block numbers.
"""

from collections.abc import Iterable, Iterator

BLOCK = 128 << 10
"""Bytes: the kernel's largest read. Twice as much would fetch 1.9 times what a COG's tile of 300 kB
needs, unaligned as tiles are; this fetches 1.4 times."""

EXTENT = 4 << 20
"""Bytes. At 20 ms and 200 MB/s the transfer takes as long as the round trip: less would wait more
than it moves, more would keep a reader waiting for bytes that it wants later. An asset up to this
size is brought whole."""

BLOCKS_PER_EXTENT = EXTENT // BLOCK


def blocks_of(start: int, stop: int) -> range:
    """Return the numbers of the blocks that hold the bytes [start, stop)."""
    return range(start // BLOCK, -(-stop // BLOCK))


def span(blocks: range, size: int) -> tuple[int, int]:
    """Return the bytes [start, stop) that `blocks` hold in an asset of `size` bytes."""
    return blocks.start * BLOCK, min(blocks.stop * BLOCK, size)


def runs(numbers: Iterable[int]) -> list[range]:
    """Return ascending block numbers as runs."""
    found: list[range] = []
    for number in numbers:
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


def parts(run: range) -> Iterator[range]:
    """Cut a run where extents begin, so that requests bring whole extents where they can."""
    start = run.start
    while start < run.stop:
        stop = min(run.stop, (start // BLOCKS_PER_EXTENT + 1) * BLOCKS_PER_EXTENT)
        yield range(start, stop)
        start = stop


def cut(data: bytes | memoryview, first: int) -> dict[int, memoryview]:
    """Return number -> block of `data`, which begins where block `first` does; no copies."""
    view = memoryview(data)
    return {
        first + index // BLOCK: view[index : index + BLOCK] for index in range(0, len(view), BLOCK)
    }
