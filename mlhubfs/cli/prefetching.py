"""The command that fills the cache: prefetch."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

import click
from tqdm import tqdm

from mlhubfs.cli.places import Place, takes_places
from mlhubfs.cli.table import counted
from mlhubfs.config import Config
from mlhubfs.content.asset import key_of
from mlhubfs.content.stock import Stock
from mlhubfs.errors import MlhubfsError
from mlhubfs.session import Session, blocks_folder, open_session
from mlhubfs.tree.prefetch import Prefetch, Walk
from mlhubfs.tree.root import Tree

_FLUSH_SECONDS = 60.0
_MEMORY = 64 << 20  # bytes: nobody reads here what has come


def takes_jobs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--jobs`."""
    return click.option(
        "-j", "--jobs", type=click.IntRange(1, 64), default=16, show_default=True,
        help="Most requests at a time.",
    )(command)  # fmt: skip


@click.command()
@takes_places()
@takes_jobs
def prefetch(places: list[Place], *, jobs: int) -> None:
    """Bring the files PATH, and all below the directories PATH, into the cache on disk.

    PATH is inside a mount, or one of a source as `mlhubfs ls` takes it. What is there is not
    fetched again, though the catalog may be asked what there is: after an interruption the same
    command goes on.
    """
    failed = 0
    for config, paths in places:
        with filling(config) as session:
            failed += fill(session, config, paths, jobs)
    sys.exit(1 if failed else 0)


def filling(config: Config) -> AbstractContextManager[Session]:
    """Return a session that keeps on disk what it reads, and little of it in memory."""
    return open_session(replace(config, memory=min(config.memory, _MEMORY)), fills_cache=True)


def fill(session: Session, config: Config, paths: Sequence[str], jobs: int) -> int:
    """Bring paths into the cache, and tell of it; return how many files could not be had.

    Raises CacheFull where they are more than the cache may hold beside what is pinned, and
    MlhubfsError where the disk did not take all.
    """
    if session.cache is None:
        raise MlhubfsError(f"{config.cache_dir} cannot be used: give another, -o cache_dir=DIR")
    walk = Walk(session.tree, paths)
    limit = _room(session, config, paths)
    work = Prefetch(walk, session.network.submit, jobs=jobs, limit=limit)
    try:
        _run(work)
    except KeyboardInterrupt:
        click.echo(f"interrupted: {_summary(work)}; the same command goes on", err=True)
        sys.exit(130)
    finally:
        _tell(work)
    for problem in session.catalog.problems():
        click.echo(f"mlhubfs: the listing is incomplete: {problem}", err=True)
    click.echo(f"{_summary(work)}; {counted(session.transport.requests, 'request')}")
    if not session.cache.flush(_FLUSH_SECONDS) or session.cache.problem:
        raise MlhubfsError(f"not all of it could be kept: {session.cache.problem}")
    return work.failed


def measure(session: Session, config: Config, paths: Sequence[str], jobs: int) -> None:
    """Ask for the sizes of all files at paths; raises CacheFull as `fill` does, but before it.

    The first block of each comes along: of small files, all that `fill` would ask for.
    """
    walk, limit = Walk(session.tree, paths), _room(session, config, paths)
    submit = session.network.submit
    _run(Prefetch(walk, submit, jobs=jobs, limit=limit, asks_sizes_only=True))


def keys_of(tree: Tree, path: str) -> list[str]:
    """Return with what the keys begin of all that the cache holds of a path."""
    return [key_of(one) for one in tree.followed(path).identities()]


def _room(session: Session, config: Config, paths: Sequence[str]) -> int:
    """Return how many bytes of paths the cache may hold beside what is pinned of others."""
    keys = list[str]()
    for path in paths:
        with suppress(MlhubfsError):  # told by who walks there
            keys += keys_of(session.tree, path)
    with Stock(blocks_folder(config)) as stock:
        return config.cache_size - stock.pinned().bytes + stock.pinned(keys).bytes


def _run(work: Prefetch) -> None:
    with tqdm(
        unit="B", unit_scale=True, unit_divisor=1000, leave=False, disable=None, smoothing=0.1
    ) as bar:
        for _ in work.run():
            bar.total = work.total
            bar.set_postfix_str(counted(work.files, "file"), refresh=False)
            bar.update(work.bytes - bar.n)


def _tell(work: Prefetch) -> None:
    for path, error in work.failures:
        click.echo(f"mlhubfs: {path}: {error}", err=True)
    if work.failed > len(work.failures):
        click.echo(f"mlhubfs: {work.failed:,} failed in all", err=True)


def _summary(work: Prefetch) -> str:
    local = _count(work.local_files, work.local_bytes)
    if work.local_files and work.local_files == work.files:
        return f"{local}, local and not copied"
    cached = _count(work.files - work.local_files, work.bytes - work.local_bytes)
    beside = f"; {local}, local and not copied" if work.local_files else ""
    return f"{cached}, in the cache{beside}"


def _count(files: int, size: int) -> str:
    return f"{counted(files, 'file')}, {size / 1e6:,.1f} MB"
