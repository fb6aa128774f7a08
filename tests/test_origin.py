"""Versions, links and ranges of assets: what is asked of storage, what is made of its answers."""

import contextlib
import json
import re
import threading
import time

import pytest
from faulty import MODIFIED, Asset, FaultyServer, Pattern, Reply
from rooms import Clock, asked, asset_at, together

from mlhubfs.content.asset import AssetRef, Location, Version
from mlhubfs.content.blocks import BLOCK
from mlhubfs.content.origin import Origin
from mlhubfs.errors import Changed, Denied, Interrupted, NotFound, TimedOut, Unavailable
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers

CHIP = bytes(Pattern(24_000)[:])
LARGE = Pattern(3 << 20)


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


class Versions(dict):
    """A cache of versions in memory, which counts what is put."""

    puts = 0

    def put(self, key, value):
        self.puts += 1
        self[key] = value


@pytest.fixture
def make(host):
    """`make(...)`: origins on `host`; each has `arrived`, the bytes that came with questions."""
    with contextlib.ExitStack() as ending:

        def build(
            *, cache=None, ttl=86400.0, negative_ttl=60.0, timeout=30.0, clock=time.time,
            interrupted=lambda: False,
        ):  # fmt: skip
            network, disk = Workers(interrupted=interrupted), Workers(interrupted=interrupted)
            transport = Transport(root_url=f"{host.url}/v1", timeout=30, backoff=0.001)
            for room in (transport, disk, network):
                ending.callback(room.close)
            arrived = []
            origin = Origin(
                transport, cache, network=network, disk=disk, ttl=ttl, negative_ttl=negative_ttl,
                timeout=timeout, clock=clock, arrived=lambda *what: arrived.append(what),
            )  # fmt: skip
            origin.arrived = arrived
            return origin

        yield build


def ranges(host, path="/a.tif"):
    """Return the ranges [start, stop) that were asked of a path, and forget them."""
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", r.headers["range"]) for r in host.to(path)]
    host.requests.clear()
    return [(int(match[1]), int(match[2]) + 1) for match in found]


def fetch(origin, asset, start, stop, version=None):
    return origin.fetch(asset, version or origin.version(asset), start, stop)


# --- identity


@pytest.mark.parametrize(
    ("one", "two"),
    [(("s", "a\0b", "c"), ("s", "a", "b\0c")), (("s", "a/b"), ("s", "a", "b")), (("a",), ("a", "")),
     (("\ud83d\ude00",), ("\N{GRINNING FACE}",))],
)  # fmt: skip
def test_no_two_assets_share_a_key(one, two):
    """Whatever their ids hold."""
    assert asset_at("", identity=one).key != asset_at("", identity=two).key


def test_versions_of_an_asset_have_keys_of_their_own():
    """By validator and by size; neither when it was checked nor the file's time counts."""
    asset, other = asset_at("", identity=("a",)), asset_at("", identity=("b",))
    version = Version(5, "etag:v1", None, 1.0)
    different = [Version(6, "etag:v1", None, 1.0), Version(5, "etag:v2", None, 1.0)]
    keys = [version.key(asset), version.key(other), *(one.key(asset) for one in different)]
    assert len(set(keys)) == 4
    assert Version(5, "etag:v1", 7.0, 2.0).key(asset) == version.key(asset)
    assert not any(version.is_same(one) for one in different)


# --- questions for a version


def test_a_version_is_one_ranged_request_that_brings_the_first_block(host, make):
    """No HEAD goes before it; a second question is not asked."""
    host.on("/a.tif", Asset(LARGE))
    origin, asset = make(), asset_at(f"{host.url}/a.tif")
    version = origin.version(asset)
    assert version[:3] == (len(LARGE), "etag:v1", 1498904430)
    assert origin.version(asset) == origin.known_version(asset) == version
    assert origin.arrived == [(asset, version, LARGE[0:BLOCK])]
    assert [request.method for request in host.requests] == ["GET"]
    assert ranges(host) == [(0, BLOCK)]


