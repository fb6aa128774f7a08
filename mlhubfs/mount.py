"""One mount: a session, FUSE, and the socket on which it tells of itself; in a daemon or not.

*Threading.* The main thread, which libfuse's loop takes. The others belong to the rooms.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from mlhubfs import daemon, mountpoint, status
from mlhubfs.config import Config
from mlhubfs.content.memory import keep_freed
from mlhubfs.errors import TimedOut
from mlhubfs.fuse.binding import choose
from mlhubfs.fuse.operations import Operations
from mlhubfs.session import Session, open_session

_log = logging.getLogger("mlhubfs")
_KERNEL_SECONDS = 300.0  # how long the kernel keeps names and attributes, if ttl is not shorter
_LATE_SECONDS = 1.0


def mount(
    config: Config,
    where: Path,
    *,
    foreground: bool,
    log_path: Path,
    at_end: Callable[[], None] = lambda: None,
) -> list[str]:
    """Mount `config.source` on the directory `where`; return what is worth a notice.

    In the foreground it returns when the mount has ended; else a daemon serves it and this returns
    when the mount answers. `at_end` is called by the process that serves, when it ends. Raises
    MountError, and the errors of `open_session`.
    """
    mountpoint.prepare(where)
    choose(config.binding)
    where = where.resolve()
    if foreground:
        _serve(config, where, lambda _: _log.info("mounted on %s", where), at_end)
        return []

    def serve(started: daemon.Started) -> None:
        _log.info("mounting %s on %s", config.source, where)
        _serve(config, where, started, at_end)

    return daemon.start(serve, log_path=log_path, debug=config.debug)


def _serve(
    config: Config,
    where: Path,
    started: daemon.Started,
    at_end: Callable[[], None],
) -> None:
    """Serve the mount until it ends."""
    keep_freed(config.memory)
    binding = choose(config.binding)

    def gives_up() -> bool:
        # One request of the kernel may wait for several answers of the network, one after the
        # other; each has a deadline of its own, and says better what went wrong if it is the first.
        if binding.elapsed() > config.timeout + _LATE_SECONDS:
            raise TimedOut(f"not everything needed came within {config.timeout:g} s")
        return binding.interrupted()

    with (
        mountpoint.held(where, config.source),
        contextlib.ExitStack() as ending,
        open_session(config, interrupted=gives_up) as served,
    ):
        ending.callback(at_end)
        ending.enter_context(status.answering(where, lambda: _report(served, config, where)))
        operations = Operations(
            served.tree,
            started=lambda: started(served.notices),
            caller=binding.caller,
            later=served.network.submit,
            invalidate=binding.invalidate,
        )
        kernel_seconds = min(config.ttl, _KERNEL_SECONDS)
        binding.mount(
            operations,
            where,
            options={
                "fsname": config.source,
                "allow_other": config.allow_other,
                "entry_timeout": kernel_seconds,
                "attr_timeout": kernel_seconds,
                "negative_timeout": min(config.negative_ttl, _KERNEL_SECONDS),
            },
        )
        _log.info("unmounted from %s", where)


def _report(served: Session, config: Config, where: Path) -> status.Report:
    """Return what the daemon tells of itself."""
    cache, index = served.cache, served.index
    return {
        "mountpoint": os.fspath(where),
        "source": config.source,
        "process": os.getpid(),
        "offline": config.offline,
        "options": status.options(config),
        "requests": served.transport.requests,
        "errors": served.transport.errors,
        "cache_hits": cache.hits if cache else 0,
        "cache_misses": cache.misses if cache else 0,
        "index_bytes": index.size() if index else None,
        "collections": status.collections(served.catalog.listings.walks()),
        "problems": served.catalog.problems(),
    }
