"""Blocks in memory, on disk, on their way: each is brought once, within the budget, and right."""

import itertools
import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rooms import together

from mlhubfs.content.blocks import BLOCK, EXTENT, blocks_of, cut, span
from mlhubfs.content.store import _AHEAD, BlockStore
from mlhubfs.errors import BadAnswer, Interrupted, Unavailable
from mlhubfs.transport.workers import Workers

MIB = 1 << 20
SIZE = 9 * EXTENT + 3 * BLOCK + 77
ASSET = random.Random(5).randbytes(SIZE)


class Origin:
    """Gives the bytes of ASSET, counts the ranges; those whose first block is held wait."""

    def __init__(self, data=ASSET):
        self.data = data
        self.asked = []
        self.held = {}
        self.failing = False
        self.changed = threading.Condition()

    def __call__(self, start, stop):
        with self.changed:
            self.asked.append((start, stop))
            self.changed.notify_all()
        event = self.held.get(start // BLOCK)
        if event:
            assert event.wait(30)
        if self.failing:
            raise Unavailable("the host is away")
        return self.data[start:stop]

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= count, 30)

    def hold(self, block):
        self.held[block] = threading.Event()
        return self.held[block]


class Disk:
    """A cache of blocks in a dictionary, as slow and as broken as it is told to be."""

    def __init__(self):
        self.blocks = {}
        self.reading = threading.Semaphore(0)
        self.hanging = None

    def read(self, key, numbers, size):
        self.reading.release()
        if self.hanging:
            assert self.hanging.wait(30)
        return {n: self.blocks[key, n] for n in numbers if (key, n) in self.blocks}

    def write(self, key, first, data, size):
        self.blocks.update({(key, n): block for n, block in cut(data, first).items()})


@pytest.fixture
def make():
    """`make(cache, budget, interrupted)`: stores over workers that end with the test."""
    started = []

    def build(cache=None, budget=256 * MIB, interrupted=lambda: False):
        network = Workers(interrupted=interrupted)
        disk = Workers(limit=4, interrupted=interrupted)
        started.extend((network, disk))
        return BlockStore(cache, network=network, disk=disk, budget=budget)

    yield build
    for workers in started:
        workers.close()


def right(blocks):
    """Say whether each block has the asset's bytes."""
    return all(block == ASSET[n * BLOCK : (n + 1) * BLOCK] for n, block in blocks.items())


def no_block_twice(asked):
    spans = sorted(asked)
    return all(one[1] <= two[0] for one, two in itertools.pairwise(spans))


# --- once


@pytest.mark.parametrize("cached", [False, True])
def test_blocks_are_brought_once_whoever_asks(make, cached):
    """Sixteen threads behind a barrier ask for overlapping runs: no byte is fetched twice."""
    for _ in range(10):
        store, origin = make(Disk() if cached else None), Origin()

        def get(thread, store=store, origin=origin):
            return store.get("k", range(thread % 4 * 7, 60), SIZE, origin)

        for thread, blocks in enumerate(together(16, get)):
            assert blocks.keys() >= set(range(thread % 4 * 7, 60))
            assert right(blocks)
        assert no_block_twice(origin.asked)
        assert sum(stop - start for start, stop in origin.asked) == 60 * BLOCK


@pytest.mark.parametrize("cached", [False, True])
def test_reading_ahead_and_a_read_share_one_fetch(make, cached):
    """Whichever comes first, eight of each at the same instant."""
    for _ in range(10):
        store, origin = make(Disk() if cached else None), Origin()

        def act(thread, store=store, origin=origin):
            if thread % 2:
                return store.start("k", range(40), SIZE, origin) and {}
            return store.get("k", range(20, 50), SIZE, origin)

        assert all(right(blocks) for blocks in together(16, act))
        store.get("k", range(50), SIZE, origin)
        assert no_block_twice(origin.asked)
        assert sum(stop - start for start, stop in origin.asked) == 50 * BLOCK


