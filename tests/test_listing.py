"""The walk of a collection's items: only as far as it is read, shared, resumed, and honest."""

import logging
import threading

import pytest
from rooms import together

from mlhubfs.catalog.listing import MOST_EMPTY_PAGES, Listing
from mlhubfs.catalog.models import Item, Page
from mlhubfs.errors import Unavailable
from mlhubfs.transport.workers import Workers


@pytest.fixture
def workers():
    workers = Workers()
    yield workers
    workers.close()


class Pages:
    """Pages by their link; `pages` is link -> (ids, next link, matched) or an error."""

    def __init__(self, pages):
        self.pages = pages
        self.asked = []

    def __call__(self, following):
        self.asked.append(following)
        found = self.pages[following] if isinstance(self.pages, dict) else self.pages(following)
        if isinstance(found, list):  # one outcome after the other
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        ids, link, matched = found
        return Page(tuple(Item(one, 7.0, (), b"{}") for one in ids), link, matched)


THREE = {None: ("ab", "2", 5), "2": ("cd", "3", 5), "3": ("e", None, 5)}


def listed(listing):
    return "".join(identifier for identifier, _ in listing.iterate())


@pytest.fixture
def walk(workers):
    """Make a listing of pages."""

    def make(pages):
        fetch = Pages(pages)
        return Listing("c", fetch, workers), fetch

    return make


def test_the_first_names_come_after_the_first_page(walk):
    """A page is asked for when a reader has come to the end of what is known."""
    listing, fetch = walk(THREE)
    names = listing.iterate()
    assert fetch.asked == []
    assert [next(names), next(names)] == [("a", 7.0), ("b", 7.0)]
    assert fetch.asked == [None]
    assert next(names)[0] == "c"
    assert fetch.asked == [None, "2"]
    assert (len(listing), listing.complete) == (4, False)


def test_the_order_is_the_servers(walk):
    """Nothing is sorted, nothing is lost, the end is noticed, and nothing is asked twice."""
    listing, fetch = walk({None: ("zb", "2", None), "2": ("ay", None, None)})
    assert listed(listing) == listed(listing) == "zbay"
    assert fetch.asked == [None, "2"]
    assert listing.complete
    assert listing.problem is None


@pytest.mark.parametrize("start", range(7))
def test_a_reader_may_begin_anywhere(walk, start):
    """`readdir` goes on from an offset, also in a listing that nobody has read so far."""
    listing, _ = walk(THREE)
    assert "".join(identifier for identifier, _ in listing.iterate(start)) == "abcde"[start:]


def test_times_are_known_as_far_as_the_walk_has_come(walk):
    """So that a `stat` after a `readdir` costs nothing."""
    listing, _ = walk(THREE)
    assert listing.modified("a") is None
    listing.reach(0)
    assert listing.modified("a") == 7.0
    assert listing.modified("c") is None


def test_readers_share_one_walk(walk):
    """Sixteen at once make each request once, and all see all names in the same order."""
    listing, fetch = walk(
        {None: ("ab", "1", None)}
        | {
            str(n): (
                f"{n:04d}".translate(str.maketrans("0123456789", "cdefghijkl")),
                str(n + 1),
                None,
            )
            for n in range(1, 2)
        }
        | {"2": ("mn", None, None)}
    )
    outcomes = together(16, lambda _: listed(listing))
    assert len(set(outcomes)) == 1
    assert fetch.asked == [None, "1", "2"]


def test_a_reader_who_starts_too_late_does_not_skip_a_page():
    """Between a look that finds too little and the flight, another's may have brought the page."""

    class Late(Workers):
        def once(self, key, task):
            super().once(key, task)  # what the other reader did in between
            return super().once(key, task)

    workers = Late()
    fetch = Pages(THREE)
    listing = Listing("c", fetch, workers)
    assert listing.reach(0)
    assert (fetch.asked, len(listing)) == ([None], 2)
    assert listed(listing) == "abcde"
    assert fetch.asked == [None, "2", "3"]
    workers.close()


