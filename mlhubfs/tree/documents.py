"""The documents of the tree: STAC JSON with relative links, as MLHub's archives have it.

Owns what is written into catalog.json, dataset.json, collection.json, stac.json and README.txt.
Pure functions of the catalog's values; the nodes say when they are called.

A document must be the same at every call, or a program that looks at its size first would read it
wrong: nothing of the moment goes in. And nothing secret: asset links become file names, structural
links become relative, and every other string is looked through for download tokens and keys, which
recorded answers hold in odd places (a provider's url, a `previous` link).
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from mlhubfs.catalog.models import Asset, Collection, Dataset, Item
from mlhubfs.errors import BadAnswer

Scrub = Callable[[Any], Any]
FindItem = Callable[[str, str], str]
"""(collection id, item id) -> path of the item's directory from the mount's root."""

_STRUCTURE = frozenset(
    "self root parent collection items item child next prev previous source derived_from".split()
)
_ITEM_URL = re.compile(r"/collections/([^/?#]+)/items/([^/?#]+)/?(?:[?#].*)?$")
_ITEM_PATH = re.compile(r"^\.\./\.\./([^/]+)/([^/]+)/(?:stac|[^/]+)\.json$")


def scrubber(root: str) -> Scrub:
    """Return a function that cuts keys and download tokens out of a JSON value's strings.

    A token is what follows `/download/` under `root` or under MLHub's own route, or anywhere if it
    is as long as MLHub's were (312 characters and more).
    """
    secret = re.compile(
        r"""(?<=[?&]key=)[^&#\s"'<>)]+"""
        r"""|(?<=/download/)[^/?#\s"'<>)]{200,}(?:\?[^\s"'<>)]*)?"""
        r"""|(?<=/mlhub/v1/download/)[^/?#\s"'<>)]+(?:\?[^\s"'<>)]*)?"""
        rf"""|(?<={re.escape(root)}/download/)[^/?#\s"'<>)]+(?:\?[^\s"'<>)]*)?"""
    )

    def scrub(value: Any) -> Any:
        if isinstance(value, str):
            return secret.sub("...", value) if "key=" in value or "/download/" in value else value
        if isinstance(value, list):
            return [scrub(one) for one in value]
        if isinstance(value, dict):
            return {key: scrub(one) for key, one in value.items()}
        return value

    return scrub


def dataset_json(dataset: Dataset, scrub: Scrub) -> bytes:
    """Return the API's dataset object."""
    return _write(read(dataset.document, scrub))


def dataset_catalog(dataset: Dataset, names: Iterable[str], scrub: Scrub) -> bytes:
    """Return a dataset as a STAC Catalog whose children are its collections, called `names`."""
    links = [_link("root", "./catalog.json")]
    links += [_link("child", f"./{name}/collection.json") for name in names]
    return _write(
        {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": dataset.id,
            "title": scrub(dataset.title or dataset.id),
            "description": scrub(dataset.description or dataset.title or dataset.id),
            "links": links,
        }
    )


def collection_json(
    collection: Collection,
    *,
    above: Sequence[str],
    files: Mapping[str, Asset],
    child_names: Iterable[str],
    item_names: Iterable[str],
    scrub: Scrub,
) -> bytes:
    """Return a STAC Collection or Catalog that links to its children and to its items.

    `above` are the names of the JSON files from the root's to its own.
    """
    document = read(collection.document, scrub)
    links = [_link("root", _upward(above, 0))]
    if len(above) > 1:
        links.append(_link("parent", _upward(above, -2)))
    links += [_link("child", f"./{name}") for name in child_names]
    links += [_link("item", f"./{name}/stac.json", "application/geo+json") for name in item_names]
    document["links"] = links + _outward(document)
    if not str(document.get("stac_version", "")).startswith(("0.", "1.0.0-beta")):
        document.setdefault("type", "Collection")  # came with 1.0.0-rc.1; before, it misleads
    _point_to_files(document, files, "./_common/")
    return _write(document)


def item_json(
    item: Item,
    *,
    path: str,
    above: Sequence[str],
    files: Mapping[str, Asset],
    find_item: FindItem,
    scrub: Scrub,
) -> bytes:
    """Return a STAC Item whose directory is at `path`, from the mount's root.

    `above` are the names of the JSON files from the root's to that of the directory above.
    Its `source` links lead to the directories of the imagery, whatever root they named.
    """
    document = read(item.document, scrub)
    levels = (*above, "stac.json")
    links = [_link("root", _upward(levels, 0))]
    if "collection.json" in above:
        nearest = len(above) - 1 - tuple(reversed(above)).index("collection.json")
        links.append(_link("collection", _upward(levels, nearest)))
    links.append(_link("parent", _upward(levels, -2)))
    for link in _links(document):
        if link["rel"] in {"source", "derived_from"}:
            there = _item_of(link.get("href"))
            if there:
                target = posixpath.relpath(find_item(*there), path)
                href = f"{target}/stac.json"
                links.append({**link, "href": href, "type": "application/geo+json"})
    document["links"] = links + _outward(document)
    _point_to_files(document, files, "./")
    return _write(document)


