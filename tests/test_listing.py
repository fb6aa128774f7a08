"""A listing as its readers see it: streamed, shared, resumed, and honest; on disk and in memory."""

import contextlib
import gc
import queue
import threading

import pytest
from pages import Script, page
from rooms import together

from mlhubfs.catalog.index import Index
from mlhubfs.catalog.index_documents import stripper
from mlhubfs.catalog.listings import Listings
from mlhubfs.catalog.pager import Pager
from mlhubfs.catalog.stored import Stored
from mlhubfs.catalog.walker import Walker
from mlhubfs.errors import IndexUnusable, Interrupted, NotFound, TimedOut, Unavailable
from mlhubfs.transport.workers import Workers

ROOT = "http://h/v1"
THREE = {None: ("ab", "2", 5), "2": ("cd", "3", 5), "3": ("e", None, 5)}


@pytest.fixture
def workers():
    workers = Workers()
    yield workers
    workers.close()


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


class Process:
    """One process's listings; several on one file are several processes, as far as files go."""

    def __init__(self, workers, path, fetch, *, ttl=300, patience=30, clock=None):
        clock = clock or Clock()
        self.index = Index(path, root=ROOT, strip=stripper(ROOT), clock=clock) if path else None
        self.listings = Listings(
            Stored(self.index, clock),
            workers,
            lambda name, index: Walker(name, Pager(fetch, most=100), later=workers.submit),
            ttl=ttl,
            patience=patience,
            clock=clock,
        )

    def listing(self):
        return self.listings.listing("c")

    def close(self):
        if self.index:
            self.index.close()


@pytest.fixture
def process(workers, tmp_path):
    """Make a process on the index of this test."""
    with contextlib.ExitStack() as ending:

        def make(fetch, **more):
            made = Process(workers, tmp_path / "index" / "s.sqlite", fetch, **more)
            ending.callback(made.close)
            return made

        yield make


@pytest.fixture(params=["disk", "memory"])
def walk(request, workers, process):
    """Make a listing of pages, kept on disk or in memory."""

    def make(pages):
        fetch = pages if callable(pages) and not isinstance(pages, dict) else Script(pages)
        made = process(fetch) if request.param == "disk" else Process(workers, None, fetch)
        return made.listing(), fetch

    return make


def names(listing, start=0):
    return "".join(identifier for identifier, _ in listing.iterate(start))


