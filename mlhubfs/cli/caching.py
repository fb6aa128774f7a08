"""The commands about the cache of blocks: cache info, verify, clear, pin."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from mlhubfs import config as settings
from mlhubfs.cli.options import takes_options
from mlhubfs.cli.places import Place, takes_places
from mlhubfs.cli.prefetching import fill, filling, keys_of, measure, takes_jobs
from mlhubfs.cli.table import counted
from mlhubfs.config import Config
from mlhubfs.content.pins import Pin
from mlhubfs.content.stock import Stock, Totals
from mlhubfs.download.copy import remove_copies, size_of_copies
from mlhubfs.errors import CacheFull, MlhubfsError, NotFound
from mlhubfs.session import blocks_folder, copies_folder, open_session
from mlhubfs.tree.root import Tree


@click.group()
def cache() -> None:
    """Look after the blocks on disk, which all mounts share; mounts may go on meanwhile."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@takes_options
def info(texts: tuple[str, ...], *, as_json: bool) -> None:
    """Show where the cache is, how much it holds and may hold, and what is pinned."""
    with _own(texts) as stock:
        report = _report(stock)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    pinned = report["pinned"]
    click.echo(f"folder  {report['folder']}")
    click.echo(f"holds   {counted(report['assets'], 'asset')}, {_size(report['bytes'])}")
    click.echo(
        f"limit   {_size(report['limit'])}, and {_size(report['free'])} of the disk are free"
    )
    click.echo(f"pinned  {counted(pinned['assets'], 'asset')}, {_size(pinned['bytes'])}")
    for one in pinned["paths"]:
        click.echo(f"  {one['path']} of {one['source']}")


@cache.command()
@takes_options
def verify(texts: tuple[str, ...]) -> None:
    """Read every block and compare it with its checksum; remove what is bad, and count it.

    What is removed is fetched again when it is read. Exit code 1 if there was any. The files that a
    daemon leaves behind when it is killed while it writes are counted and removed as well.
    """
    bad = values = 0
    with _own(texts) as stock:
        total = stock.totals().bytes
        with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            for one in stock.verify():
                values += 1
                bad += one.bad
                bar.update(one.bytes)
        strays = stock.remove_strays()
    found = f"bad blocks: {bad:,}; they were removed" if bad else "all sound"
    click.echo(f"{values:,} values, {_size(total)}: {found}")
    if strays:
        click.echo(f"files of a daemon that was killed while it wrote: {_size(strays)} removed")
    sys.exit(1 if bad else 0)


@cache.command()
@takes_places(required=False)
@click.option("--yes", is_flag=True, help="Do not ask before all of it, or of a source, goes.")
def clear(places: list[Place], *, yes: bool) -> None:
    """Remove the blocks of PATHs (all of a source is its `/`), or of everything.

    With all of a source, the tarball that it may be goes too, if it was fetched from a server.
    What is pinned stays, and so do the listings. No server is asked.
    """
    for config, paths in places:
        with _stock(config) as stock:
            _clear(stock, config, paths, yes=yes)


@cache.command()
@takes_places()
@takes_jobs
@click.option("--unpin", is_flag=True, help="Let PATHs be evicted again; they stay for now.")
def pin(places: list[Place], *, jobs: int, unpin: bool) -> None:
    """Bring PATHs into the cache, as prefetch does, and never evict them.

    It is refused where it is more than the cache may hold beside what is pinned already.
    """
    failed = 0
    for config, paths in places:
        for path in paths:
            if unpin:
                _unpin(config, path)
            else:
                failed += _pin(config, path, jobs)
    sys.exit(1 if failed else 0)


def _clear(stock: Stock, config: Config, paths: list[str], *, yes: bool) -> None:
    keys = [""]
    if paths:
        with open_session(replace(config, offline=True)) as session:
            keys = [key for path in paths for key in _keys(session.tree, path)]
    is_all = not paths or "/" in paths
    copies = _copies(config, paths) if is_all else []
    held = stock.totals().bytes + sum(map(size_of_copies, copies))
    what = f"all of {config.source}" if paths else _size(held)
    removed = 0
    if yes or not is_all or click.confirm(f"Remove {what} in {config.cache_dir}?"):
        removed = stock.clear(keys) + sum(map(remove_copies, copies))
        removed += 0 if paths else stock.remove_strays()
    pinned = stock.pinned(keys).bytes
    kept = f"; {_size(pinned)} are pinned, and stay" if pinned else ""
    click.echo(f"{_size(removed)} removed{kept}")


def _copies(config: Config, paths: list[str]) -> list[Path]:
    """Return the folders of the source's tarball, or of all sources' where no path is of one."""
    folder = copies_folder(config)
    return [folder] if paths else list(folder.parent.glob("*"))


def _pin(config: Config, path: str, jobs: int) -> int:
    """Pin one path; return how many of its files could not be had."""
    with filling(config) as session, _stock(config) as stock:
        pin = Pin(config.source, path, tuple(_keys(session.tree, path)))
        measure(session, config, [path], jobs)
        stock.pin(pin)
        try:
            failed = fill(session, config, [path], jobs)
        except CacheFull:  # it has grown since
            stock.unpin(pin.source, pin.path)
            raise
        # A mount that was writing as the pin came did not know of it.
        stock.pin(pin)
    click.echo(f"{path} is pinned")
    return failed


def _unpin(config: Config, path: str) -> None:
    with _stock(config) as stock:
        if not stock.unpin(config.source, path):
            raise NotFound(f"{path} of {config.source} is not pinned: see `mlhubfs cache info`")
    click.echo(f"{path} is no longer pinned")


def _keys(tree: Tree, path: str) -> list[str]:
    keys = keys_of(tree, path)
    if not keys:
        raise MlhubfsError(f"{path} takes nothing from the cache: it is made of the catalog")
    return keys


def _report(stock: Stock) -> dict[str, Any]:
    return {
        "folder": os.fspath(stock.folder),
        **_told(stock.totals()),
        "limit": stock.limit,
        "free": stock.free,
        "pinned": {
            **_told(stock.pinned()),
            "paths": [{"source": one.source, "path": one.path} for one in stock.pins.all()],
        },
    }


def _told(totals: Totals) -> dict[str, int]:
    return {"assets": totals.assets, "bytes": totals.bytes}


def _stock(config: Config) -> Stock:
    return Stock(blocks_folder(config))


def _own(texts: tuple[str, ...]) -> Stock:
    """Return the cache of the user, of whatever sources: no key is looked for."""
    anonymous = {**os.environ, "MLHUB_PROFILE": settings.ANONYMOUS}
    return _stock(settings.load(anonymous, **settings.parse_options(texts)))


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
