"""A process that goes on when its command has returned.

A daemon is forked before there is any thread, session or cache: none of them survives a fork. It
reports through a pipe, so that the command returns when what it serves is there, or says why not.

*Threading.* None yet, on purpose.
"""

import contextlib
import logging
import logging.handlers
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mlhubfs.errors import MlhubfsError, MountError
from mlhubfs.log import log_to, make_file

_log = logging.getLogger("mlhubfs")
_BYTES = 10 << 20  # of the log, before it is turned over
_STARTED = "started"
Started = Callable[[tuple[str, ...]], None]
"""What a daemon calls when it serves, with the notices that the command is to print."""


def start(serve: Callable[[Started], None], *, log_path: Path, debug: bool) -> list[str]:
    """Have `serve` run in a daemon that logs to `log_path`; return its notices once it serves.

    Raises MountError with the words of the error that ended it before.
    """
    make_file(log_path)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(serve, log_path, debug, writer)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, encoding="utf-8") as report:
        outcome = report.read()
    first, *notices = outcome.split("\n")
    if first != _STARTED:
        raise MountError(outcome or f"the daemon ended before it mounted: see {log_path}")
    return notices


def _run(serve: Callable[[Started], None], log_path: Path, debug: bool, report: int) -> NoReturn:
    """Become a daemon, serve, and never return."""

    def say(outcome: str) -> None:
        with contextlib.suppress(OSError), os.fdopen(report, "w", encoding="utf-8") as pipe:
            pipe.write(outcome)

    code = 1
    try:
        _daemonise(log_path, debug)
        serve(lambda notices: say("\n".join((_STARTED, *notices))))
        code = 0
    except MlhubfsError as error:
        _log.error("%s", error)
        say(str(error))
    except Exception as error:  # noqa: BLE001 - said to who waits, and logged
        _log.exception("the daemon failed")
        say(f"{type(error).__name__}: {error}")
    finally:
        logging.shutdown()
        # Daemon threads may hang in a system call: nothing waits for them.
        os._exit(code)


def _daemonise(log_path: Path, debug: bool) -> None:
    """Leave the terminal, the parent's session and its working directory."""
    os.setsid()
    os.chdir("/")
    os.umask(0o077)  # for the logs to come, and for the cache
    if os.fork():
        os._exit(0)
    handler = logging.handlers.RotatingFileHandler(log_path, maxBytes=_BYTES, backupCount=1)
    log_to(handler, debug=debug)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