class TestReading:
    @pytest.mark.promise(
        "Each further page is asked for when a reader wants names of the one before it."
    )
    def test_the_first_names_come_after_the_first_page(self, walk):
        """No page is asked for before a name is wanted; then one, and one ahead."""
        listing, fetch = walk(THREE)
        found = listing.iterate()
        assert fetch.asked == []
        assert next(found) == ("a", 7.0)
        assert listing.reach(3)
        assert fetch.asked == [None, "2"]
        assert (len(listing), listing.complete) == (4, False)

    def test_a_page_that_was_asked_for_is_stored_though_its_reader_has_gone(self, walk):
        """And no more are asked for."""
        listing, fetch = walk({None: ("ab", "2", 8), "2": ("cd", "3", 8), "3": ("ef", "4", 8),
                               "4": ("gh", None, 8)})  # fmt: skip
        found = listing.iterate()
        assert "".join(next(found)[0] for _ in range(3)) == "abc"
        found.close()
        assert listing.reach(5)
        assert fetch.asked == [None, "2", "3"]
        assert (len(listing), listing.complete) == (6, False)

    def test_asking_whether_there_is_a_name_reads_nothing_ahead(self, walk):
        """A collection.json needs to know whether there are more than 1000, and nothing else."""
        listing, fetch = walk(THREE)
        assert listing.reach(1)
        assert fetch.asked == [None]

    def test_the_order_is_the_servers(self, walk):
        """Nothing is sorted, nothing is lost, the end is noticed, and nothing is asked twice."""
        listing, fetch = walk({None: ("zb", "2", None), "2": ("ay", None, None)})
        assert names(listing) == names(listing) == "zbay"
        assert fetch.asked == [None, "2"]
        assert (listing.complete, listing.problem) == (True, None)

    @pytest.mark.parametrize("start", range(7))
    def test_a_reader_may_begin_anywhere(self, walk, start):
        """`readdir` goes on from an offset, also in a listing that nobody has read so far."""
        listing, _ = walk(THREE)
        assert names(listing, start) == "abcde"[start:]

    def test_many_names_are_read_in_batches(self, walk):
        """Positions are right across batches and pages of any size."""
        sizes = (999, 1, 1000, 1, 2500)
        starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
        pages = {
            str(number) if number else None: (
                [f"{one:05}" for one in range(starts[number], starts[number + 1])],
                str(number + 1) if number + 1 < len(sizes) else None,
                starts[-1],
            )
            for number in range(len(sizes))
        }
        listing, _ = walk(pages)
        expected = [f"{one:05}" for one in range(starts[-1])]
        assert [one for one, _ in listing.iterate()] == expected
        for start in (0, 998, 999, 1000, 1001, 1999, 2000, 2001, 4500, 4501):
            assert [one for one, _ in listing.iterate(start)] == expected[start:]

    def test_times_are_known_as_far_as_the_walk_has_come(self, walk):
        """So that a `stat` after a `readdir` costs nothing."""
        listing, _ = walk(THREE)
        assert listing.modified("a") is None
        listing.reach(0)
        assert (listing.modified("a"), listing.modified("c")) == (7.0, None)

    def test_readers_share_one_walk(self, walk):
        """Sixteen at once make each request once, and all see all names in the same order."""
        listing, fetch = walk(THREE)
        assert together(16, lambda _: names(listing)) == ["abcde"] * 16
        assert fetch.asked == [None, "2", "3"]

    def test_a_reader_who_starts_too_late_does_not_skip_a_page(self, process):
        """Between a look that finds too little and the flight, another's may bring the page."""

        class Late(Workers):
            def once(self, key, task):
                super().once(key, task)  # what the other reader did in between
                return super().once(key, task)

        late = Late()
        fetch = Script(THREE)
        made = Process(late, None, fetch)
        listing = made.listing()
        assert listing.reach(0)
        assert (fetch.asked, len(listing)) == ([None], 2)
        late.close()

    def test_a_reader_who_waits_does_not_hold_others_off_what_is_known(self, walk):
        """While a page is on its way, the names before it can be read."""
        go = threading.Event()

        def fetch(cursor, limit, deadline):
            if cursor:
                assert go.wait(30)
                return page("c", None, 3)
            return page("ab", "2", 3)

        listing, _ = walk(fetch)
        listing.reach(0)
        all_names = []
        reader = threading.Thread(target=lambda: all_names.append(names(listing)))
        reader.start()
        found = listing.iterate()
        assert [next(found)[0], next(found)[0]] == ["a", "b"]
        go.set()
        reader.join(30)
        assert all_names == ["abc"]

    def test_who_waits_is_wanted_while_the_walk_gets_on_without_names(self, process, workers):
        """A download that brings them all at its end would be given up otherwise."""
        made = process(Script(THREE))
        listing = made.listing()
        waits = queue.Queue()
        listing._walker.note_waiting = lambda: waits.put(True)
        with made.index.claim("c", listing.number) as claim:
            reader = workers.submit(lambda: names(listing))
            for number in range(3):
                assert waits.get(timeout=30)
                claim.append((), cursor=str(number))
            claim.append(page("ab", None).items, cursor=None)
            claim.finish()
        assert workers.wait(reader) == "ab"


