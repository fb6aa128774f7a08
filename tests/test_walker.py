"""Walking: what is an end, a loop, a shortage; sizes of pages; and any sequence of faults."""

import contextlib
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings
from pages import Script, Shelf, page

from mlhubfs.catalog.index import Index
from mlhubfs.catalog.index_documents import stripper
from mlhubfs.catalog.index_memory import MemoryIndex
from mlhubfs.catalog.pager import FIRST, Pager
from mlhubfs.catalog.walker import MOST_EMPTY_PAGES, Walker
from mlhubfs.errors import Busy, Denied, MlhubfsError, Rejected, TimedOut, Unavailable, WalkGone
from mlhubfs.transport.workers import Workers

ROOT = "http://h/v1"


@pytest.fixture(params=["disk", "memory"])
def index(request, tmp_path):
    if request.param == "memory":
        yield MemoryIndex()
        return
    with contextlib.closing(Index(tmp_path / "i" / "s", root=ROOT, strip=stripper(ROOT))) as made:
        yield made


@pytest.fixture
def workers():
    workers = Workers()
    yield workers
    workers.close()


def walk(index, fetch, *, most=100):
    """Walk to the end; return the walk that serves."""
    walker = Walker("c", Pager(fetch, most=most))
    with index.claim("c") as claim:
        seen = claim.walk
    while seen.state == "walking":
        assert walker.advance(index, seen)
        seen = index.walk(seen.number)
    return seen


def ids(index, number):
    return [item_id for _, item_id, _ in index.names(number)]


class TestEnds:
    def test_an_empty_page_with_a_next_link_is_not_the_end(self, index):
        """Servers that filter after paging send such; the 2021 server ended with an empty page."""
        fetch = Script({None: ("ab", "2", None), "2": ("", "3", None), "3": ("c", "4", None),
                        "4": ("", None, None)})  # fmt: skip
        done = walk(index, fetch)
        assert ids(index, done.number) == list("abc")
        assert done.problem is None

    def test_an_empty_collection_has_no_names(self, index):
        """And no problem."""
        done = walk(index, Script({None: ("", None, 0)}))
        assert (done.count, done.problem) == (0, None)

    def test_empty_pages_without_end_are_an_end(self, index, caplog):
        """A server that goes on sending links to nothing is left, and that is said."""
        fetch = Script(lambda cursor: ("" if cursor else "ab", str(int(cursor or 0) + 1), None))
        done = walk(index, fetch)
        assert len(fetch.asked) == 1 + MOST_EMPTY_PAGES
        assert "pages in a row brought nothing new" in done.problem
        assert done.problem in caplog.text

    @pytest.mark.parametrize("pages", [
        {None: ("ab", "2", None), "2": ("cd", "2", None)},
        {None: ("ab", "2", None), "2": ("cd", "3", None), "3": ("", "2", None)},
    ])  # fmt: skip
    def test_a_loop_is_noticed(self, index, pages, caplog):
        """The same link again, or one from before: the names so far, and a problem."""
        done = walk(index, Script(pages))
        assert ids(index, done.number) == list("abcd")
        assert "leads back, after 4 items" in done.problem
        assert "the listing of c is incomplete" in caplog.text

    def test_an_id_that_comes_twice_is_one_name(self, index):
        """On one page or on two: a directory cannot have a name twice."""
        done = walk(index, Script({None: ("aab", "2", None), "2": ("bc", None, None)}))
        assert ids(index, done.number) == list("abc")
        assert done.problem is None

    def test_fewer_names_than_the_server_counts_is_a_problem(self, index, caplog):
        """Never silently short; as many or more is none."""
        done = walk(index, Script({None: ("ab", "2", 5), "2": ("cd", None, 5)}))
        assert done.problem == "the server lists 4 of the 5 items it counts"
        assert done.problem in caplog.text
        more = Script({None: ("ab", "2", 3), "2": ("cd", None, None)})
        assert walk(MemoryIndex(), more).problem is None

    def test_a_full_last_page_without_a_link_or_a_count_is_looked_into(self, index):
        """Half of it is asked for: a server that links to the rest has told the end."""
        shelf = Shelf("abcdef", most=100, counts=False)
        done = walk(index, shelf, most=6)
        assert (done.count, done.problem) == (6, None)

    def test_a_server_that_forgets_its_links_is_found_out(self, index):
        """A full page, no link, no count, and none where half was asked for."""
        asked = []

        def fetch(cursor, limit, deadline):
            asked.append(limit)
            return page("abcdefgh"[:limit])

        done = walk(index, fetch, most=6)
        assert asked == [6, 3]
        assert "last page is full (6 items in all)" in done.problem

    def test_a_last_page_that_is_not_full_is_believed(self, index):
        """No request more than there are pages."""
        fetch = Script({None: ("abc", None, None)})
        assert walk(index, fetch).problem is None
        assert fetch.asked == [None]


