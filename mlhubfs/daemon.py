"""A process that goes on when its command has returned.

A daemon is forked before there is any thread, session or cache: none of them survives a fork. It
reports through a socket, so that the command returns when what it serves is there, or says why not;
where the command ends before (Ctrl-C), so does the daemon.

*Threading.* None before the forks, on purpose; then one that notices the end of the command.
"""

import contextlib
import logging
import logging.handlers
import os
import signal
import socket
import threading
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
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        here.close()
        _run(serve, log_path, debug, there)
    there.close()
    os.waitpid(child, 0)
    with here, here.makefile(encoding="utf-8") as report:
        outcome = report.read()
    first, *notices = outcome.split("\n")
    if first != _STARTED:
        raise MountError(outcome or f"the daemon ended before it mounted: see {log_path}")
    return notices


def _run(
    serve: Callable[[Started], None], log_path: Path, debug: bool, command: socket.socket
) -> NoReturn:
    """Become a daemon, serve, and never return."""
    is_told = threading.Event()

    def say(outcome: str) -> None:
        is_told.set()
        with contextlib.suppress(OSError):
            command.sendall(outcome.encode())
            command.shutdown(socket.SHUT_WR)  # closing would not tell: the watching thread has it

    code = 1
    try:
        _daemonise(log_path, debug)
        watch = threading.Thread(target=_end_with, args=(command, is_told), daemon=True)
        watch.start()
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


def _end_with(command: socket.socket, is_told: threading.Event) -> None:
    """End this process when the command ends that waits for its word."""
    with contextlib.suppress(OSError):
        command.recv(1)  # nothing comes but the end
    if not is_told.is_set():
        _log.warning("who called for it has gone: it ends")
        # What hangs in a request dies of it; libfuse, if it has just mounted, unmounts.
        os.kill(os.getpid(), signal.SIGTERM)


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
