"""One collection folder in the archives' layout, and the items in it.

Owns what is read of a collection: its names, listed once and again when the folder changed, and its
JSON, parsed when it is asked for. Does not know URLs, nor that there are other collections.

Three things are less simple than they look:
1. *No item is read to list them.* A collection may hold 590,326, so the folder's name is the id,
   percent-encoded as the mount writes it. Folders that break this rule are found by a look at a few
   items; only then are all of them read, once.
2. *Names are kept in one block of bytes.* As a list of strings they would take twice the memory.
3. *Links are not followed.* A folder or a file that is a symbolic link is not listed, because the
   storage would refuse to serve through it anyway.

*Threading.* All methods may be called from any thread. `_lock` guards the replacing of the listing;
whoever holds an old one may finish with it.
"""

import json
import os
import re
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import unquote

from mlhubfs.errors import BadAnswer
from mlhubfs.server.filters import Bounds, Filter, item_bounds

Json = dict[str, Any]
Log = Callable[[str], None]

COMMON = "_common"
_ENCODED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff/%]|^[@.]")
_CUT_SIZE = 200  # bytes; a shorter name was not cut, so it gives its id back
_PROBES = 5  # items that are looked at to tell whether folders are named after their items


class Names:
    """Sorted file names, in one block (2)."""

    def __init__(self, names: Iterable[str]) -> None:
        ordered = sorted(map(_encode, names))
        self._stops = array("Q", accumulate(map(len, ordered), initial=0))
        self._block = b"".join(ordered)

    def __len__(self) -> int:
        return len(self._stops) - 1

    def __getitem__(self, index: int) -> bytes:
        return self._block[self._stops[index] : self._stops[index + 1]]

    def name(self, index: int) -> str:
        """Return the name at `index`."""
        return self[index].decode("utf-8", "surrogatepass")

    def __contains__(self, name: str) -> bool:
        encoded = _encode(name)
        index = bisect_left(self, encoded)
        return index < len(self) and self[index] == encoded

    def after(self, name: str) -> int:
        """Return the index of the first name that sorts after `name`."""
        return bisect_right(self, _encode(name))


@dataclass(frozen=True)
class Item:
    """An item as it stands on disk: its folder's name and its JSON, which holds an id."""

    folder: str
    document: Json


@dataclass
class _Listing:
    mtime_ns: int
    names: Names
    folders: dict[str, str] = field(default_factory=dict)
    """Where the ids are that do not follow from a folder's name."""
    ids: dict[str, str] = field(default_factory=dict)
    surveyed: bool = False
    bounds: "array[float] | None" = None

    def folders_for(self, item_id: str) -> Iterator[str]:
        """Yield the folders, of those that exist, in which the item may be."""
        # The mount encodes the first letter of ids such as "_common". The id itself comes last, for
        # archives that were not written by a mount: "100%".
        name = folder_name(item_id)
        for folder in (self.folders.get(item_id), name, _percent(name[:1]) + name[1:], item_id):
            if folder and folder in self.names:
                yield folder

    def learn(self, folder: str, item_id: str) -> None:
        if item_id != unquote(folder, errors="surrogatepass"):
            self.folders[item_id] = folder
            self.ids[folder] = item_id


