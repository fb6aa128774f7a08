"""The commands about what is kept on disk: index, status."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from mlhubfs import config as settings
from mlhubfs import status as statuses
from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.index import Index
from mlhubfs.catalog.listing import Listing
from mlhubfs.cli.options import load, mountpoint_of, takes_options, word
from mlhubfs.cli.table import counted
from mlhubfs.errors import IndexUnusable, MlhubfsError
from mlhubfs.session import open_session

_STEP = 100  # items between two looks at the bar


@click.command()
@click.argument("source", type=word, metavar="SOURCE")
@click.argument("collections", nargs=-1, type=word, metavar="[COLLECTION]...")
@takes_options
def index(source: str, collections: tuple[str, ...], texts: tuple[str, ...]) -> None:
    """Walk COLLECTIONs of SOURCE, by default all of them, and keep their names and JSON on disk.

    A mount of SOURCE lists them from there. It may be interrupted: the next time it goes on, and so
    does a mount.
    """
    with open_session(load(source, texts)) as session:
        if session.index is None:
            raise MlhubfsError("there is no index to walk into: see the warning, or -o cache_dir=")
        failed = 0
        for collection_id in collections or _all_collections(session.catalog):
            try:
                click.echo(_walk(session.catalog, collection_id))
            except MlhubfsError as error:
                failed += 1
                click.echo(f"mlhubfs: {collection_id}: {error}", err=True)
        click.echo(f"{session.index.path}: {_bytes(session.index.size())}")
    sys.exit(1 if failed else 0)


@click.command()
@click.argument("where", required=False, type=mountpoint_of, metavar="[MOUNTPOINT]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(where: Path | None, *, as_json: bool) -> None:
    """Show what the daemon of MOUNTPOINT has and did; without one, all mounts and what is on disk.

    A path inside of a mount will do.
    Collections: known items, complete or not, and how long ago that was last found to be so.
    """
    folder = settings.load({**os.environ, "MLHUB_PROFILE": settings.ANONYMOUS}).cache_dir
    report: dict[str, Any] = {"mounts": list(statuses.mounts(where))}
    if where is None:
        report["indexes"] = list(_indexes(folder / "index"))
        report["cache"] = {"folder": os.fspath(folder), "bytes": _folder_bytes(folder / "blocks")}
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for one in report["mounts"]:
        _show_mount(one)
    for one in report.get("indexes", ()):
        click.echo(f"{one['source']}: {_bytes(one['bytes'])} in {one['path']}")
        _show_collections(one["collections"])
    if where is None:
        click.echo(f"cache of blocks: {_bytes(report['cache']['bytes'])} in {folder}")


def _all_collections(catalog: Catalog) -> list[str]:
    named = [one for dataset in catalog.datasets().values() for one in dataset.collection_ids]
    return list(dict.fromkeys([*named, *catalog.loose_collections()]))


def _walk(catalog: Catalog, collection_id: str) -> str:
    catalog.collection(collection_id)  # it is needed offline too, and says whether there is one
    was_complete = catalog.listings.has(collection_id)
    if was_complete:
        catalog.listings.refresh(collection_id)
    listing = catalog.listing(collection_id)
    with tqdm(
        total=listing.matched, initial=len(listing), desc=collection_id, unit=" items", leave=False
    ) as bar:
        known = int(bar.n)
        for number, _ in enumerate(listing.iterate(known), known + 1):
            bar.total = listing.matched
            if number % _STEP == 0:
                bar.update(number - bar.n)
        bar.update(len(listing) - bar.n)
        bar.refresh()
    return _summary(listing)


def _summary(listing: Listing) -> str:
    items = counted(len(listing), "item")
    if listing.problem:
        return f"{listing.name}: {items}, incomplete: {listing.problem}"
    where = "; in memory only, the index cannot be written" if listing.in_memory else ""
    return f"{listing.name}: {items}, complete{where}"


def _indexes(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.sqlite")):
        try:
            index = Index(path, root="", strip=bytes)
        except IndexUnusable as error:
            click.echo(f"mlhubfs: {error}", err=True)
            continue
        with contextlib.closing(index):
            yield {
                "path": os.fspath(path),
                "source": index.root,
                "bytes": index.size(),
                "collections": statuses.collections(index.walks()),
            }


def _show_mount(report: dict[str, Any]) -> None:
    if report["problem"]:
        click.echo(f"{report['mountpoint']}: {report['source']}: {report['problem']}")
        return
    offline = ", offline" if report["offline"] else ""
    click.echo(f"{report['mountpoint']}: {report['source']}, process {report['process']}{offline}")
    click.echo(f"  requests {report['requests']:,}, failed {report['errors']:,}")
    hits, misses = report["cache_hits"], report["cache_misses"]
    click.echo(f"  blocks from the cache on disk {hits:,}, not there {misses:,}")
    for one in report.get("sources", {}).values():
        if one["problem"]:
            click.echo(f"  not there: {one['problem']}")
    _show_collections(report["collections"])


def _show_collections(collections: list[dict[str, Any]]) -> None:
    for one in collections:
        some = "" if one["counted"] is None else f"{one['items']:,} of "
        items = counted(one["items"] if one["counted"] is None else one["counted"], "item")
        why = one["problem"] or "not walked to its end"
        state = "complete" if one["complete"] else f"incomplete: {why}"
        click.echo(f"  {one['id']}: {some}{items}, {_age(one['age'])} ago, {state}")


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
