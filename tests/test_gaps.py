"""The division of a file among those who fetch it, and how many they are."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rooms import Clock

from mlhubfs.download.gaps import STALLED_SECONDS, Gaps
from mlhubfs.download.pace import FIRST, Pace


@given(st.integers(0, 500), st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60))))
def test_whatever_is_given_back_each_byte_is_given_out_in_the_end(size, steps):
    """Claims of any length, of which any part is done: the parts make up the file, each once."""
    gaps = Gaps([(0, size)])
    done = []
    for most, part in [*steps, *[(50, 50)] * (size // 50 + len(steps) + 1)]:
        claim = gaps.claim(most)
        if claim is None:
            break
        assert claim.stop - claim.at <= most
        at = claim.at
        done += range(at, at + gaps.advance(claim, part))
        gaps.give_back(claim)
    assert sorted(done) == list(range(size))
    assert gaps.missing() == []


def test_what_is_on_its_way_is_missing_and_not_free():
    """A claim is nobody else's, and its bytes are missing until they are there."""
    gaps = Gaps([(0, 100)])
    claim = gaps.claim(60)
    gaps.advance(claim, 10)
    assert gaps.missing() == [(10, 100)]
    assert gaps.left() == 40
    assert (gaps.claim(60).at, gaps.left()) == (60, 0)


def test_a_claim_that_stalls_is_taken_over():
    """Who has nothing else to do gets what is left of it; whoever held it has nothing to write."""
    clock = Clock()
    gaps = Gaps([(0, 100)], clock=clock)
    slow = gaps.claim(100)
    gaps.advance(slow, 30)
    clock.now += STALLED_SECONDS + 1
    quick = gaps.claim(100)
    assert (quick.at, quick.stop) == (30, 100)
    assert gaps.room(slow) == 0
    assert gaps.advance(slow, 50) == 0
    assert gaps.advance(quick, 70) == 70
    assert gaps.missing() == []


def test_who_waits_for_a_claim_gets_what_is_given_back():
    """The end comes when nothing is missing, not when nothing is free."""
    gaps = Gaps([(0, 10)])
    claim = gaps.claim(10)
    got = []
    waiting = threading.Thread(target=lambda: got.append(gaps.claim(10)))
    waiting.start()
    gaps.advance(claim, 4)
    gaps.give_back(claim)
    waiting.join(30)
    assert [(one.at, one.stop) for one in got] == [(4, 10)]


def test_who_waits_is_let_go_at_the_end():
    """Where a download is given up, nobody waits for a claim any longer."""
    gaps = Gaps([(0, 10)])
    gaps.claim(10)
    got = []
    waiting = threading.Thread(target=lambda: got.append(gaps.claim(10)))
    waiting.start()
    gaps.end()
    waiting.join(30)
    assert got == [None]


class Line:
    """A line that gives each connection `each` bytes a second, and all together `at_most`."""

    def __init__(self, each, at_most):
        self.each, self.at_most = each, at_most

    def connections(self, most, seconds=60.0):
        """Return how many connections a pace settles for on it."""
        pace, count, came, now = Pace(most), 1, 0, 0.0
        while now < seconds:
            count = max(count, pace.wanted(count, came, now))
            now += 0.05
            came += int(min(count * self.each, self.at_most) * 0.05)
        return count


@pytest.mark.parametrize(
    ("line", "most", "expected"),
    [
        (Line(50e6, 1e12), 32, 32),  # each is limited, the line is not: as many as there may be
        (Line(1e9, 1e9), 32, 2 * FIRST),  # one fills it: no more than were tried
        (Line(50e6, 400e6), 32, 16),
        (Line(50e6, 1e12), 3, 3),
    ],
)
def test_connections_are_added_for_as_long_as_they_pay(line, most, expected):
    """They are doubled while the rate grows with them."""
    assert line.connections(most) == expected


def test_a_server_that_refuses_connections_is_not_asked_for_more():
    """After a refusal there are fewer, however much more would pay."""
    pace = Pace(32)
    count = pace.wanted(1, 0, 0.0)
    pace.refused(count)
    for second in range(1, 10):
        assert pace.wanted(count - 1, second**3 * 10**6, float(second)) <= count - 1
