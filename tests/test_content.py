"""The bytes of an asset: how many requests they cost, and that they are the right ones."""

import itertools
import json
import random
import re
import threading
import time

import pytest
from faulty import MODIFIED, Asset, FaultyServer, Pattern, Reply
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rooms import Clock, Rooms, asked, asset_at, together

from mlhubfs.content.blocks import BLOCK_SIZE, SMALL_ASSET
from mlhubfs.content.content import AssetRef, Location
from mlhubfs.errors import BadAnswer, Changed, Denied, Interrupted, NotFound, Unavailable

MIB = 1 << 20
CHIP = random.Random(7).randbytes(24_000)
MEDIUM = random.Random(8).randbytes(3 * MIB + 12_345)
LARGE = Pattern(40 * MIB + 999)


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.fixture
def rooms(host):
    """Rooms without a disk cache."""
    with Rooms(host) as rooms:
        yield rooms


@pytest.fixture
def content(rooms):
    return rooms.content


def ranges(host, path="/a.tif"):
    """Return the ranges [start, stop) that were asked of a path, and forget them."""
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", r.headers["range"]) for r in host.to(path)]
    host.requests.clear()
    return [(int(match[1]), int(match[2]) + 1) for match in found]


def read_all(reader, step=128 << 10):
    """Read as the kernel does for `cat`."""
    pieces, offset = [], 0
    while piece := reader.read(offset, step):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


# --- requests


def test_the_first_read_of_a_chip_is_one_ranged_request(host, content):
    """It brings the size, the validator and the bytes; no HEAD goes before it."""
    host.on("/a.tif", Asset(CHIP))
    asset = asset_at(f"{host.url}/a.tif")
    reader = content.open(asset)
    assert reader.version.size == len(CHIP)
    assert reader.version.modified == 1498904430
    assert read_all(reader) == CHIP
    assert read_all(content.open(asset)) == CHIP
    assert [request.method for request in host.requests] == ["GET"]
    assert ranges(host) == [(0, BLOCK_SIZE)]


@pytest.mark.parametrize("data", [MEDIUM, LARGE[0:SMALL_ASSET]], ids=["3 MiB", "4 MiB"])
def test_an_asset_of_up_to_4_mib_is_one_request_after_the_probe(host, content, data):
    """Whichever part is read first."""
    host.on("/a.tif", Asset(data))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    assert reader.read(2 * MIB, 100) == data[2 * MIB : 2 * MIB + 100]
    assert read_all(reader) == data
    assert ranges(host) == [(0, BLOCK_SIZE), (BLOCK_SIZE, len(data))]


def test_a_jump_in_a_large_asset_brings_the_blocks_that_it_needs(host, content):
    """One request for a run of blocks, and megabytes for nobody."""
    host.on("/a.tif", Asset(LARGE))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    ranges(host)
    offset = 10 * MIB + 77
    assert reader.read(offset, 400_000) == LARGE[offset : offset + 400_000]
    assert ranges(host) == [(10 * MIB, 10 * MIB + 2 * BLOCK_SIZE)]
    assert reader.read(offset + 1000, 100_000) == LARGE[offset + 1000 : offset + 101_000]
    assert ranges(host) == []


def test_a_read_around_what_is_there_asks_for_the_gaps(host, content):
    """A run of missing blocks on each side, and nothing twice."""
    host.on("/a.tif", Asset(LARGE))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    reader.read(10 * BLOCK_SIZE, 1)
    ranges(host)
    start, size = 8 * BLOCK_SIZE, 6 * BLOCK_SIZE
    assert reader.read(start, size) == LARGE[start : start + size]
    assert sorted(ranges(host)) == [
        (8 * BLOCK_SIZE, 10 * BLOCK_SIZE),
        (11 * BLOCK_SIZE, 14 * BLOCK_SIZE),
    ]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("data", [CHIP, MEDIUM, LARGE], ids=["chip", "medium", "large"])
