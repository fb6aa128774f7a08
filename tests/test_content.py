"""The bytes of an asset: how many requests they cost, and that they are the right ones."""

import contextlib
import functools
import itertools
import random
import re
import resource
import tempfile
import threading
from pathlib import Path

import pytest
from faulty import Asset, FaultyServer, Pattern, Reply
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule
from rooms import Clock, Rooms, asset_at, together

from mlhubfs.content.blocks import BLOCK, EXTENT
from mlhubfs.errors import BadAnswer, Changed, Interrupted, MlhubfsError, NotFound, Unavailable

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
    assert ranges(host) == [(0, BLOCK)]


@pytest.mark.parametrize("data", [MEDIUM, LARGE[0:EXTENT]], ids=["3 MiB", "4 MiB"])
def test_an_asset_of_up_to_4_mib_is_one_request_after_the_probe(host, content, data):
    """Whichever part is read first."""
    host.on("/a.tif", Asset(data))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    assert reader.read(2 * MIB, 100) == data[2 * MIB : 2 * MIB + 100]
    assert read_all(reader) == data
    assert ranges(host) == [(0, BLOCK), (BLOCK, len(data))]


def test_a_jump_in_a_large_asset_brings_the_blocks_that_it_needs(host, content):
    """One request for a run of blocks, and megabytes for nobody."""
    host.on("/a.tif", Asset(LARGE))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    ranges(host)
    offset = 10 * MIB + 77
    assert reader.read(offset, 400_000) == LARGE[offset : offset + 400_000]
    assert ranges(host) == [(10 * MIB, 10 * MIB + 4 * BLOCK)]
    assert reader.read(offset + 1000, 100_000) == LARGE[offset + 1000 : offset + 101_000]
    assert ranges(host) == []