class Collection:
    """The collection in `folder`; `BadAnswer` where its `collection.json` cannot be used."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.folder = folder.resolve()
        self._root = str(self.folder)
        self._log = log
        self._lock = threading.Lock()
        self._listing: _Listing | None = None
        self._reported: set[str] = set()
        self.id = str(self.document()["id"])

    def document(self) -> Json:
        """Return `collection.json`, parsed anew."""
        return read_document(self._root + "/collection.json")

    def count(self, wanted: Filter | None = None) -> int:
        """Return how many items there are, or how many `wanted` admits."""
        listing = self._listed()
        if wanted is None:
            return len(listing.names)
        bounds = self._bounds(listing)
        return sum(wanted.admits(_at(bounds, index)) for index in range(len(listing.names)))

    def items(self, after: str | None = None, wanted: Filter | None = None) -> Iterator[Item]:
        """Yield the items in the order of their folders, from behind the item with id `after`.

        Broken ones are passed over and logged once.
        """
        listing = self._listed()
        bounds = self._bounds(listing) if wanted else None
        start = 0
        if after is not None:
            start = self._position_behind(listing, after)
        for index in range(start, len(listing.names)):
            if wanted and bounds and not wanted.admits(_at(bounds, index)):
                continue
            if item := self._read(listing, listing.names.name(index)):
                yield item

    def find(self, item_id: str) -> Item | None:
        """Return the item with that id, None where there is none or it is broken."""
        listing = self._listed()
        item = self._find(listing, item_id)
        if item is None and not listing.surveyed:
            self._survey(listing)
            item = self._find(listing, item_id)
        return item

    def id_of(self, folder: str) -> str | None:
        """Return the id of the item in `folder`, None where no such folder is listed."""
        listing = self._listed()
        if folder not in listing.names:
            return None
        if not listing.surveyed:
            self._survey(listing)
        return listing.ids.get(folder) or unquote(folder, errors="surrogatepass")

    def common_files(self) -> list[str]:
        """Return the names of the files in `_common`, sorted, junk left out."""
        try:
            with os.scandir(f"{self._root}/{COMMON}") as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if not is_junk(entry.name) and entry.is_file(follow_symlinks=False)
                )
        except OSError:
            return []

    def _listed(self) -> _Listing:
        mtime_ns = self.folder.stat().st_mtime_ns
        with self._lock:
            if self._listing is None or self._listing.mtime_ns != mtime_ns:
                self._listing = self._scan(mtime_ns)
            return self._listing

    def _scan(self, mtime_ns: int) -> _Listing:
        with os.scandir(self._root) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name[0] not in "@." and entry.name != COMMON
                if entry.is_dir(follow_symlinks=False)
            ]
        listing = _Listing(mtime_ns, Names(names))
        for name in names:
            if "~" in name and len(name) >= _CUT_SIZE:
                self._read(listing, name)
        return listing

    def _position_behind(self, listing: _Listing, item_id: str) -> int:
        if not (listing.surveyed or any(listing.folders_for(item_id))):
            self._survey(listing)
        # An item that is gone has left its place: names are sorted.
        return listing.names.after(next(listing.folders_for(item_id), folder_name(item_id)))

    def _find(self, listing: _Listing, item_id: str) -> Item | None:
        for folder in listing.folders_for(item_id):
            item = self._read(listing, folder)
            if item and item.document["id"] == item_id:
                return item
        return None

    def _survey(self, listing: _Listing) -> None:
        count = len(listing.names)
        step = max(1, count // _PROBES)
        probes = [listing.names.name(index) for index in range(0, count, step)]
        for name in probes:
            self._read(listing, name)
        if any(name in listing.ids for name in probes):
            for index in range(count):
                self._read(listing, listing.names.name(index))
        listing.surveyed = True

    def _bounds(self, listing: _Listing) -> "array[float]":
        if listing.bounds is None:
            bounds = array("d")
            for index in range(len(listing.names)):
                item = self._read(listing, listing.names.name(index))
                bounds.extend(item_bounds(item.document if item else {}))
            listing.bounds = bounds
        return listing.bounds

    def _read(self, listing: _Listing, folder: str) -> Item | None:
        path = f"{self._root}/{folder}/stac.json"
        try:
            try:
                document = read_document(path)
            except FileNotFoundError:
                # As MLHub's catalog archives have it.
                document = read_document(f"{self._root}/{folder}/{folder}.json")
        except (OSError, BadAnswer) as error:
            if folder not in self._reported:
                self._reported.add(folder)
                self._log(f"item left out: {path}: {error}")
            return None
        listing.learn(folder, document["id"])
        return Item(folder, document)


def folder_name(item_id: str) -> str:
    """Return the name that the mount gives an item's folder: what a path cannot hold is encoded."""
    return _ENCODED.sub(lambda match: _percent(match[0]), item_id)


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in _encode(text))


def is_junk(name: str) -> bool:
    """Return whether a file manager or an editor left this file behind."""
    return name.startswith(".") or name == "Thumbs.db"


def read_document(path: str) -> Json:
    """Return the JSON object at `path`, which must have an id; else OSError or `BadAnswer`."""
    with open(path, "rb") as file:  # noqa: PTH123 - a Path for each of 590,326 items costs too much
        text = file.read()
    try:
        document = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise BadAnswer("not a JSON object")
    if not isinstance(document.get("id"), str) or not document["id"]:
        raise BadAnswer("has no id")
    return document


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _encode(name: str) -> bytes:
    # Bytes in a name that are no UTF-8 come as lone surrogates, and so may ids: both pass through.
    return name.encode("utf-8", "surrogatepass")


def _at(bounds: "array[float]", index: int) -> Bounds:
    return cast("Bounds", tuple(bounds[index * 6 : index * 6 + 6]))
