"""What a mount lists is kept on disk: for remounts, for other mounts, after a crash, offline."""

import errno
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import mounted as mounts
import pytest
from commands import User, is_alive, refused, until
from synthetic import Numbered, SyntheticServer

COUNT = 1000
ITEMS = Numbered(COUNT)
IDS = [item["id"] for item in ITEMS]
NAMES = ["collection.json", *IDS]
PAGES = "/collections/many/items?"


@pytest.fixture
def server():
    with SyntheticServer({"many": ITEMS}, datasets={"large": ["many"]}) as running:
        yield running


@pytest.fixture
def user(tmp_path):
    made = User(tmp_path)
    yield made
    made.end()


def many(mount):
    return mounts.names(mount.path / "large/many")


def report(mount):
    """Return what the daemon of a mount tells."""
    (one,) = json.loads(mount.command("status", "--json", mount.path))["mounts"]
    return one


class TestAcrossMounts:
    @pytest.mark.promise(
        "What was listed is kept in an index on disk: an interrupted walk goes on at its "
        "cursor, after a crash too, and a complete listing needs no page after a remount."
    )
    def test_a_complete_listing_is_walked_once_in_a_lifetime(self, server, mounted, binding):
        """After a remount the names come from disk, and so do the items: no page, no item."""
        with mounted(server.root_url, "page_size=100,ttl=1d", binding=binding) as mount:
            assert many(mount) == NAMES
            before = mounts.names(mount.path / "large/many" / IDS[5])
            mount.remount()
            server.requests.clear()  # of mounting
            assert many(mount) == NAMES
            assert mounts.names(mount.path / "large/many" / IDS[5]) == before
            assert (mount.path / "large/many" / IDS[-1] / "stac.json").read_bytes()
            assert not server.to("/items")

    @pytest.mark.promise(
        "What was listed is kept in an index on disk: an interrupted walk goes on at its "
        "cursor, after a crash too, and a complete listing needs no page after a remount."
    )
    def test_a_killed_daemon_is_no_loss(self, server, mounted, binding):
        """kill -9 in mid-walk: the next mount goes on at one of the two pages under way."""
        with mounted(server.root_url, "page_size=100", binding=binding) as mount:
            server.hold("token=next%3A500")
            words = ["ls", "-U", mount.path / "large/many"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen(words, **quiet) as reader:
                server.wait_for("token=next%3A500")
                os.kill(mount.daemon, signal.SIGKILL)
                until(lambda: not is_alive(mount.daemon), "the daemon ends")
                reader.wait(mounts.SECONDS)
            server.release()
            server.requests.clear()
            mount.unmount(lazy=True)
            mount.mount()
            assert many(mount) == NAMES
            asked = [line.rpartition("?")[2] for line in server.to(PAGES)]
            first = 10 - len(asked)
            assert first in {4, 5}
            assert asked == [f"token=next%3A{number}00&limit=100" for number in range(first, 10)]

    @pytest.mark.promise(
        "All readers of a directory share one walk, those of other mounts too, and an open "
        "directory keeps its order and its offsets."
    )
    def test_two_mounts_share_one_walk(self, server, mounted, tmp_path):
        """Each sees all names, and no page is asked for twice."""
        cache = f"page_size=50,cache_dir={tmp_path / 'shared'}"
        with (
            mounted(server.root_url, cache) as one,
            mounted(server.root_url, cache) as two,
        ):
            readers = [
                subprocess.Popen(["ls", "-U", mount.path / "large/many"], stdout=subprocess.PIPE)
                for mount in (one, two, one, two)
            ]
            for reader in readers:
                assert reader.communicate(timeout=mounts.SECONDS)[0].decode().split() == NAMES
        asked = server.to(PAGES)
        assert len(asked) == len(set(asked)) == COUNT / 50

    @pytest.mark.promise(
        "With `offline`, what the index and the cache hold is there, and anything else fails "
        "at once with ENETUNREACH."
    )
    @pytest.mark.fault("`offline`, and neither index nor cache holds it")
    def test_offline_without_a_server(self, server, mounted, binding):
        """Listings, documents and cached bytes are there; anything else is ENETUNREACH, at once."""
        with mounted(server.root_url, "page_size=100", binding=binding) as mount:
            assert many(mount) == NAMES
            file = mount.path / "large/many" / IDS[3] / "B02"
            data, document = file.read_bytes(), (file.parent / "stac.json").read_bytes()
            mount.remount("offline")
            server.requests.clear()
            assert many(mount) == NAMES
            assert file.read_bytes() == data
            assert (file.parent / "stac.json").read_bytes() == document
            with mounts.fails(errno.ENETUNREACH):
                (mount.path / "large/many" / IDS[4] / "B02").read_bytes()
            with mounts.fails(errno.ENETUNREACH):
                (mount.path / "large/many/nobody").stat()
            assert report(mount)["offline"]
            assert server.requests == []

    def test_offline_mounts_what_was_never_seen_not_at_all(self, server, user, tmp_path):
        """It says why, and what to do."""
        (tmp_path / "m").mkdir()
        done = user.run("mount", "--offline", server.root_url, tmp_path / "m")
        refused(done, "offline", "mount it once without `offline`")

    @pytest.mark.promise(
        "Where the index cannot be used (disk full, read-only, damaged), listings are kept in "
        "memory."
    )
    def test_an_index_that_cannot_be_made_is_no_trouble(self, server, mounted, tmp_path):
        """All goes on in memory, and the log says so."""
        cache = tmp_path / "cache"
        cache.mkdir()
        (cache / "index").write_text("in the way")
        options = f"page_size=100,cache_dir={cache}"
        with mounted(server.root_url, options, allow=["no listings on disk"]) as mount:
            assert many(mount) == NAMES
            assert many(mount) == NAMES
            assert len(server.to(PAGES)) == COUNT / 100
            assert report(mount)["index_bytes"] is None

    @pytest.mark.promise(
        "A listing that ends early is said to be incomplete in the log, in README.txt and by "
        "`mlhubfs status`, and is walked anew when it is old."
    )
    def test_an_incomplete_walk_is_told_of(self, mounted):
        """In README.txt, by status and in the log; the names that are known are shown."""
        with (
            SyntheticServer({"many": Numbered(30)}, datasets={"large": ["many"]}) as server,
            mounted(server.root_url, "page_size=10", allow=["how to go on"]) as mount,
        ):
            server.lose("token=next%3A20")
            with mounts.fails(errno.EIO):
                many(mount)
            assert "Incomplete listings:\n  many: " in (mount.path / "README.txt").read_text()
            (collection,) = report(mount)["collections"]
            assert (collection["items"], collection["complete"]) == (20, False)
            assert "answered 404" in collection["problem"]
            server.find()
            assert len(many(mount)) == 31
            assert report(mount)["collections"][0]["complete"]


def test_memory_stays_flat(mounted):
    """60,000 names stream through a daemon that stays under 150 MB, `ls -l` included."""
    with (
        SyntheticServer({"many": Numbered(60_000)}, datasets={"large": ["many"]}) as server,
        mounted(server.root_url) as mount,
    ):
        folder = mount.path / "large/many"
        done = subprocess.run(["ls", "-l", folder], capture_output=True, check=True)
        assert len(done.stdout.splitlines()) == 60_002
        text = Path(f"/proc/{mount.daemon}/status").read_text("ascii")
    assert int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) < 150_000