def test_each_block_is_fetched_once_whoever_asks(host, tmp_path, cached, data):
    """Sixteen readers behind a barrier, over and over, with and without a disk to look at first."""
    with Rooms(host, cache=tmp_path / "blocks" if cached else None) as rooms:
        for number in range(12):
            path = f"/{number}.tif"
            host.on(path, Asset(data))
            asset = asset_at(host.url + path, identity=("s", "c", "i", path))
            offset = max(0, len(data) // 2 - 50_000)

            def read(reader, asset=asset, offset=offset):
                return rooms.content.open(asset).read(offset + reader % 3, 300_000)

            for reader, found in enumerate(together(16, read)):
                start = offset + reader % 3
                assert found == data[start : start + 300_000]
            got = sorted(ranges(host, path))
            assert all(one[1] <= two[0] for one, two in itertools.pairwise(got)), got


def test_readers_join_a_fetch_that_is_under_way(host, content):
    """While it waits for the server, no second request is sent, and all get its bytes."""
    hold = host.hold()
    host.on("/a.tif", Asset(LARGE), Asset(LARGE, hold=hold), Asset(LARGE))
    asset = asset_at(f"{host.url}/a.tif")
    reader = content.open(asset)
    first = threading.Thread(target=reader.read, args=(20 * MIB, 100))
    first.start()
    host.wait_for("/a.tif", 2)
    releasing = threading.Thread(target=hold.set)

    def read(number):
        if number == 15:
            releasing.start()
        return reader.read(20 * MIB, 100)

    assert together(16, read) == [LARGE[20 * MIB : 20 * MIB + 100]] * 16
    first.join()
    assert len(host.to("/a.tif")) == 2


def test_sixteen_first_readers_make_one_probe(host, content):
    """`open` by sixteen threads at once."""
    host.on("/a.tif", Asset(CHIP))
    asset = asset_at(f"{host.url}/a.tif")
    versions = together(16, lambda _: content.version(asset))
    assert {version.size for version in versions} == {len(CHIP)}
    assert ranges(host) == [(0, BLOCK_SIZE)]


def test_a_failed_fetch_is_everybodys_and_the_next_read_tries_again(host, content):
    """The error reaches all who waited; it is not remembered."""
    host.on("/a.tif", Asset(LARGE))
    asset = asset_at(f"{host.url}/a.tif")
    reader = content.open(asset)
    host.on("/a.tif", Reply(503))
    outcomes = together(4, lambda _: reader.read(20 * MIB, 100))
    assert {type(one) for one in outcomes} == {Unavailable}
    host.on("/a.tif", Asset(LARGE))
    assert reader.read(20 * MIB, 100) == LARGE[20 * MIB : 20 * MIB + 100]


def test_a_probe_ahead_saves_the_question(host, content):
    """And keeps its trouble to itself."""
    host.on("/a.tif", Asset(CHIP))
    asset = asset_at(f"{host.url}/a.tif")
    content.probe_ahead(asset)
    host.wait_for("/a.tif")
    assert content.version(asset).size == len(CHIP)
    content.probe_ahead(asset)
    assert len(host.to("/a.tif")) == 1
    content.probe_ahead(asset_at(f"{host.url}/missing", identity=("other",)))
    host.wait_for("/missing")
    assert content.known_version(asset_at("", identity=("other",))) is None


# --- across mounts


@pytest.mark.promise(
    "Every byte crosses the network once, and comes from the cache after a remount."
)
def test_a_second_mount_on_the_same_cache_asks_nothing(host, tmp_path):
    """Bytes cross the network once: size, time and bytes come from the disk."""
    host.on("/a.tif", Asset(MEDIUM))
    host.on("/b.tif", Asset(LARGE))
    small = asset_at(f"{host.url}/a.tif", identity=("a",))
    large = asset_at(f"{host.url}/b.tif", identity=("b",))
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        assert read_all(rooms.content.open(small)) == MEDIUM
        rooms.content.open(large).read(30 * MIB, 1000)
    host.kill()
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        reader = rooms.content.open(small)
        assert read_all(reader) == MEDIUM
        assert reader.version.modified == 1498904430
        assert rooms.content.open(large).read(30 * MIB, 1000) == LARGE[30 * MIB : 30 * MIB + 1000]
        with pytest.raises(Unavailable):
            rooms.content.open(large).read(20 * MIB, 1000)


def test_the_cache_does_not_depend_on_the_link(host, tmp_path):
    """Identity is (source, collection, item, key): a link is new at every request."""
    host.on("/1", Asset(CHIP))
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        rooms.content.open(asset_at(f"{host.url}/1"))
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        assert read_all(rooms.content.open(asset_at("http://127.0.0.1:1/never"))) == CHIP


@pytest.mark.promise(
    "A block that was damaged on disk is noticed by its checksum and fetched again."
)
def test_a_damaged_block_on_disk_is_fetched_again(host, tmp_path):
    """With right bytes for the reader, and a sound block afterwards."""
    host.on("/a.tif", Asset(MEDIUM))
    asset = asset_at(f"{host.url}/a.tif")
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        read_all(rooms.content.open(asset))
    for path in (tmp_path / "blocks").rglob("*.val"):
        raw = bytearray(path.read_bytes())
        raw[5000] ^= 1
        path.write_bytes(raw)
    ranges(host)
    for requests in (1, 0):
        with Rooms(host, cache=tmp_path / "blocks") as rooms:
            assert read_all(rooms.content.open(asset)) == MEDIUM
        assert len(ranges(host)) == requests


class Forgetful:
    """A BlockCache that answers with whatever it is told to."""

    def __init__(self, answers):
        self.answers = answers
        self.kept = {}

    def get(self, keys):
        return {key: found for key in keys if (found := self.answers(key)) is not None}

    def put(self, key, data):
        self.kept[key] = data


@pytest.mark.parametrize("found", [b"", b"{}", b"null", b"[1,2]", b"\xff", b"[1,2,3,4,5]"])
def test_a_version_that_another_release_wrote_is_asked_for_again(host, found):
    """The cache outlives the program that filled it."""
    host.on("/a.tif", Asset(CHIP))
    cache = Forgetful(lambda key: found if key.endswith(":version") else None)
    with Rooms(host, cache=cache) as rooms:
        assert read_all(rooms.content.open(asset_at(f"{host.url}/a.tif"))) == CHIP


def test_neither_link_nor_ids_are_in_the_cache(host):
    """Its keys are digests; its values are bytes of the asset, and the version."""
    host.on("/download/SECRET", Reply(302, {"Location": "/a.tif?sig=SECRET"}))
    host.on("/a.tif", Asset(CHIP))
    cache = Forgetful(lambda _: None)
    with Rooms(host, cache=cache) as rooms:
        read_all(rooms.content.open(asset_at(f"{host.url}/download/SECRET")))
    assert len(cache.kept) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}:(version|0)", key) for key in cache.kept)
    (version,) = [value for key, value in cache.kept.items() if "version" in key]
    assert json.loads(version)[:3] == [len(CHIP), "etag:v1", 1498904430]


