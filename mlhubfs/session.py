"""The composition root: builds the objects that serve one source, and takes them down.

Owns the order of things, and the first question to the source: a wrong root or key is told before
anything else is tried. Knows neither FUSE nor the command line.

*Threading.* Whoever opens a session may use it from any thread, and closes it.
"""

import contextlib
import logging
import math
import posixpath
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from mlhubfs.catalog.api import Api
from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.index import Index, path_of
from mlhubfs.catalog.index_documents import stripper
from mlhubfs.catalog.opening import open_source
from mlhubfs.catalog.static import StaticCatalog
from mlhubfs.catalog.stored import Stored
from mlhubfs.config import MLHUB_ROOT, Config
from mlhubfs.content.asset import key_of
from mlhubfs.content.cache import DiskCache
from mlhubfs.content.content import Content
from mlhubfs.download.copy import Copies
from mlhubfs.download.downloader import Downloader
from mlhubfs.errors import (
    BadAnswer,
    Denied,
    IndexUnusable,
    MlhubfsError,
    NotFound,
    Unavailable,
)
from mlhubfs.transport.client import Transport
from mlhubfs.transport.local import Files, Folder, is_local
from mlhubfs.transport.signers import signer_of
from mlhubfs.transport.tarball import Tarball, is_tarball, open_files
from mlhubfs.transport.workers import Workers
from mlhubfs.tree.documents import scrubber
from mlhubfs.tree.guesses import Guesses
from mlhubfs.tree.hrefs import Hrefs
from mlhubfs.tree.root import Tree
from mlhubfs.tree.surroundings import Surroundings

_log = logging.getLogger("mlhubfs")
_FETCHERS = 16  # documents of a static catalog at once; more do not make Python any faster
_DISK_THREADS = 4  # a disk has no round trips to hide; more would only queue up inside it
_CHECK_SECONDS = 10.0  # a server that is slow to tell whether it takes the key holds up no mount


@dataclass(frozen=True)
class Session:
    """What serves one source: the tree, and the workers that wait for it."""

    tree: Tree
    around: Surroundings
    """What the nodes of the tree are given."""
    catalog: Catalog
    network: Workers
    transport: Transport
    downloader: Downloader
    """For files one here, one there: together they have the connections of one download."""
    cache: DiskCache | None
    index: Index | None
    notices: tuple[str, ...]
    """What is not as it should be, and does not keep it from working."""


@contextlib.contextmanager
def open_session(
    config: Config, *, interrupted: Callable[[], bool] = lambda: False, fills_cache: bool = False
) -> Iterator[Session]:
    """Build the objects that serve `config.source`, checked to answer; take them down at the end.

    With `fills_cache`, readers wait for a slow disk: what is read is to be kept. Raises the errors
    of the transport where the source does not answer or refuses the key.
    """
    with contextlib.ExitStack() as ending:
        files = _open_files(config)
        if files:
            ending.callback(files.close)
        root = files.root if files else config.source
        failing = ending.enter_context(contextlib.ExitStack())
        was_known = _index_path(config).exists()
        index = _open_index(config)
        if index:
            ending.callback(index.close)
            if not was_known:
                failing.callback(index.remove)  # of a source that is none, or was never there
        cache = _open_cache(config, is_patient=fills_cache)
        if cache:
            ending.callback(cache.close)
        transport = _make_transport(config, files)
        ending.callback(transport.close)
        fetchers = Workers(limit=_FETCHERS)
        disk = Workers(limit=_DISK_THREADS, interrupted=interrupted)
        network = Workers(interrupted=interrupted)
        for workers in (fetchers, disk, network):
            ending.callback(workers.close)
        with _explained(config):
            source = open_source(
                transport,
                root,
                Stored(index),
                fetchers=fetchers,
                page_size=config.page_size,
                ttl=config.ttl,
            )
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
            ttl=math.inf if config.offline or config.immutable else config.content_ttl,
            negative_ttl=config.negative_ttl,
            timeout=config.timeout,
            budget=config.memory,
        )
        notices = [_check(source, catalog, config)]
        failing.pop_all()
        if cache is None:
            notices.append(f"{config.cache_dir} cannot be used: nothing is kept between mounts")
        around = Surroundings(
            catalog,
            content,
            scrubber(config.source),
            show_views=config.show_views,
            guesses=Guesses() if config.guess else None,
            hrefs=Hrefs(allows_files=files is not None, account=config.azure_account),
        )
        if index is None:
            notices.append(f"{config.cache_dir} has no room for listings: they are not kept")
        else:
            network.submit(partial(_sweep, index))
        told = tuple(one for one in notices if one)
        downloader = Downloader(transport, network)
        yield Session(
            Tree(around), around, catalog, network, transport, downloader, cache, index, told
        )


