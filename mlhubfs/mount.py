"""The composition root: builds the objects of one mount, runs FUSE, takes them down.

Owns the order of things. A daemon is forked before there is any thread, session or cache (none of
them survives a fork); it reports through a pipe when the kernel has answered, so that the command
returns when the mount is there, or says why it is not.

*Threading.* The main thread, which libfuse's loop takes. The others belong to the rooms.
"""

import contextlib
import logging
import logging.handlers
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlhubfs import mountpoint, status
from mlhubfs.catalog.api import Api
from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.index import Index, path_of
from mlhubfs.catalog.index_documents import stripper
from mlhubfs.catalog.pager import FIRST
from mlhubfs.config import MLHUB_ROOT, Config
from mlhubfs.content.cache import DiskCache
from mlhubfs.content.content import Content
from mlhubfs.errors import (
    BadAnswer,
    Denied,
    IndexUnusable,
    MlhubfsError,
    MountError,
    NotFound,
    TimedOut,
    Unavailable,
)
from mlhubfs.fuse.binding import choose
from mlhubfs.fuse.operations import Operations
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers
from mlhubfs.tree.documents import scrubber
from mlhubfs.tree.root import Tree
from mlhubfs.tree.surroundings import Surroundings

_log = logging.getLogger("mlhubfs")
_DISK_THREADS = 4  # a disk has no round trips to hide; more would only queue up inside it
_KERNEL_SECONDS = 300.0  # how long the kernel keeps names and attributes, if ttl is not shorter
_LOG_BYTES = 10 << 20
_LATE_SECONDS = 1.0
_CHECK_SECONDS = 10.0  # a server that is slow to tell whether it takes the key holds up no mount
_MOUNTED = "mounted"
_REPEAT_SECONDS = 60.0
_LINES = 1000  # remembered, so that they are not repeated


@dataclass(frozen=True)
class Session:
    """What serves one source: the tree, and the workers that wait for it."""

    tree: Tree
    catalog: Catalog
    network: Workers
    transport: Transport
    cache: DiskCache | None
    index: Index | None
    notices: tuple[str, ...]
    """What is not as it should be, and does not keep it from working."""


@contextlib.contextmanager
def session(
    config: Config, *, interrupted: Callable[[], bool] = lambda: False
) -> Iterator[Session]:
    """Build the objects that serve `config.source`, checked to answer; take them down at the end.

    Raises the errors of the transport where the source does not answer or refuses the key.
    """
    network = Workers(interrupted=interrupted)
    disk = Workers(limit=_DISK_THREADS, interrupted=interrupted)
    transport = Transport(
        root_url=config.source,
        api_key=config.api_key,
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        timeout=config.timeout,
        is_offline=config.offline,
    )
    cache = _open_cache(config)
    index = _open_index(config)
    try:
        source = Api(transport, config.source, page_size=min(FIRST, config.page_size))
        catalog = Catalog(
            source,
            network,
            ttl=config.ttl,
            negative_ttl=config.negative_ttl,
            index=index,
            page_size=config.page_size,
            patience=config.timeout,
            is_offline=config.offline,
        )
        content = Content(
            transport,
            cache,
            network=network,
            disk=disk,
            ttl=math.inf if config.offline else config.content_ttl,
            negative_ttl=config.negative_ttl,
            timeout=config.timeout,
            budget=config.memory,
        )
        notices = [_check(source, catalog, config)]
        if cache is None:
            notices.append(f"{config.cache_dir} cannot be used: nothing is kept between mounts")
        tree = Tree(Surroundings(catalog, content, scrubber(config.source)))
        if index is None:
            notices.append(f"{config.cache_dir} has no room for listings: they are not kept")
        else:
            network.submit(partial(_sweep, index))
        told = tuple(one for one in notices if one)
        yield Session(tree, catalog, network, transport, cache, index, told)
    finally:
        network.close()
        disk.close()
        transport.close()
        if cache:
            cache.close()
        if index:
            index.close()


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
    MountError, and the errors of `session`.
    """
    mountpoint.prepare(where)
    choose(config.binding)
    where = where.resolve()
    if foreground:
        _serve(config, where, lambda _: _log.info("mounted on %s", where), at_end)
        return []
    _make_log(log_path)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_daemon(config, where, log_path, writer, at_end)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, encoding="utf-8") as report:
        outcome = report.read()
    first, *notices = outcome.split("\n")
    if first != _MOUNTED:
        raise MountError(outcome or f"the daemon ended before it mounted: see {log_path}")
    return notices


def log_to(handler: logging.Handler, config: Config) -> None:
    """Let the log of all rooms go to `handler`."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_Once())
    logging.logThreads = False  # naming libfuse's threads would make a Thread object of each
    log = logging.getLogger("mlhubfs")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if config.debug else logging.INFO)
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


