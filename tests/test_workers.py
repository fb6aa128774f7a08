"""Threads that wait on the network, and one flight per key."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from mlhubfs.errors import Interrupted, NotFound
from mlhubfs.transport.workers import Workers


@pytest.fixture
def made() -> Iterator[Callable[..., Workers]]:
    pools: list[Workers] = []

    def make(**settings: Any) -> Workers:
        pools.append(Workers(**settings))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def workers(made: Callable[..., Workers]) -> Workers:
    return made()


class Task:
    """A task that counts its runs, tells when it began, and lasts until it is let go."""

    def __init__(self, result: object = "result") -> None:
        self.runs = 0
        self.began = threading.Event()
        self.release = threading.Event()
        self.result = result

    def __call__(self) -> object:
        self.runs += 1
        self.began.set()
        assert self.release.wait(30)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def test_a_task_runs_on_another_thread(workers: Workers) -> None:
    """`submit` gives a future, `wait` its result."""
    assert workers.wait(workers.submit(threading.get_ident)) != threading.get_ident()


def test_a_task_that_fails_fails_for_the_waiter(workers: Workers) -> None:
    """The error comes out as it was raised, with nothing chained to it, TimeoutError included."""
    for error in (NotFound("x"), TimeoutError("own")):
        task = Task(error)
        future = workers.submit(task)
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(workers.wait, future)
            assert task.began.wait(30)
            task.release.set()
            assert waiter.exception() is error
        assert error.__context__ is None


def test_as_many_run_at_once_as_the_limit_allows(made: Callable[..., Workers]) -> None:
    """All threads of the limit meet at a barrier, so none of them is ever missing."""
    workers = made(limit=8)
    barrier = threading.Barrier(8)
    for _ in range(3):
        futures = [workers.submit(lambda: barrier.wait(30)) for _ in range(8)]
        assert sorted(workers.wait(future) for future in futures) == list(range(8))


def test_no_more_run_at_once_than_the_limit_allows(made: Callable[..., Workers]) -> None:
    """What is over the limit waits its turn, in order."""
    workers = made(limit=2)
    busy = [Task(), Task()]
    futures = [workers.submit(task) for task in busy]
    for task in busy:
        assert task.began.wait(30)
    order: list[int] = []
    later = [workers.submit(lambda n=n: order.append(n)) for n in range(3)]
    assert order == []
    busy[0].release.set()
    for future in later:
        workers.wait(future)
    assert order == [0, 1, 2]
    busy[1].release.set()
    assert [workers.wait(future) for future in futures] == ["result", "result"]


def test_all_who_ask_share_one_run(workers: Workers) -> None:
    """Sixteen askers of one key get the result of one run, and the next asker of a new one."""
    task = Task(object())
    first = workers.flight("k", task)
    joined = [workers.flight("k", Task("wrong")) for _ in range(15)]
    assert all(future is first for future in joined)
    task.release.set()
    assert workers.wait(first) is task.result
    assert task.runs == 1
    assert workers.once("k", lambda: "new") == "new"


def test_all_who_ask_share_one_error_and_none_is_kept(workers: Workers) -> None:
    """An error goes to everybody who waited, and to nobody who comes later."""
    task = Task(NotFound("gone"))
    with ThreadPoolExecutor(4) as pool:
        waiters = [pool.submit(workers.once, "k", task) for _ in range(4)]
        assert task.began.wait(30)
        task.release.set()
        errors = {waiter.exception() for waiter in waiters}
    assert {type(error) for error in errors} == {NotFound}
    assert workers.once("k", lambda: "back") == "back"


def test_keys_do_not_wait_for_each_other(workers: Workers) -> None:
    """A stalled flight holds up its own key only."""
    task = Task()
    stalled = workers.flight("a", task)
    assert workers.once("b", lambda: "b") == "b"
    task.release.set()
    assert workers.wait(stalled) == "result"


def test_a_worker_runs_what_it_needs_itself(made: Callable[..., Workers]) -> None:
    """With one thread, flights within flights end all the same."""
    workers = made(limit=1)
    inner = lambda: workers.once("b", lambda: workers.once("c", lambda: "deep"))  # noqa: E731
    assert workers.once("a", inner) == "deep"


def test_workers_do_not_wait_for_a_flight_that_waits_for_them(
    made: Callable[..., Workers],
) -> None:
    """All workers join a flight that is still queued behind them, and one of them runs it."""
    workers = made(limit=2)
    go = threading.Event()
    begun = threading.Barrier(3)

    def ask() -> str:
        begun.wait(30)
        go.wait(30)
        return workers.once("k", lambda: "mine")

    asking = [workers.submit(ask) for _ in range(2)]
    begun.wait(30)
    queued = workers.flight("k", lambda: "queued")
    go.set()
    assert "queued" in [future.result(30) for future in asking]
    assert workers.wait(queued) == "queued"


def test_a_reader_who_gives_up_is_let_go_and_disturbs_nobody(
    made: Callable[..., Workers],
) -> None:
    """One of two readers is interrupted: it gets EINTR, the other its result, and the work ends."""
    gone = threading.local()
    workers = made(interrupted=lambda: getattr(gone, "yes", False))
    task = Task()

    def leave() -> None:
        gone.yes = True
        workers.once("k", task)

    with ThreadPoolExecutor(2) as pool:
        leaver = pool.submit(leave)
        assert task.began.wait(30)
        stayer = pool.submit(workers.once, "k", task)
        assert isinstance(leaver.exception(), Interrupted)
        task.release.set()
        assert stayer.result() == "result"
    assert task.runs == 1


def test_a_worker_is_not_asked_whether_its_reader_has_gone(made: Callable[..., Workers]) -> None:
    """`interrupted` speaks of the thread that asks the kernel, so it counts in no worker."""
    asked: list[int] = []
    workers = made(interrupted=lambda: asked.append(threading.get_ident()) or False)
    task = Task()
    inner: Future[object] = workers.flight("inner", task)
    outer = workers.submit(lambda: (threading.get_ident(), workers.wait(inner)))
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(workers.wait, outer)
        while not asked:
            assert not waiter.done()
        task.release.set()
        ident, result = waiter.result()
    assert result == "result"
    assert ident not in asked


def test_what_was_begun_runs_once_and_is_waited_for(workers: Workers) -> None:
    """By whoever asks, as often as they ask; its error too."""
    task = Task()
    result = workers.begin(task)
    assert task.began.wait(30)
    task.release.set()
    assert [result(), result()] == ["result"] * 2
    assert task.runs == 1
    with pytest.raises(ZeroDivisionError):
        workers.begin(lambda: 1 / 0)()


def test_a_worker_runs_what_it_began_if_nobody_has_come_to_it(
    made: Callable[..., Workers],
) -> None:
    """The only worker would wait for itself else."""
    workers = made(limit=1)

    def begin_and_wait() -> str:
        return workers.begin(lambda: "result")()

    assert workers.once("outer", begin_and_wait) == "result"


def test_closing_lets_every_waiter_go(made: Callable[..., Workers]) -> None:
    """Waiters of running and of queued work get Interrupted, and nothing new begins."""
    workers = made(limit=1)
    task = Task()
    running, queued = workers.flight("a", task), workers.submit(lambda: "never")
    assert task.began.wait(30)
    with ThreadPoolExecutor(2) as pool:
        waiters = [pool.submit(workers.wait, future) for future in (running, queued)]
        workers.close()
        assert [type(waiter.exception()) for waiter in waiters] == [Interrupted] * 2
    with pytest.raises(Interrupted):
        workers.submit(lambda: None)
    with pytest.raises(Interrupted):
        workers.once("b", lambda: None)
    task.release.set()
    workers.close()


def test_many_readers_of_many_keys_see_only_their_own(workers: Workers) -> None:
    """Under a storm of askers each gets its key's value, and a key never runs twice at once."""
    running: set[int] = set()
    lock = threading.Lock()

    def fetch(key: int) -> int:
        with lock:
            assert key not in running
            running.add(key)
        with lock:
            running.remove(key)
        return key

    def ask(n: int) -> bool:
        key = n % 7
        return workers.once(str(key), lambda: fetch(key)) == key

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(3000)))
