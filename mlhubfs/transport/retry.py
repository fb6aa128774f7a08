"""Trying again: what is worth it, how often, how long to wait in between.

Owns `Failed`, which says of one attempt that it failed, and `persist`, which makes attempts until
one succeeds, or has failed often enough, or the deadline leaves no time for another. Knows nothing
of requests and sockets.

*Why tries and not seconds.* An attempt may take a millisecond (refused) or twenty seconds (silent);
the deadline bounds the seconds of all of them, the number of tries how many a dead server costs.

*Why the last error is raised outside of every `except`.* So that it has no `__context__`: those
hold the messages of requests and urllib3, and these hold URLs with tokens in them.

*Threading.* No state; any number of threads.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from mlhubfs.errors import MlhubfsError

log = logging.getLogger("mlhubfs.transport")
T = TypeVar("T")

NEVER = 1
"""Tries for what the server means: 404, 403, a bad certificate."""

LIE = 2
"""Tries for an answer that contradicts itself: a proxy may have mangled it, once."""

UNRESOLVED = 3
"""Tries for a name without an address; the resolver has tried for itself before it says so."""

REFUSED = 5
"""Tries for a host where nobody listens. With BACKOFF, 3.75 s of pauses on average, 7.5 s at most:
a server that restarts is survived, one that is dead is reported while the user still looks."""

TRANSIENT = 8
"""Tries for 5xx, 408, 429, resets, silence, cut bodies. With BACKOFF and PAUSE_LIMIT, 16 s of
pauses on average: a rolling restart. What has failed eight times is broken, not busy."""

BACKOFF = 0.5
"""Seconds that the first pause takes at most; each following one may take twice as long."""

PAUSE_LIMIT = 8.0
"""Seconds that any pause takes at most, unless the server asks for more."""


class Failed(Exception):
    """One attempt failed: the error to raise in the end, and how often to try before that.

    `after` is how many seconds the server asks to be left alone for.
    """

    def __init__(
        self, kind: type[MlhubfsError], message: str, *, tries: int = NEVER, after: float = 0
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.tries = tries
        self.after = after


def persist(
    attempt: Callable[[], T],
    *,
    deadline: float,
    pause: Callable[[float], None],
    backoff: float = BACKOFF,
) -> T:
    """Return what `attempt` returns, tried again after `Failed` as often as that says.

    `deadline` is a `time.monotonic()`; `pause` sleeps, and may raise to give up.
    """
    tried = 0
    while True:
        try:
            return attempt()
        except Failed as failed:
            kind, message, tries, after = failed.kind, failed.message, failed.tries, failed.after
        tried += 1
        seconds = max(after, jitter(tried, backoff))
        if tried >= tries or time.monotonic() + seconds >= deadline:
            times = f" (tried {tried} times)" if tried > 1 else ""
            wish = f"; it asks to come back in {after:.0f} s" if after else ""
            raise kind(message + times + wish)
        log.warning("%s; trying again in %.1f s (%d of %d)", message, seconds, tried + 1, tries)
        pause(seconds)


def jitter(tried: int, backoff: float) -> float:
    """Return a pause, anywhere from nothing to twice the range of the one before.

    "Full jitter" of AWS's "Exponential Backoff And Jitter": sixty-four readers that failed in the
    same instant come back spread out, which adding a little noise to a fixed pause does not do.
    """
    return random.uniform(0, min(PAUSE_LIMIT, backoff * 2 ** (tried - 1)))  # noqa: S311 - no secret


def retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for; 0 for none, the past and nonsense."""
    if not value:
        return 0.0
    try:
        return Retry(0).parse_retry_after(value)
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0
