"""The index on disk: walks, names and documents that outlive the process, and its troubles."""

import contextlib
import fcntl
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from mlhubfs.catalog import index_file
from mlhubfs.catalog.index import Index, IndexUnusable, WalkGone, path_of
from mlhubfs.catalog.index_documents import (
    Packer,
    dictionary_of,
    stripper,
    unpack,
)
from mlhubfs.catalog.locks import lock, try_lock
from mlhubfs.catalog.models import Item, parse_item, parse_page
from mlhubfs.config import MLHUB_ROOT

REAL = Path(__file__).parents[2] / "shared" / "real"
ROOT = "https://stac.example/v1"
TOKEN = "dGhpcyBpcyBhIHRva2Vu" * 16


def item(item_id, modified=1.5e9, **more):
    """An item of that id; what else is given goes into its JSON."""
    document = json.dumps({"id": item_id, "assets": {}, **more}).encode()
    return Item(item_id, modified, (), document)


def items(start, stop):
    return [item(f"item-{number:06}", float(number)) for number in range(start, stop)]


def fill(index, collection, *pages, finish=True):
    """Walk `collection` through `pages`; return the walk."""
    with index.claim(collection) as claim:
        for number, page in enumerate(pages, 1):
            claim.append(page, cursor=str(number) if number < len(pages) or not finish else None)
        if finish:
            claim.finish()
        return claim.walk