class TestAhead:
    """One page on the wire while another is stored."""

    @pytest.fixture
    def walked(self, workers):
        """A walk of four pages of two: the walker, its index, and what was asked."""
        fetch = Script({None: ("ab", "2", 8), "2": ("cd", "3", 8), "3": ("ef", "4", 8),
                        "4": ("gh", None, 8)})  # fmt: skip
        index = MemoryIndex()
        index.begin("c")
        return Walker("c", Pager(fetch, most=100, begin=workers.begin)), index, fetch

    def advance(self, walker, index, times=1):
        for _ in range(times):
            assert walker.advance(index, index.under_way("c"))

    def test_who_waits_for_a_page_has_the_next_one_asked_before_it_is_stored(self, workers):
        """The server works while we do."""
        seen = []
        fetch = Script({None: ("ab", "2", 5), "2": ("cd", "3", 5), "3": ("e", None, 5)})
        index = MemoryIndex()
        index.begin("c")
        walker = Walker(
            "c",
            Pager(fetch, most=100, begin=workers.begin),
            learn=lambda _: seen.append((walker.is_ahead, index.under_way("c").count)),
        )
        self.advance(walker, index)
        walker.want(2)
        self.advance(walker, index, 2)
        assert seen == [(False, 0), (True, 2), (False, 4)]
        assert fetch.asked == [None, "2", "3"]

    def test_no_page_is_asked_for_while_nobody_wants_the_one_before_it(self, walked):
        """Behind the first page, and behind those that no reader waits for."""
        walker, index, fetch = walked
        walker.want(0)
        for _ in range(3):
            self.advance(walker, index)
            assert not walker.is_ahead
        assert fetch.asked == [None, "2", "3"]

    def test_a_reader_who_comes_while_a_page_is_stored_has_the_next_one_asked(self, workers):
        """Though nobody waited for it when it came; but not after, when others may walk on."""
        fetch = Script({None: ("ab", "2", 7), "2": ("cd", "3", 7), "3": ("ef", "4", 7)})
        index, seen = MemoryIndex(), []
        index.begin("c")

        def learn(page):
            seen.append(walker.is_ahead)
            walker.want(2 if len(seen) == 2 else 0)

        walker = Walker("c", Pager(fetch, most=100, begin=workers.begin), learn=learn)
        self.advance(walker, index, 2)
        assert (seen, walker.is_ahead) == ([False, False], True)
        self.advance(walker, index)
        walker.want(5)
        assert not walker.is_ahead
        assert fetch.asked == [None, "2", "3"]

    def test_no_other_process_asks_for_a_page_that_is_ahead(self, walked):
        """The claim is kept until it is stored, and given back then."""
        walker, index, _ = walked
        self.advance(walker, index)
        walker.want(2)
        self.advance(walker, index)
        assert index.claim("c") is None
        self.advance(walker, index)
        index.claim("c").release()

    def test_a_page_ahead_that_is_not_the_next_any_more_is_dropped(self, walked):
        """Another process has begun again."""
        walker, index, _ = walked
        self.advance(walker, index)
        walker.want(2)
        self.advance(walker, index)
        walker._kept[1].rewind()
        self.advance(walker, index)
        walk = index.under_way("c")
        assert (walk.cursor, walk.pages, walk.count) == ("2", 1, 4)
        assert not walker.is_ahead

    def test_a_loop_is_not_followed_ahead(self, workers):
        """A link that was seen before is asked for by nobody."""
        fetch = Script({None: ("ab", "2", None), "2": ("cd", "2", None)})
        walker, index = Walker("c", Pager(fetch, most=100, begin=workers.begin)), MemoryIndex()
        index.begin("c")
        self.advance(walker, index)
        walker.want(2)
        self.advance(walker, index)
        assert fetch.asked == [None, "2"]
        assert "leads back" in index.serving("c").problem

    def test_the_error_of_a_page_ahead_is_told_to_who_takes_it(self, walked):
        """And the page is asked for again after that."""
        walker, index, fetch = walked
        fetch.pages["3"] = [Unavailable("down"), fetch.pages["3"]]
        self.advance(walker, index)
        walker.want(2)
        self.advance(walker, index)
        with pytest.raises(Unavailable):
            self.advance(walker, index)
        self.advance(walker, index)
        assert index.under_way("c").count == 6