class TestFailing:
    @pytest.mark.promise(
        "An error in the middle of a listing is an error of `readdir`, and the next listing "
        "goes on from there."
    )
    def test_a_failed_page_is_asked_again_by_the_next_reader(self, walk):
        """Each failure is told to one reader; the walk goes on where it was."""
        down = Unavailable("down")
        listing, fetch = walk(THREE | {"2": [down, down, THREE["2"]]})
        for _ in range(2):
            with pytest.raises(Unavailable):
                names(listing)
        assert not listing.complete
        assert listing.problem == "down"
        assert names(listing) == "abcde"
        assert listing.problem is None
        assert fetch.asked == [None, "2", "2", "2", "3"]

    @pytest.mark.promise("An error before the first name is an error, not an empty directory.")
    def test_an_error_that_gave_no_names_is_an_error(self, walk):
        """Not an empty directory."""
        listing, _ = walk({None: Unavailable("down")})
        with pytest.raises(Unavailable):
            names(listing)
        with pytest.raises(Unavailable):
            listing.reach(0)

    def test_a_page_that_is_ill_is_an_error_after_a_second_try(self, walk, caplog):
        """The pages are read again from the first, once, and the names before are not lost."""
        listing, fetch = walk(THREE | {"3": [NotFound("gone"), NotFound("gone"), THREE["3"]]})
        found = []
        with pytest.raises(NotFound):
            found.extend(one for one, _ in listing.iterate())
        assert found == list("abcd")
        assert fetch.asked == [None, "2", "3", None, "2", "3"]
        assert "no longer knows how to go on in c after 4 items" in caplog.text
        assert names(listing) == "abcde"

    def test_the_other_process_that_does_not_come_on_is_a_timeout(self, process):
        """A reader waits for another's page, and no longer than its patience."""
        made = process(Script(THREE), patience=0.05)
        listing = made.listing()
        with made.index.claim("c"), pytest.raises(TimedOut, match="another mount walks c"):
            listing.reach(0)
        assert listing.reach(0)


class TestDisk:
    def test_a_complete_listing_needs_no_server(self, process):
        """After a remount, and beside another process."""
        first = process(Script(THREE))
        assert names(first.listing()) == "abcde"
        beside = process(Script({}))
        assert names(beside.listing()) == "abcde"
        first.close()
        beside.close()
        again = process(Script({}))
        assert names(again.listing(), 3) == "de"
        assert again.listings.problems() == []

    def test_an_interrupted_walk_is_resumed_at_its_cursor(self, process):
        """What was walked is shown at once, and not asked for again."""
        first = process(Script(THREE))
        first.listing().reach(3)
        first.close()
        fetch = Script(THREE)
        again = process(fetch)
        found = again.listing().iterate()
        assert [next(found)[0] for _ in range(4)] == list("abcd")
        assert names(again.listing()) == "abcde"
        assert fetch.asked == ["3"]

    def test_another_processs_progress_is_shown(self, process):
        """Two walk one collection together: no page is asked for twice, both see all names."""
        one, two = Script(THREE), Script(THREE)
        here, there = process(one).listing(), process(two).listing()
        assert here.reach(0)
        assert there.reach(2)
        assert here.reach(4)
        assert names(there) == names(here) == "abcde"
        assert one.asked + two.asked == [None, "3", "2"]

    def test_who_waits_for_another_process_goes_on_with_it(self, process):
        """A reader in one process is shown the page that another is just fetching."""
        go, asked = threading.Event(), threading.Event()

        def slow(cursor, limit, deadline):
            asked.set()
            assert go.wait(30)
            return page("ab", None, 2)

        here, there = process(slow).listing(), process(Script({})).listing()
        readers = [threading.Thread(target=names, args=(here,))]
        readers[0].start()
        assert asked.wait(30)
        outcome = []
        readers.append(threading.Thread(target=lambda: outcome.append(names(there))))
        readers[1].start()
        go.set()
        for reader in readers:
            reader.join(30)
        assert outcome == ["ab"]

    def test_a_walk_whose_last_page_had_come_is_ended(self, process):
        """Killed between the last page and the end: nothing is asked for again."""
        made = process(Script(THREE))
        with made.index.claim("c") as claim:
            claim.append(page("ab").items, cursor=None, matched=2)
        assert names(made.listing()) == "ab"
        assert made.listing().complete

    @pytest.mark.promise(
        "All readers of a directory share one walk, those of other mounts too, and an open "
        "directory keeps its order and its offsets."
    )
    def test_what_others_read_stays_while_a_new_walk_takes_over(self, process):
        """An open directory is of one generation, however long it is read."""
        made = process(Script({None: ("ab", None, 2)}))
        listing = made.listing()
        found = listing.iterate()
        assert next(found)[0] == "a"
        with made.index.claim("c") as claim:
            claim.append(page("xyz").items, cursor=None)
            claim.finish()
        made.index.sweep()
        assert names(made.listing()) == "xyz"
        assert next(found)[0] == "b"
        del found, listing
        gc.collect()
        assert made.index.sweep() == 2