def test_sixteen_who_ask_at_once_make_one_request(host, make):
    """Behind a barrier."""
    host.on("/a.tif", Asset(CHIP))
    origin, asset = make(), asset_at(f"{host.url}/a.tif")
    assert {one.size for one in together(16, lambda _: origin.version(asset))} == {len(CHIP)}
    assert ranges(host) == [(0, BLOCK)]


def test_the_bytes_arrive_before_the_version_is_known(host, make):
    """Who sees the version may read at once, and must find the block."""
    host.on("/a.tif", Asset(CHIP))
    origin, asset, seen = make(), asset_at(f"{host.url}/a.tif"), []
    origin._arrived = lambda *_: seen.append(origin.known_version(asset))
    origin.version(asset)
    assert seen == [None]


def test_a_whole_file_that_answers_the_question_arrives_whole(host, make):
    """Where ranges are ignored it is all that will ever be needed."""
    host.on("/a.tif", Asset(LARGE, ranges=False))
    origin, asset = make(), asset_at(f"{host.url}/a.tif")
    version = origin.version(asset)
    assert origin.arrived == [(asset, version, LARGE[:])]


def test_a_question_ahead_saves_the_question(host, make):
    """And keeps its trouble to itself."""
    host.on("/a.tif", Asset(CHIP))
    origin, asset = make(), asset_at(f"{host.url}/a.tif")
    origin.probe_ahead(asset)
    host.wait_for("/a.tif")
    assert origin.version(asset).size == len(CHIP)
    origin.probe_ahead(asset)
    assert len(host.to("/a.tif")) == 1
    missing = asset_at(f"{host.url}/missing", identity=("other",))
    origin.probe_ahead(missing)
    host.wait_for("/missing")
    assert origin.known_version(missing) is None


@pytest.mark.promise(
    "Names and items are asked for again after `ttl`, sizes and validators "
    "after `content_ttl`, missing names after `negative_ttl`."
)
@pytest.mark.parametrize(
    "faults",
    [{}, {"conditional": True}, {"conditional": True, "ranges": False}, {"etag": None}],
    ids=["206", "304", "304 without ranges", "206 by time"],
)
def test_a_trusted_version_is_not_asked_for_and_an_old_one_with_one_byte(host, make, faults):
    """An unchanged asset costs a byte a day; and that byte is not taken for the first block."""
    host.on("/a.tif", Asset(CHIP, **faults))
    asset, clock = asset_at(f"{host.url}/a.tif"), Clock()
    origin = make(ttl=100, clock=clock)
    before = origin.version(asset)
    ranges(host)
    clock.now += 99
    assert origin.known_version(asset)
    origin.version(asset)
    assert ranges(host) == []
    clock.now += 1
    assert origin.known_version(asset) is None
    assert origin.version(asset) == before._replace(checked=clock.now)
    assert ranges(host) == [(0, 1)]
    assert origin.known_version(asset)
    assert len(origin.arrived) == 1


def test_an_old_version_that_has_changed_is_the_new_one(host, make):
    """The question for the old one is answered with the new one, at the price of one request."""
    new = Pattern(2 << 20)
    host.on("/a.tif", Asset(LARGE, conditional=True), Asset(new, etag='"v2"', conditional=True))
    asset, clock = asset_at(f"{host.url}/a.tif"), Clock()
    origin = make(ttl=100, clock=clock)
    origin.version(asset)
    clock.now += 100
    assert origin.version(asset)[:2] == (len(new), "etag:v2")
    assert ranges(host) == [(0, BLOCK), (0, 1)]


def test_an_older_file_in_its_place_is_a_change(host, make):
    """Without ETags too, where the server would call it unchanged since the newer one."""
    older = MODIFIED.replace("2017", "2016")
    host.on("/a.tif", Asset(LARGE, etag=None), Asset(LARGE, etag=None, modified=older))
    asset, clock = asset_at(f"{host.url}/a.tif"), Clock()
    origin = make(ttl=100, clock=clock)
    origin.version(asset)
    clock.now += 100
    assert origin.version(asset).validator == f"modified:{older}"


