"""`mlhubfs cache`: what it says, what it removes, what it keeps, beside a mount or without one."""

import json
import subprocess
import tarfile
from pathlib import Path

import mounted as mounts
import pytest
from commands import User, need_root, refused
from faulty import Asset, FaultyServer
from rooms import answer, stac_collection, stac_item
from synthetic import SyntheticServer, item

LONG = 100_000  # bytes: a file of its own in the cache


@pytest.fixture
def user(tmp_path):
    user = User(tmp_path)
    yield user
    user.end()


@pytest.fixture
def server():
    many = [item(f"i{n}", {"B02.tif": b"%d" % n * LONG}) for n in range(4)]
    few = [item("j", {"B02.tif": b"j" * LONG})]
    with SyntheticServer({"c": many, "e": few}, datasets={"d": ["c", "e"]}) as server:
        yield server


@pytest.fixture
def filled(user, server):
    """A user whose cache holds all of the server's five files."""
    assert user.run("prefetch", "/", source=server.root_url).code == 0
    return user


@pytest.fixture
def nested():
    """The URL of a static catalog of three levels, with one item in the last."""
    level = {"type": "Catalog", "stac_version": "1.0.0", "description": "a level"}
    with FaultyServer() as host:
        for name, below in (("catalog", "2020"), ("2020", "deep"), ("deep", None)):
            rel, href = ("child", f"{below}.json") if below else ("item", "i.json")
            links = [{"rel": rel, "href": href}]
            host.on(f"/{name}.json", answer({**level, "id": name, "links": links}))
        host.on("/i.json", answer(stac_item("i", {"B02": "./B02.tif"})))
        host.on("/B02.tif", Asset(content=b"i" * LONG))
        yield f"{host.url}/catalog.json"


def report(user):
    done = user.run("cache", "info", "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


class TestInfo:
    def test_it_tells_folder_size_limit_and_pins(self, filled, server):
        """For programs, in bytes; and nothing of it asks a server."""
        filled.run("cache", "pin", "/d/c/i1", source=server.root_url)
        before = len(server.requests)
        found = report(filled)
        assert found["folder"] == str(filled.cache / "blocks")
        assert (found["assets"], found["limit"]) == (5, 10 << 30)
        assert 0 <= found["bytes"] - 5 * LONG < 2000
        assert found["free"] > 0
        assert found["pinned"]["assets"] == 1
        assert found["pinned"]["paths"] == [{"source": server.root_url, "path": "/d/c/i1"}]
        assert len(server.requests) == before

    def test_it_tells_people_the_same(self, filled):
        """In MB."""
        assert "holds   5 assets, 0.5 MB\n" in filled.run("cache", "info").out

    def test_where_there_is_none_it_says_so(self, user):
        """In a line, with the folder."""
        refused(user.run("cache", "info"), "there is no cache in", str(user.cache))


class TestVerify:
    def test_a_sound_cache_passes(self, filled):
        """A value for each file and one for its version."""
        done = filled.run("cache", "verify")
        assert (done.code, done.err) == (0, "")
        assert done.out == "10 values, 0.5 MB: all sound\n"

    def test_what_is_bad_is_removed_and_fetched_again(self, filled, server):
        """It is counted, and the exit code is 1; the next prefetch asks for it alone."""
        damaged = next((filled.cache / "blocks").glob("*/*.val"))
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
        done = filled.run("cache", "verify")
        assert (done.code, done.out) == (1, "10 values, 0.5 MB: bad blocks: 1; they were removed\n")
        before = len(server.to("/files"))
        assert filled.run("prefetch", "/", source=server.root_url).code == 0
        assert len(server.to("/files")) == before + 1
        assert filled.run("cache", "verify").code == 0

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("verify",), "files of a daemon that was killed while it wrote: 0.1 MB removed\n"),
            (("clear", "--yes"), "0.6 MB removed\n"),
        ],
    )
    def test_what_a_killed_daemon_left_is_removed(self, filled, words, told):
        """It is in nobody's way, but takes room that no limit counts."""
        stray = filled.cache / "blocks" / "00" / "stray.val"
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(bytes(LONG))
        done = filled.run("cache", *words)
        assert (done.code, done.err) == (0, "")
        assert done.out.endswith(told)
        assert not stray.exists()