def source_items(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (collection id, item id) of the imagery that an item's `source` links name."""
    links = (link for link in _links(document) if link["rel"] == "source")
    return [there for link in links if (there := _item_of(link.get("href")))]


def readme(root: str, datasets: int, problems: Iterable[str], *, is_static: bool = False) -> bytes:
    """Return what is mounted and how to find one's way, in a screenful."""
    held = f"{datasets} dataset{'s' * (datasets > 1)}"
    if is_static:
        held = "a static catalog: what its documents link to, level by level, by ids"
    elif not datasets:
        held = "collections (this source knows no datasets)"
    levels = [
        "<dataset>/",
        "  catalog.json            the dataset as a STAC Catalog",
        "  dataset.json            citation, DOI, tags, licences",
    ]
    views = [
        "  @where/tags=TAG/                                datasets; text=PHRASE, doi=DOI",
        "  <dataset>/@where/types=labels/                  its collections",
        "  <collection>/@where/PROPERTY=VALUE/bbox=W,S,E,N/datetime=FROM..TO/   its items",
        "  <collection>/@archive.tar.gz                    the whole collection in one file",
    ]
    if is_static:
        levels = ["<catalog>/", "  catalog.json            the STAC Catalog"]
        views = [
            "  <catalog>/@where/tags=KEYWORD/                  collections below; text=PHRASE",
            views[2],
        ]
    lines = [
        "This directory is a catalog of Earth-observation training data, mounted by mlhubfs.",
        "",
        f"Source:  {root}",
        f"Holds:   {held}",
        "",
        *levels,
        "  <collection>/",
        "    collection.json       the STAC Collection",
        "    _common/              files of the collection itself",
        "    <item>/",
        "      stac.json           the STAC Item; its links lead to the files beside it",
        "      <asset>.<ext>       one file an asset: open it where it is",
        "Views, found by name, and listed if mounted with --show-views:",
        *views,
        "  <label item>/@source/                           the imagery it was made from",
        "",
        "Only what is read crosses the network, once; it is kept in a cache on disk.",
        "A path that you know opens at once. Listing a large collection takes its server's time.",
        "To end: mlhubfs umount, or fusermount3 -u, with this directory.",
    ]
    problems = list(problems)
    if problems:
        lines += ["", "Incomplete listings:", *(f"  {problem}" for problem in problems)]
    return "".join(f"{line}\n" for line in lines).encode()


def read(document: bytes, scrub: Scrub) -> Any:
    """Return a JSON document of the server's, scrubbed; raises BadAnswer."""
    try:
        return scrub(msgspec.json.decode(document))
    except RecursionError:
        raise BadAnswer("the server's JSON is nested too deeply to be shown") from None


def _point_to_files(document: dict[str, Any], files: Mapping[str, Asset], prefix: str) -> None:
    names = {asset.key: name for name, asset in files.items()}
    for key, asset in (document.get("assets") or {}).items():
        if key in names:
            asset["href"] = prefix + names[key]


def _outward(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the links that lead out of the catalog: licence, citation, thumbnails."""
    return [
        link
        for link in _links(document)
        if link["rel"] not in _STRUCTURE and "://" in str(link.get("href"))
    ]


def _links(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is usable of a document's links, which may be anything."""
    links = document.get("links")
    return [
        link
        for link in (links if isinstance(links, list) else ())
        if isinstance(link, dict) and isinstance(link.get("rel"), str)
    ]


def _item_of(href: object) -> tuple[str, str] | None:
    if not isinstance(href, str):
        return None
    match = _ITEM_URL.search(href) or _ITEM_PATH.match(href)
    return (unquote(match[1]), unquote(match[2])) if match else None


def _upward(levels: Sequence[str], number: int) -> str:
    """Return the way from the last of the files `levels`, a directory each, to another."""
    steps = len(levels) - 1 - range(len(levels))[number]
    return f"{'../' * steps or './'}{levels[number]}"


def _link(rel: str, href: str, media_type: str = "application/json") -> dict[str, str]:
    return {"rel": rel, "href": href, "type": media_type}


def _write(document: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