def test_a_read_around_what_is_there_asks_for_the_gaps(host, content):
    """A run of missing blocks on each side, and nothing twice."""
    host.on("/a.tif", Asset(LARGE))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    reader.read(10 * BLOCK, 1)
    ranges(host)
    start, size = 8 * BLOCK, 6 * BLOCK
    assert reader.read(start, size) == LARGE[start : start + size]
    assert sorted(ranges(host)) == [
        (8 * BLOCK, 10 * BLOCK),
        (11 * BLOCK, 14 * BLOCK),
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


def test_neither_link_nor_ids_are_on_disk(host, tmp_path):
    """The keys are digests; the values are bytes of the asset, and the version."""
    host.on("/download/SECRET", Reply(302, {"Location": "/a.tif?sig=SECRET"}))
    host.on("/a.tif", Asset(MEDIUM))
    asset = asset_at(f"{host.url}/download/SECRET", identity=("s", "SECRET", "i", "k"))
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        read_all(rooms.content.open(asset))
        rooms.flush()
        keys = list(rooms.cache._writer)
    assert all(re.fullmatch(r"[0-9a-f]{64}(:version|\.[0-9a-f]{16}:[be]\d+)", key) for key in keys)
    found = [path for path in (tmp_path / "blocks").rglob("*") if path.is_file()]
    assert len(found) > 20
    assert not any(b"SECRET" in path.read_bytes() for path in found)


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


@pytest.mark.fault("the clock jumps, forward or back")
def test_a_clock_that_jumps(host):
    """Open files are read on; an open asks whether what was checked long ago, or later, holds."""
    host.on("/a.tif", Asset(LARGE, conditional=True))
    asset, clock = asset_at(f"{host.url}/a.tif"), Clock()
    with Rooms(host, clock=clock) as rooms:
        reader = rooms.content.open(asset)
        for number, years in enumerate((10, -20, 10), 1):
            clock.now += years * 365 * 86400
            offset = number * 10 * MIB
            ranges(host)
            assert reader.read(offset, 1000) == LARGE[offset : offset + 1000]
            assert len(ranges(host)) == 1
            clock.now -= years * 365 * 86400
            assert rooms.content.open(asset).read(offset, 1000) == LARGE[offset : offset + 1000]
            assert ranges(host) == [(0, 1)]


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


def forget(content):
    """Drop all that is in memory, so that the disk has to answer."""
    with content._store._lock:
        content._store._held.shrink(0)


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Readers of files of awkward sizes; a memory so small that blocks come from the disk too."""
    sizes = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, EXTENT, EXTENT + 1,
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


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.differing_executors])
@given(st.data())
def test_reads_are_the_true_bytes_wherever_they_are(readers, data):
    """At any offset, of any length, over block borders and past the end, in any order."""
    rooms, found = readers
    size = data.draw(st.sampled_from(sorted(found)))
    near = st.sampled_from([0, BLOCK, 2 * BLOCK, EXTENT, size])
    offset = data.draw(
        st.one_of(
            st.integers(0, size + 10),
            st.builds(lambda base, by: max(0, base + by), near, st.integers(-3, 3)),
        )
    )
    length = data.draw(st.one_of(st.integers(0, 3), st.integers(0, 3 * BLOCK), near))
    if data.draw(st.booleans()):  # forget what is in memory: the disk has to answer
        forget(rooms.content)
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


class Tape:
    """A body like `Pattern`, as fast as memory, with a period that is no multiple of anything."""

    PERIOD = 1_048_583  # a prime

    def __init__(self, size):
        self.size = size
        self.twice = random.Random(3).randbytes(self.PERIOD) * 2 + bytes(MIB)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        start, stop, _ = index.indices(self.size)
        at = start % self.PERIOD
        assert stop - start <= self.PERIOD
        return self.twice[at : at + stop - start]


def test_memory_is_flat_while_a_gib_is_read(host):
    """Within the budget, whatever the length of the file, as the operating system counts it."""
    tape, budget, highest = Tape(1 << 30), 48 * MIB, 0
    host.on("/a.tif", Asset(tape))
    with Rooms(host, budget=budget) as rooms:
        reader = rooms.content.open(asset_at(f"{host.url}/a.tif"))
        before = resident()
        for offset in range(0, len(tape), BLOCK):
            assert reader.read(offset, BLOCK) == tape[offset : offset + BLOCK]
            if offset % (16 * MIB) == 0:
                highest = max(highest, resident())
    assert len(host.requests) < 1.3 * len(tape) / EXTENT
    # The server is in this process too: pieces of 1 MiB a connection, and malloc keeps some.
    assert highest - before < budget + 112 * MIB


def resident():
    """Return the bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_what_does_not_fit_comes_back_right(host):
    """Blocks beyond the budget are dropped, and are fetched again when they are read again."""
    host.on("/a.tif", Asset(LARGE))
    with Rooms(host, budget=4 * BLOCK) as rooms:
        reader = rooms.content.open(asset_at(f"{host.url}/a.tif"))
        for number in range(0, 80, 2):
            offset = number * BLOCK
            assert reader.read(offset, 10) == LARGE[offset : offset + 10]
        ranges(host)
        assert reader.read(78 * BLOCK, 10) == LARGE[78 * BLOCK : 78 * BLOCK + 10]
        assert ranges(host) == []
        assert reader.read(0, 10) == LARGE[0:10]
        assert len(ranges(host)) >= 1


def test_a_stream_recovers_from_what_was_lost(host, content):
    """After a reading ahead has failed, it does not go on block by block."""
    data = random.Random(9).randbytes(48 * MIB)
    host.on("/a.tif", Asset(data))
    reader = content.open(asset_at(f"{host.url}/a.tif"))
    offset = 0
    for offset in range(0, 20 * MIB, BLOCK):
        reader.read(offset, BLOCK)
    host.on("/a.tif", Reply(404))
    with contextlib.suppress(NotFound):
        for offset in range(20 * MIB, 48 * MIB, BLOCK):
            reader.read(offset, BLOCK)
    host.on("/a.tif", Asset(data))
    host.requests.clear()
    assert b"".join(read_on(reader, offset)) == data[offset:]
    assert len(host.requests) < 2 * 28 * MIB / EXTENT


def read_on(reader, offset):
    while piece := reader.read(offset, BLOCK):
        yield piece
        offset += len(piece)


def test_a_large_file_is_read_on_in_extents(host, content, tmp_path):
    """Few requests, no byte twice, and from the disk none at all."""
    data = random.Random(9).randbytes(40 * MIB + 999)
    host.on("/a.tif", Asset(data))
    asset = asset_at(f"{host.url}/a.tif")
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        assert read_all(rooms.content.open(asset)) == data
    got = sorted(ranges(host))
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(got)), got
    assert len(got) <= 16
    with Rooms(host, cache=tmp_path / "blocks") as rooms:
        assert read_all(rooms.content.open(asset)) == data
    assert ranges(host) == []


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


# --- everything at once

DATA = {"small": 300_000, "medium": 3 * MIB + 5, "large": 9 * MIB + 13}


@functools.cache
def true_bytes(name, version):
    return random.Random(f"{name} {version}").randbytes(DATA[name])


PASSING = [
    Reply(503), Reply(429, {"Retry-After": "0"}), Reply(500, HTML, b"oh"), Reply(reset=True),
    Reply(206), Reply(200, HTML, b"<html>"), Reply(302, {"Location": "/nowhere"}), Reply(416),
]  # fmt: skip