class TestIndexCommand:
    def test_it_walks_ahead_and_prints_what_it_holds(self, server, user, tmp_path):
        """Then a mount lists, and looks items up, without a page."""
        done = user.run("index", server.root_url, "-o", "page_size=100")
        assert done.code == 0, done.err
        assert done.out.startswith("many: 1,000 items, complete\n")
        server.requests.clear()
        assert user.run("ls", "/large/many", source=server.root_url).out.split() == NAMES
        assert not server.to("/items?")

    def test_progress_is_shown(self, server, user):
        """Items of how many, on stderr, so that stdout can be read by programs."""
        done = user.run("index", server.root_url, "many", "-o", "page_size=100")
        assert re.search(r"many: .*/1000 ", done.err), done.err
        assert "/1000" not in done.out

    def test_it_is_interrupted_and_goes_on(self, server, user):
        """Ctrl-C keeps what has come: the next time it begins at that page."""
        server.hold("token=next%3A500")
        with user.running("index", server.root_url, "-o", "page_size=100") as process:
            server.wait_for("token=next%3A500")
            process.send_signal(signal.SIGINT)
            assert process.wait(mounts.SECONDS) == 130
        server.release()
        server.requests.clear()
        assert "1,000 items, complete" in user.run("index", server.root_url).out
        assert [line.rpartition("?")[2].partition("&")[0] for line in server.to(PAGES)] == [
            "token=next%3A500", "token=next%3A600"
        ]  # fmt: skip

    def test_a_collection_that_is_not_there(self, server, user):
        """It is told of on stderr, the others are walked, and the exit code is 1."""
        done = user.run("index", server.root_url, "nobody", "many")
        assert done.code == 1
        assert "nobody: " in done.err
        assert "many: 1,000 items, complete" in done.out

    def test_a_complete_listing_is_compared_with_the_server(self, server, user):
        """By its first page."""
        user.run("index", server.root_url)
        server.requests.clear()
        assert "1,000 items, complete" in user.run("index", server.root_url).out
        assert len(server.to(PAGES)) == 1

    def test_no_index_is_a_refusal(self, server, user, tmp_path):
        """There is nothing to walk into."""
        (tmp_path / "cache" / "mlhubfs").mkdir(parents=True)
        (tmp_path / "cache" / "mlhubfs" / "index").write_text("in the way")
        refused(user.run("index", server.root_url), "no index")


