"""Threads that wait on the network, and one flight per key, whoever asks.

Owns the threads and the table of flights. Knows nothing of HTTP.

*Why.* A FUSE request that the daemon sits on leaves its process in state D, deaf to SIGKILL. So the
thread that serves the kernel never waits on a socket: the work runs here, and that thread waits
for its `Future` in steps of `STEP_SECONDS`, asking in between whether its reader has gone.

*Why the leader of a flight is a worker, never the asker.* If asker A ran the work itself and were
interrupted, then B, who had joined A's flight, would be told that B was interrupted. With all
askers waiting alike, one that leaves disturbs nobody, and the result still reaches the caches.

*Threading.* All methods may be called from any thread. A worker that needs another flight runs it
inline, also one that is still queued: else all the workers would wait for ever for a flight
that waits for one of them. A flight must not ask for itself, directly or through others.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from mlhubfs.errors import Interrupted

STEP_SECONDS = 0.1  # how long a reader that was killed may still look alive
T = TypeVar("T")
# More than the requests that the kernel has under way (`fuse.callbacks.MAX_BACKGROUND`), and those
# of readers that were killed: a host that stalls holds each up until its deadline. Threads are
# started as they are needed; one that waits costs some 100 kB.
LIMIT = 256


class Begin(Protocol):
    """Starts a task elsewhere, and returns what waits for its result, as `Workers.begin` does."""

    def __call__(self, task: Callable[[], T], /) -> Callable[[], T]:
        """Start `task`."""


class Workers:
    """A pool of daemon threads, started as they are needed.

    `interrupted` is asked by `wait` every `STEP_SECONDS` in the waiting thread, unless that is a
    worker; when it answers True the wait ends with `Interrupted`, and the work goes on for those
    who still want it.
    """

    def __init__(
        self, *, limit: int = LIMIT, interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        self._limit = limit
        self._interrupted = interrupted
        self._changed = threading.Condition()
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads = 0
        self._idle = 0
        self._closed = False
        self._flights: dict[str, _Flight] = {}
        self._flights_lock = threading.Lock()
        self._here = threading.local()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Start `task` on a worker and return its future."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise Interrupted("the file system is being unmounted")
            self._tasks.append((future, task))
            if self._idle < len(self._tasks) and self._threads < self._limit:
                self._threads += 1
                threading.Thread(
                    target=self._work, name=f"worker-{self._threads}", daemon=True
                ).start()
            else:
                self._changed.notify()
        return future

    def wait(self, future: Future[T]) -> T:
        """Return the result of `future`, or raise its error, or `Interrupted`."""
        while True:
            with contextlib.suppress(TimeoutError):
                return future.result(timeout=STEP_SECONDS)
            if future.done():  # in time after all, or with a TimeoutError of its own
                return future.result()
            if self._closed:
                raise Interrupted("the file system is being unmounted")
            if not self._working() and self._interrupted():
                raise Interrupted("the reader was interrupted")

    def once(self, key: str, task: Callable[[], T]) -> T:
        """Return what `task` returns, run once for all who ask under `key` at the same time."""
        return self.wait(self.flight(key, task))

    def flight(self, key: str, task: Callable[[], T]) -> Future[T]:
        """Join the flight under `key`, or start it with `task`; return its future."""
        new = _Flight(task)
        with self._flights_lock:
            flight = self._flights.setdefault(key, new)
        if self._working():
            self._lead(key, flight)
        elif flight is new:
            try:
                self.submit(lambda: self._lead(key, flight))
            except Interrupted as error:
                if flight.claim():
                    self._land(key)
                    flight.future.set_exception(error)
        return flight.future

    def begin(self, task: Callable[[], T]) -> Callable[[], T]:
        """Start `task` on a worker; return the function that waits for what it returns.

        A worker may wait as well: it runs a task itself that is still queued.
        """
        future: Future[T] = Future()
        claimed = threading.Lock()

        def run() -> None:
            if claimed.acquire(blocking=False):
                _settle(future, task)

        def result() -> T:
            if self._working():
                run()
            return self.wait(future)

        self.submit(run)
        return result

    def close(self) -> None:
        """Let every waiter go with `Interrupted`; work under way is left to the daemon threads."""
        with self._changed:
            self._closed = True
            tasks = list(self._tasks)
            self._tasks.clear()
            self._changed.notify_all()
        for future, _task in tasks:
            future.set_exception(Interrupted("the file system is being unmounted"))

    def _working(self) -> bool:
        return getattr(self._here, "working", False)

    def _lead(self, key: str, flight: "_Flight") -> None:
        """Run the flight, unless somebody does so already."""
        if flight.claim():
            _settle(flight.future, flight.task, lambda: self._land(key))

    def _land(self, key: str) -> None:
        with self._flights_lock:
            del self._flights[key]

    def _work(self) -> None:
        self._here.working = True
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._tasks or self._closed)
                self._idle -= 1
                if self._closed:
                    return
                future, task = self._tasks.popleft()
            _settle(future, task)
            del future, task  # or they, and what they hold, would live until the next ones come


class _Flight:
    """A task that several wait for, and which whoever comes first may run."""

    def __init__(self, task: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self.task = task
        self._claimed = threading.Lock()

    def claim(self) -> bool:
        """Tell the first who asks that the task is theirs to run."""
        return self._claimed.acquire(blocking=False)


def _settle(
    future: Future[T], task: Callable[[], T], before: Callable[[], None] = lambda: None
) -> None:
    """Run `task` and hand its outcome to `future`, calling `before` in between.

    A flight leaves the table before its result is handed out: a reader who sees the result and
    asks again must start a new flight, not join the finished one.
    """
    try:
        result = task()
    except BaseException as error:  # noqa: BLE001 - handed on to every waiter
        before()
        future.set_exception(error)
    else:
        before()
        future.set_result(result)
