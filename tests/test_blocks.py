"""Which blocks a read needs: pure arithmetic, checked against the bytes themselves."""

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from mlhubfs.content.blocks import BLOCK, EXTENT, blocks_of, cut, parts, runs, span

offsets = st.integers(0, 40 * BLOCK)


@given(offsets, st.integers(1, 5 * BLOCK))
@example(0, BLOCK)
@example(BLOCK - 1, 2)
def test_the_blocks_of_a_range_hold_it_and_no_block_more(offset, size):
    """The first block holds the first byte, the last block the last."""
    blocks = blocks_of(offset, offset + size)
    assert blocks.start * BLOCK <= offset < (blocks.start + 1) * BLOCK
    assert (blocks.stop - 1) * BLOCK < offset + size <= blocks.stop * BLOCK


@given(st.integers(1, 9 * EXTENT), st.integers(0, 80))
@example(BLOCK + 1, 1)
def test_the_last_block_ends_where_the_asset_does(size, first):
    """Nothing is asked for beyond it."""
    run = range(first, max(first + 1, len(blocks_of(0, size))))
    start, stop = span(run, size)
    assert start == first * BLOCK
    assert stop <= size
    assert stop == size or run.stop * BLOCK == stop


def test_an_empty_asset_has_no_blocks():
    """There is no block 0."""
    assert list(blocks_of(0, 0)) == []


@given(st.integers(0, 99), st.integers(0, 99))
def test_parts_are_a_run_cut_where_extents_begin(start, length):
    """They hold each number once, none reaches over a border, and as few as that allows."""
    found = list(parts(range(start, start + length)))
    assert [number for part in found for number in part] == list(range(start, start + length))
    assert all(span(part, 1 << 40)[0] // EXTENT == (part[-1] * BLOCK) // EXTENT for part in found)
    assert all(one.stop * BLOCK % EXTENT == 0 for one in found[:-1])


@given(st.sets(st.integers(0, 50)))
def test_runs_hold_each_number_once_and_have_gaps_between_them(numbers):
    """So that there are as few requests as can be."""
    found = runs(sorted(numbers))
    assert [number for run in found for number in run] == sorted(numbers)
    assert all(one.stop < two.start for one, two in itertools.pairwise(found))


@given(st.integers(0, 3 * BLOCK + 5), st.integers(0, 9))
def test_cutting_loses_no_byte(size, first):
    """The blocks in order are the data; all but the last are whole."""
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    blocks = cut(data, first)
    assert b"".join(blocks.values()) == data
    assert list(blocks) == list(range(first, first + len(blocks)))
    assert all(len(block) == BLOCK for block in list(blocks.values())[:-1])
    assert all(blocks.values())
