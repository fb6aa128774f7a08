"""One source of a mount: its session, opened with the mount or when its server is there.

Owns when a source that could not be opened is tried again: when somebody looks into its directory,
and not sooner than some seconds after the last try, whose failure is the answer until then.

*Threading.* Any thread. A flight of the workers opens it, so that who waits for it can be let go.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from mlhubfs.config import Config
from mlhubfs.errors import (
    BadAnswer,
    Busy,
    Changed,
    Denied,
    Interrupted,
    MlhubfsError,
    NotFound,
    TimedOut,
    Unavailable,
)
from mlhubfs.session import Session, open_session
from mlhubfs.transport.local import is_local
from mlhubfs.transport.origin import origin
from mlhubfs.transport.session import withheld
from mlhubfs.transport.workers import Workers
from mlhubfs.tree.root import Tree

_log = logging.getLogger("mlhubfs")
_AGAIN_SECONDS = 2.0  # or `negative_ttl`, if that is less
_HANGING_SECONDS = 15.0  # likewise; a look that asks a server that hangs waits for its deadline


class Served:
    """The source of `config`, called `name`; `interrupted` as for `open_session`."""

    def __init__(
        self,
        name: str,
        config: Config,
        workers: Workers,
        interrupted: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.session: Session | None = None
        """None until it could be opened."""
        self.failure: MlhubfsError | None = None
        """Why it could not, the last time."""
        self._name = name
        self._workers = workers
        self._interrupted = interrupted
        self._clock = clock
        self._again = 0.0
        self._lock = threading.Lock()
        self._ending: contextlib.ExitStack | None = contextlib.ExitStack()

    @property
    def tree(self) -> Tree | None:
        """Its tree, once it is open."""
        return self.session.tree if self.session else None

    @property
    def may_come(self) -> bool:
        """Whether its server, and nothing on this machine, keeps it from being opened."""
        is_elsewhere = not is_local(self.config.source)
        return is_elsewhere and isinstance(self.failure, (Unavailable, Denied, BadAnswer))

    def grow(self) -> Tree:
        """Return its tree; raises what keeps it from being opened."""
        return self.tree or self._workers.once(self._name, self._open).tree

    def notices(self) -> Iterator[str]:
        """Yield what is not as it should be with it."""
        source = self.config.source
        told = None if is_local(source) else withheld(origin(source), self.config.permissions)
        if told:
            yield f"{self._name}: {told}"
        if self.session:
            yield from self.session.notices
        if self.failure:
            yield f"{self.failure}; it is tried again when {self._name} is looked into"

    def close(self) -> None:
        """Close its session, also one that is just being opened."""
        with self._lock:
            ending, self._ending = self._ending, None
        if ending:
            ending.close()

    def _open(self) -> Session:
        if self.session:
            return self.session
        if self.failure and self._clock() < self._again:
            raise type(self.failure)(str(self.failure))
        try:
            self.session = self._enter()
        except MlhubfsError as error:
            # ENOENT and ESTALE would say that the directory is not there, or no longer; and the
            # kernel would remember it of the names below.
            kind = Unavailable if isinstance(error, (NotFound, Changed)) else type(error)
            self.failure = kind(f"{self._name}: {error}" if self._name else str(error))
            hangs = isinstance(error, (TimedOut, Busy))
            seconds = _HANGING_SECONDS if hangs else _AGAIN_SECONDS
            self._again = self._clock() + min(seconds, self.config.negative_ttl)
            raise self.failure from error
        if self.failure:
            _log.warning("%s is there now", self._name)
            self.failure = None
        return self.session

    def _enter(self) -> Session:
        with contextlib.ExitStack() as entered:
            session = entered.enter_context(
                open_session(self.config, interrupted=self._interrupted)
            )
            with self._lock:
                if self._ending is None:
                    raise Interrupted("the file system is being unmounted")
                self._ending.push(entered.pop_all())
        return session