def test_for_ever_is_for_ever(host, make):
    """With an infinite time to live nothing is asked again."""
    host.on("/a.tif", Asset(CHIP))
    asset, clock = asset_at(f"{host.url}/a.tif"), Clock()
    origin = make(ttl=float("inf"), clock=clock)
    origin.version(asset)
    clock.now *= 100
    origin.version(asset)
    assert len(ranges(host)) == 1


def test_a_clock_that_was_set_back_makes_no_version_last_for_ever(host, make):
    """What was checked in the future is checked now."""
    host.on("/a.tif", Asset(CHIP), Asset(CHIP, etag='"v2"'))
    asset, clock = asset_at(f"{host.url}/a.tif"), Clock()
    origin = make(clock=clock)
    origin.version(asset)
    clock.now -= 1_000_000
    assert origin.known_version(asset) is None
    assert origin.version(asset).validator == "etag:v2"
    assert origin.known_version(asset)


def test_a_missing_file_is_remembered(host, make):
    """Some assets are advertised and not there (BigEarthNet's B10): one request a minute."""
    asset = asset_at(f"{host.url}/a.tif")
    origin = make()
    for _ in range(3):
        with pytest.raises(NotFound):
            origin.version(asset)
    origin.probe_ahead(asset)
    assert len(asked(host)) == 1
    origin = make(negative_ttl=0)
    for _ in range(2):
        with pytest.raises(NotFound):
            origin.version(asset)
    assert len(asked(host)) == 2
    host.on("/a.tif", Asset(CHIP))
    assert origin.version(asset).size == len(CHIP)


def test_a_missing_file_is_told_once(host, make, caplog):
    """The log says which asset it is, however often it is asked for."""
    origin = make(negative_ttl=0)
    caplog.set_level("INFO", "mlhubfs.content")
    for _ in range(2):
        with pytest.raises(NotFound):
            origin.version(asset_at(f"{host.url}/a.tif"))
    assert caplog.text.count("c/i/B02 is named by the catalog and not there: ") == 1


def test_no_other_trouble_is_remembered(host, make):
    """A server that was away is asked again at once."""
    host.on("/a.tif", *[Reply(503)] * 8, Asset(CHIP))
    origin, asset = make(), asset_at(f"{host.url}/a.tif")
    with pytest.raises(Unavailable):
        origin.version(asset)
    assert origin.version(asset).size == len(CHIP)


# --- versions on disk


def test_a_version_is_kept_for_later_mounts(host, make):
    """Which ask nothing, as long as it is trusted; afterwards one byte, noted in its turn."""
    host.on("/a.tif", Asset(CHIP))
    asset, cache, clock = asset_at(f"{host.url}/a.tif"), Versions(), Clock()
    make(cache=cache, clock=clock, ttl=100).version(asset)
    assert ranges(host) == [(0, BLOCK)]
    for waited, expected in ((99, []), (1, [(0, 1)]), (99, [])):
        clock.now += waited
        assert make(cache=cache, clock=clock, ttl=100).version(asset).size == len(CHIP)
        assert ranges(host) == expected


def test_neither_link_nor_ids_are_in_the_cache(host, make):
    """Its keys are digests; its values say nothing but the version."""
    host.on("/download/SECRET", Reply(302, {"Location": "/a.tif?sig=SECRET"}))
    host.on("/a.tif", Asset(CHIP))
    cache = Versions()
    make(cache=cache).version(asset_at(f"{host.url}/download/SECRET"))
    ((key, value),) = cache.items()
    assert re.fullmatch(r"[0-9a-f]{64}:version", key)
    assert json.loads(value)[:3] == [len(CHIP), "etag:v1", 1498904430]


