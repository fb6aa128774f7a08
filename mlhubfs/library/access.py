"""The session behind a Catalog and all that came out of it.

Owns when it is opened and closed, the asking for several things side by side, and what happens in a
forked child: the threads of a session do not survive a fork, so a child (a DataLoader worker, say)
opens one of its own when it first asks. The parent's is left alone there.

*Threading.* Any thread.
"""

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from mlhubfs.config import Config
from mlhubfs.errors import MlhubfsError, NotFound
from mlhubfs.session import Session, open_session

_log = logging.getLogger("mlhubfs.library")
K = TypeVar("K")
T = TypeVar("T")


class Access:
    """The session over `config`: open until `close`, until nothing refers to it, or until exit.

    Raises the errors of `open_session` where the source does not answer.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._open()

    @property
    def session(self) -> Session:
        """The open session of this process."""
        if not self._closing.alive:
            raise MlhubfsError(f"the catalog of {self.config.source} is closed: open another one")
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self._open()
        return self._session

    def each(self, load: Callable[[K], T], keys: Iterable[K], *, of: str) -> list[T]:
        """Return what `load` returns of each key, asked for side by side.

        What is not there is passed over; the log says so, as missing of the thing with the id `of`.
        """
        network = self.session.network
        flights = [network.submit(partial(load, key)) for key in keys]
        found = []
        for flight in flights:
            try:
                found.append(network.wait(flight))
            except NotFound as error:
                _log.warning("something of %s is not there: %s", of, error)
        return found

    def close(self) -> None:
        """Close the session; what is asked of it from now on is refused."""
        self._closing()

    def _open(self) -> None:
        stack, process = contextlib.ExitStack(), os.getpid()
        self._session = stack.enter_context(open_session(self.config))
        self._closing = weakref.finalize(self, _close, stack, process)
        self._process = process


def _close(stack: contextlib.ExitStack, process: int) -> None:
    if process == os.getpid():
        stack.close()