def ids(index, number, start=0):
    return [item_id for _, item_id, _ in index.names(number, start)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index" / "source.sqlite"


@pytest.fixture
def opened(path):
    """`opened()` opens the index once more; each is closed at the end."""
    with contextlib.ExitStack() as ending:

        def make(**changes):
            index = Index(**{"path": path, "root": ROOT, "strip": stripper(ROOT), **changes})
            ending.callback(index.close)
            return index

        yield make


@pytest.fixture
def index(opened):
    return opened()


class TestWalks:
    def test_a_page_is_listed_in_the_order_it_came(self, index):
        """Positions count from 0, ids and times are those of the items, any start will do."""
        walk = fill(index, "c", [item("b", 2.0), item("a", 1.0)], [item("ü/:\0", 0.5)])
        expected = [(0, "b", 2.0), (1, "a", 1.0), (2, "ü/:\0", 0.5)]
        for start in range(5):
            assert list(index.names(walk.number, start)) == expected[start:]

    def test_a_walk_knows_how_far_it_is(self, opened):
        """Cursor, counts and times are kept with the page, and told by another Index too."""
        index = opened(clock=lambda: 100.0)
        with index.claim("c") as claim:
            assert (claim.walk.count, claim.walk.pages, claim.walk.at_end) == (0, 0, False)
            claim.append(items(0, 3), cursor="two", matched=5)
            seen = opened().under_way("c")
            assert seen == claim.walk
            assert (seen.count, seen.pages, seen.cursor, seen.matched) == (3, 1, "two", 5)
            assert (seen.started, seen.touched, seen.finished) == (100.0, 100.0, None)
            assert claim.append(items(3, 5), cursor=None).at_end
            assert claim.walk.matched == 5
            assert claim.finish().state == "serving"
        assert index.serving("c").finished == 100.0
        assert index.under_way("c") is None

    def test_an_empty_collection_is_a_finished_walk_of_no_items(self, index):
        """A page without items counts as a page, and needs no dictionary."""
        walk = fill(index, "c", [])
        assert (walk.count, walk.pages, walk.state) == (0, 1, "serving")
        assert list(index.names(walk.number)) == []
        assert index.item("c", "x") is None

    def test_items_after_an_empty_first_page_are_stored(self, index):
        """The dictionary is made of the first page that has items."""
        fill(index, "c", [], [item("a")])
        assert json.loads(index.item("c", "a"))["id"] == "a"

    def test_an_item_is_known_by_id(self, index):
        """`known` tells its time, `item` its JSON; other ids and collections have none."""
        fill(index, "c", [item("a", 7.5, properties={"x": "ü"})])
        assert index.known("c", "a") == 7.5
        assert json.loads(index.item("c", "a"))["properties"] == {"x": "ü"}
        for collection, item_id in (("c", "b"), ("d", "a"), ("c", ""), ("c", "\udcff")):
            assert index.known(collection, item_id) is None
            assert index.item(collection, item_id) is None

    def test_the_newest_walk_answers_for_an_item(self, index):
        """While a successor is walked, its items come before the old ones, which still count."""
        fill(index, "c", [item("a", 1.0), item("b", 1.0)])
        fill(index, "c", [item("a", 2.0)], finish=False)
        assert index.known("c", "a") == 2.0
        assert index.known("c", "b") == 1.0

    def test_the_old_walk_serves_until_the_new_one_is_finished(self, index):
        """`finish` is the moment at which the names change, all of them."""
        old = fill(index, "c", items(0, 10))
        with index.claim("c") as claim:
            claim.append(items(5, 12), cursor=None)
            assert index.serving("c") == old
            new = claim.finish()
        assert index.serving("c") == new
        assert index.walk(old.number).state == "retired"
        assert index.known("c", "item-000001") is None

    def test_a_failed_walk_goes_on(self, index):
        """The problem is kept until a page comes; cursor and names stay."""
        with index.claim("c") as claim:
            claim.append(items(0, 3), cursor="two")
            claim.fail("the server is down")
        assert index.under_way("c").problem == "the server is down"
        with index.claim("c") as claim:
            assert claim.walk.cursor == "two"
            assert claim.append(items(3, 4), cursor=None).problem is None
            claim.finish("the server lists 4 of the 9 items it counts")
        assert index.serving("c").problem == "the server lists 4 of the 9 items it counts"

    def test_a_rewound_walk_neither_doubles_nor_loses_names(self, index):
        """What is listed stays where it is; of the pages that come again only the new is added."""
        with index.claim("c") as claim:
            claim.append(items(0, 4), cursor="two")
            assert not claim.rewind().at_end
            assert (claim.walk.cursor, claim.walk.count) == (None, 4)
            claim.append([item("new"), *items(2, 6)], cursor=None)
            walk = claim.finish()
        names = ["item-000000", "item-000001", "item-000002", "item-000003"]
        assert ids(index, walk.number) == [*names, "new", "item-000004", "item-000005"]

    def test_a_discarded_walk_is_replaced_by_an_empty_one(self, index):
        """The claim goes on with the new walk; the old one's readers come to their end."""
        with index.claim("c") as claim:
            old = claim.append(items(0, 4), cursor="two")
            new = claim.discard()
            assert (new.count, new.cursor, new.state) == (0, None, "walking")
            assert new.number > old.number
            assert len(ids(index, old.number)) == 4
            claim.append([item("x")], cursor=None)
        assert ids(index, new.number) == ["x"]

    def test_a_listing_found_unchanged_counts_as_new(self, opened):
        """`confirm` sets the time of the walk that serves, and nothing else of it."""
        now = [100.0]
        index = opened(clock=lambda: now[0])
        walk = fill(index, "c", items(0, 2))
        now[0] = 500.0
        index.confirm(walk.number, matched=2)
        assert index.serving("c").touched == 500.0
        assert index.serving("c").finished == 100.0
        under_way = fill(index, "d", items(0, 2), finish=False)
        index.confirm(under_way.number, matched=7)
        assert index.under_way("d") == under_way

    def test_every_walk_is_told_of(self, index):
        """`walks` has all collections and states, for `mlhubfs status`; `size` has the bytes."""
        fill(index, "b", items(0, 2))
        fill(index, "b", items(0, 2))
        fill(index, "a", items(0, 2), finish=False)
        assert [(one.collection, one.state) for one in index.walks()] == [
            ("a", "walking"),
            ("b", "serving"),
            ("b", "retired"),
        ]
        assert index.size() > 4096
        assert index.root == ROOT


class TestHolding:
    def test_a_reader_keeps_its_generation_to_the_end(self, index, monkeypatch):
        """What is replaced under a reader is deleted after it, not under it."""
        monkeypatch.setattr("mlhubfs.catalog.index._BATCH", 10)
        old = fill(index, "c", items(0, 100))
        reader = index.names(old.number)
        first = next(reader)
        fill(index, "c", [item("other")])
        assert index.sweep() == 0
        assert [first, *reader] == [(n, f"item-{n:06}", float(n)) for n in range(100)]
        assert index.sweep() == 100
        assert index.walk(old.number) is None

    def test_a_reader_that_stops_early_lets_go(self, index):
        """A closed iterator no longer holds."""
        old = fill(index, "c", items(0, 10))
        reader = index.names(old.number)
        next(reader)
        fill(index, "c", [item("other")])
        reader.close()
        assert index.sweep() == 10

    def test_a_deleted_walk_is_said_to_be_gone(self, index):
        """WalkGone, not an empty listing."""
        old = fill(index, "c", items(0, 10))
        fill(index, "c", [item("other")])
        index.sweep()
        with pytest.raises(WalkGone):
            next(index.names(old.number))

    def test_another_index_on_the_file_holds_too(self, opened):
        """As another process would: a lock on a file, not a note in memory."""
        index, other = opened(), opened()
        old = fill(index, "c", items(0, 10))
        with other.hold(old.number):
            fill(index, "c", [item("other")])
            assert index.sweep() == 0
        assert index.sweep() == 10

    def test_a_sweep_that_was_cut_short_is_taken_up_again(self, index, monkeypatch):
        """Nobody reads what is half deleted, and the rest goes with the next sweep."""
        monkeypatch.setattr("mlhubfs.catalog.index_walk._DELETED", 10)
        old = fill(index, "c", items(0, 100))
        new = fill(index, "c", items(50, 80))
        assert index.sweep(stop=lambda: True) == 10
        with pytest.raises(WalkGone):
            index.hold(old.number)
        assert index.sweep() == 90
        assert len(ids(index, new.number)) == 30
        assert index.item("c", "item-000060")
        assert not list(index.path.parent.rglob(f"held-{old.number}"))

    def test_the_disk_gets_back_what_a_walk_took(self, index):
        """A refreshed listing does not take twice its room for ever."""
        sizes = []
        for _ in range(2):
            fill(index, "c", items(0, 3000))
            with index._database.reading() as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            sizes.append(index.path.stat().st_size)
        index.sweep()
        with index._database.reading() as connection:
            assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert index.path.stat().st_size < (sizes[0] + sizes[1]) / 2

    def test_a_walk_grows_under_its_readers(self, index):
        """An iterator ends at what is known; one that starts there goes on."""
        with index.claim("c") as claim:
            walk = claim.append(items(0, 3), cursor="two")
            assert len(ids(index, walk.number)) == 3
            claim.append(items(3, 5), cursor=None)
            assert ids(index, walk.number, 3) == ["item-000003", "item-000004"]


class TestClaims:
    def test_only_one_at_a_time_walks_a_collection(self, opened):
        """Neither a second thread nor a second process; other collections are free."""
        index, other = opened(), opened()
        with index.claim("c"):
            assert index.claim("c") is None
            assert other.claim("c") is None
            with other.claim("d"):
                pass
        with other.claim("c"):
            assert index.claim("c") is None

    def test_a_claim_resumes_where_the_last_one_let_go(self, opened):
        """The cursor, the names and the dictionary are the walk's, not the claim's."""
        fill(opened(), "c", items(0, 5), finish=False)
        with opened().claim("c") as claim:
            assert claim.walk.cursor == "1"
            walk = claim.append(items(5, 9), cursor=None)
        assert len(ids(opened(), walk.number)) == 9
        assert json.loads(opened().item("c", "item-000007"))["id"] == "item-000007"

    def test_a_closed_index_gives_its_claims_back(self, opened):
        """Whoever held them: the file system is gone, though its process may not be."""
        index = opened()
        held = index.claim("c")
        index.close()
        with opened().claim("c") as claim:
            assert claim.walk == held.walk

    def test_a_claim_that_has_ended_walks_no_more(self, index):
        """A page that comes after `finish`, or after another went on, is refused."""
        with index.claim("c") as claim:
            claim.append(items(0, 5), cursor=None)
            claim.finish()
            with pytest.raises(WalkGone):
                claim.append(items(5, 9), cursor=None)
        late = index.claim("c")
        late.release()
        fill(index, "c", items(0, 2), finish=False)
        for change in (late.rewind, late.discard, late.finish):
            with pytest.raises(WalkGone):
                change()
        assert index.under_way("c").count == 2

    def test_threads_that_race_for_a_claim_lose_nothing(self, index):
        """Eight threads take turns with pages; each page is in, once, whole."""
        pages = {str(n): items(n * 10, n * 10 + 10) for n in range(40)}

        def walk():
            while index.serving("c") is None:
                claim = index.claim("c")
                if claim is None:
                    continue
                with claim:
                    if index.serving("c"):
                        return
                    number = int(claim.walk.cursor or 0)
                    if str(number) in pages:
                        claim.append(pages[str(number)], cursor=str(number + 1))
                    else:
                        claim.finish()

        threads = [threading.Thread(target=walk) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert ids(index, index.serving("c").number) == [one.id for one in items(0, 400)]

    def test_readers_are_served_while_a_page_goes_in(self, index):
        """A look-up needs no lock that a writer holds."""
        fill(index, "c", items(0, 10))
        with index._database.writing() as connection:
            connection.execute("UPDATE walks SET touched = 0")
            assert index.known("c", "item-000003") == 3.0
            assert index.serving("c").touched > 0


class TestLocks:
    def test_a_removed_lock_file_does_not_split_the_lock(self, tmp_path, monkeypatch):
        """Its holder removes the file between our opening and our locking: we lock the new one."""
        path = tmp_path / "lock"
        holders = [try_lock(path)]
        flock = fcntl.flock

        def late(descriptor, kind):
            while holders:
                holders.pop().release(remove=True)
            flock(descriptor, kind)

        monkeypatch.setattr(fcntl, "flock", late)
        with try_lock(path):
            assert try_lock(path) is None

    def test_a_lock_is_released_once(self, tmp_path):
        """A second release does not close somebody else's file."""
        held = try_lock(tmp_path / "lock")
        held.release(remove=True)
        with (tmp_path / "other").open("wb") as other:
            held.release()
            other.write(b"still open")

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_neither_keeps_nor_frees_a_lock(self, tmp_path):
        """It has the holder's open file, but the lock is the holder's to let go."""
        held, inherited = try_lock(tmp_path / "held"), try_lock(tmp_path / "inherited")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            inherited.release(remove=True)
            os.read(reader, 1)  # until the parent has closed its end
            os._exit(0)
        os.close(reader)
        held.release()
        assert try_lock(tmp_path / "held")
        os.close(writer)
        os.waitpid(child, 0)
        assert try_lock(tmp_path / "inherited") is None

    def test_shared_holders_keep_out_who_wants_it_alone(self, tmp_path):
        """And are kept out by it."""
        path = tmp_path / "lock"
        with try_lock(path, shared=True), try_lock(path, shared=True):
            assert lock(path, seconds=0.05) is None
        with lock(path, seconds=0):
            assert try_lock(path, shared=True) is None


# Another process: walks page after page, tells each on stdout, and is killed in the middle.
_WALKER = """
import sys
from pathlib import Path
from mlhubfs.catalog.index import Index
from mlhubfs.catalog.models import Item
index = Index(Path(sys.argv[1]), root="r", strip=lambda document: document)
claim = index.claim("c")
if claim is None:
    print("claimed by another", flush=True)
    raise SystemExit
print("claimed", flush=True)
while True:
    number = int(claim.walk.cursor or 0)
    page = [Item(f"{n}", float(n), (), b'{"id":"%d"}' % n) for n in range(number, number + 500)]
    claim.append(page, cursor=str(number + 500))
    print(number + 500, flush=True)
"""


@contextlib.contextmanager
def walker(path):
    process = subprocess.Popen(
        [sys.executable, "-c", _WALKER, str(path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


class TestProcesses:
    def test_kill_in_the_middle_loses_at_most_the_page_under_way(self, opened, path):
        """Killed again and again, the walk resumes at its cursor, without gap or double."""
        told = 0
        for pages in (1, 2, 5, 9):
            with walker(path) as process:
                assert process.stdout.readline() == "claimed\n"
                for _ in range(pages):
                    told = int(process.stdout.readline())
                process.send_signal(signal.SIGKILL)
                process.wait(30)
            index = opened()
            walk = index.under_way("c")
            assert walk.count >= told
            assert walk.cursor == str(walk.count)
            assert ids(index, walk.number) == [str(n) for n in range(walk.count)]
            assert index.item("c", str(walk.count - 1)) == b'{"id":"%d"}' % (walk.count - 1)
        with index._database.reading() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def test_two_processes_do_not_walk_the_same_collection(self, index, path):
        """The second is told so, reads what the first has put in, and may walk when it has died."""
        with walker(path) as first:
            assert first.stdout.readline() == "claimed\n"
            first.stdout.readline()
            with walker(path) as second:
                assert second.stdout.readline() == "claimed by another\n"
            walk = index.under_way("c")
            assert len(ids(index, walk.number)) >= walk.count >= 500
            first.send_signal(signal.SIGKILL)
            first.wait(30)
        with index.claim("c") as claim:
            assert claim.walk.cursor == str(claim.walk.count)

    def test_two_processes_that_meet_a_damaged_file_both_get_an_index(self, path):
        """One sets it aside, the other finds it made."""
        path.parent.mkdir()
        path.write_bytes(b"no database " * 1000)
        with walker(path) as first, walker(path) as second:
            lines = {first.stdout.readline(), second.stdout.readline()}
        assert lines == {"claimed\n", "claimed by another\n"}


class TestTroubles:
    @pytest.fixture(autouse=True)
    def _shortly(self, monkeypatch):
        monkeypatch.setattr(index_file, "_OPENING_SECONDS", 0.05)
        monkeypatch.setattr(index_file, "_BUSY_SECONDS", 0.05)

    def test_a_file_that_another_process_has_just_mended_is_taken(self, opened, monkeypatch):
        """It was damaged when we looked, and has been made anew and opened since."""
        monkeypatch.setattr(index_file, "_OPENING_SECONDS", 30)
        opened()
        faults, inspect = ["damaged"], index_file.IndexFile._inspect
        monkeypatch.setattr(
            index_file.IndexFile,
            "_inspect",
            lambda self: faults.pop() if faults else inspect(self),
        )
        assert opened().walks() == []

    def test_files_and_folders_are_the_users_own(self, index):
        """0600 and 0700, the log of SQLite and the lock files included."""
        fill(index, "c", items(0, 5))
        for path in [index.path.parent, *index.path.parent.rglob("*")]:
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)

    @pytest.mark.parametrize("kind", ["text", "foreign", "newer", "older", "cut", "empty schema"])
    def test_a_file_that_is_not_ours_is_set_aside(self, opened, path, kind, caplog):
        """It is kept under another name, an index is made in its place, and the log says so."""
        if kind in {"newer", "older", "cut"}:
            index = opened()
            fill(index, "c", items(0, 500))
            index.close()
        path.parent.mkdir(exist_ok=True)
        if kind == "text":
            path.write_text("not a database, but somebody's notes\n" * 200)
        elif kind == "cut":
            path.write_bytes(path.read_bytes()[:5000])
        else:
            with contextlib.closing(sqlite3.connect(path)) as database:
                if kind == "foreign":
                    database.execute("CREATE TABLE walks (number)")
                elif kind == "empty schema":
                    database.execute(f"PRAGMA application_id = {index_file.APPLICATION}")
                    database.execute(f"PRAGMA user_version = {index_file.SCHEMA_VERSION}")
                else:
                    database.execute(f"PRAGMA user_version = {2 if kind == 'newer' else 0}")
        before = path.read_bytes()
        with caplog.at_level(logging.WARNING, "mlhubfs.catalog"):
            index = opened()
        assert "set aside" in caplog.text
        assert path.with_name("source.sqlite.aside").read_bytes() == before
        assert index.walks() == []
        fill(index, "c", items(0, 5))
        assert index.known("c", "item-000003") == 3.0

    def test_damage_that_shows_later_is_mended_at_the_next_start(self, opened, path, caplog):
        """The read fails as unusable, never with wrong names; the next index is a new one."""
        index = opened()
        walk = fill(index, "c", items(0, 5000))
        index.close()
        data = bytearray(path.read_bytes())
        for start in range(4096 * 8, len(data), 4096):
            data[start : start + 4096] = b"\xa5" * 4096
        path.write_bytes(data)
        index = opened()
        with pytest.raises(IndexUnusable, match="damaged"):
            list(index.names(walk.number))
        with pytest.raises(IndexUnusable, match="another mount has it open"):
            opened()
        index.close()
        with caplog.at_level(logging.WARNING, "mlhubfs.catalog"):
            assert opened().walks() == []
        assert "set aside" in caplog.text
        opened()

    def test_a_document_that_does_not_unpack_is_damage(self, index):
        """Wrong bytes are never handed out."""
        fill(index, "c", items(0, 5))
        with index._database.writing() as connection:
            connection.execute("UPDATE documents SET document = substr(document, 1, 5)")
        with pytest.raises(IndexUnusable, match="damaged"):
            index.item("c", "item-000003")

    def test_a_full_disk_is_told_and_harms_nothing(self, opened):
        """A page that does not fit is refused whole; what was there is, and room can be made."""
        index = opened()
        with index.claim("c") as claim:
            walk = claim.append(items(0, 500), cursor="two")
            with index._database.writing() as connection:
                pages = connection.execute("PRAGMA page_count").fetchone()[0]
                connection.execute(f"PRAGMA max_page_count = {pages + 2}")
            with pytest.raises(IndexUnusable, match="full"):
                claim.append(items(500, 5000), cursor="three")
            assert claim.walk == walk == index.under_way("c")
            # The connection that failed was closed, and its limit with it.
            assert claim.append(items(500, 5000), cursor="three").count == 5000

    def test_a_really_full_disk_is_told_and_harms_nothing(self, tmp_path):
        """The same, by the file system."""
        folder = tmp_path / "small"
        with _tmpfs(folder, "size=512k"):
            index = Index(folder / "i" / "x.sqlite", root=ROOT, strip=bytes)
            with pytest.raises(IndexUnusable):
                _walk_on(index)
            walk = index.under_way("c")
            assert walk.cursor == str(walk.count)
            assert ids(index, walk.number) == [one.id for one in items(0, walk.count)]
            index.close()

    def test_a_disk_that_is_full_at_the_start_is_told(self, tmp_path):
        """No index can be made: IndexUnusable."""
        folder = tmp_path / "small"
        with _tmpfs(folder, "size=64k"):
            with contextlib.suppress(OSError):
                (folder / "filler").write_bytes(bytes(60_000))
            with pytest.raises(IndexUnusable):
                Index(folder / "i" / "x.sqlite", root=ROOT, strip=bytes)

    def test_a_read_only_folder_is_told(self, tmp_path):
        """No index can be made: IndexUnusable."""
        folder = tmp_path / "ro"
        with _tmpfs(folder, "ro"), pytest.raises(IndexUnusable, match="cannot be used"):
            Index(folder / "x.sqlite", root=ROOT, strip=bytes)

    def test_a_folder_that_is_a_file_is_told(self, tmp_path):
        """No index can be made: IndexUnusable."""
        (tmp_path / "file").write_text("")
        with pytest.raises(IndexUnusable):
            Index(tmp_path / "file" / "x.sqlite", root=ROOT, strip=bytes)

    def test_a_closed_index_is_unusable(self, opened):
        """Not a crash, nor a file made anew."""
        index = opened()
        index.close()
        for use in (index.walks, lambda: index.claim("c"), lambda: index.item("c", "x")):
            with pytest.raises(IndexUnusable):
                use()

    def test_a_writer_that_others_keep_waiting_gives_up(self, opened):
        """After the busy time: IndexUnusable, and the page can be tried again."""
        index, other = opened(), opened()
        with index.claim("c") as claim:
            with other._database.writing(), pytest.raises(IndexUnusable, match="locked"):
                claim.append(items(0, 5), cursor=None)
            assert claim.append(items(0, 5), cursor=None).count == 5


def _walk_on(index):
    with index.claim("c") as claim:
        for number in range(0, 100_000, 100):
            claim.append(items(number, number + 100), cursor=str(number + 100))


@contextlib.contextmanager
def _tmpfs(folder, options):
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("needs root to mount a small tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class TestDocuments:
    def test_no_link_or_key_reaches_the_disk(self, opened, path):
        """The tokens are in no file, neither plain nor compressed, the dictionary included."""
        index = opened()
        assets = {
            "B01": {"href": f"{ROOT}/download/short-token", "title": "kept-title"},
            "B02": {"href": f"https://other.example/download/{TOKEN}?se=1"},
            "B03": {"href": "https://other.example/download/public.tif"},
        }
        links = [{"href": f"{ROOT}/x?a=1&key=my-secret-key&b=2", "rel": "previous"}]
        pages = [
            [item(f"{page}-{n}", assets=assets, links=links) for n in range(9)] for page in (1, 2)
        ]
        fill(index, "c", *pages)
        with index._database.reading() as connection:
            stored = [row[0] for row in connection.execute("SELECT dictionary FROM walks")]
        stored += [index.item("c", f"2-{n}") for n in range(9)]
        stored += [one.read_bytes() for one in path.parent.rglob("*") if one.is_file()]
        for secret in (b"short-token", TOKEN.encode(), b"my-secret-key"):
            assert not any(secret in one for one in stored)
        document = json.loads(index.item("c", "2-0"))
        assert document["assets"]["B01"] == {
            "href": f"{ROOT}/download/...",
            "title": "kept-title",
        }
        assert document["assets"]["B02"]["href"] == "https://other.example/download/..."
        assert document["assets"]["B03"] == assets["B03"]
        assert document["links"][0]["href"] == f"{ROOT}/x?a=1&key=...&b=2"

    @pytest.mark.parametrize("query", [
        "se=2026&sig={}", "X-Amz-Date=2026&X-Amz-Signature={}&x=y", "X-Goog-Signature={}",
        "x-amz-security-token={}", "api_key={}", "access_token={}", "a=1&key={}#b",
    ])  # fmt: skip
    def test_a_signature_is_cut_and_its_asset_tells(self, query):
        """Links that others have signed are a permission too: they are asked for when needed."""
        link = f"https://storage.example/a/B02.tif?{query}"
        written = item("a", assets={"B02": {"href": link.format("s3cret%2Fx")}}).document
        (asset,) = parse_item(stripper(ROOT)(written), 0.0).assets
        assert asset.href == link.format("...")
        assert asset.is_cut
        assert not parse_item(written, 0.0).assets[0].is_cut

    @pytest.mark.parametrize(
        "written",
        [
            rb'{"href":"https:\/\/stac.example\/v1\/download\/s3cret"}',
            rb'{"href":"https://stac.example/v1/\u0064ownload/s3cret"}',
            rb'{"t":"a \"quoted\" word","href":"https://stac.example/v1/download/s3cret"}',
            rb'{"href":"https://stac.example/v1/download/s3cret\"more"}',
            rb'{"href":"http://stac.example/v1/download/s3cret?x=y"}',
            rb'{"href":"https://api.radiant.earth/mlhub/v1/download/s3cret"}',
        ],
    )
    def test_a_link_is_found_however_it_is_written(self, written):
        """Escapes hide nothing, and what is left is JSON."""
        stripped = stripper(ROOT)(written)
        assert b"s3cret" not in stripped
        assert json.loads(stripped)["href"].partition("...")[0].endswith("/download/")

    @given(st.recursive(st.text() | st.just("/download/x") | st.integers(), st.lists))
    @settings(max_examples=200, deadline=None)
    def test_what_holds_no_secret_stays(self, value):
        """The values of JSON without links are unchanged."""
        assert json.loads(stripper(ROOT)(json.dumps(value).encode())) == value

    @given(st.lists(st.binary(min_size=1, max_size=500), min_size=1), st.binary(max_size=500))
    def test_what_was_packed_is_unpacked(self, page, document):
        """Whatever the page was that the dictionary was made of."""
        dictionary = dictionary_of(page)
        assert len(dictionary) <= 32 << 10
        packer = Packer(dictionary)
        for one in (document, *page):
            assert unpack(packer.pack(one), dictionary) == one

    def test_a_real_page_takes_little_and_holds_no_token(self, opened, path):
        """Two recorded pages of BigEarthNet: below 1 kB an item, whole but for the links."""
        bodies = [REAL / f"bigearthnet_v1_source_items_{number}.json" for number in (0, 1)]
        if not bodies[0].exists():
            pytest.skip(f"the recorded pages are not in {REAL}")
        pages = [parse_page(body.read_bytes(), 0.0) for body in bodies]
        index = opened(root=MLHUB_ROOT, strip=stripper(MLHUB_ROOT))
        walk = fill(index, "c", *[page.items for page in pages])
        expected = [one for page in pages for one in page.items]
        assert ids(index, walk.number) == [one.id for one in expected]
        for one in expected:
            kept = json.loads(index.item("c", one.id))
            true = json.loads(bytes(one.document))
            for key, asset in true["assets"].items():
                assert kept["assets"][key].pop("href") == f"{MLHUB_ROOT}/download/..."
                del asset["href"]
            assert kept == true
        with index._database.reading() as connection:
            sizes = connection.execute("SELECT avg(length(document)) FROM documents").fetchone()
        assert sizes[0] < 600
        index.close()
        assert b"dummy-download-link" not in path.read_bytes()


def test_memory_stays_flat_over_a_hundred_thousand_names(opened):
    """Neither walking nor listing keeps what has gone by: a few MB at most."""
    index = opened(strip=lambda document: document)
    tracemalloc.start()
    try:
        with index.claim("c") as claim:
            for number in range(0, 100_000, 1000):
                claim.append(items(number, number + 1000), cursor=str(number + 1000))
            walk = claim.finish()
        assert sum(1 for _ in index.names(walk.number)) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_each_source_has_a_file_of_its_own(tmp_path):
    """Roots that differ in more than a trailing slash; the name tells the host."""
    roots = ["https://a.example/v1", "https://a.example/v2", "http://a.example/v1"]
    paths = {path_of(tmp_path, root) for root in roots}
    assert len(paths) == 3
    assert all(path.name.startswith("a.example-") for path in paths)
    assert path_of(tmp_path, "https://a.example/v1/") in paths


class _ModelWalk:
    def __init__(self):
        self.items = {}
        self.pages = 0
        self.cursor = None
        self.matched = None
        self.problem = None


class IndexAgainstModel(RuleBasedStateMachine):
    """Any sequence of pages, faults, claims and restarts leaves what a plain model has."""

    collections = st.sampled_from(["c", "d/é"])
    pages = st.lists(
        st.tuples(st.sampled_from(["a", "b", "A", "ü", "x/y", "z:1"]), st.integers(0, 99)),
        max_size=4,
    )
    cursors = st.none() | st.text("ab?=", min_size=1, max_size=3)

    @initialize()
    def start(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="test-index-")
        self.path = Path(self.temporary.name) / "i" / "x.sqlite"
        self.index = self.open()
        self.claims = {}
        self.walking = {}
        self.serving = {}
        self.held = []

    def open(self):
        return Index(self.path, root=ROOT, strip=lambda document: document.replace(b"S", b"-"))

    def teardown(self):
        if hasattr(self, "index"):
            self.restart()
            self.index.close()
            self.temporary.cleanup()

    @rule(collection=collections)
    def claim(self, collection):
        claim = self.index.claim(collection)
        assert (claim is None) == (collection in self.claims)
        if claim:
            self.claims[collection] = claim
            self.walking.setdefault(collection, _ModelWalk())

    @rule(collection=collections)
    def release(self, collection):
        claim = self.claims.pop(collection, None)
        if claim:
            claim.release()

    @rule(collection=collections, page=pages, cursor=cursors, matched=st.none() | st.integers(0, 9))
    def append(self, collection, page, cursor, matched):
        claim, model = self.claims.get(collection), self.walking.get(collection)
        if claim is None:
            return
        if model is None:
            with pytest.raises(WalkGone):
                claim.append([], cursor=None)
            return
        values = [item(one, float(time), secret="S", n=time) for one, time in page]
        claim.append(values, cursor=cursor, matched=matched)
        for value in values:
            model.items.setdefault(value.id, value)
        model.pages += 1
        model.cursor = cursor
        model.matched = model.matched if matched is None else matched
        model.problem = None

    @rule(collection=collections, problem=st.none() | st.just("p"))
    def finish(self, collection, problem):
        if collection in self.claims and collection in self.walking:
            self.claims[collection].finish(problem)
            model = self.walking.pop(collection)
            model.problem = problem
            self.serving[collection] = model

    @rule(collection=collections)
    def fail(self, collection):
        if collection in self.claims and collection in self.walking:
            self.claims[collection].fail("down")
            self.walking[collection].problem = "down"

    @rule(collection=collections)
    def rewind(self, collection):
        if collection in self.claims and collection in self.walking:
            self.claims[collection].rewind()
            self.walking[collection].pages = 0
            self.walking[collection].cursor = None

    @rule(collection=collections)
    def discard(self, collection):
        if collection in self.claims and collection in self.walking:
            self.claims[collection].discard()
            self.walking[collection] = _ModelWalk()

    @rule(collection=collections)
    def read_slowly(self, collection):
        walk = self.index.serving(collection)
        if walk:
            self.held.append((self.index.hold(walk.number), walk.number, self.serving[collection]))

    @precondition(lambda self: self.held)
    @rule()
    def read_to_the_end(self):
        held, number, model = self.held.pop()
        self.compare(number, model)
        held.release()

    @rule()
    def sweep(self):
        self.index.sweep()

    @rule()
    def restart(self):
        for held, _, _ in self.held:
            held.release()
        for claim in self.claims.values():
            claim.release()
        self.held, self.claims = [], {}
        self.index.close()
        self.index = self.open()

    def compare(self, number, model):
        expected = [(n, one.id, one.modified) for n, one in enumerate(model.items.values())]
        assert list(self.index.names(number)) == expected

    @invariant()
    def is_like_the_model(self):
        if not hasattr(self, "index"):
            return
        for collection in ("c", "d/é"):
            known = {}
            for walk, model in (
                (self.index.serving(collection), self.serving.get(collection)),
                (self.index.under_way(collection), self.walking.get(collection)),
            ):
                assert (walk is None) == (model is None)
                if walk:
                    self.compare(walk.number, model)
                    assert walk.count == len(model.items)
                    assert walk.matched == model.matched
                    assert walk.problem == model.problem
                    if walk.state == "walking":
                        assert (walk.pages, walk.cursor) == (model.pages, model.cursor)
                    known |= model.items
            for item_id in ("a", "b", "A", "ü", "x/y", "z:1"):
                one = known.get(item_id)
                assert self.index.known(collection, item_id) == (one and one.modified)
                document = one and one.document.replace(b"S", b"-")
                assert self.index.item(collection, item_id) == document


TestAgainstModel = IndexAgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_file_is_removed_only_where_nobody_else_has_it_open(path):
    """With its log and its lock files; the next one makes it anew."""
    first, second = (Index(path, root=ROOT, strip=bytes) for _ in range(2))
    first.keep("question", b"answer")
    first.remove()
    assert second.kept("question") == b"answer"
    second.remove()
    assert list(path.parent.iterdir()) == []
    with contextlib.closing(Index(path, root=ROOT, strip=bytes)) as third:
        assert third.kept("question") is None