@pytest.mark.promise(
    "An error in the middle of a listing is an error of `readdir`, and the next "
    "listing goes on from there."
)
def test_a_failed_page_is_asked_again_by_the_next_reader(walk):
    """The walk goes on where it was; what was read is not read again."""
    pages = THREE | {"2": [Unavailable("down"), Unavailable("down"), THREE["2"]]}
    listing, fetch = walk(pages)
    names = listing.iterate()
    assert next(names)[0] + next(names)[0] == "ab"
    for _ in range(2):
        with pytest.raises(Unavailable):
            listed(listing)
    assert not listing.complete
    assert listed(listing) == "abcde"
    assert fetch.asked == [None, "2", "2", "2", "3"]


def test_an_empty_page_with_a_next_link_is_not_the_end(walk):
    """Servers that filter after paging send such; the 2021 server ended with an empty page."""
    listing, _ = walk({None: ("ab", "2", None), "2": ("", "3", None), "3": ("c", "4", None),
                       "4": ("", None, None)})  # fmt: skip
    assert listed(listing) == "abc"
    assert listing.problem is None


def test_an_empty_collection_has_no_names(walk):
    """And no problem."""
    listing, _ = walk({None: ("", None, 0)})
    assert listed(listing) == ""
    assert (listing.complete, listing.problem) == (True, None)


def test_empty_pages_without_end_are_an_end(walk, caplog):
    """A server that goes on sending links to nothing is left, and that is said."""
    listing, fetch = walk(
        lambda link: ("ab", "1", None) if link is None else ("", str(int(link) + 1), None)
    )
    assert listed(listing) == "ab"
    assert len(fetch.asked) == 1 + MOST_EMPTY_PAGES
    assert "pages in a row brought nothing new" in listing.problem
    assert listing.problem in caplog.text


@pytest.mark.parametrize(
    "pages",
    [
        {None: ("ab", "2", None), "2": ("cd", "2", None)},
        {None: ("ab", "2", None), "2": ("cd", "3", None), "3": ("", "2", None)},
    ],
)
def test_a_loop_is_noticed(walk, pages, caplog):
    """The same link again, or one from before: the names so far, and a problem, never for ever."""
    listing, _ = walk(pages)
    assert listed(listing) == "abcd"
    assert "leads back, after 4 items" in listing.problem
    assert "the listing of c is incomplete" in caplog.text


def test_an_id_that_comes_twice_is_one_name(walk):
    """On one page or on two: a directory cannot have a name twice."""
    listing, _ = walk({None: ("aab", "2", None), "2": ("bc", None, None)})
    assert listed(listing) == "abc"


def test_fewer_names_than_the_server_counts_is_a_problem(walk, caplog):
    """Never silently short; as many or more is none."""
    listing, _ = walk({None: ("ab", "2", 5), "2": ("cd", None, 5)})
    with caplog.at_level(logging.WARNING, "mlhubfs"):
        assert listed(listing) == "abcd"
    assert listing.problem == "the server lists 4 of the 5 items it counts"
    assert listing.problem in caplog.text
    fine, _ = walk({None: ("ab", "2", 3), "2": ("cd", None, None)})
    assert listed(fine) == "abcd"
    assert (fine.problem, fine.matched) == (None, 3)


def test_a_reader_who_waits_does_not_hold_others_off_what_is_known(workers):
    """While a page is on its way, the names before it can be read."""
    go = threading.Event()

    def fetch(following):
        if following:
            assert go.wait(30)
            return Page((Item("c", 0.0, (), b"{}"),), None, None)
        return Page(tuple(Item(one, 0.0, (), b"{}") for one in "ab"), "2", None)

    listing = Listing("c", fetch, workers)
    listing.reach(0)
    all_names = []
    reader = threading.Thread(target=lambda: all_names.append(listed(listing)))
    reader.start()
    names = listing.iterate()
    assert [next(names)[0], next(names)[0]] == ["a", "b"]
    go.set()
    reader.join(30)
    assert all_names == ["abc"]
