"""What is on disk, in the shape that the API answers with.

Owns the turning of relative hrefs into absolute ones: assets into download links, links between
items and collections into the API's. Every other field stays as it is on disk. Reads nothing but
the folders' listings.

*Threading.* One `Presenter` a request; what it is given may be shared.
"""

import mimetypes
import posixpath
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from mlhubfs.server.collection import COMMON, Collection, Item, Json
from mlhubfs.server.holdings import Holdings
from mlhubfs.server.tokens import Tokens

_ABSOLUTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//")
_STRUCTURE = {
    "self",
    "root",
    "parent",
    "collection",
    "items",
    "item",
    "child",
    "next",
    "prev",
    "data",
}
_JSON_TYPE = "application/json"
GEOJSON_TYPE = "application/geo+json"


def link(rel: str, href: str, media_type: str = _JSON_TYPE) -> Json:
    """Return a STAC link."""
    return {"rel": rel, "type": media_type, "href": href}


def is_relative(thing: object) -> bool:
    """Return whether `thing` is a link or an asset with a relative href."""
    href = thing.get("href") if isinstance(thing, dict) else None
    return isinstance(href, str) and not _ABSOLUTE.match(href)


class Presenter:
    """Presents collections and items to one caller, who reaches the API at `root`."""

    def __init__(self, holdings: Holdings, tokens: Tokens, root: str) -> None:
        self._holdings = holdings
        self._tokens = tokens
        self.root = root

    def url(self, *segments: str) -> str:
        """Return the API's URL with `segments`, each one percent-encoded."""
        encoded = (quote(each, safe="", errors="surrogatepass") for each in segments)
        return "/".join((self.root, *encoded))

    def collection(self, collection: Collection) -> Json:
        """Return the API's collection object, with what is in `_common` among its assets."""
        document = collection.document()
        here = self.url("collections", collection.id)
        document["links"] = [
            link("self", here),
            link("root", self.root),
            link("parent", self.root),
            link("items", here + "/items", GEOJSON_TYPE),
            *self._other_links(document, collection, ""),
        ]
        assets = with_common(collection, document.get("assets"))
        document["assets"] = self._assets(collection, "", assets)
        return document

    def item(self, collection: Collection, item: Item) -> Json:
        """Return the API's item object, with new download links."""
        document = dict(item.document)
        home = self.url("collections", collection.id)
        document.setdefault("collection", collection.id)
        document["links"] = [
            link(
                "self",
                f"{home}/items/{quote(document['id'], '', errors='surrogatepass')}",
                GEOJSON_TYPE,
            ),
            link("collection", home),
            link("parent", home),
            link("root", self.root),
            *self._other_links(document, collection, item.folder),
        ]
        document["assets"] = self._assets(collection, item.folder, document.get("assets"))
        return document

    def _assets(self, collection: Collection, folder: str, assets: object) -> Json:
        if not isinstance(assets, dict):
            return {}
        return {
            key: {**asset, "href": self._download(collection, folder, asset["href"])}
            if is_relative(asset)
            else asset
            for key, asset in assets.items()
        }

    def _download(self, collection: Collection, folder: str, href: str) -> str:
        return f"{self.root}/download/{self._tokens.issue(collection.id, folder, href)}"

    def _other_links(self, document: Json, collection: Collection, folder: str) -> list[Json]:
        links = document.get("links")
        return [
            {**each, "href": self._follow(collection, folder, each["href"])}
            if is_relative(each)
            else each
            for each in (links if isinstance(links, list) else [])
            if isinstance(each, dict) and each.get("rel") not in _STRUCTURE
        ]

    def _follow(self, collection: Collection, folder: str, href: str) -> str:
        """Return the URL of what a relative link points to: an item, a collection, or a file."""
        item = item_path(collection, folder, href)
        if item:
            target, name = self._collection_at(item[0]), None
            if target:
                name = target.id_of(item[1]) or target.id_of(unquote(item[1]))
            # A dead link stays dead: it names what would have been there.
            return self.url(
                "collections",
                target.id if target else unquote(item[0]),
                "items",
                name or unquote(item[1]),
            )
        parts = posixpath.normpath(posixpath.join(collection.folder.name, folder, href)).split("/")
        if parts[-1] == "collection.json" and len(parts) > 1:
            target = self._collection_at(parts[-2])
            return self.url("collections", target.id if target else unquote(parts[-2]))
        return self._download(collection, folder, href)

    def _collection_at(self, name: str) -> Collection | None:
        return self._holdings.in_folder(name) or self._holdings.in_folder(unquote(name))


def item_path(collection: Collection, folder: str, href: str) -> tuple[str, str] | None:
    """Return the collection's and the item's folder that a relative link leads to, if it does."""
    parts = posixpath.normpath(posixpath.join(collection.folder.name, folder, href)).split("/")
    if len(parts) < 3 or parts[-1] not in {"stac.json", f"{parts[-2]}.json"}:
        return None
    return parts[-3], parts[-2]


def with_common(collection: Collection, assets: object) -> Json:
    """Return a collection's `assets`, and each file in `_common` that none of them names."""
    found = dict(assets) if isinstance(assets, dict) else {}
    named = {
        posixpath.normpath(unquote(each["href"])) for each in found.values() if is_relative(each)
    }
    for name in collection.common_files():
        path = f"{COMMON}/{name}"
        if path not in named:
            asset: Json = {"href": quote(path, errors="surrogatepass")}
            media_type = mimetypes.guess_type(name)[0]
            if media_type:
                asset["type"] = media_type
            found[_free_key(name, found)] = asset
    return found


def file_of(folder: str, href: str, exists: Callable[[str], bool]) -> str | None:
    """Return the path of an asset in its collection's folder, None if that is outside of it.

    An href is a URI, yet archives were written with plain file names in it: what exists counts.
    """
    candidates = [
        posixpath.normpath(posixpath.join(folder, each)) for each in (href, unquote(href))
    ]
    inside = [
        each for each in candidates if each not in {".", ".."} and not each.startswith(("/", "../"))
    ]
    return next((each for each in inside if exists(each)), inside[0] if inside else None)


def _free_key(name: str, taken: Json) -> str:
    stem = PurePosixPath(name).stem
    candidates = (stem, name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
    return next(key for key in candidates if key not in taken)