@pytest.mark.parametrize(
    "found", [b"", b"{}", b"null", b"5", b"[1,2]", b"\xff", b"[1,2,3,4,5]", b'{"a":1}']
)
def test_a_version_that_another_release_wrote_is_asked_for_again(host, make, found):
    """The cache outlives the program that filled it."""
    host.on("/a.tif", Asset(CHIP))
    asset = asset_at(f"{host.url}/a.tif")
    assert make(cache=Versions({f"{asset.key}:version": found})).version(asset).size == len(CHIP)


def test_reading_on_does_not_write_the_version_over_and_over(host, make):
    """Each range tells it anew; a later time alone is not worth a write."""
    host.on("/a.tif", Asset(LARGE))
    asset, cache, clock = asset_at(f"{host.url}/a.tif"), Versions(), Clock()
    origin = make(cache=cache, clock=clock, ttl=100)
    version = origin.version(asset)
    for _ in range(10):
        clock.now += 4
        origin.fetch(asset, version, 0, 10)
    assert cache.puts == 1
    clock.now += 50
    origin.fetch(asset, version, 0, 10)
    assert cache.puts == 2


# --- ranges


def test_a_range_is_of_the_version_or_changed(host, make):
    """The next question tells the new version, without a request: it came with the refusal."""
    new = Pattern(2 << 20)
    host.on("/a.tif", Asset(LARGE), Asset(LARGE), Asset(new, etag='"v2"'))
    origin, asset = make(), asset_at(f"{host.url}/a.tif")
    version = origin.version(asset)
    assert origin.fetch(asset, version, 1000, 2000) == LARGE[1000:2000]
    for _ in range(2):
        with pytest.raises(Changed, match="open it again"):
            origin.fetch(asset, version, 1000, 2000)
    host.requests.clear()
    assert origin.version(asset).size == len(new)
    assert asked(host) == []


@pytest.mark.parametrize(
    "changed",
    [
        Asset(Pattern(len(LARGE)), etag='"v2"'),
        Asset(Pattern(len(LARGE) - 1)),
        Asset(Pattern(len(LARGE) + 1)),
        Asset(Pattern(1000)),
        Asset(b""),
        Asset(CHIP, ranges=False),
        Asset(LARGE, etag=None),
    ],
    ids=["validator", "shorter", "longer", "much shorter", "empty", "without ranges", "no etag"],
)
def test_any_change_is_noticed(host, make, changed):
    """Of the validator or of the size alone."""
    host.on("/a.tif", Asset(LARGE), changed)
    with pytest.raises(Changed):
        fetch(make(), asset_at(f"{host.url}/a.tif"), 2 << 20, (2 << 20) + 100)


def test_without_etag_the_time_is_the_validator(host, make):
    """Last-Modified tells versions apart too."""
    later = MODIFIED.replace("2017", "2023")
    host.on("/a.tif", Asset(LARGE, etag=None), Asset(LARGE, etag=None, modified=later))
    with pytest.raises(Changed):
        fetch(make(), asset_at(f"{host.url}/a.tif"), 0, 100)


def test_where_ranges_are_ignored_all_comes_once_for_all(host, make):
    """Those who want parts of it at the same time share one answer, and are given all of it."""
    hold = host.hold()
    host.on("/a.tif", Asset(LARGE, ranges=False), Asset(LARGE, ranges=False, hold=hold),
            Reply(500))  # fmt: skip
    origin, asset = make(), asset_at(f"{host.url}/a.tif")
    version = origin.version(asset)
    waiting = threading.Semaphore(0)
    once = origin._network.once

    def counted(key, task):
        waiting.release()
        return once(key, task)

    origin._network.once = counted
    releasing = threading.Thread(
        target=lambda: [waiting.acquire() for _ in range(8)] and hold.set()
    )
    releasing.start()
    got = together(8, lambda n: origin.fetch(asset, version, n * 1000, n * 1000 + 10))
    assert got == [LARGE[:]] * 8
    assert len(host.to("/a.tif")) == 2