def _serve(
    config: Config,
    where: Path,
    started: Callable[[tuple[str, ...]], None],
    at_end: Callable[[], None],
) -> None:
    """Serve the mount until it ends."""
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
        session(config, interrupted=gives_up) as served,
    ):
        ending.callback(at_end)
        ending.enter_context(status.answering(where, lambda: _report(served, config, where)))
        operations = Operations(
            served.tree,
            started=lambda: started(served.notices),
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


def _run_daemon(
    config: Config, where: Path, log_path: Path, report: int, at_end: Callable[[], None]
) -> None:
    """Become a daemon, serve, and never return."""

    def say(outcome: str) -> None:
        with contextlib.suppress(OSError), os.fdopen(report, "w", encoding="utf-8") as pipe:
            pipe.write(outcome)

    code = 1
    try:
        _daemonise(log_path, config)
        _log.info("mounting %s on %s", config.source, where)
        _serve(config, where, lambda notices: say("\n".join((_MOUNTED, *notices))), at_end)
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


def _make_log(path: Path) -> None:
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


def _daemonise(log_path: Path, config: Config) -> None:
    """Leave the terminal, the parent's session and its working directory."""
    os.setsid()
    os.chdir("/")
    os.umask(0o077)  # for the logs to come, and for the cache
    if os.fork():
        os._exit(0)
    log_to(
        logging.handlers.RotatingFileHandler(log_path, maxBytes=_LOG_BYTES, backupCount=1), config
    )
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _open_cache(config: Config) -> DiskCache | None:
    folder = config.cache_dir / "blocks"
    try:
        return DiskCache(folder, config.cache_size)
    except OSError as error:
        _log.warning("no cache on disk, %s cannot be used: %s", folder, error)
        return None


def _open_index(config: Config) -> Index | None:
    path = path_of(config.cache_dir / "index", config.source)
    try:
        return Index(path, root=config.source, strip=stripper(config.source))
    except IndexUnusable as error:
        _log.warning("no listings on disk: %s", error)
        return None


def _sweep(index: Index) -> None:
    with contextlib.suppress(IndexUnusable):
        index.sweep(stop=lambda: index.is_closed)


def _report(served: Session, config: Config, where: Path) -> status.Report:
    """Return what the daemon tells of itself."""
    cache, index = served.cache, served.index
    return {
        "mountpoint": os.fspath(where),
        "source": config.source,
        "process": os.getpid(),
        "offline": config.offline,
        "requests": served.transport.requests,
        "errors": served.transport.errors,
        "cache_hits": cache.hits if cache else 0,
        "cache_misses": cache.misses if cache else 0,
        "index_bytes": index.size() if index else None,
        "collections": status.collections(served.catalog.listings.walks()),
        "problems": served.catalog.problems(),
    }


def _check(source: Api, catalog: Catalog, config: Config) -> str | None:
    """Ask the source for what it holds, so that a wrong root or key is told at once.

    Returns what works less than one might expect.
    """
    try:
        datasets = catalog.datasets()
        first = next((ref for one in datasets.values() for ref in one.collection_ids), None)
        first = first or next(iter(catalog.loose_collections()), None)
    except Unavailable as error:
        if config.offline or config.source != MLHUB_ROOT:
            raise
        raise Unavailable(
            f"{error}. MLHub's own service was switched off: give the SOURCE of another one, or "
            "serve archives with `mlhubfs serve`; `mlhubfs demo` shows a sample"
        ) from None
    except (NotFound, BadAnswer) as error:
        raise type(error)(
            f"{error}: is {config.source} the root of an API? MLHub's end in /mlhub/v1"
        ) from None
    if first is None or config.offline:
        return None
    try:
        source.check_key(first, deadline=time.monotonic() + _CHECK_SECONDS)
    except Denied as error:
        if config.api_key:
            raise
        return f"only what is public can be read: {error}"
    except MlhubfsError as error:
        _log.warning("%s", error)
    return None
