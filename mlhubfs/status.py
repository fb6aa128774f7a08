"""What a running daemon tells of itself, and asking it.

Owns the socket beside the daemon's state file, on which whoever connects gets one JSON object; and
what is said of a collection. The mount itself is not asked: a file in it would have to go through
the kernel, whose caches do not know that it changes.

A socket's name may have 107 bytes, a home more: it is bound and found through the descriptor of its
folder. The folder is the user's own, so nobody else can connect.

*Threading.* One thread answers.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mlhubfs import mountpoint
from mlhubfs.catalog.index_walk import Walk
from mlhubfs.config import Config
from mlhubfs.errors import MountError

Report = dict[str, Any]
_OPTIONS = (
    "cache_size", "memory", "ttl", "content_ttl", "negative_ttl",
    "timeout", "connect_timeout", "read_timeout", "page_size", "sign", "allow_private",
)  # fmt: skip
_SECONDS = 10.0  # a daemon that does not answer by then hangs
_LOOK_SECONDS = 2.0  # for who looks at all mounts


def collections(walks: Iterable[Walk], now: float | None = None) -> list[Report]:
    """Return what is known of each collection; of one that is walked anew, what serves.

    `age` is in seconds since it was last found to be what the server has.
    """
    now = time.time() if now is None else now
    found: dict[str, Report] = {}
    for walk in walks:
        if walk.state == "serving" or (walk.state == "walking" and walk.collection not in found):
            found[walk.collection] = {
                "id": walk.collection,
                "items": walk.count,
                "counted": walk.matched,
                "complete": walk.state == "serving" and not walk.problem,
                "problem": walk.problem,
                "age": round(max(0.0, now - walk.touched), 1),
            }
    return list(found.values())


def options(config: Config) -> Report:
    """Return the settings that a command needs to work on what a mount keeps."""
    return {name: getattr(config, name) for name in _OPTIONS} | {"cache_dir": str(config.cache_dir)}


@contextlib.contextmanager
def answering(where: Path, report: Callable[[], Report]) -> Iterator[None]:
    """Answer with what `report` returns, while the mount on `where` lives."""
    path = mountpoint.socket_path(where)
    path.unlink(missing_ok=True)  # of a daemon that was killed
    listening = socket.socket(socket.AF_UNIX)
    with _short(path) as name:
        listening.bind(name)
    path.chmod(0o600)
    listening.listen()
    thread = threading.Thread(target=_answer, args=(listening, report), name="status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        thread.join(_SECONDS)
        listening.close()
        path.unlink(missing_ok=True)


def ask(where: Path, *, seconds: float = _SECONDS) -> Report:
    """Return what the daemon that serves `where` tells; raises MountError."""
    path = mountpoint.socket_path(where)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(seconds)
        try:
            with _short(path) as name:
                asking.connect(name)
            with asking.makefile("rb") as answer:
                report: Report = json.load(answer)
        except FileNotFoundError:
            raise MountError(f"no mlhubfs of yours serves {where}") from None
        except ConnectionRefusedError:
            raise MountError(
                f"the daemon of {where} has ended: clear it with {mountpoint.remedy(where)}"
            ) from None
        except (OSError, ValueError) as error:
            raise MountError(
                f"the daemon of {where} does not answer ({error}): wait, "
                f"or end it with {mountpoint.remedy(where, lazy=True)} and `kill -9`"
            ) from None
    return report


def mounts(where: Path | None = None) -> Iterator[Report]:
    """Yield what the daemon of `where` tells, else all daemons; `problem` says why one does not.

    `where` is a mount point or inside of one. Raises MountError for it.
    """
    if where is not None:
        yield {**ask(_mountpoint_of(where), seconds=_LOOK_SECONDS), "problem": None}
        return
    for one in mountpoint.daemons():
        try:
            yield {**ask(one.where, seconds=_LOOK_SECONDS), "problem": None}
        except MountError as error:
            problem = str(error)
            if one.is_running and not mountpoint.socket_path(one.where).exists():
                problem = "it has not mounted yet, or is ending"
            yield {
                "mountpoint": os.fspath(one.where),
                "source": one.source,
                "process": one.process if one.is_running else None,
                "problem": problem,
            }


def _mountpoint_of(where: Path) -> Path:
    """Return the mount point that `where` is in; one itself is not looked at, for it may hang."""
    place = None if mountpoint.socket_path(where).exists() else mountpoint.place_of(where)
    return Path(place[0].path) if place else where


def _answer(listening: socket.socket, report: Callable[[], Report]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_SECONDS)
            connection.sendall(json.dumps(report()).encode())


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