def test_a_server_that_learns_ranges_is_asked_for_ranges(host, make):
    """A proxy may have ignored them once: each gets the bytes that it asked for."""
    host.on("/a.tif", Asset(LARGE, ranges=False), Asset(LARGE))
    origin, asset = make(), asset_at(f"{host.url}/a.tif")
    version = origin.version(asset)
    got = together(8, lambda n: origin.fetch(asset, version, n * 1000, n * 1000 + 10))
    assert got == [LARGE[n * 1000 : n * 1000 + 10] for n in range(8)]
    ranges(host)
    assert origin.fetch(asset, version, 5, 9) == LARGE[5:9]
    assert ranges(host) == [(5, 9)]


def test_the_deadline_is_one_for_a_range_and_its_new_link(host, make):
    """What the first link has used up, the second has not."""
    host.on("/1", Asset(LARGE), Reply(403))
    host.on("/2", Asset(LARGE))
    origin, asset = make(timeout=7), asset_at(f"{host.url}/1", f"{host.url}/2")
    version = origin.version(asset)
    get_range, deadlines = origin._transport.get_range, []

    def noted(*args, deadline, **more):
        deadlines.append(deadline)
        return get_range(*args, deadline=deadline, **more)

    origin._transport.get_range = noted
    before = time.monotonic()
    origin.fetch(asset, version, 0, 10)
    assert len(deadlines) == 2
    assert deadlines[0] == deadlines[1]
    assert before + 7 <= deadlines[0] <= time.monotonic() + 7


def test_a_range_that_does_not_come_is_given_up(host, make):
    """At the deadline."""
    host.on("/1", Asset(LARGE), Asset(LARGE, hold=host.hold()))
    origin, asset = make(timeout=0.2), asset_at(f"{host.url}/1")
    version = origin.version(asset)
    with pytest.raises(TimedOut):
        origin.fetch(asset, version, 0, 10)


def test_who_asks_is_let_go_and_the_question_goes_on(host, make):
    """An interrupted reader does not wait for the version; the next one has it."""
    hold, leaves = host.hold(), threading.Event()
    host.on("/a.tif", Asset(CHIP, hold=hold), Reply(500))
    origin, asset = make(interrupted=leaves.is_set), asset_at(f"{host.url}/a.tif")
    leaves.set()
    with pytest.raises(Interrupted):
        origin.version(asset)
    leaves.clear()
    hold.set()
    assert origin.version(asset).size == len(CHIP)


# --- links