@pytest.mark.parametrize(
    ("one", "two"),
    [(("s", "a\0b", "c"), ("s", "a", "b\0c")), (("s", "a/b"), ("s", "a", "b")), (("a",), ("a", "")),
     (("\ud83d\ude00",), ("\N{GRINNING FACE}",))],
)  # fmt: skip
def test_no_two_assets_share_a_key(one, two):
    """Whatever their ids hold."""
    assert asset_at("", identity=one).key != asset_at("", identity=two).key


# --- versions


def test_an_asset_that_changes_under_a_reader_is_stale(host, content):
    """Reads on the open handle fail, never mixing two versions; the next open sees the new file."""
    new = Pattern(30 * MIB)
    host.on("/a.tif", Asset(LARGE), Asset(new, etag='"v2"'))
    asset = asset_at(f"{host.url}/a.tif")
    reader = content.open(asset)
    assert reader.read(0, 100) == LARGE[0:100]
    for _ in range(2):
        with pytest.raises(Changed, match="open it again"):
            reader.read(20 * MIB, 100)
    assert reader.read(0, 100) == LARGE[0:100]  # what was read of the old version is still right
    fresh = content.open(asset)
    assert fresh.version.size == len(new)
    assert fresh.read(20 * MIB, 100) == new[20 * MIB : 20 * MIB + 100]


