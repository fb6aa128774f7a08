"""Which blocks a read needs: pure arithmetic, checked against the bytes themselves."""

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from mlhubfs.content.blocks import (
    BLOCK_SIZE,
    SMALL_ASSET,
    blocks_of,
    cut,
    runs,
    span,
    wanted_blocks,
)

offsets = st.integers(0, 40 * BLOCK_SIZE)


@given(offsets, st.integers(1, 5 * BLOCK_SIZE))
@example(0, BLOCK_SIZE)
@example(BLOCK_SIZE - 1, 2)
def test_the_blocks_of_a_range_hold_it_and_no_block_more(offset, size):
    """The first block holds the first byte, the last block the last."""
    blocks = blocks_of(offset, offset + size)
    assert blocks.start * BLOCK_SIZE <= offset < (blocks.start + 1) * BLOCK_SIZE
    assert (blocks.stop - 1) * BLOCK_SIZE < offset + size <= blocks.stop * BLOCK_SIZE


@given(st.integers(1, SMALL_ASSET), offsets, st.integers(1, BLOCK_SIZE))
@example(SMALL_ASSET, 0, 1)
def test_a_small_asset_is_wanted_whole(size, offset, length):
    """Whatever part of it is read."""
    assert span(wanted_blocks(offset, offset + length, size), size) == (0, size)


def test_of_a_large_asset_only_what_is_read_is_wanted():
    """One byte more than small is large; nothing beyond its end is wanted."""
    size = SMALL_ASSET + 1
    assert wanted_blocks(BLOCK_SIZE, 2 * BLOCK_SIZE, size) == range(1, 2)
    assert wanted_blocks(16 * BLOCK_SIZE, 99 * BLOCK_SIZE, size) == range(16, 17)
    assert span(range(16, 17), size) == (SMALL_ASSET, size)


def test_of_an_empty_asset_nothing_is_wanted():
    """There is no block 0."""
    assert list(wanted_blocks(0, 10, 0)) == []


@given(st.sets(st.integers(0, 50)))
def test_runs_hold_each_number_once_and_have_gaps_between_them(numbers):
    """So that there are as few requests as can be."""
    found = runs(sorted(numbers))
    assert [number for run in found for number in run] == sorted(numbers)
    assert all(one.stop < two.start for one, two in itertools.pairwise(found))


@given(st.integers(0, 3 * BLOCK_SIZE + 5), st.integers(0, 9))
def test_cutting_loses_no_byte(size, first):
    """The blocks in order are the data; all but the last are whole."""
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    blocks = cut(data, first)
    assert b"".join(blocks.values()) == data
    assert list(blocks) == list(range(first, first + len(blocks)))
    assert all(len(block) == BLOCK_SIZE for block in list(blocks.values())[:-1])
    assert all(blocks.values())
