"""Answers kept for a while: how long, who asks, and what serves when nobody answers."""

import threading

import pytest
from rooms import Clock, together

from mlhubfs.catalog.memory import Memory
from mlhubfs.errors import BadAnswer, Denied, NotFound, TimedOut, Unavailable
from mlhubfs.transport.workers import Workers


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def workers():
    workers = Workers()
    yield workers
    workers.close()


@pytest.fixture
def memory(workers, clock):
    return Memory(workers, ttl=300, negative_ttl=60, capacity=3, clock=clock)


class Source:
    """Loads what it is told to, and counts."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.mark.promise(
    "Names and items are asked for again after `ttl`, sizes and validators after "
    "`content_ttl`, missing names after `negative_ttl`."
)
def test_a_value_is_loaded_once_in_its_time_to_live(memory, clock):
    """And again when that has passed."""
    load = Source("one", "two")
    assert [memory.get("k", load) for _ in range(3)] == ["one"] * 3
    clock.now += 299
    assert memory.get("k", load) == "one"
    clock.now += 1
    assert memory.get("k", load) == "two"
    assert load.calls == 2


def test_none_and_empty_values_are_values(memory):
    """A catalog without datasets is not asked for them again and again."""
    for key, value in (("none", None), ("empty", {})):
        load = Source(value)
        assert memory.get(key, load) == memory.get(key, load) == value
        assert load.calls == 1


@pytest.mark.promise(
    "Names and items are asked for again after `ttl`, sizes and validators after "
    "`content_ttl`, missing names after `negative_ttl`."
)
def test_no_such_thing_is_remembered_for_its_own_time(memory, clock):
    """A name that does not exist costs one request a minute, and is found when it appears."""
    load = Source(NotFound("no x"), "x")
    for _ in range(3):
        with pytest.raises(NotFound, match="no x"):
            memory.get("k", load)
    assert load.calls == 1
    clock.now += 60
    assert memory.get("k", load) == "x"


def test_what_is_remembered_is_raised_anew_each_time(memory):
    """One exception object that many threads raise would grow their tracebacks for ever."""
    load = Source(NotFound("no x"))
    errors = []
    for _ in range(3):
        with pytest.raises(NotFound) as raised:
            memory.get("k", load)
        errors.append(raised.value)
    assert len({id(error) for error in errors[1:]}) == 2


@pytest.mark.parametrize("error", [Unavailable("down"), Denied("no key"), BadAnswer("html")])
def test_other_errors_are_not_remembered(memory, error):
    """The next reader tries again."""
    load = Source(error, "x")
    with pytest.raises(type(error)):
        memory.get("k", load)
    assert memory.get("k", load) == "x"


def test_sixteen_readers_at_once_make_one_request(memory):
    """And all get its value."""
    arrived, go = threading.Semaphore(0), threading.Event()
    calls = []

    def load():
        calls.append(1)
        arrived.release()
        assert go.wait(30)
        return object()

    def ask(_):
        return memory.get("k", load)

    leader = threading.Thread(target=ask, args=(0,))
    leader.start()
    assert arrived.acquire(timeout=30)  # the flight is under way: the sixteen can only join it
    releasing = threading.Thread(target=go.set)
    outcomes = together(16, lambda n: (releasing.start() if n == 0 else None, ask(n))[1])
    leader.join()
    assert len(calls) == 1
    assert len({id(one) for one in outcomes}) == 1


@pytest.mark.parametrize("ask", ["get", "renew"])
def test_a_reader_who_looks_too_early_and_starts_too_late_makes_no_second_request(clock, ask):
    """Between a look that finds nothing and the flight, another reader's flight may have landed."""

    class Late(Workers):
        def once(self, key, task):
            super().once(key, task)  # what the other reader did in between
            return super().once(key, task)

    workers = Late()
    memory = Memory(workers, ttl=300, negative_ttl=60, capacity=3, clock=clock)
    load = Source("one")
    more = (lambda value: value == "one",) if ask == "renew" else ()
    assert getattr(memory, ask)("k", load, *more) == "one"
    assert load.calls == 1
    workers.close()