class TestAge:
    def refreshed(self, made):
        made.listing()
        made.listings.refresh("c")
        return names(made.listing())

    def test_an_unchanged_listing_is_confirmed_by_its_first_page(self, process):
        """First page and count are compared: one request, however large the collection is."""
        clock, fetch = Clock(), Script(THREE)
        made = process(fetch, clock=clock)
        assert names(made.listing()) == "abcde"
        number = made.listing().number
        clock.now += 1000
        fetch.asked.clear()
        assert self.refreshed(made) == "abcde"
        assert set(fetch.asked) == {None}
        assert made.listing().number == number
        assert made.index.serving("c").touched == clock.now

    @pytest.mark.parametrize("change", [
        {None: ("xab", "2", 6), "2": ("cd", "3", 6), "3": ("e", None, 6)},
        {None: ("ab", "2", 4), "2": ("cd", None, 4)},
        {None: ("ba", "2", 5), "2": ("cd", "3", 5), "3": ("e", None, 5)},
    ])  # fmt: skip
    def test_a_changed_listing_is_walked_anew(self, process, change):
        """Other names, another order or another count: the old one serves until there is a new."""
        fetch = Script(dict(THREE))
        made = process(fetch)
        assert names(made.listing()) == "abcde"
        fetch.pages = change
        made.listings.refresh("c")
        assert names(made.listing()) == "".join(ids for ids, _, _ in change.values())

    @pytest.mark.promise(
        "What changed elsewhere is found when the listing is a thousand times as old as its walk "
        "took: then it is walked anew in any case."
    )
    def test_what_changed_behind_the_first_page_is_found_in_the_end(self, process):
        """Though the first page and the count are the same."""
        clock, fetch = Clock(), Script(dict(THREE))
        made = process(fetch, clock=clock)
        assert made.listing().reach(0)
        clock.now += 60
        assert names(made.listing()) == "abcde"
        fetch.pages = THREE | {"2": ("cX", "3", 5)}
        for seconds, expected in ((60_000, "abcde"), (1, "abcXe")):
            clock.now += seconds
            made.listings.refresh("c")
            assert names(made.listing()) == expected

    def test_a_collection_of_one_page_is_always_taken_anew(self, process):
        """It costs no more than to compare, and finds what changed within an item."""
        fetch = Script({None: ("ab", None, 2)})
        made = process(fetch)
        assert names(made.listing()) == "ab"
        fetch.pages = {None: ("ac", None, 2)}
        made.listings.refresh("c")
        assert names(made.listing()) == "ac"

    @pytest.mark.promise(
        "A complete listing that is older than `ttl` is shown at once, and compared with the "
        "server in the background by its first page and its count; if it has changed it is "
        "walked anew, and the next who opens the directory sees the new one."
    )
    def test_an_old_listing_is_refreshed_in_the_background(self, process, workers):
        """The old names are given at once; who opens the directory after that sees the new ones."""
        clock, came = Clock(), threading.Event()
        fetch = Script({None: ("ab", None, 2)})
        made = process(fetch, clock=clock)
        assert names(made.listing()) == "ab"

        def new(cursor):
            came.set()
            return ("xy", None, 2)

        fetch.pages = new
        clock.now += 1000
        assert names(made.listing()) == "ab"
        assert came.wait(30)
        workers.once("refresh c", lambda: None)  # joins what is under way
        assert names(made.listing()) == "xy"

    def test_a_server_that_is_down_does_not_hide_an_old_listing(self, process, caplog):
        """It is shown, without a warning, and tried again the next time."""
        clock = Clock()
        fetch = Script(dict(THREE))
        made = process(fetch, clock=clock)
        assert names(made.listing()) == "abcde"
        fetch.pages = {None: Unavailable("down")}
        clock.now += 1000
        assert names(made.listing()) == "abcde"
        with pytest.raises(Unavailable):
            made.listings.refresh("c")
        assert not caplog.records

    def test_a_worse_walk_does_not_replace_a_better_one(self, process, caplog):
        """A server that falls short today does not take names away."""
        fetch = Script(dict(THREE))
        made = process(fetch)
        assert names(made.listing()) == "abcde"
        fetch.pages = {None: ("ab", "2", 9), "2": ("cd", None, 9)}
        made.listings.refresh("c")
        assert names(made.listing()) == "abcde"
        assert "lists 4 of the 9 items it counts" in caplog.text

    def test_an_incomplete_listing_is_walked_anew_when_it_is_old(self, process):
        """And not believed because its first page is the same."""
        fetch = Script({None: ("ab", "2", 5), "2": ("cd", None, 5)})
        made = process(fetch)
        assert names(made.listing()) == "abcd"
        assert made.listings.problems() == ["c: the server lists 4 of the 5 items it counts"]
        fetch.pages = dict(THREE)
        made.listings.refresh("c")
        assert names(made.listing()) == "abcde"
        assert made.listings.problems() == []

    def test_without_a_disk_an_old_listing_is_walked_anew(self, workers):
        """As a reader opens it, because nothing else is known to be shown."""
        clock, fetch = Clock(), Script({None: ("ab", None, 2)})
        made = Process(workers, None, fetch, clock=clock)
        assert names(made.listing()) == "ab"
        fetch.pages = {None: ("xy", None, 2)}
        assert names(made.listing()) == "ab"
        clock.now += 1000
        assert names(made.listing()) == "xy"