def test_a_read_joins_what_is_read_ahead_and_asks_for_the_rest(make):
    """While the one is on its way, only what it does not bring is asked for."""
    store, origin = make(), Origin()
    go = origin.hold(0)
    assert store.start("k", range(32), SIZE, origin)
    origin.wait_for(1)
    found = {}
    reader = threading.Thread(
        target=lambda: found.update(store.get("k", range(30, 34), SIZE, origin))
    )
    reader.start()
    origin.wait_for(2)
    assert origin.asked == [(0, EXTENT), (EXTENT, EXTENT + 2 * BLOCK)]
    go.set()
    reader.join(30)
    assert found.keys() >= set(range(30, 34))
    assert right(found)
    assert len(origin.asked) == 2


def test_a_reader_that_goes_away_cancels_nobody_s_fetch(make):
    """It is let go with Interrupted; the other gets the bytes, and they stay for the next."""
    here, gone = threading.local(), threading.Event()
    store = make(interrupted=lambda: getattr(here, "leaves", False) and gone.is_set())
    origin = Origin()
    go = origin.hold(0)
    outcomes = {}

    def read(name, leaves):
        here.leaves = leaves
        try:
            outcomes[name] = store.get("k", range(1), SIZE, origin)
        except Interrupted as error:
            outcomes[name] = error

    threads = [threading.Thread(target=read, args=one) for one in (("leaver", 1), ("stayer", 0))]
    for thread in threads:
        thread.start()
    origin.wait_for(1)
    gone.set()
    threads[0].join(30)
    assert isinstance(outcomes["leaver"], Interrupted)
    assert "stayer" not in outcomes
    go.set()
    threads[1].join(30)
    assert right(outcomes["stayer"])
    assert right(store.peek("k", range(1)))
    assert len(origin.asked) == 1


def test_a_failure_is_everybody_s_and_is_not_remembered(make):
    """All who waited get the error; the next one asks again, and nothing stays in the tables."""
    store, origin = make(Disk()), Origin()
    origin.failing = True
    go = origin.hold(0)
    releasing = threading.Timer(0, lambda: (origin.wait_for(1), go.set()))
    releasing.start()
    outcomes = together(8, lambda _: store.get("k", range(1), SIZE, origin))
    assert {type(one) for one in outcomes} == {Unavailable}
    assert (store._coming, store._coming_bytes, store._ahead) == ({}, 0, 0)
    origin.failing = False
    assert right(store.get("k", range(1), SIZE, origin))


def test_a_failed_reading_ahead_is_nobody_s_error(make):
    """A read that comes later asks for itself."""
    store, origin = make(), Origin()
    origin.failing = True
    assert store.start("k", range(8), SIZE, origin)
    assert isinstance(together(1, lambda _: store.get("k", range(8), SIZE, origin))[0], Unavailable)
    origin.failing = False
    assert right(store.get("k", range(8), SIZE, origin))
    assert not store.has("k", range(8, 9))
    assert store.has("k", range(8))


def test_after_unmounting_readers_are_let_go(make):
    """Whether they wait for the network already or are about to."""
    store, origin = make(Disk()), Origin()
    go = origin.hold(0)
    outcome = []
    reader = threading.Thread(
        target=lambda: outcome.extend(together(1, lambda _: store.get("k", range(1), SIZE, origin)))
    )
    reader.start()
    origin.wait_for(1)
    store._network.close()
    store._disk.close()
    reader.join(30)
    assert isinstance(outcome[0], Interrupted)
    with pytest.raises(Interrupted):
        store.get("other", range(1), SIZE, origin)
    go.set()


# --- requests


def test_a_run_is_cut_where_extents_begin(make):
    """So that what comes can be kept as whole extents."""
    store, origin = make(), Origin()
    store.get("k", range(30, 70), SIZE, origin)
    assert sorted(origin.asked) == [
        (30 * BLOCK, EXTENT), (EXTENT, 2 * EXTENT), (2 * EXTENT, 70 * BLOCK),
    ]  # fmt: skip