def test_the_link_that_storage_answered_at_is_asked_directly(host, make):
    """The download redirect is paid once."""
    host.on("/download/1", Reply(302, {"Location": "/store/x?sig=1"}))
    host.on("/store/x", Asset(LARGE))
    fetch(make(), asset_at(f"{host.url}/download/1"), 0, 10)
    assert asked(host) == ["/download/1", "/store/x", "/store/x"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_link_is_renewed_once(host, make, status):
    """Storage refuses the resolved link; a new one is asked for, and the reader does not notice."""
    for number in (1, 2):
        host.on(f"/download/{number}", Reply(302, {"Location": f"/store/{number}"}))
    host.on("/store/1", Asset(LARGE), Reply(status))
    host.on("/store/2", Asset(LARGE))
    origin = make()
    asset = asset_at(f"{host.url}/download/1", f"{host.url}/download/2")
    assert fetch(origin, asset, 1 << 20, (1 << 20) + 10) == LARGE[1 << 20 : (1 << 20) + 10]
    assert asked(host) == ["/download/1", "/store/1", "/store/1", "/download/2", "/store/2"]
    fetch(origin, asset, 0, 10)
    assert asked(host) == ["/store/2"]


@pytest.mark.parametrize(("status", "error"), [(403, Denied), (404, NotFound)])
def test_a_new_link_that_is_refused_too_is_the_end(host, make, status, error):
    """One renewal a read, not a loop; the next read may try again."""
    for number in (1, 2):
        host.on(f"/download/{number}", Reply(302, {"Location": f"/store/{number}"}))
    host.on("/store/1", Asset(LARGE), Reply(status))
    host.on("/store/2", Reply(status))
    origin = make()
    asset = asset_at(f"{host.url}/download/1", f"{host.url}/download/2")
    version = origin.version(asset)
    asked(host)
    with pytest.raises(error):
        origin.fetch(asset, version, 0, 10)
    assert asked(host) == ["/store/1", "/download/2", "/store/2"]


def test_a_link_just_made_that_is_refused_is_not_renewed(host, make):
    """It would be refused again; that would double every request for what is not there."""
    host.on("/1", Reply(403))
    with pytest.raises(Denied):
        make().version(asset_at(f"{host.url}/1", f"{host.url}/2"))
    assert asked(host) == ["/1"]


def test_an_old_link_that_is_refused_at_first_is_renewed(host, make):
    """The item's JSON may have been in memory for longer than its links live."""
    host.on("/2", Asset(CHIP))
    host.on("/1", Reply(403))
    old = time.monotonic() - 60
    links = {
        True: Location(f"{host.url}/2", time.monotonic()),
        False: Location(f"{host.url}/1", old),
    }
    asset = AssetRef(("a",), lambda after: links[after >= old and after > 0])
    assert make().version(asset).size == len(CHIP)
    assert asked(host) == ["/1", "/2"]


@pytest.mark.parametrize("fault", [Reply(503), Reply(200, {"Content-Type": "text/html"}, b"?")])
def test_an_href_that_fails_after_it_has_answered_is_left_for_another(host, make, fault):
    """And that for the first again, when it fails in its turn; what is left is not asked."""
    for name in ("own", "mirror"):
        host.on(f"/{name}", Reply(302, {"Location": f"/store/{name}"}))
        host.on(f"/store/{name}", Asset(LARGE))
    origin, asset = make(), asset_at(f"{host.url}/own", others=[f"{host.url}/mirror"])
    for failing, other in (("own", "mirror"), ("mirror", "own")):
        assert fetch(origin, asset, 0, 10) == LARGE[0:10]
        host.on(f"/store/{failing}", fault)
        assert fetch(origin, asset, 0, 10) == LARGE[0:10]
        host.on(f"/store/{failing}", Asset(LARGE))
        asked(host)
        assert fetch(origin, asset, 0, 10) == LARGE[0:10]
        assert asked(host) == [f"/store/{other}"]


@pytest.mark.parametrize("fault", [Reply(503), Reply(404), Reply(403)])
def test_hrefs_without_validators_are_not_mixed(host, make, fault):
    """Two files of one size may be two versions: who has one open does not go on with the other."""
    host.on("/own", Asset(LARGE, etag=None, modified=None))
    host.on("/mirror", Asset(LARGE[::-1], etag=None, modified=None))
    origin, asset = make(), asset_at(f"{host.url}/own", others=[f"{host.url}/mirror"])
    version = origin.version(asset)
    host.on("/own", fault)
    with pytest.raises(Changed):
        fetch(origin, asset, 0, 10, version)
    again = origin.version(asset)
    assert fetch(origin, asset, 0, 10, again) == LARGE[::-1][0:10]
    assert again.key(asset) != version.key(asset)


def test_sixteen_readers_with_one_expired_link_all_go_on(host, make):
    """Nobody is refused because another has renewed the link a moment before."""
    host.on("/1", Asset(LARGE), Reply(403))
    host.on("/2", Asset(LARGE))
    origin, asset = make(), asset_at(f"{host.url}/1", *[f"{host.url}/2"] * 40)
    version = origin.version(asset)
    outcomes = together(16, lambda n: origin.fetch(asset, version, n * 1000, n * 1000 + 10))
    assert outcomes == [LARGE[n * 1000 : n * 1000 + 10] for n in range(16)]
