"""One mount: its sources, FUSE, and the socket on which it tells of itself; in a daemon or not.

*Threading.* The main thread, which libfuse's loop takes. The others belong to the rooms.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mlhubfs import daemon, mountpoint, status
from mlhubfs.config import Config
from mlhubfs.content.memory import keep_freed
from mlhubfs.errors import MlhubfsError, TimedOut
from mlhubfs.fuse.binding import choose
from mlhubfs.fuse.operations import Operations
from mlhubfs.served import Served
from mlhubfs.transport.workers import Workers
from mlhubfs.tree.forest import Forest

_log = logging.getLogger("mlhubfs")
_KERNEL_SECONDS = 300.0  # how long the kernel keeps names and attributes, if ttl is not shorter
_LATE_SECONDS = 1.0


def mount(
    sources: Mapping[str, Config],
    where: Path,
    *,
    foreground: bool,
    log_path: Path,
    at_end: Callable[[], None] = lambda: None,
) -> list[str]:
    """Mount each source below a directory of its name in `where`, or one called "" right there.

    Returns what is worth a notice. The first says how the whole is mounted.

    In the foreground it returns when the mount has ended; else a daemon serves it and this returns
    when the mount answers. `at_end` is called by the process that serves, when it ends. Raises
    MountError, and the errors of `open_session`.
    """
    config = next(iter(sources.values()))
    mountpoint.prepare(where)
    choose(config.binding)
    where = where.resolve()
    if foreground:
        _serve(sources, where, lambda _: _log.info("mounted on %s", where), at_end)
        return []

    def serve(started: daemon.Started) -> None:
        _log.info("mounting %s on %s", title(sources), where)
        _serve(sources, where, started, at_end)

    return daemon.start(serve, log_path=log_path, debug=config.debug)


def title(sources: Mapping[str, Config]) -> str:
    """Return what is mounted, as the command line names it."""
    return " ".join(f"{name}={one.source}" if name else one.source for name, one in sources.items())


def _serve(
    sources: Mapping[str, Config],
    where: Path,
    started: daemon.Started,
    at_end: Callable[[], None],
) -> None:
    """Serve the mount until it ends."""
    config = next(iter(sources.values()))
    keep_freed(config.memory)
    binding = choose(config.binding)

    def gives_up() -> bool:
        # One request of the kernel may wait for several answers of the network, one after the
        # other; each has a deadline of its own, and says better what went wrong if it is the first.
        if binding.elapsed() > config.timeout + _LATE_SECONDS:
            raise TimedOut(f"not everything needed came within {config.timeout:g} s")
        return binding.interrupted()

    with (
        mountpoint.held(where, title(sources)),
        contextlib.closing(Workers(interrupted=gives_up)) as workers,
        contextlib.ExitStack() as ending,
        opened(sources, workers, gives_up) as served,
    ):
        notices = tuple(told for one in served.values() for told in one.notices())
        ending.callback(at_end)
        ending.enter_context(status.answering(where, lambda: _report(served, sources, where)))
        operations = Operations(
            served[""].grow() if "" in served else Forest(served),
            started=lambda: started(notices),
            caller=binding.caller,
            later=workers.submit,
            invalidate=binding.invalidate,
        )
        kernel_seconds = min(config.ttl, _KERNEL_SECONDS)
        binding.mount(
            operations,
            where,
            options={
                "fsname": title(sources),
                "allow_other": config.allow_other,
                "entry_timeout": kernel_seconds,
                "attr_timeout": kernel_seconds,
                "negative_timeout": min(config.negative_ttl, _KERNEL_SECONDS),
            },
        )
        _log.info("unmounted from %s", where)


@contextlib.contextmanager
def opened(
    sources: Mapping[str, Config], workers: Workers, interrupted: Callable[[], bool]
) -> Iterator[dict[str, Served]]:
    """Open the sources side by side; what the mount may take of memory is shared out.

    Of several, those whose servers fail may come later, but not all of them.
    """
    with contextlib.ExitStack() as ending:
        served: dict[str, Served] = {}
        for name, one in sources.items():
            share = replace(one, memory=one.memory // len(sources))
            served[name] = Served(name, share, workers, interrupted)
            ending.callback(served[name].close)
        growing = {name: workers.begin(one.grow) for name, one in served.items()}
        for name, grown in growing.items():
            try:
                grown()
            except MlhubfsError as error:
                if not served[name].may_come:
                    raise
                _log.warning("%s", error)
        failures = [one.failure for one in served.values() if one.failure]
        if len(failures) == len(served):
            raise failures[0]
        yield served


def _report(
    served: Mapping[str, Served], sources: Mapping[str, Config], where: Path
) -> status.Report:
    """Return what the daemon tells of itself."""
    sessions = [one.session for one in served.values() if one.session]
    failures = {name: str(one.failure) for name, one in served.items() if one.failure}
    caches = [one.cache for one in sessions if one.cache]
    sizes = [one.index.size() for one in sessions if one.index]
    first = next(iter(sources.values()))
    report = {
        "mountpoint": os.fspath(where),
        "source": title(sources),
        "process": os.getpid(),
        "offline": first.offline,
        "options": status.options(first),
        "requests": sum(one.transport.requests for one in sessions),
        "errors": sum(one.transport.errors for one in sessions),
        "cache_hits": sum(one.hits for one in caches),
        "cache_misses": sum(one.misses for one in caches),
        "index_bytes": sum(sizes) if sizes else None,
        "collections": [
            one | {"id": f"{name}/{one['id']}" if name else one["id"]}
            for name, source in served.items()
            if source.session
            for one in status.collections(source.session.catalog.listings.walks())
        ],
        "problems": [
            *failures.values(),
            *(problem for one in sessions for problem in one.catalog.problems()),
        ],
    }
    if "" not in sources:
        report["sources"] = {
            name: {
                "source": one.source,
                "options": status.options(one),
                "problem": failures.get(name),
            }
            for name, one in sources.items()
        }
    return report