class Reading(RuleBasedStateMachine):
    """Readers of three files, by all patterns and threads, while the server and the disk misbehave.

    A read gives the true bytes of the version that its handle was opened with, or an error of the
    tree: Changed only after a change, none at all where nothing was wrong.
    """

    handles = Bundle("handles")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.host = FaultyServer()
        self.versions = dict.fromkeys(DATA, 1)
        self.wrong = set()
        for name in DATA:
            self.serve(name)
        self.mount()

    def mount(self):
        cache = Path(self.folder.name) / "blocks"
        self.rooms = Rooms(self.host, cache=cache, budget=6 * MIB, content_ttl=float("inf"))
        self.generation = object()

    def teardown(self):
        self.rooms.close()
        self.host.kill()
        self.folder.cleanup()

    def serve(self, name, *faults, **more):
        version = self.versions[name]
        asset = Asset(true_bytes(name, version), etag=f'"{version}"', **more)
        self.host.on(f"/{name}", *faults, asset)

    def guarded(self, name, version, act, expected):
        """Return whether the outcome is one of those that are allowed now."""
        is_troubled = name in self.wrong
        try:
            found = act()
        except Changed:
            return is_troubled or version != self.versions[name]
        except MlhubfsError:
            return is_troubled
        return found == expected

    @rule(target=handles, name=st.sampled_from(sorted(DATA)))
    def open(self, name):
        asset = asset_at(f"{self.host.url}/{name}", identity=(name,))
        try:
            reader = self.rooms.content.open(asset)
        except MlhubfsError:
            assert name in self.wrong
            return multiple()
        version = int(reader.version.validator.removeprefix("etag:"))
        return name, version, reader, self.generation

    def read(self, handle, offset, length):
        name, version, reader, generation = handle
        if generation is not self.generation:
            return True  # of an earlier mount
        expected = true_bytes(name, version)[offset : offset + length]
        return self.guarded(name, version, lambda: reader.read(offset, length), expected)

    @rule(handle=handles, where=st.floats(0, 1.01), length=st.integers(0, 5 * BLOCK))
    def read_somewhere(self, handle, where, length):
        assert self.read(handle, int(where * DATA[handle[0]]), length)

    @rule(handle=handles, where=st.floats(0, 1), count=st.integers(1, 40), back=st.booleans())
    def read_on(self, handle, where, count, back):
        first = int(where * DATA[handle[0]]) // BLOCK
        for step in range(count):
            number = first - step if back else first + step
            if number >= 0:
                assert self.read(handle, number * BLOCK, BLOCK)

    @rule(handles=st.lists(handles, min_size=1, max_size=4), seed=st.integers(0, 1000))
    def read_at_once(self, handles, seed):
        def act(thread):
            dice = random.Random(seed + thread)
            right = True
            for _ in range(8):
                handle = dice.choice(handles)
                offset = dice.randrange(DATA[handle[0]])
                right &= self.read(handle, offset, dice.randrange(300_000))
            return right

        assert together(4, act) == [True] * 4

    @rule(name=st.sampled_from(sorted(DATA)), faults=st.lists(st.sampled_from(PASSING), max_size=3))
    def fail_for_a_while(self, name, faults):
        self.wrong.add(name)
        self.serve(name, *faults)

    @rule(name=st.sampled_from(sorted(DATA)), status=st.sampled_from([403, 404, 503]))
    def fail_for_good(self, name, status):
        self.wrong.add(name)
        self.host.on(f"/{name}", Reply(status))

    @rule(
        name=st.sampled_from(sorted(DATA)),
        lie=st.sampled_from(
            [
                {"headers": {"Content-Range": "bytes 7-9/100"}},
                {"headers": {"Content-Encoding": "br"}},
                {"cut": 1000},
                {"length": 77},
            ]
        ),
    )
    def lie(self, name, lie):
        self.wrong.add(name)
        self.serve(name, **lie)

    @rule(name=st.sampled_from(sorted(DATA)), ranges=st.booleans(), chunked=st.booleans())
    def heal(self, name, ranges, chunked):
        self.serve(name, ranges=ranges, chunked=chunked)
        settled(self.rooms.content)  # what was under way may still have met the trouble
        self.wrong.discard(name)

    @rule(name=st.sampled_from(sorted(DATA)))
    def replace(self, name):
        settled(self.rooms.content)
        self.versions[name] += 1
        self.serve(name)

    @rule()
    def forget(self):
        forget(self.rooms.content)

    @rule(seed=st.integers(0, 1000))
    def damage_the_disk(self, seed):
        self.rooms.flush()
        dice = random.Random(seed)
        for path in sorted((Path(self.folder.name) / "blocks").rglob("*.val")):
            if dice.random() < 0.5:
                raw = bytearray(path.read_bytes())
                raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
                path.write_bytes(raw)

    @rule()
    def remount(self):
        self.rooms.close()
        self.mount()


def settled(content):
    """Wait until nothing is on its way."""
    while coming := list(content._store._coming.values()):
        coming[0].future.exception(30)


TestReading = Reading.TestCase
TestReading.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)