class TestRewinding:
    @pytest.mark.promise(
        "A cursor that the server no longer knows begins the walk again, over the names that "
        "are known."
    )
    def test_a_forgotten_cursor_begins_again_over_what_is_known(self, index):
        """No name twice, none lost, and no problem."""
        shelf = Shelf("abcdefgh")
        shelf.faults = [None, None, "forget"]
        done = walk(index, shelf)
        assert ids(index, done.number) == list("abcdefgh")
        assert (done.problem, done.rewinds) == (None, 1)

    def test_names_that_the_server_no_longer_lists_are_a_problem(self, index):
        """They keep their positions under those who read, until it is walked anew."""
        shelf = Shelf("abcdefgh", counts=False)
        walker = Walker("c", Pager(shelf, most=3))
        with index.claim("c") as claim:
            seen = claim.walk
        walker.advance(index, seen)
        shelf.ids.remove("b")
        shelf.epoch += 1
        while seen.state == "walking":
            walker.advance(index, seen)
            seen = index.walk(seen.number)
        assert ids(index, seen.number) == list("abcdefgh")
        assert seen.problem == "the server listed 7 items when asked again, and 1 more before"
        walker.refresh(index, seen)
        serving = index.serving("c")
        assert ids(index, serving.number) == list("acdefgh")
        assert serving.problem is None

    def test_a_walk_that_others_took_further_is_not_taken_for_a_loop(self, index):
        """Links that were seen before a rewind may come again after it."""
        shelf = Shelf("abcdefghij", most=2)
        one, two = (Walker("c", Pager(shelf, most=2)) for _ in range(2))
        with index.claim("c") as claim:
            seen = claim.walk
        for number in range(40):
            if seen.state != "walking":
                break
            if number == 3:
                with index.claim("c", seen.number) as claim:
                    seen = claim.rewind()
            (one, two)[number % 2].advance(index, seen)
            seen = index.walk(seen.number)
        assert (seen.state, seen.problem, seen.count) == ("serving", None, 10)

    def test_who_claims_a_walk_that_has_ended_begins_none(self, index):
        """No empty walk is left behind by a reader who came too late."""
        done = walk(index, Script({None: ("ab", None, 2)}))
        with pytest.raises(WalkGone):
            Walker("c", Pager(Script({}), most=3)).advance(index, done)
        assert index.under_way("c") is None

    def test_who_comes_late_asks_for_nothing(self, index):
        """The page that was wanted has come while the claim was another's."""
        fetch = Script({None: ("ab", "2", None), "2": ("cd", None, None)})
        walker = Walker("c", Pager(fetch, most=3))
        with index.claim("c") as claim:
            seen = claim.walk
        assert walker.advance(index, seen)
        assert walker.advance(index, seen)
        assert fetch.asked == [None]


FAULTS = st.sampled_from(["down", "slow", "ill", "forget", "empty", None, None])
CHANGES = st.sampled_from(["add first", "add last", "remove", "kill", None, None, None])


