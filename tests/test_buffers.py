"""What is in memory, how much that is, and what goes first."""

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlhubfs.content.blocks import BLOCK, cut
from mlhubfs.content.buffers import STALE_SECONDS, Buffers


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def piece(first, count, fill=b"x"):
    return cut(fill * (count * BLOCK), first)


def test_blocks_of_one_answer_stay_and_go_together():
    """Dropping one of them would free nothing: they share a piece of memory."""
    held = Buffers()
    held.add("a", piece(0, 4))
    held.add("a", piece(4, 4))
    held.use("a", 1)
    held.shrink(7 * BLOCK)
    assert [number for number in range(8) if ("a", number) in held] == [0, 1, 2, 3]
    assert held.bytes == 4 * BLOCK


def test_what_is_dropped_is_freed():
    """Nothing else keeps a piece of memory alive."""

    class Memory(bytearray):
        pass

    held = Buffers()
    memory = Memory(2 * BLOCK)
    alive = weakref.ref(memory)
    held.add("a", cut(memory, 0))
    del memory
    assert alive()
    held.shrink(0)
    gc.collect()
    assert alive() is None
    assert (held.bytes, held.unread) == (0, 0)


def test_what_was_read_goes_before_what_is_still_to_be_read():
    """Though it was used later: or each reader would push out what the next one waits for."""
    held = Buffers()
    held.add("ahead", piece(0, 1), is_ahead=True)
    held.add("used", piece(0, 1))
    held.use("used", 0)
    held.shrink(BLOCK)
    assert ("ahead", 0) in held
    assert ("used", 0) not in held


def test_what_was_read_ahead_counts_as_unread_until_it_is_used():
    """One use of one of its blocks is enough."""
    held = Buffers()
    held.add("a", piece(0, 4), is_ahead=True)
    held.add("a", piece(4, 2))
    assert held.unread == 4 * BLOCK
    held.use("a", 2)
    held.use("a", 3)
    assert held.unread == 0


def test_what_nobody_came_for_is_dropped_as_stale():
    """A reader that went away must not keep others from reading ahead for ever."""
    clock = Clock()
    held = Buffers(clock)
    held.add("gone", piece(0, 1), is_ahead=True)
    held.add("used", piece(0, 1), is_ahead=True)
    held.use("used", 0)
    clock.now = STALE_SECONDS / 2
    held.add("new", piece(0, 1), is_ahead=True)
    clock.now = STALE_SECONDS + 1
    held.drop_stale()
    assert [key for key in ("gone", "used", "new") if (key, 0) in held] == ["used", "new"]
    assert held.unread == BLOCK


def test_a_newer_copy_of_a_block_takes_the_place_of_the_older():
    """And the older piece is let go when the last of its blocks is replaced."""
    held = Buffers()
    held.add("a", piece(0, 2, b"1"))
    held.add("a", piece(1, 1, b"2"))
    assert bytes(held.use("a", 1)[:1]) == b"2"
    assert held.bytes == 3 * BLOCK
    held.add("a", piece(0, 1, b"3"))
    assert held.bytes == 2 * BLOCK


def test_a_read_within_one_answer_is_a_slice_of_it():
    """No copy; and of a read that reaches beyond it, nothing."""
    held = Buffers()
    memory = bytes(range(256)) * (2 * BLOCK // 256)
    held.add("a", cut(memory, 4))
    found = held.use_bytes("a", 5 * BLOCK - 3, 5 * BLOCK + 100)
    assert found is not None
    assert found.obj is memory
    assert found == memory[BLOCK - 3 : BLOCK + 100]
    assert held.use_bytes("a", 5 * BLOCK, 6 * BLOCK + 1) is None
    assert held.use_bytes("a", 4 * BLOCK - 1, 5 * BLOCK) is None
    assert held.use_bytes("b", 4 * BLOCK, 5 * BLOCK) is None


@pytest.mark.parametrize("gap", range(3))
def test_what_lies_in_a_gap_is_never_served(gap):
    """A block that failed its check lies in the same memory as its sound neighbours."""
    held = Buffers()
    blocks = piece(0, 3)
    del blocks[gap]
    held.add("a", blocks)
    assert held.use("a", gap) is None
    assert held.bytes == 2 * BLOCK
    for start in range(3):
        for stop in range(start + 1, 4):
            found = held.use_bytes("a", start * BLOCK, stop * BLOCK)
            assert found is None or gap not in range(start, stop)


actions = st.one_of(
    st.tuples(
        st.just("add"), st.sampled_from("ab"), st.integers(0, 5), st.integers(1, 4), st.booleans()
    ),
    st.tuples(st.just("use"), st.sampled_from("ab"), st.integers(0, 9)),
    st.tuples(st.just("shrink"), st.integers(-1, 12)),
    st.tuples(st.just("wait"), st.integers(0, 12)),
)


@given(st.lists(actions, max_size=40))
def test_the_count_is_what_is_held(script):
    """After any sequence: `bytes` is the memory that the blocks take, `unread` a part of it."""
    clock = Clock()
    held = Buffers(clock)
    for action, *given_ in script:
        if action == "add":
            key, first, count, is_ahead = given_
            held.add(key, cut(bytes(count * BLOCK), first), is_ahead=is_ahead)
        elif action == "use":
            held.use(*given_)
        elif action == "shrink":
            held.shrink(given_[0] * BLOCK)
            assert held.bytes <= max(0, given_[0] * BLOCK)
        else:
            clock.now += given_[0]
            held.drop_stale()
        pieces = set(held._pieces.values())
        assert held.bytes == sum(len(piece.memory) for piece in pieces)
        assert 0 <= held.unread <= held.bytes