def test_only_gaps_are_asked_for(make):
    """Between what is in memory and what is on disk; one request a gap."""
    disk, origin = Disk(), Origin()
    make(disk).get("k", range(4, 6), SIZE, origin)
    store = make(disk)
    store.get("k", range(10, 11), SIZE, origin)
    origin.asked.clear()
    assert right(store.get("k", range(16), SIZE, origin))
    assert sorted(origin.asked) == [
        (0, 4 * BLOCK), (6 * BLOCK, 10 * BLOCK), (11 * BLOCK, 16 * BLOCK),
    ]  # fmt: skip


def test_what_is_on_disk_waits_for_no_gap(make):
    """A read that the disk can answer is answered, though what was read ahead with it hangs."""
    disk, origin = Disk(), Origin()
    make(disk).get("k", range(4), SIZE, origin)
    store = make(disk)
    go = origin.hold(4)
    assert store.start("k", range(8), SIZE, origin)
    origin.wait_for(2)
    assert right(store.get("k", range(4), SIZE, origin))
    go.set()
    assert right(store.get("k", range(8), SIZE, origin))
    assert origin.asked == [(0, 4 * BLOCK), (4 * BLOCK, 8 * BLOCK)]


def test_a_failed_gap_spoils_nothing_that_is_on_disk(make):
    """What disk has of the same run is kept."""
    disk, origin = Disk(), Origin()
    make(disk).get("k", range(4), SIZE, origin)
    store = make(disk)
    origin.failing = True
    with pytest.raises(Unavailable):
        store.get("k", range(8), SIZE, origin)
    assert right(store.get("k", range(4), SIZE, origin))
    assert len(origin.asked) == 2


def test_a_whole_asset_that_comes_for_a_range_is_used_whole(make):
    """A server may ignore ranges: it is asked once."""
    store, asked = make(Disk()), []
    data = ASSET[0 : 2 * EXTENT + 5]

    def whole(start, stop):
        asked.append(start)
        return data

    found = store.get("k", range(40, 41), len(data), whole)
    assert found[40] == data[40 * BLOCK : 41 * BLOCK]
    found = store.get("k", blocks_of(0, len(data)), len(data), whole)
    assert b"".join(found[number] for number in sorted(found)) == data
    assert len(asked) == 1


@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK + 1, SIZE - 1])
def test_bytes_of_another_length_are_refused(make, length):
    """What they would be the bytes of, nobody knows; nothing of them is kept."""
    disk = Disk()
    store = make(disk)
    with pytest.raises(BadAnswer):
        store.get("k", range(3, 4), SIZE, lambda start, stop: bytes(length))
    assert disk.blocks == {}
    assert not store.has("k", range(3, 4))


def test_what_came_along_is_kept(make):
    """The answer to the question for a version brings the first block."""
    disk, origin = Disk(), Origin()
    for store in (make(disk), make(disk)):
        if not disk.blocks:
            store.keep("k", 0, ASSET[0:BLOCK], SIZE)
            assert right(store.peek("k", range(1)))
        assert right(store.get("k", range(1), SIZE, origin))
    assert origin.asked == []


# --- disk


def test_a_disk_that_hangs_is_not_in_the_way_of_memory(make):
    """Nor of a fetch that is already under way."""
    disk, origin = Disk(), Origin()
    store = make(disk)
    store.get("k", range(4), SIZE, origin)
    disk.hanging = threading.Event()
    stuck = [threading.Thread(target=store.get, args=(str(n), range(1), SIZE, origin))
             for n in range(6)]  # fmt: skip
    for thread in stuck:
        thread.start()
    assert right(store.get("k", range(4), SIZE, origin))
    assert right(store.peek("k", range(4)))
    disk.hanging.set()
    for thread in stuck:
        thread.join(30)
        assert not thread.is_alive()


# --- budget


def held_and_coming(store):
    with store._lock:
        return store._held.bytes, store._coming_bytes, store._held.unread


