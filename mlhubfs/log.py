"""Where the log goes, and what of it is said again.

Owns the log's file and its lines' form. What is logged is the rooms' own business.

*Threading.* As `logging`: any thread.
"""

import logging
import math
import os
import time
from collections import OrderedDict
from pathlib import Path

from mlhubfs.errors import MountError

_REPEAT_SECONDS = 60.0
_LINES = 1000  # remembered, so that they are not repeated


def log_to(handler: logging.Handler, *, debug: bool) -> None:
    """Let the log of all rooms go to `handler`; `debug` logs every request too."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_Once())
    logging.logThreads = False  # naming libfuse's threads would make a Thread object of each
    log = logging.getLogger("mlhubfs")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False


class _Once(logging.Filter):
    """Lets the same line through once a minute: a program that tries again says nothing new."""

    def __init__(self) -> None:
        super().__init__()
        self._said: OrderedDict[str, float] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line is news."""
        if record.levelno == logging.DEBUG:
            return True
        line, now = record.getMessage(), time.monotonic()
        if now - self._said.get(line, -math.inf) < _REPEAT_SECONDS:
            return False
        self._said[line] = now
        if len(self._said) > _LINES:
            self._said.popitem(last=False)
        return True


def make_file(path: Path) -> None:
    """Make the log's file, for its owner only, while somebody is there to be told of trouble."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise MountError(
            f"the log {path} cannot be written ({error.strerror}): "
            "set XDG_STATE_HOME to a folder of yours"
        ) from None
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)