def test_sixteen_readers_share_the_error_too(memory):
    """A name that does not exist is asked for once, whoever asks."""
    load = Source(NotFound("no x"))
    outcomes = together(16, lambda _: memory.get("k", load))
    assert [type(one) for one in outcomes] == [NotFound] * 16
    assert load.calls == 1


@pytest.mark.parametrize("error", [Unavailable("down"), TimedOut("slow")])
def test_an_old_value_serves_while_the_server_cannot_be_reached(memory, clock, error, caplog):
    """It says so in the log, tries again after a quarter of a minute, and then is new."""
    load = Source("old", error, "new")
    memory.get("k", load)
    clock.now += 300
    assert memory.get("k", load) == "old"
    assert "what was known before is shown instead" in caplog.text
    clock.now += 14
    assert memory.get("k", load) == "old"
    assert load.calls == 2
    clock.now += 1
    assert memory.get("k", load) == "new"


@pytest.mark.parametrize("error", [NotFound("gone"), Denied("key"), BadAnswer("html")])
def test_an_old_value_does_not_cover_for_an_answer(memory, clock, error):
    """What the server says counts, also if it is no."""
    load = Source("old", error)
    memory.get("k", load)
    clock.now += 300
    with pytest.raises(type(error)):
        memory.get("k", load)


def test_no_such_thing_does_not_serve_in_place_of_an_answer(memory, clock):
    """That a name did not exist a minute ago is no reason to hide that the server is down."""
    load = Source(NotFound("no x"), Unavailable("down"))
    with pytest.raises(NotFound):
        memory.get("k", load)
    clock.now += 60
    with pytest.raises(Unavailable):
        memory.get("k", load)


def test_a_value_learned_along_the_way_is_not_asked_for(memory, clock):
    """Nor is a NotFound that it contradicts."""
    load = Source(NotFound("no x"), "loaded")
    with pytest.raises(NotFound):
        memory.get("k", load)
    memory.put("k", "learned")
    assert memory.get("k", load) == memory.peek("k") == "learned"
    clock.now += 300
    assert memory.peek("k") is None
    assert memory.get("k", load) == "loaded"


def test_renewing_takes_a_value_that_is_new_enough(memory):
    """Sixteen readers with the same expired link ask for one new item."""
    number = iter(range(1, 100))

    def load():
        return next(number)

    assert memory.get("k", load) == 1
    outcomes = together(16, lambda _: memory.renew("k", load, lambda value: value > 1))
    assert outcomes == [2] * 16
    assert memory.get("k", load) == 2


def test_renewing_remembers_that_the_thing_is_gone(memory):
    """And does not serve what was before: its links are what was refused."""
    load = Source("old", NotFound("gone"))
    memory.get("k", load)
    with pytest.raises(NotFound):
        memory.renew("k", load, lambda _: False)
    with pytest.raises(NotFound):
        memory.get("k", load)
    assert load.calls == 2


def test_renewing_does_not_fall_back_on_the_old_value(memory):
    """The caller knows already that it will not do."""
    load = Source("old", Unavailable("down"))
    memory.get("k", load)
    with pytest.raises(Unavailable):
        memory.renew("k", load, lambda _: False)


def test_the_least_recently_used_goes_first(memory):
    """When the capacity is reached."""
    for key in "abc":
        memory.get(key, Source(key))
    memory.get("a", Source("a"))
    memory.get("d", Source("d"))
    assert [memory.peek(key) for key in "abcd"] == ["a", None, "c", "d"]


def test_capacity_is_what_the_values_weigh(workers, clock):
    """A value that is larger than all of it is passed on and not kept."""
    memory = Memory(workers, ttl=300, negative_ttl=60, capacity=100, weigh=len, clock=clock)
    for key, size in (("a", 60), ("b", 60), ("c", 40)):
        memory.get(key, Source("x" * size))
    assert [bool(memory.peek(key)) for key in "abc"] == [False, True, True]
    assert len(memory.get("d", Source("x" * 101))) == 101
    assert memory.peek("d") is None
    assert memory.peek("b")


def test_a_value_that_grew_too_large_does_not_leave_the_old_one(workers, clock):
    """Right bytes or none."""
    memory = Memory(workers, ttl=300, negative_ttl=60, capacity=100, weigh=len, clock=clock)
    memory.put("k", "old")
    memory.put("k", "x" * 101)
    assert memory.peek("k") is None