def test_reading_ahead_is_refused_when_memory_is_short(make):
    """Three quarters of the budget, on its way or waiting to be read; then `start` says no."""
    store, origin = make(budget=8 * MIB), Origin()
    assert store.start("k", range(32), SIZE, origin)
    assert not store.start("k", range(32, 64), SIZE, origin)
    assert store.start("k", range(32), SIZE, origin), "all of it is there or on its way"
    assert right(store.get("k", range(32), SIZE, origin))
    assert store.start("k", range(32, 64), SIZE, origin), "what was read makes room"
    assert right(store.get("k", range(32, 64), SIZE, origin))
    assert len(origin.asked) == 2


def test_a_read_is_never_refused(make):
    """With less budget than one block: it is fetched, handed out and dropped."""
    store, origin = make(budget=1000), Origin()
    for _ in range(2):
        assert right(store.get("k", range(3), SIZE, origin))
        assert held_and_coming(store) == (0, 0, 0)
    assert len(origin.asked) == 2


def test_reading_ahead_leaves_workers_for_reads(make):
    """Only so many requests are for what nobody waits for yet; what is joined counts no more."""
    waiting = threading.Event()
    store, origin = make(interrupted=lambda: bool(waiting.set())), Origin()
    go = [origin.hold(number) for number in range(0, 2 * _AHEAD, 2)]
    for number in range(0, 2 * _AHEAD, 2):
        assert store.start("k", range(number, number + 1), SIZE, origin)
    assert not store.start("k", range(200, 201), SIZE, origin)
    assert right(store.get("k", range(201, 202), SIZE, origin))
    reader = threading.Thread(target=store.get, args=("k", range(1), SIZE, origin))
    reader.start()
    assert waiting.wait(30)
    assert store.start("k", range(200, 201), SIZE, origin)
    for event in go:
        event.set()
    reader.join(30)


def test_what_is_read_ahead_outlives_what_was_read(make):
    """Under pressure by random reads, a stream still finds what was fetched for it."""
    store, origin = make(budget=6 * MIB), Origin()
    assert store.start("k", range(32), SIZE, origin)
    for number in range(100, 250):
        store.get("k", range(number, number + 1), SIZE, origin)
    origin.asked.clear()
    assert right(store.get("k", range(32), SIZE, origin))
    assert origin.asked == []


numbers = st.tuples(st.integers(0, 290), st.integers(1, 70)).map(
    lambda one: range(one[0], min(one[0] + one[1], len(blocks_of(0, SIZE))))
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(["get", "start", "start", "fail", "keep"]), numbers), max_size=12
    ),
    st.sampled_from([BLOCK, MIB, 8 * MIB, 24 * MIB]),
    st.booleans(),
)
def test_held_and_coming_stay_within_the_budget(script, budget, cached):
    """After any sequence of reads, readings ahead, failures and landings, in any order of landing.

    What readers wait for may exceed it by itself: then nothing else is held.
    """
    network, disk = Workers(), Workers(limit=4)
    store = BlockStore(Disk() if cached else None, network=network, disk=disk, budget=budget)
    origin, awaited, seen = Origin(), 0, []  # `awaited` only grows: a bound from above

    def look():
        held, coming, unread = held_and_coming(store)
        seen.append(held + coming <= max(budget, coming if not held else 0))
        seen.append(unread <= held)
        seen.append(coming <= budget * 3 // 4 + awaited)

    def watched(start, stop):
        look()
        return origin(start, stop)

    def fails(start, stop):
        look()
        raise Unavailable("away")

    try:
        for action, run in script:
            if action == "get":
                awaited += len(run) * BLOCK
                outcome = together(1, lambda _, run=run: store.get("k", run, SIZE, watched))[0]
                assert isinstance(outcome, Unavailable) or (
                    right(outcome) and outcome.keys() >= set(run)
                )
            elif action == "start":
                store.start("k", run, SIZE, watched)
            elif action == "fail":
                store.start("k", run, SIZE, fails)
            else:
                start, stop = span(run, SIZE)
                store.keep("k", run.start, ASSET[start:stop], SIZE)
            look()
        for future in [one.future for one in list(store._coming.values())]:
            future.exception(30)
        look()
    finally:
        network.close()
        disk.close()
    assert all(seen)
    assert store._held.bytes <= budget
