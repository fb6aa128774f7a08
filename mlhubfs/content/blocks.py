"""Which blocks a read needs, and which requests bring them. Pure functions.

A block is `BLOCK_SIZE` bytes of an asset, aligned: block i holds [i * BLOCK_SIZE, (i+1) *
BLOCK_SIZE), the last one less. It is the unit of the cache. A request is a run of missing blocks.
"""

from collections.abc import Iterable

BLOCK_SIZE = 256 << 10
"""Bytes. Two of the kernel's largest reads; a tile of a COG (400 kB) is two blocks, in one run."""

SMALL_ASSET = 4 << 20
"""Bytes. An asset up to this size is brought whole by one request: at 20 ms and 200 MB/s the
transfer takes as long as the round trip that a second request would cost."""


def blocks_of(offset: int, stop: int) -> range:
    """Return the numbers of the blocks that hold the bytes [offset, stop)."""
    return range(offset // BLOCK_SIZE, -(-stop // BLOCK_SIZE))


def wanted_blocks(offset: int, stop: int, size: int) -> range:
    """Return the blocks to have at hand for a read of [offset, stop) of an asset of `size`."""
    if size <= SMALL_ASSET:
        return blocks_of(0, size)
    return blocks_of(offset, min(stop, size))


def span(blocks: range, size: int) -> tuple[int, int]:
    """Return the bytes [start, stop) that `blocks` hold in an asset of `size`."""
    return blocks.start * BLOCK_SIZE, min(blocks.stop * BLOCK_SIZE, size)


def runs(numbers: Iterable[int]) -> list[range]:
    """Return ascending block numbers as runs without gaps."""
    found: list[range] = []
    for number in numbers:
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


def cut(data: bytes, first: int) -> dict[int, bytes]:
    """Return number -> block of `data`, which begins where block `first` does."""
    return {
        first + index // BLOCK_SIZE: data[index : index + BLOCK_SIZE]
        for index in range(0, len(data), BLOCK_SIZE)
    }