def blocks_folder(config: Config) -> Path:
    """Return where the blocks are kept."""
    return config.cache_dir / "blocks"


def copies_folder(config: Config) -> Path:
    """Return where a tarball is kept that the source is; those of other sources are beside it."""
    return config.cache_dir / "tarballs" / key_of((config.source,))


def _open_files(config: Config) -> Folder | Tarball | None:
    """Return the files of a local catalog, or of a tarball, which is fetched from where it is."""
    if is_local(config.source):
        return open_files(config.source)
    if not is_tarball(config.source):
        return None
    folder = copies_folder(config)
    transport, workers = _make_transport(config), Workers()
    with contextlib.closing(transport), contextlib.closing(workers):
        path = Copies(transport, workers, config.source, folder).present()
    return Tarball(path, name=folder / posixpath.basename(urlsplit(config.source).path))


def _make_transport(config: Config, files: Files | None = None) -> Transport:
    return Transport(
        root_url=config.source,
        api_key=config.api_key,
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        timeout=config.timeout,
        is_offline=config.offline,
        files=files,
        allow_private=config.allow_private,
        signer=signer_of(config.sign, config.source),
        permissions=config.permissions,
    )


def _open_cache(config: Config, *, is_patient: bool) -> DiskCache | None:
    folder = blocks_folder(config)
    try:
        return DiskCache(folder, config.cache_size, is_patient=is_patient)
    except OSError as error:
        _log.warning("no cache on disk, %s cannot be used: %s", folder, error)
        return None


def _index_path(config: Config) -> Path:
    return path_of(config.cache_dir / "index", config.source)


def _open_index(config: Config) -> Index | None:
    try:
        return Index(_index_path(config), root=config.source, strip=stripper(config.source))
    except IndexUnusable as error:
        _log.warning("no listings on disk: %s", error)
        return None


def _sweep(index: Index) -> None:
    with contextlib.suppress(IndexUnusable):
        index.sweep(stop=lambda: index.is_closed)


def _check(source: Api | StaticCatalog, catalog: Catalog, config: Config) -> str | None:
    """Ask the source for what it holds, so that a wrong root or key is told at once.

    Returns what works less than one might expect.
    """
    with _explained(config):
        if isinstance(source, StaticCatalog):
            catalog.collection(source.top)
            return None
        datasets = catalog.datasets()
        first = next((ref for one in datasets.values() for ref in one.collection_ids), None)
        first = first or catalog.any_collection_id()
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


@contextlib.contextmanager
def _explained(config: Config) -> Iterator[None]:
    """Add to an error what may be wrong with the source that was given."""
    try:
        yield
    except Unavailable as error:
        if config.offline or config.source != MLHUB_ROOT:
            raise
        raise Unavailable(
            f"{error}. MLHub's own service was switched off: give the SOURCE of another one, or "
            "serve archives with `mlhubfs serve`; `mlhubfs demo` shows a sample"
        ) from None
    except (NotFound, BadAnswer) as error:
        if is_local(config.source):
            raise
        raise type(error)(
            f"{error}: is {config.source} the root of an API (MLHub's end in /mlhub/v1)? "
            "Of a static catalog, give its catalog.json"
        ) from None
