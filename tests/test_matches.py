"""What a search has found: at positions that stay, looked for no further than is wanted."""

import itertools

import pytest
from pages import listed
from rooms import together

from mlhubfs.catalog.matches import Matches
from mlhubfs.errors import Unavailable
from mlhubfs.transport.workers import Workers

IDS = ["a", "", "é", "\ud800", "\0", "x" * 300]


@pytest.fixture
def workers():
    workers = Workers()
    yield workers
    workers.close()


def batches(sizes, taken):
    """Yield batches of these sizes; `taken` gets a number for each that was asked for."""
    numbers = itertools.count()
    for size in sizes:
        taken.append(size)
        yield [listed(str(next(numbers)), modified=7.5) for _ in range(size)]


def test_names_come_back_as_they_were(workers):
    """Whatever they hold."""
    matches = Matches(iter([[listed(one) for one in IDS]]), workers)
    assert [item_id for item_id, _ in matches.iterate()] == IDS


def test_a_batch_is_taken_when_a_reader_gets_there(workers):
    """Empty ones are passed over; the end is known when it was reached."""
    taken = []
    matches = Matches(batches([2, 0, 0, 1, 2], taken), workers)
    assert taken == []
    names = matches.iterate()
    assert next(names) == ("0", 7.5)
    assert (taken, len(matches)) == ([2], 2)
    assert [next(names)[0] for _ in range(2)] == ["1", "2"]
    assert (taken, matches.complete) == ([2, 0, 0, 1], False)
    assert [item_id for item_id, _ in matches.iterate(1)] == ["1", "2", "3", "4"]
    assert matches.complete
    assert not matches.reach(5)


def test_all_readers_share_one_search(workers):
    """Sixteen at once see the same names, each once."""
    taken = []
    matches = Matches(batches([3] * 50, taken), workers)
    found = together(16, lambda _: [item_id for item_id, _ in matches.iterate()])
    assert found == [[str(number) for number in range(150)]] * 16
    assert len(taken) == 50


def test_a_search_that_failed_fails_again(workers):
    """It must not look as if it had come to its end."""

    def failing():
        yield [listed("a")]
        raise Unavailable("down")

    matches = Matches(failing(), workers)
    assert matches.reach(0)
    for _ in range(2):
        with pytest.raises(Unavailable):
            list(matches.iterate())
        assert not matches.complete
