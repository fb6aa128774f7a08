"""The composition root: builds the objects of one mount, runs FUSE, takes them down.

Owns the order of things. A daemon is forked before there is any thread, session or cache (none of
them survives a fork); it reports through a pipe when the kernel has answered, so that the command
returns when the mount is there, or says why it is not.

*Threading.* The main thread, which libfuse's loop takes. The others belong to the rooms.
"""

import contextlib
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlhubfs import mountpoint
from mlhubfs.catalog.api import Api
from mlhubfs.catalog.catalog import Catalog
from mlhubfs.config import Config
from mlhubfs.content.cache import DiskCache
from mlhubfs.content.content import Content
from mlhubfs.errors import Denied, MlhubfsError, MountError
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


@dataclass(frozen=True)
class Session:
    """What serves one source: the tree, and the workers that wait for it."""

    tree: Tree
    catalog: Catalog
    network: Workers


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
    )
    cache = _open_cache(config)
    try:
        source = Api(transport, config.source, page_size=config.page_size)
        catalog = Catalog(source, network, ttl=config.ttl, negative_ttl=config.negative_ttl)
        content = Content(
            transport,
            cache,
            network=network,
            disk=disk,
            ttl=config.content_ttl,
            negative_ttl=config.negative_ttl,
            timeout=config.timeout,
        )
        _check(source, catalog, has_key=config.api_key is not None)
        tree = Tree(Surroundings(catalog, content, scrubber(config.source)))
        yield Session(tree, catalog, network)
    finally:
        network.close()
        disk.close()
        transport.close()
        if cache:
            cache.close()


def mount(
    config: Config,
    where: Path,
    *,
    foreground: bool,
    log_path: Path,
    at_end: Callable[[], None] = lambda: None,
) -> None:
    """Mount `config.source` on the directory `where`.

    In the foreground it returns when the mount has ended; else a daemon serves it and this returns
    when the mount answers. `at_end` is called by the process that serves, when it ends. Raises
    MountError, and the errors of `session`.
    """
    mountpoint.prepare(where)
    choose(config.binding)
    where = where.resolve()
    if foreground:
        _serve(config, where, lambda: _log.info("mounted on %s", where), at_end)
        return
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
    if outcome != "mounted":
        raise MountError(outcome or f"the daemon ended before it mounted: see {log_path}")


def log_to(handler: logging.Handler, config: Config) -> None:
    """Let the log of all rooms go to `handler`."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.logThreads = False  # naming libfuse's threads would make a Thread object of each
    log = logging.getLogger("mlhubfs")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if config.debug else logging.INFO)
    log.propagate = False


def _serve(
    config: Config, where: Path, started: Callable[[], None], at_end: Callable[[], None]
) -> None:
    """Serve the mount until it ends."""
    binding = choose(config.binding)
    with (
        mountpoint.held(where, config.source),
        contextlib.ExitStack() as ending,
        session(config, interrupted=binding.interrupted) as served,
    ):
        ending.callback(at_end)
        operations = Operations(
            served.tree,
            started=started,
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
        _serve(config, where, lambda: say("mounted"), at_end)
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
    sys.stdout.flush()
    sys.stderr.flush()
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


def _check(source: Api, catalog: Catalog, *, has_key: bool) -> None:
    """Ask the source for what it holds, so that a wrong root or key is told at once."""
    datasets = catalog.datasets()
    first = next((ref for one in datasets.values() for ref in one.collection_ids), None)
    if not datasets:
        first = next(iter(catalog.loose_collections()), None)
    if has_key and first is not None:
        try:
            source.check_key(first)
        except Denied as error:
            raise Denied(
                f"{error}: set MLHUB_API_KEY, or write a profile with `mlhubfs configure`"
            ) from None