@pytest.mark.parametrize(
    "changed",
    [
        Asset(Pattern(len(LARGE)), etag='"v2"'),
        Asset(Pattern(len(LARGE) - 1)),
        Asset(Pattern(len(LARGE) + 1)),
        Asset(Pattern(1000)),
        Asset(b""),
        Asset(MEDIUM, ranges=False),
        Asset(LARGE, etag=None),
    ],
    ids=["validator", "shorter", "longer", "much shorter", "empty", "without ranges", "no etag"],
)
def test_any_change_is_noticed(host, content, changed):
    """Of the validator or of the size alone."""
    host.on("/a.tif", Asset(LARGE), changed)
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    with pytest.raises(Changed):
        reader.read(20 * MIB, 100)


def test_without_etag_the_time_is_the_validator(host, content):
    """Last-Modified tells versions apart too."""
    later = MODIFIED.replace("2017", "2023")
    host.on("/a.tif", Asset(LARGE, etag=None), Asset(LARGE, etag=None, modified=later))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    with pytest.raises(Changed):
        reader.read(20 * MIB, 100)


@pytest.mark.promise(
    "Names and items are asked for again after `ttl`, sizes and validators after "
    "`content_ttl`, missing names after `negative_ttl`."
)
def test_a_trusted_version_is_not_asked_for_and_an_old_one_with_one_byte(host):
    """An unchanged asset costs a byte a day, and its blocks stay."""
    host.on("/a.tif", Asset(CHIP))
    asset, clock = asset_at(f"{host.url}/a.tif"), Clock()
    with Rooms(host, clock=clock, content_ttl=100) as rooms:
        rooms.content.version(asset)
        ranges(host)
        clock.now += 99
        assert rooms.content.known_version(asset)
        rooms.content.version(asset)
        assert ranges(host) == []
        clock.now += 1
        assert rooms.content.known_version(asset) is None
        assert read_all(rooms.content.open(asset)) == CHIP
        assert ranges(host) == [(0, 1)]
        assert rooms.content.known_version(asset)


def test_an_old_version_on_disk_is_checked_and_its_blocks_serve_on(host, tmp_path):
    """The next day's mount asks for one byte, and for nothing else if it is the same."""
    host.on("/a.tif", Asset(MEDIUM))
    asset, clock = asset_at(f"{host.url}/a.tif"), Clock()
    with Rooms(host, cache=tmp_path / "blocks", clock=clock, content_ttl=100) as rooms:
        read_all(rooms.content.open(asset))
    clock.now += 100
    ranges(host)
    for expected in ([(0, 1)], []):  # and the check was noted on disk
        with Rooms(host, cache=tmp_path / "blocks", clock=clock, content_ttl=100) as rooms:
            assert read_all(rooms.content.open(asset)) == MEDIUM
        assert ranges(host) == expected


def test_a_clock_that_was_set_back_makes_no_version_last_for_ever(host, tmp_path):
    """What was checked in the future is checked now."""
    host.on("/a.tif", Asset(CHIP))
    asset, clock = asset_at(f"{host.url}/a.tif"), Clock()
    with Rooms(host, cache=tmp_path / "blocks", clock=clock) as rooms:
        rooms.content.open(asset)
        clock.now -= 1_000_000
        assert rooms.content.known_version(asset) is None
        host.on("/a.tif", Asset(CHIP[::-1], etag='"v2"'))
        assert read_all(rooms.content.open(asset)) == CHIP[::-1]
        ranges(host)
        assert rooms.content.known_version(asset)
        rooms.content.open(asset)
        assert ranges(host) == []


# --- links