class TestClear:
    def test_all_is_cleared_after_a_question(self, filled):
        """No is the answer that is expected; `--yes` answers it."""
        assert filled.run("cache", "clear", typed="\n").out.endswith("? [y/N]: 0.0 MB removed\n")
        assert report(filled)["assets"] == 5
        assert filled.run("cache", "clear", "--yes").out == "0.5 MB removed\n"
        assert report(filled)["assets"] == 0

    def test_all_of_a_source_is_asked_for_too(self, filled, server):
        """As all is."""
        done = filled.run("cache", "clear", "/", typed="\n", source=server.root_url)
        assert done.out.startswith(f"Remove all of {server.root_url} in ")
        assert report(filled)["assets"] == 5

    @pytest.mark.parametrize(("path", "left"), [("/", 0), ("/d/c", 1)])
    def test_a_path_is_cleared_without_a_server(self, filled, server, path, left):
        """All of the source, or a part of it."""
        before = len(server.requests)
        assert filled.run("cache", "clear", "--yes", path, source=server.root_url).code == 0
        assert report(filled)["assets"] == left
        assert len(server.requests) == before

    @pytest.mark.parametrize("path", ["/", "/2020", "/2020/deep"])
    def test_a_level_of_a_static_catalog_is_cleared_with_all_below(self, user, nested, path):
        """As a dataset is with its collections."""
        words = (path, "-s", nested)
        assert user.run("prefetch", *words).code == 0
        assert user.run("cache", "clear", "--yes", *words).out == "0.1 MB removed\n"
        assert report(user)["assets"] == 0

    @pytest.mark.parametrize("is_all", [True, False])
    def test_a_tarball_that_was_fetched_goes_with_all_of_its_source(self, user, tmp_path, is_all):
        """And with all that there is."""
        folder = tmp_path / "catalog"
        folder.mkdir()
        (folder / "collection.json").write_text(json.dumps(stac_collection("c")))
        (folder / "big").write_bytes(bytes(LONG))
        with tarfile.open(tmp_path / "c.tar", "w") as archive:
            archive.add(folder, "c")
        with FaultyServer() as host:
            host.on("/c.tar", Asset((tmp_path / "c.tar").read_bytes()))
            source = f"{host.url}/c.tar"
            assert user.run("ls", "/", source=source).code == 0
            done = user.run("cache", "clear", *(() if is_all else ("/", "-s", source)), typed="\n")
            assert done.out.endswith("? [y/N]: 0.0 MB removed\n")
            done = user.run("cache", "clear", "--yes", *(() if is_all else ("/", "-s", source)))
        assert (done.code, done.err, done.out) == (0, "", "0.1 MB removed\n")
        assert [path.name for path in user.cache.glob("tarballs/*/*")] == ["lock"]

    def test_a_source_without_paths_is_not_understood(self, filled, server):
        """Lest all be cleared where one source was meant."""
        done = filled.run("cache", "clear", "--yes", "-s", server.root_url)
        assert done.code == 2
        assert report(filled)["assets"] == 5

    def test_a_mount_goes_on(self, server, mounted, binding):
        """What was cleared under it is fetched again, and right."""
        with mounted(server.root_url, binding=binding) as mount:
            path = mount.path / "d" / "c" / "i1" / "B02.tif"
            other = mount.path / "d" / "e" / "j" / "B02.tif"
            assert path.read_bytes() == b"1" * LONG
            assert mount.command("cache", "clear", mount.path / "d" / "c").endswith("removed\n")
            assert path.read_bytes() == b"1" * LONG
            assert other.read_bytes() == b"j" * LONG


class TestFullDisk:
    @pytest.fixture
    def full(self, user, server):
        """A user whose cache is on a disk that has no room left."""
        need_root()
        user.cache.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", user.cache], check=True)
        assert user.run("prefetch", "/", source=server.root_url).code == 0
        fill = ["dd", "if=/dev/zero", f"of={user.cache}/filler", "bs=4k"]
        assert b"No space" in subprocess.run(fill, capture_output=True, check=False).stderr
        return user

    def test_it_is_looked_over_and_cleared(self, full):
        """`info` and `verify` write nothing; `clear` makes the room that it needs itself."""
        assert report(full)["assets"] == 5
        assert full.run("cache", "verify").out == "10 values, 0.5 MB: all sound\n"
        assert full.run("cache", "clear", "--yes") == (0, "0.5 MB removed\n", "")
        assert report(full)["assets"] == 0
        assert report(full)["free"] > 4 * LONG

    def test_it_is_cleared_beside_a_mount(self, full, server):
        """Which goes on, and reads what was cleared anew."""
        mounts.need_fuse("fuse3")
        where = full.folder / "mount"
        assert full.run("mount", server.root_url, where).code == 0
        assert full.run("cache", "clear", "--yes") == (0, "0.5 MB removed\n", "")
        assert (where / "d" / "c" / "i1" / "B02.tif").read_bytes() == b"1" * LONG
        assert full.run("umount", where).code == 0