class World:
    """A server that misbehaves, an index, and the process that walks; `look` checks them."""

    def __init__(self, shelf, folder):
        self.shelf = shelf
        self.folder = folder
        self.known = {}
        self.number = 0
        self.index = None
        self.restart()

    def restart(self):
        """Kill the process, and start another one."""
        if self.folder:
            path = Path(self.folder) / "i" / "s"
            self.index = Index(path, root=ROOT, strip=stripper(ROOT))
        else:
            self.index = self.index or MemoryIndex()
        self.walker = Walker("c", Pager(self.shelf, most=100))

    def change(self, change):
        """Change what the server has."""
        self.number += 1
        ids = self.shelf.ids
        match change:
            case "add first":
                ids.append(f"0{self.number:02}")
            case "add last":
                ids.append(f"9{self.number:02}")
            case "remove" if ids:
                ids.remove(sorted(ids)[len(ids) // 2])
            case "kill":
                self.restart()

    def go_on(self):
        """Do what a reader, or the passing of time, would."""
        under_way, serving = self.index.under_way("c"), self.index.serving("c")
        with contextlib.suppress(MlhubfsError):
            if serving:
                self.walker.refresh(self.index, serving)
            elif under_way:
                self.walker.advance(self.index, under_way)
            else:
                self.index.claim("c").release()

    def look(self):
        """See that no name comes twice, and that none that was there goes or moves in its walk."""
        for found in (self.index.serving("c"), self.index.under_way("c")):
            if found:
                names = ids(self.index, found.number)
                before = self.known.get(found.number, [])
                assert names[: len(before)] == before
                assert len(set(names)) == len(names) == found.count
                self.known[found.number] = names

    def is_complete(self):
        serving = self.index.serving("c")
        return bool(serving and not serving.problem)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(0, 14),
    most=st.integers(1, 5),
    counts=st.booleans(),
    on_disk=st.booleans(),
    steps=st.lists(st.tuples(FAULTS, CHANGES), max_size=25),
)
@example(count=9, most=3, counts=False, on_disk=True,
         steps=[(None, None), (None, "remove"), ("forget", None), (None, "kill")])  # fmt: skip
def test_any_faults_end_with_the_servers_items(count, most, counts, on_disk, steps):
    """For any sequence of faults, changes and kills: once complete, exactly the server's items."""
    shelf = Shelf([f"{number:03}" for number in range(100, 100 + count)], most, counts=counts)
    with tempfile.TemporaryDirectory() as folder:
        world = World(shelf, folder if on_disk else None)
        for fault, change in steps:
            shelf.faults = [fault]
            world.change(change)
            world.go_on()
            world.look()
        shelf.faults = []
        for _ in range(100):
            if world.is_complete():
                break
            world.go_on()
            world.look()
        assert world.is_complete()
        if any(change for _, change in steps):
            # What changed behind the first page is found when that page or the count changes.
            shelf.ids.append("000")
            world.walker.refresh(world.index, world.index.serving("c"))
        assert set(ids(world.index, world.index.serving("c").number)) == set(shelf.ids)


class TestPageSizes:
    def pages(self, most, *, refuse=None, size=100, error=Rejected):
        """Return a pager over a server, and the limits that it was asked for."""
        asked = []

        def fetch(cursor, limit, deadline):
            asked.append(limit)
            if refuse and limit > refuse:
                raise error("too many")
            found = page([str(number) for number in range(limit)], "more", None)
            return type(found)(found.items, "more", None, 0.0, size * limit)

        return Pager(fetch, most=most), asked

    def test_pages_grow_from_100(self):
        """The first is small, so that names appear soon; then as many as are allowed."""
        pager, asked = self.pages(10_000)
        for _ in range(4):
            pager.page("x")
        assert asked == [FIRST, 1000, 10_000, 10_000]

    def test_a_page_fits_the_memory(self):
        """2,400 items of 7 kB, however many the server would give."""
        pager, asked = self.pages(10_000, size=7000)
        for _ in range(3):
            pager.page("x")
        assert asked == [FIRST, 1000, 2396]

    @pytest.mark.parametrize("error", [Rejected, Unavailable, TimedOut, Busy])
    def test_a_size_that_is_refused_is_halved(self, error):
        """By a 4xx, a 5xx or silence; and not tried again."""
        pager, asked = self.pages(10_000, refuse=300, error=error)
        for _ in range(4):
            pager.page("x")
        assert asked == [FIRST, 1000, 500, 250, 250, 250]

    def test_a_small_size_is_no_larger_than_it_is_allowed_to_be(self):
        """`page_size=7` asks for 7."""
        pager, asked = self.pages(7)
        pager.page(None)
        pager.page("x")
        assert asked == [7, 7]

    def test_a_first_page_that_is_refused_is_halved_too(self):
        """A server may allow fewer than 100."""
        pager, asked = self.pages(10_000, refuse=30)
        pager.page(None)
        assert asked == [100, 50, 25]

    def test_a_server_that_is_down_is_not_asked_again_and_again(self):
        """An error at a size that was given before is the reader's; the next one asks for less."""
        pager, asked = self.pages(10_000, refuse=1, error=Unavailable)
        for _ in range(2):
            with pytest.raises(Unavailable):
                pager.page("x")
        assert asked == [100, 50]

    def test_a_refused_key_is_no_matter_of_size(self):
        """It is told at once."""
        pager, asked = self.pages(10_000, refuse=1, error=Denied)
        with pytest.raises(Denied):
            pager.page(None)
        assert asked == [100]

    def test_a_server_with_a_limit_of_its_own_is_left_at_that(self):
        """One that gives 100 whatever it is asked for."""
        asked = []

        def fetch(cursor, limit, deadline):
            asked.append(limit)
            return page([str(number) for number in range(100)], "more", None)

        pager = Pager(fetch, most=10_000)
        for _ in range(4):
            pager.page("x")
        assert asked == [100, 1000, 1000, 1000]