def test_the_link_that_storage_answered_at_is_asked_directly(host, content):
    """The download redirect is paid once."""
    host.on("/download/1", Reply(302, {"Location": "/store/x?sig=1"}))
    host.on("/store/x", Asset(LARGE))
    reader = content.open(asset_at(f"{host.url}/download/1"))
    reader.read(20 * MIB, 10)
    assert asked(host) == ["/download/1", "/store/x", "/store/x"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_link_is_renewed_once(host, content, status):
    """Storage refuses the resolved link; a new one is asked for, and the reader does not notice."""
    for number in (1, 2):
        host.on(f"/download/{number}", Reply(302, {"Location": f"/store/{number}"}))
    host.on("/store/1", Asset(LARGE), Reply(status))
    host.on("/store/2", Asset(LARGE))
    reader = content.open(asset_at(f"{host.url}/download/1", f"{host.url}/download/2"))
    assert reader.read(20 * MIB, 10) == LARGE[20 * MIB : 20 * MIB + 10]
    assert asked(host) == ["/download/1", "/store/1", "/store/1", "/download/2", "/store/2"]
    reader.read(30 * MIB, 10)
    assert asked(host) == ["/store/2"]


@pytest.mark.parametrize(("status", "error"), [(403, Denied), (404, NotFound)])
def test_a_new_link_that_is_refused_too_is_the_end(host, content, status, error):
    """One renewal a read, not a loop; the next read may try again."""
    for number in (1, 2):
        host.on(f"/download/{number}", Reply(302, {"Location": f"/store/{number}"}))
    host.on("/store/1", Asset(LARGE), Reply(status))
    host.on("/store/2", Reply(status))
    reader = content.open(asset_at(f"{host.url}/download/1", f"{host.url}/download/2"))
    asked(host)
    with pytest.raises(error):
        reader.read(20 * MIB, 10)
    assert asked(host) == ["/store/1", "/download/2", "/store/2"]


def test_a_link_just_made_that_is_refused_is_not_renewed(host, content):
    """It would be refused again; that would double every request for what is not there."""
    host.on("/1", Reply(403))
    with pytest.raises(Denied):
        content.open(asset_at(f"{host.url}/1", f"{host.url}/2"))
    assert asked(host) == ["/1"]


def test_an_old_link_that_is_refused_at_first_is_renewed(host, content):
    """The item's JSON may have been in memory for longer than its links live."""
    host.on("/2", Asset(CHIP))
    host.on("/1", Reply(403))
    old = time.monotonic() - 60
    links = {
        True: Location(f"{host.url}/2", time.monotonic()),
        False: Location(f"{host.url}/1", old),
    }
    asset = AssetRef(("a",), lambda after: links[after >= old and after > 0])
    assert read_all(content.open(asset)) == CHIP
    assert asked(host) == ["/1", "/2"]


def test_sixteen_readers_with_one_expired_link_all_go_on(host, content):
    """Nobody is refused because another has renewed the link a moment before."""
    host.on("/1", Asset(LARGE), Reply(403))
    host.on("/2", Asset(LARGE))
    reader = content.open(asset_at(f"{host.url}/1", *[f"{host.url}/2"] * 40))
    outcomes = together(16, lambda number: reader.read((number + 1) * MIB, 10))
    assert outcomes == [LARGE[n * MIB : n * MIB + 10] for n in range(1, 17)]


def test_a_missing_file_is_remembered(host):
    """Some assets are advertised and not there (BigEarthNet's B10): one request a minute."""
    asset = asset_at(f"{host.url}/a.tif")
    with Rooms(host) as rooms:
        for _ in range(3):
            with pytest.raises(NotFound):
                rooms.content.open(asset)
        rooms.content.probe_ahead(asset)
        assert len(asked(host)) == 1
    with Rooms(host, negative_ttl=0) as rooms:
        for _ in range(2):
            with pytest.raises(NotFound):
                rooms.content.version(asset)
        assert len(asked(host)) == 2
        host.on("/a.tif", Asset(CHIP))
        assert read_all(rooms.content.open(asset)) == CHIP


# --- servers that do not do as they should


@pytest.mark.parametrize("data", [CHIP, MEDIUM, LARGE[0 : 6 * MIB]], ids=["chip", "3 MiB", "6 MiB"])
@pytest.mark.parametrize("faults", [{"ranges": False}, {"ranges": False, "chunked": True}])
def test_a_server_that_ignores_ranges_is_read_once(host, content, data, faults):
    """The whole file comes with the probe, and is all that is needed."""
    host.on("/a.tif", Asset(data, **faults))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    assert reader.read(len(data) // 2, 1000) == data[len(data) // 2 :][:1000]
    assert read_all(reader) == data
    assert len(ranges(host)) == 1


def test_a_server_that_ignores_ranges_later_on_is_read_once_more(host, content):
    """A whole file that comes in answer to a range is used whole."""
    data = LARGE[0 : 6 * MIB]
    host.on("/a.tif", Asset(data), Asset(data, ranges=False))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    assert reader.read(5 * MIB, 1000) == data[5 * MIB : 5 * MIB + 1000]
    assert read_all(reader) == data
    assert len(ranges(host)) == 2


def test_an_empty_file_is_empty(host, tmp_path):
    """With ranges (416) and without (200), and again from the disk."""
    for path, behaviour in {"/a": Asset(b""), "/b": Asset(b"", ranges=False)}.items():
        host.on(path, behaviour)
        asset = asset_at(host.url + path, identity=(path,))
        with Rooms(host, cache=tmp_path / "blocks") as rooms:
            reader = rooms.content.open(asset)
            assert (reader.version.size, reader.read(0, 100), reader.read(5, 1)) == (0, b"", b"")
        host.requests.clear()
        with Rooms(host, cache=tmp_path / "blocks") as rooms:
            assert rooms.content.open(asset).read(0, 10) == b""
        assert host.requests == []


HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    "lie",
    [
        Reply(200, HTML, b"<html>Sign in</html>"),
        Asset(LARGE, headers={"Content-Range": "bytes 0-99/1000"}),
        Asset(LARGE, headers={"Content-Encoding": "gzip"}),
        Reply(204),
    ],
    ids=["html", "content-range", "compressed", "no content"],
)
def test_a_lie_is_an_error_and_nothing_of_it_is_kept(host, tmp_path, lie):
    """Neither in memory nor on disk: the next read gets the right bytes."""
    host.on("/a.tif", lie)
    asset = asset_at(f"{host.url}/a.tif")
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        with pytest.raises(BadAnswer):
            rooms.content.open(asset)
        host.on("/a.tif", Asset(LARGE))
        reader = rooms.content.open(asset)
        host.on("/a.tif", lie)
        with pytest.raises(BadAnswer):
            reader.read(20 * MIB, 100)
        host.on("/a.tif", Asset(LARGE))
        assert reader.read(20 * MIB, 100) == LARGE[20 * MIB : 20 * MIB + 100]


def test_a_web_page_that_is_an_asset_is_one(host, content):
    """Documentation may be HTML, where the catalog says so."""
    host.on("/a.html", Asset(b"<html>How it was labelled</html>", headers=HTML))
    asset = asset_at(f"{host.url}/a.html", is_html=True)
    assert read_all(content.open(asset)) == b"<html>How it was labelled</html>"


def test_a_body_that_is_cut_short_is_fetched_again(host, content):
    """The reader sees all bytes, and does not see the fault."""
    host.on("/a.tif", Asset(LARGE), Asset(LARGE, cut=100_000), Reply(503), Asset(LARGE))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    assert reader.read(20 * MIB, 300_000) == LARGE[20 * MIB : 20 * MIB + 300_000]


# --- the true bytes


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Readers of files of awkward sizes; a memory so small that blocks come from the disk too."""
    sizes = [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, SMALL_ASSET, SMALL_ASSET + 1,
             9 * MIB + 13]  # fmt: skip
    with (
        FaultyServer() as host,
        Rooms(host, cache=tmp_path_factory.mktemp("b") / "blocks") as rooms,
    ):
        found = {}
        for size in sizes:
            host.on(f"/{size}", Asset(Pattern(size)))
            asset = asset_at(f"{host.url}/{size}", identity=(str(size),))
            found[size] = rooms.content.open(asset)
        yield rooms, found


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.differing_executors])
@given(st.data())
def test_reads_are_the_true_bytes_wherever_they_are(readers, data):
    """At any offset, of any length, over block borders and past the end, in any order."""
    rooms, found = readers
    size = data.draw(st.sampled_from(sorted(found)))
    near = st.sampled_from([0, BLOCK_SIZE, 2 * BLOCK_SIZE, SMALL_ASSET, size])
    offset = data.draw(
        st.one_of(
            st.integers(0, size + 10),
            st.builds(lambda base, by: max(0, base + by), near, st.integers(-3, 3)),
        )
    )
    length = data.draw(st.one_of(st.integers(0, 3), st.integers(0, 3 * BLOCK_SIZE), near))
    if data.draw(st.booleans()):  # forget what is in memory: the disk has to answer
        with rooms.content._lock:
            rooms.content._recent.clear()
            rooms.content._recent_bytes = 0
    assert found[size].read(offset, length) == Pattern(size)[offset : offset + length]


def test_threads_read_one_handle_at_random(host, tmp_path):
    """A shared handle has no position: eight threads on it get what they asked for."""
    data = Pattern(12 * MIB + 7)
    host.on("/a.tif", Asset(data))
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        reader = rooms.content.open(asset_at(f"{host.url}/a.tif"))

        def read(number):
            dice, wrong = random.Random(number), 0
            for _ in range(60):
                offset, size = dice.randrange(len(data)), dice.randrange(200_000)
                wrong += reader.read(offset, size) != data[offset : offset + size]
            return wrong

        assert together(8, read) == [0] * 8


def test_memory_stays_within_its_budget(host, content, monkeypatch):
    """Blocks beyond it are dropped, oldest first, and come back right."""
    monkeypatch.setattr("mlhubfs.content.content._RECENT_BYTES", 4 * BLOCK_SIZE)
    host.on("/a.tif", Asset(LARGE))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    for number in range(40):
        reader.read(number * BLOCK_SIZE, 10)
        assert sum(map(len, content._recent.values())) == content._recent_bytes <= 4 * BLOCK_SIZE
    ranges(host)
    assert reader.read(39 * BLOCK_SIZE, 10) == LARGE[39 * BLOCK_SIZE : 39 * BLOCK_SIZE + 10]
    assert ranges(host) == []
    assert reader.read(0, 10) == LARGE[0:10]
    assert len(ranges(host)) == 1


# --- readers that leave


def test_a_reader_that_is_interrupted_leaves_the_fetch_to_the_others(host):
    """It is let go at once; who waits for the same block gets it, from the same request."""
    hold, gone = host.hold(), threading.Event()
    host.on("/a.tif", Asset(LARGE), Asset(LARGE, hold=hold), Asset(LARGE))
    here = threading.local()
    with Rooms(host, interrupted=lambda: getattr(here, "leaves", False) and gone.is_set()) as rooms:
        reader = rooms.content.open(asset_at(f"{host.url}/a.tif"))
        outcomes = {}

        def read(name, leaves):
            here.leaves = leaves
            try:
                outcomes[name] = reader.read(20 * MIB, 100)
            except Interrupted as error:
                outcomes[name] = error

        leaver = threading.Thread(target=read, args=("leaver", True))
        stayer = threading.Thread(target=read, args=("stayer", False))
        leaver.start()
        host.wait_for("/a.tif", 2)
        stayer.start()
        gone.set()
        leaver.join(30)
        assert isinstance(outcomes["leaver"], Interrupted)
        assert "stayer" not in outcomes
        hold.set()
        stayer.join(30)
        assert outcomes["stayer"] == LARGE[20 * MIB : 20 * MIB + 100]
        assert len(host.to("/a.tif")) == 2


def test_a_block_that_nobody_waits_for_any_more_is_kept(host):
    """The bytes have crossed the network: the next reader has them."""
    hold = host.hold()
    host.on("/a.tif", Asset(LARGE), Asset(LARGE, hold=hold), Asset(LARGE))
    leaves = threading.Event()
    with Rooms(host, interrupted=leaves.is_set) as rooms:
        reader = rooms.content.open(asset_at(f"{host.url}/a.tif"))
        leaves.set()
        with pytest.raises(Interrupted):
            reader.read(20 * MIB, 100)
        leaves.clear()
        hold.set()
        assert reader.read(20 * MIB, 100) == LARGE[20 * MIB : 20 * MIB + 100]
        assert len(host.to("/a.tif")) == 2


def test_what_is_on_disk_is_read_while_the_network_hangs(host, tmp_path):
    """Disk and network have threads of their own."""
    hold = host.hold()
    host.on("/a.tif", Asset(CHIP))
    for number in range(70):
        host.on(f"/{number}", Asset(CHIP, hold=hold))
    asset = asset_at(f"{host.url}/a.tif")
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        rooms.content.open(asset)
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        for number in range(70):  # more than there are threads for the network
            stalled = asset_at(f"{host.url}/{number}", identity=(str(number),))
            rooms.network.submit(lambda stalled=stalled: rooms.content.version(stalled))
        host.wait_for("/0")
        assert read_all(rooms.content.open(asset)) == CHIP
        hold.set()