class TestPin:
    def test_a_path_is_brought_and_kept(self, user, server):
        """Unpinned, it is there, and may go."""
        done = user.run("cache", "pin", "/d/c", source=server.root_url)
        assert (done.code, done.err) == (0, "")
        assert done.out.endswith("/d/c is pinned\n")
        assert report(user)["pinned"]["assets"] == 4
        kept = "0.0 MB removed; 0.4 MB are pinned, and stay\n"
        assert user.run("cache", "clear", "--yes").out == kept
        assert user.run("cache", "clear", "/d/c", source=server.root_url).out == kept
        assert report(user)["assets"] == 4
        assert user.run("cache", "pin", "--unpin", "/d/c", source=server.root_url).code == 0
        assert report(user)["pinned"] == {"assets": 0, "bytes": 0, "paths": []}
        assert report(user)["assets"] == 4

    def test_what_is_below_a_catalog_is_kept(self, user, nested):
        """At whatever depth of a static catalog."""
        assert user.run("cache", "pin", "/2020", "-s", nested).code == 0
        assert report(user)["pinned"]["assets"] == 1

    def test_a_path_inside_a_mount_is_one_of_its_source(self, server, mounted, tmp_path, binding):
        """It is kept in the cache of the mount, wherever that is, and after it."""
        elsewhere = tmp_path / "elsewhere"
        with mounted(server.root_url, f"cache_dir={elsewhere}", binding=binding) as mount:
            mount.command("cache", "pin", mount.path / "d" / "e")
            mount.remount()
            found = mount.command("cache", "info", "--json", "-o", f"cache_dir={elsewhere}")
        assert json.loads(found)["pinned"] == {
            "assets": 1,
            "bytes": json.loads(found)["bytes"],
            "paths": [{"source": server.root_url, "path": "/d/e"}],
        }

    def test_more_than_the_cache_may_hold_is_refused(self, filled, server):
        """With both sizes, and nothing is pinned; what is pinned already counts."""
        options = ("-o", f"cache_size={3 * LONG}")
        done = filled.run("cache", "pin", *options, "/d/c", source=server.root_url)
        refused(done, "it is at least 400,000 bytes", "may hold 300,000")
        assert report(filled)["pinned"]["paths"] == []
        assert filled.run("cache", "pin", "/d/c/i0", "/d/c/i1", source=server.root_url).code == 0
        done = filled.run("cache", "pin", *options, "/d/c/i2", source=server.root_url)
        refused(done, "it is at least 100,000 bytes")
        assert filled.run("cache", "pin", *options, "/d/c/i1", source=server.root_url).code == 0

    def test_what_is_not_pinned_cannot_be_unpinned(self, filled, server):
        """A path that was mistyped is said."""
        done = filled.run("cache", "pin", "--unpin", "/d/x", source=server.root_url)
        refused(done, "/d/x", "is not pinned")

    def test_what_the_catalog_makes_cannot_be_pinned(self, filled, server):
        """JSON is not in the cache of blocks."""
        done = filled.run("cache", "pin", "/d/c/i0/stac.json", source=server.root_url)
        refused(done, "made of the catalog")

    def test_what_fails_is_told_and_the_rest_pinned(self, user, server):
        """As prefetch does."""
        server.lose(_file(server, "/d/c/i0"))
        done = user.run("cache", "pin", "/d/c", source=server.root_url)
        assert done.code == 1
        assert "/d/c/i0/B02.tif: " in done.err
        assert report(user)["pinned"]["assets"] == 3


def _file(server, path):
    """Return the path on the server of an item's file."""
    _, _, collection, identifier = Path(path).parts
    found = server.answer(f"/collections/{collection}/items/{identifier}", {})
    return "/files" + found["assets"]["B02.tif"]["href"].rpartition("/files")[2]
