"""The commands that look into a catalog: datasets, collections, items, show.

They print what the Python API tells: a table for people, with `--json` JSON for programs.
"""

import contextlib
import logging
import posixpath
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec

from mlhubfs import mountpoint
from mlhubfs.cli.options import load, takes_options, takes_source, word
from mlhubfs.cli.places import mounted
from mlhubfs.cli.table import plain, sheet, table, width, written
from mlhubfs.config import Config
from mlhubfs.errors import ConfigError, MountError, NotFound
from mlhubfs.library import Asset, Band, Catalog, Collection, Dataset, Item
from mlhubfs.log import log_to
from mlhubfs.mountpoint import Mount

_MOST = 10**9  # items that one may ask for
_LONG = frozenset({"datetime", "eo:bands", "label:classes"})
Thing = Dataset | Collection | Item | Asset


def _looks_into_catalog(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the source, as a Catalog, and `--json`; for a `name`, the thing it names.

    A path inside a mount is looked up at the source of that mount.
    """

    @click.option("--json", "as_json", is_flag=True, help="For programs.")
    @takes_source
    @takes_options
    @wraps(command)
    def run(*, source: str | None, texts: tuple[str, ...], **more: Any) -> None:
        name = more.pop("name", None)
        inside = mountpoint.place_of(Path(name)) if name and not source else None
        config, path = _inside(*inside, texts) if inside else (load(source, texts), None)
        if config.debug:
            log_to(logging.StreamHandler(), debug=True)
        with Catalog.of(config) as catalog:
            if name is not None:
                more["thing"] = _find(catalog, name, path)
            command(catalog, **more)

    return run


def _inside(mount: Mount, path: str, texts: tuple[str, ...]) -> tuple[Config, str]:
    """Return the source that is mounted, and the path in it."""
    try:
        return mounted(mount, path, texts)
    except MountError:  # another user's daemon: a lone source is in the table of mounts too
        with contextlib.suppress(ConfigError):
            return load(mount.source, texts), path
        raise


def _find(catalog: Catalog, name: str, path: str | None) -> Thing:
    """Return what `name` names: at `path` if it is a path inside a mount, else to `Catalog.find`.

    Whoever is inside a mount may name an id all the same.
    """
    if path is None:
        return catalog.find(name)
    try:
        return catalog.at(path)
    except NotFound:
        with contextlib.suppress(NotFound):
            return catalog.find(name)
        raise


@click.command()
@click.option("--tag", "tags", multiple=True, help="Only with this tag, exactly; all of several.")
@click.option("--text", multiple=True, help="Only with this phrase; all of several.")
@_looks_into_catalog
def datasets(
    catalog: Catalog, *, tags: tuple[str, ...], text: tuple[str, ...], as_json: bool
) -> None:
    """List the datasets of a source."""
    found = catalog.datasets(tags, text)
    if as_json:
        _print_json([one.document for one in found])
        return
    rows = [(one.id, one.title or "", one.doi or "", ", ".join(one.tags)) for one in found]
    _print_lines(table(("ID", "TITLE", "DOI", "TAGS"), rows, width()))


@click.command()
@click.option("--match", default="", help="Only with this word, in any of what is shown.")
@_looks_into_catalog
def collections(catalog: Catalog, *, match: str, as_json: bool) -> None:
    """List the collections of a source: id, title, description, licence, citation, extensions."""
    found = catalog.collections(match)
    if as_json:
        _print_json([one.document for one in found])
        return
    for one in found:
        _print_lines([*sheet(_of_collection(one), width()), ""])


@click.command()
@click.argument("name", type=word, metavar="COLLECTION")
@click.option(
    "--where",
    multiple=True,
    help="Only where this holds, as in `labels=Rice fields|Pastures`; all of several.",
)
@click.option(
    "--bbox", type=word, metavar="W,S,E,N", help="Only what touches this box, in degrees."
)
@click.option("--datetime", type=word, metavar="FROM..TO", help="Only of this time, day, or range.")
@click.option("--limit", type=click.IntRange(0, _MOST), metavar="N", help="At most so many.")
@_looks_into_catalog
def items(
    catalog: Catalog,
    *,
    thing: Thing,
    where: tuple[str, ...],
    bbox: str | None,
    datetime: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List items of COLLECTION, an id or a path, with their time, as they are found.

    With --json, each is a line of JSON.
    """
    if isinstance(thing, Dataset):  # which may share its id with a collection
        with contextlib.suppress(NotFound):
            thing = catalog.collection(thing.id)
    if not isinstance(thing, Collection):
        raise NotFound(f"{thing.path} is no collection")
    given = {"bbox": bbox, "datetime": datetime}
    conditions = [*where, *(f"{key}={value}" for key, value in given.items() if value)]
    for item in thing.items(conditions, limit=limit):
        if as_json:
            click.echo(msgspec.json.encode(item.document))
        else:
            click.echo(f"{plain(item.id)}  {written(item.datetime)}")


@click.command()
@click.argument("name", type=word, metavar="ID|DOI|PATH")
@_looks_into_catalog
def show(catalog: Catalog, *, thing: Thing, as_json: bool) -> None:
    """Tell of a dataset, collection, item or asset.

    ID is a dataset's or a collection's; PATH one inside a mount, or inside the source, where it
    has a slash.
    """
    if as_json:
        told = _of_asset(catalog, thing) if isinstance(thing, Asset) else {}
        _print_json(thing.document | told)
        return
    _print_lines(sheet(_told(catalog, thing), width()))
    _print_lines(_parts(thing))


def _told(catalog: Catalog, thing: Thing) -> dict[str, Any]:
    """Return name -> value of what is worth telling; an empty value is not told."""
    match thing:
        case Dataset():
            return {
                "dataset": thing.id,
                "title": thing.title,
                "doi": thing.doi,
                "citation": thing.citation,
                "licences": thing.licences,
                "tags": thing.tags,
                "status": thing.status,
                "registry": thing.registry,
                "documentation": thing.documentation_link,
                "added": thing.date_added,
                "modified": thing.date_modified,
                "description": thing.description,
                "path": thing.path,
            }
        case Collection():
            return _of_collection(thing) | {"path": thing.path}
        case Item():
            shown: dict[str, Any] = {"item": thing.id, "collection": thing.collection_id}
            shown |= {"datetime": thing.datetime, "bbox": thing.bbox, "path": thing.path}
            return shown | {
                name: value for name, value in thing.properties.items() if name not in _LONG
            }
        case Asset():
            return _of_asset(catalog, thing)


def _of_collection(one: Collection) -> dict[str, Any]:
    return {
        "collection": one.id,
        "title": one.title,
        "types": one.types,
        "license": one.license,
        "citation": one.citation,
        "extensions": one.extensions,
        "keywords": one.keywords,
        "description": one.description,
    }


def _of_asset(catalog: Catalog, one: Asset) -> dict[str, Any]:
    told: dict[str, Any] = {
        "asset": one.key,
        "title": one.title,
        "type": one.media_type,
        "roles": one.roles,
        "bands": [_band(band) for band in one.bands],
        "size": one.size,
        "path": one.path,
    }
    above = catalog.at(posixpath.dirname(one.path or ""))
    if isinstance(above, Item):
        told |= {"item": above.id, "datetime": above.datetime}
        told |= {"platform": above.properties.get("platform")}
    return told


def _parts(thing: Thing) -> list[str]:
    """Return a table of what is in a thing, below an empty line; nothing for an asset."""
    if isinstance(thing, Dataset):
        heads = ("COLLECTION", "TYPES", "TITLE")
        rows = [(one.id, ", ".join(one.types), one.title or "") for one in thing.collections]
    elif isinstance(thing, Asset) or not thing.assets:
        return []
    else:
        heads = ("ASSET", "BANDS", "TYPE")
        rows = [
            (one.key, ", ".join(map(_band, one.bands)), one.media_type or "")
            for one in thing.assets.values()
        ]
    return ["", *table(heads, rows, width())]


def _band(band: Band) -> str:
    name = band.name or "?"
    return f"{name} ({band.common_name})" if band.common_name else name


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
