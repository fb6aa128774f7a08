"""Filling the cache ahead: what is fetched, what is not, and what is told of it."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
from commands import User, refused
from faulty import Asset, FaultyServer, Pattern, Reply
from rooms import Rooms, answer, asked, features, mlhub, stac_collection, stac_item
from synthetic import Numbered, SyntheticServer, item

from mlhubfs.content.blocks import EXTENT
from mlhubfs.errors import CacheFull, NotFound, Unavailable
from mlhubfs.tree.prefetch import Prefetch, Walk

LARGE = 2 * EXTENT + 1000


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.fixture
def rooms(host, tmp_path):
    with Rooms(host, cache=tmp_path / "blocks", index=tmp_path / "i" / "i.sqlite") as rooms:
        yield rooms


def serve(host):
    """Serve a dataset of two items, a large file among theirs, and a file of the collection."""
    contents = {"a/B02": b"one", "a/B03": Pattern(LARGE), "b/B02": b"", "common": b"csv"}
    for name, content in contents.items():
        host.on(f"/store/{name}", Asset(content))
    items = [
        stac_item("a", {"B02": "/store/a/B02", "B03": "/store/a/B03"}),
        stac_item("b", {"B02": "/store/b/B02"}),
    ]
    special = stac_collection("c", {"common": {"href": "/store/common"}})
    mlhub(host, {"d": {"c": items}}, collections={"c": special})


def fill(rooms, *paths, jobs=4, limit=1 << 30):
    """Prefetch paths; return what came of it when all is on disk."""
    work = Prefetch(Walk(rooms.tree, paths), rooms.network.submit, jobs=jobs, limit=limit)
    for _ in work.run():
        pass
    rooms.flush()
    return work


def lost(host, *names):
    for name in names:
        host.on(f"/store/{name}", Reply(404))


def test_all_files_below_a_directory_are_brought(host, rooms):
    """Small ones, an empty one, one of many parts, and those of the collection itself."""
    serve(host)
    work = fill(rooms, "/d")
    assert (work.files, work.bytes, work.failures) == (4, LARGE + 6, [])
    asked(host)
    assert rooms.read("/d/c/a/B03.tif") == Pattern(LARGE)[:]
    assert rooms.read("/d/c/_common/common") == b"csv"
    assert asked(host) == []


def test_a_view_means_what_it_shows(host, rooms):
    """The links of a view are followed, and no view is entered that was not named: no condition."""
    serve(host)
    work = fill(rooms, "/d/c/@where/datetime=..2100-01-01")
    assert (work.files, work.failures) == (3, [])
    work = fill(rooms, "/d/c/@where")
    assert (work.files, work.failures) == (0, [])
    with Rooms(host, cache=None, show_views=True) as showing:
        assert [path for path, _ in Walk(showing.tree, ["/d"])] == [
            "/d/c/_common/common", "/d/c/a/B02.tif", "/d/c/a/B03.tif", "/d/c/b/B02.tif",
        ]  # fmt: skip


def test_a_second_run_asks_for_nothing(host, tmp_path):
    """What is on disk is not asked for again by another process."""
    serve(host)
    with Rooms(host, cache=tmp_path / "blocks") as first:
        fill(first, "/d/c/a")
    asked(host)
    with Rooms(host, cache=tmp_path / "blocks") as second:
        work = fill(second, "/d/c/a")
    assert (work.files, work.bytes) == (2, LARGE + 3)
    assert not any(path.startswith("/store") for path in asked(host))


def test_of_a_file_that_is_there_in_part_the_rest_is_brought(host, rooms):
    """No byte of the blocks that were read before crosses the network again."""
    serve(host)
    rooms.tree.file("/d/c/a/B03.tif").open().read(EXTENT, 10)
    rooms.flush()
    host.requests.clear()
    fill(rooms, "/d/c/a/B03.tif")
    ranges = [one.headers["range"] for one in host.to("/store/a/B03")]
    asked_for = sum(int(last) - int(first) + 1 for first, last in map(_span, ranges))
    assert asked_for == LARGE - 2 * (128 << 10)


def _span(text):
    return text.removeprefix("bytes=").split("-")


def test_at_most_so_many_requests_are_under_way(host, rooms):
    """`jobs` bounds what the server has to answer at once."""
    serve(host)
    release = host.hold()
    for name in ("a/B02", "a/B03", "b/B02"):
        host.on(f"/store/{name}", Asset(b"x", hold=release))
    steps = Prefetch(
        Walk(rooms.tree, ["/d/c/a", "/d/c/b"]), rooms.network.submit, jobs=2, limit=1 << 30
    ).run()
    next(steps)
    host.wait_for("/store/a/B02")
    host.wait_for("/store/a/B03")
    next(steps)
    assert not host.to("/store/b/B02")
    release.set()
    for _ in steps:
        pass
    assert len(host.to("/store/b/B02")) == 1


def test_what_fails_is_told_and_the_rest_is_brought(host, rooms):
    """A missing file and a missing directory do not keep the others from coming."""
    serve(host)
    lost(host, "a/B02")
    work = fill(rooms, "/d/nothing", "/d/c")
    assert [path for path, _ in work.failures] == ["/d/nothing", "/d/c/a/B02.tif"]
    assert (work.files, work.failed) == (3, 2)


def test_a_file_whose_parts_fail_is_told_once(host, rooms):
    """However many of its parts were to come."""
    serve(host)
    host.on("/store/a/B03", Asset(Pattern(LARGE)), Reply(404))
    work = fill(rooms, "/d/c/a/B03.tif")
    assert [path for path, _ in work.failures] == ["/d/c/a/B03.tif"]
    assert (work.files, work.failed) == (0, 1)


def test_a_server_that_is_down_ends_it(rooms):
    """After twenty in a row that it did not answer for, no more are asked for."""

    class Down(Walk):
        def __iter__(self):
            yield from [("/x", Unavailable("refused")), ("/y", NotFound("gone"))]
            yield from [("/z", Unavailable("refused"))] * 50

    work = Prefetch(Down(rooms.tree, []), rooms.network.submit, jobs=2, limit=1 << 30)
    with pytest.raises(Unavailable, match="20 files in a row could not be had: refused"):
        list(work.run())
    assert work.failed == 22


def test_more_than_the_cache_may_hold_is_refused(host, rooms):
    """With both sizes, before its bytes are fetched."""
    serve(host)
    with pytest.raises(CacheFull, match=r"8,389,608 bytes.*1,000,000"):
        fill(rooms, "/d/c/a/B03.tif", limit=1_000_000)
    assert len(host.to("/store/a/B03")) == 1


def test_the_total_is_told_where_directories_are_counted(host, rooms):
    """A file's is exact, and of items it is what those before came to."""
    mlhub(host, {"d": {"c": [stac_item(f"i{n}", {"B02": f"/s/{n}"}) for n in range(9)]}})
    for number in range(9):
        host.on(f"/s/{number}", Asset(bytes(1000)))
    work = Prefetch(Walk(rooms.tree, ["/d/c"]), rooms.network.submit, jobs=1, limit=1 << 30)
    totals = {work.total for _ in work.run()}
    assert work.total == 9000
    assert min(totals - {0}) >= 4500