class TestStatus:
    def test_a_live_mount_tells_of_itself(self, server, mounted):
        """Its source, collections, cache and requests, as they are now; for programs and people."""
        with mounted(server.root_url, "page_size=100") as mount:
            assert report(mount)["collections"] == []
            many(mount)
            (mount.path / "large/many" / IDS[0] / "B02").read_bytes()
            told = report(mount)
            assert told["source"] == server.root_url
            assert told["mountpoint"] == str(mount.path)
            assert told["process"] == mount.daemon
            assert told["requests"] == len(server.requests)
            assert told["errors"] == 0
            (collection,) = told["collections"]
            assert collection.pop("age") >= 0
            assert collection == {
                "id": "many", "items": COUNT, "counted": COUNT, "complete": True, "problem": None
            }  # fmt: skip
            text = mount.command("status", mount.path)
            assert f"{mount.path}: {server.root_url}" in text
            assert re.search(r"  many: 1,000 of 1,000 items, \d+ s ago, complete", text)

    def test_without_a_mount_point_it_tells_of_all(self, server, mounted):
        """Live mounts, and what is on disk of sources that nobody mounts."""
        with mounted(server.root_url, "page_size=100") as mount:
            many(mount)
            told = json.loads(mount.command("status", "--json"))
            assert [one["mountpoint"] for one in told["mounts"]] == [str(mount.path)]
            mount.unmount()
            told = json.loads(mount.command("status", "--json"))
            assert told["mounts"] == []
            (index,) = told["indexes"]
            assert index["source"] == server.root_url
            assert index["collections"][0]["complete"]
            assert index["bytes"] > 0
            assert "many: 1,000 of 1,000 items" in mount.command("status")

    def test_nothing_is_known_yet(self, user):
        """No mount and no index is no error."""
        done = user.run("status")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("cache of blocks: 0.0 MB")

    def test_what_is_no_mount_is_refused(self, user, tmp_path):
        """With the reason."""
        refused(user.run("status", tmp_path), "no mlhubfs of yours serves")

    def test_a_path_inside_of_a_mount_will_do(self, server, mounted):
        """It is that mount that is told of."""
        with mounted(server.root_url) as mount:
            inside = mount.command("status", mount.path / "large" / "many")
            assert inside == mount.command("status", mount.path)

    def test_a_mount_point_with_a_long_name(self, server, user, tmp_path):
        """Sockets have short names only; mount points and homes do not."""
        where = tmp_path / ("d" * 120) / ("e" * 120)
        where.mkdir(parents=True)
        mounts.need_fuse("fuse3")
        assert user.run("mount", server.root_url, where).code == 0
        try:
            assert str(where) in user.run("status", where).out
        finally:
            assert user.run("umount", where).code == 0
        assert not list((tmp_path / "state").rglob("*.sock"))

    def test_a_killed_daemon_leaves_no_riddle(self, server, mounted):
        """Its socket is in nobody's way, and status says that it has ended, and what to do."""
        with mounted(server.root_url) as mount:
            os.kill(mount.daemon, signal.SIGKILL)
            until(lambda: not is_alive(mount.daemon), "the daemon ends")
            remedy = f"has ended: clear it with `mlhubfs umount {mount.path}`"
            with pytest.raises(mounts.CommandFailed, match=remedy):
                report(mount)
            (told,) = json.loads(mount.command("status", "--json"))["mounts"]
            assert told["mountpoint"] == str(mount.path)
            assert told["problem"].endswith(remedy)
            assert f"{mount.path}: {server.root_url}: " in mount.command("status")
            mount.mount()
            assert report(mount)["process"] == mount.daemon

    def test_a_daemon_that_hangs_is_told(self, server, mounted):
        """Beside the others, and without waiting for it for long."""
        with mounted(server.root_url) as mount:
            assert report(mount)["problem"] is None
            os.kill(mount.daemon, signal.SIGSTOP)
            try:
                (told,) = json.loads(mount.command("status", "--json"))["mounts"]
                with pytest.raises(mounts.CommandFailed, match="does not answer"):
                    report(mount)
            finally:
                os.kill(mount.daemon, signal.SIGCONT)
            assert told["process"] == mount.daemon
            assert "does not answer" in told["problem"]