class TestTrouble:
    """The disk fails: full, read-only, damaged. Readers go on, at the same positions."""

    def fail(self, monkeypatch, index, *methods):
        def broken(*_args, **_more):
            raise IndexUnusable("the disk is full")

        for method in methods:
            monkeypatch.setattr(index, method, broken)

    def test_a_disk_that_fills_in_mid_walk(self, process, monkeypatch, caplog):
        """What was written is read, what comes is kept in memory, no page is asked for twice."""
        fetch = Script(THREE)
        made = process(fetch)
        listing = made.listing()
        found = listing.iterate()
        assert next(found)[0] == "a"
        assert listing.reach(3)
        self.fail(monkeypatch, made.index, "claim")
        assert "a" + "".join(one for one, _ in found) == "abcde"
        assert fetch.asked == [None, "2", "3"]
        assert listing.in_memory
        assert "goes on in memory" in caplog.text

    def test_a_disk_that_cannot_be_read_any_more(self, process, monkeypatch):
        """The walk begins again, and the reader goes on at its position."""
        fetch = Script(THREE)
        made = process(fetch)
        listing = made.listing()
        assert listing.reach(3)
        self.fail(monkeypatch, made.index, "claim", "names", "walk")
        assert names(listing, 3) == "de"

    def test_a_complete_listing_that_cannot_be_read_is_walked_again(self, process, monkeypatch):
        """Nothing is lost but time."""
        made = process(Script(THREE))
        assert names(made.listing()) == "abcde"
        again = process(Script(THREE))
        listing = again.listing()
        self.fail(monkeypatch, again.index, "names", "walk", "claim")
        assert names(listing) == "abcde"

    def test_an_index_that_fails_from_the_start(self, process, monkeypatch, caplog):
        """The listing is in memory, and said once to be."""
        made = process(Script(THREE))
        self.fail(monkeypatch, made.index, "serving", "under_way", "claim", "walks")
        assert names(made.listing()) == "abcde"
        assert made.listing().in_memory
        made.listings.problems()
        assert len([one for one in caplog.records if "goes on without" in one.getMessage()]) == 1

    def test_an_index_that_is_closed_is_no_trouble(self, process, caplog):
        """The file system is being unmounted: nothing is said, and nothing goes on."""
        made = process(Script(THREE))
        listing = made.listing()
        made.index.close()
        with pytest.raises((IndexUnusable, Interrupted)):
            listing.reach(0)
        assert not caplog.records