def test_a_walk_asks_for_pages_as_it_goes():
    """Of 20,000 items, the first costs its page and the one that is read ahead."""
    with SyntheticServer({"many": Numbered(20_000)}, datasets={"d": ["many"]}) as server:
        url = server.root_url.removesuffix("/v1")
        with Rooms(SimpleNamespace(url=url), page_size=10) as rooms:
            path, _ = next(iter(Walk(rooms.tree, ["/d"])))
            assert path.startswith("/d/many/synthetic")
            assert len(server.to("/items")) <= 2


@pytest.fixture
def user(tmp_path):
    user = User(tmp_path)
    yield user
    user.end()


@pytest.fixture
def server():
    items = [item(f"i{n}", {"B02.tif": b"%d" % n * 1000, "B03.tif": b""}) for n in range(6)]
    with SyntheticServer({"c": items}, datasets={"d": ["c"]}) as server:
        yield server


class TestCommand:
    def test_it_tells_what_is_in_the_cache(self, user, server):
        """One line, and the second time no request for a file."""
        done = user.run("prefetch", "/d", source=server.root_url)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("12 files, 0.0 MB, in the cache; ")
        before = len(server.to("/files"))
        assert before == 12
        again = user.run("prefetch", "/d/c/i1", "/d/c/i2/B02.tif", source=server.root_url)
        assert again.out.startswith("3 files, 0.0 MB, in the cache; ")
        assert len(server.to("/files")) == before

    def test_an_interrupted_run_is_gone_on_with(self, user, server):
        """Ctrl-C is told in a line; the same command then asks for what is missing only."""
        server.hold("/files")
        environ = {"MLHUB_ROOT_URL": server.root_url}
        with user.running("prefetch", "--jobs", "2", "/d", **environ) as process:
            server.wait_for("/files", 2)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert said.startswith("interrupted: 0 files")
        assert said.count("\n") == 1
        server.release()
        assert user.run("prefetch", "/d", source=server.root_url).code == 0

    def test_failures_are_listed_at_the_end(self, user, server):
        """Each with its path and reason, and the exit code is 1."""
        done = user.run("prefetch", "/d/c/i1", "/d/c/gone", source=server.root_url)
        assert done.code == 1
        assert done.err.startswith("mlhubfs: /d/c/gone: ")
        assert done.out.startswith("2 files")

    def test_a_listing_that_ends_early_is_said(self, user, host):
        """What was listed is brought, and that it is not all is told."""
        serve(host)
        page = features([stac_item("a", {"B02": "/store/a/B02"})], context={"matched": 9})
        host.on("/v1/collections/c/items", answer(page))
        done = user.run("prefetch", "/d", source=f"{host.url}/v1")
        assert "mlhubfs: the listing is incomplete: c: " in done.err
        assert done.out.startswith("2 files")

    def test_a_path_inside_a_mount_fills_the_cache_of_the_mount(self, server, mounted, binding):
        """The daemon tells source and folder; then the mount reads without a request."""
        with mounted(server.root_url, binding=binding) as mount:
            folder = mount.path / "d" / "c"
            assert mount.command("prefetch", folder / "i1").startswith("2 files")
            before = len(server.to("/files"))
            assert (folder / "i1" / "B02.tif").read_bytes() == b"1" * 1000
            assert len(server.to("/files")) == before

    @pytest.mark.parametrize("far", [False, True])
    def test_files_of_a_local_catalog_are_not_said_to_be_in_the_cache(self, user, host, far):
        """They are counted apart from those on servers, and need no room in the cache."""
        host.on("/far.tif", Asset(b"x" * 200_000))
        near = user.folder / "near.tif"
        near.touch()
        os.truncate(near, 3_000_000)
        assets = {"near": "near.tif"} | ({"far": f"{host.url}/far.tif"} if far else {})
        (user.folder / "item.json").write_text(json.dumps(stac_item("i", assets)))
        options = "allow_private,cache_size=2M"
        done = user.run("prefetch", "-s", user.folder / "item.json", "-o", options, "/")
        assert (done.code, done.err) == (0, "")
        beside = "1 file, 0.2 MB, in the cache; " if far else ""
        assert done.out.startswith(f"{beside}1 file, 3.0 MB, local and not copied; ")

    def test_a_cache_that_cannot_be_used_is_said(self, user, server):
        """There is nothing to fill."""
        user.cache.parent.mkdir(parents=True, exist_ok=True)
        user.cache.write_bytes(b"")
        refused(user.run("prefetch", "/d", source=server.root_url), "cannot be used")
