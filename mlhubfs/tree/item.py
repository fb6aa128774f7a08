"""An item's directory, and the files of assets, in an item or in a collection's `_common`.

Owns when a size is asked for. The item's JSON is the directory: a name that it does not hold is
refused without a request, and reading the directory asks storage for nothing.
"""

import posixpath
import threading
import time
from collections.abc import Callable, Hashable
from functools import partial

from mlhubfs.catalog.models import Asset, Item
from mlhubfs.content.asset import AssetRef, Location
from mlhubfs.content.blocks import EXTENT
from mlhubfs.content.checksum import parse_checksum
from mlhubfs.content.content import Content
from mlhubfs.content.plan import Plan
from mlhubfs.errors import NotFound
from mlhubfs.transport.local import is_local
from mlhubfs.tree import documents
from mlhubfs.tree.hrefs import Hrefs
from mlhubfs.tree.names import asset_names
from mlhubfs.tree.nodes import (
    Attributes,
    Bytes,
    Children,
    Directory,
    Document,
    Entry,
    File,
    Node,
    directory_attributes,
    numbered,
)
from mlhubfs.tree.source import SOURCE, SourceDirectory, find_sources
from mlhubfs.tree.surroundings import Above, Surroundings

_STAC = "stac.json"
_RESERVED = frozenset({_STAC})
_LISTED_SECONDS = 60.0  # a program that lists a directory to stat its names does so by then


class ItemDirectory(Directory):
    """The item `item_id` at `path`, absolute from the mount's root, in the directory of `above`."""

    def __init__(
        self, around: Surroundings, path: str, collection_id: str, item_id: str, *, above: Above
    ) -> None:
        self._above = above
        self._around = around
        self._path = path
        self._collection_id = collection_id
        self._item_id = item_id
        self._of: Item | None = None
        self._files: dict[str, Asset] = {}
        self._siblings = _Siblings(around.content)

    @property
    def ids(self) -> tuple[str, str]:
        """The ids of its collection and of the item."""
        return self._collection_id, self._item_id

    def attributes(self) -> Attributes:
        """Return the item's datetime; no request for an item that a listing has just named."""
        modified = self._around.catalog.listed(self._collection_id, self._item_id)
        return directory_attributes(self._item().modified if modified is None else modified)

    def children(self) -> Children:
        """Return stac.json and the assets, with the sizes that are known by now."""
        item = self._item()
        entries = [Entry(_STAC, is_directory=False)]
        for name in self._names(item):
            file = self._asset_file(item, name)
            entries.append(Entry(name, is_directory=False, attributes=file.known_attributes()))
        if self._around.show_views and find_sources(item, self._around.scrub):
            entries.append(Entry(SOURCE, is_directory=True))
        self._siblings.listed()
        return numbered(entries)

    def child(self, name: str) -> Node:
        """Return stac.json or an asset's file."""
        item = self._item()
        if name == _STAC:
            return Document(self._render, item.modified)
        if name == SOURCE and find_sources(item, self._around.scrub):
            return SourceDirectory(self._around, posixpath.join(self._path, SOURCE), self._item)
        return self._asset_file(item, name)

    def identities(self) -> list[tuple[str, ...]]:
        """Return that of the item."""
        return [(self._around.catalog.root, self._collection_id, self._item_id)]

    def _item(self) -> Item:
        return self._around.catalog.item(self._collection_id, self._item_id)

    def _names(self, item: Item) -> dict[str, Asset]:
        if item is not self._of:
            self._files, self._of = item_files(item, self._around.hrefs), item
        return self._files

    def _asset_file(self, item: Item, name: str) -> "AssetFile":
        names = self._names(item)
        if name not in names:
            raise NotFound(f"{self._path} has no {name!r}")
        asset = names[name]
        return AssetFile(
            self._around.content,
            self._ref(asset),
            size=asset.size,
            modified=item.modified,
            looked_at=lambda program: self._looked_at(names, asset.key, program),
            opened=lambda program: self._opened(names, asset.key, program),
        )

    def _looked_at(self, names: dict[str, Asset], key: str, program: Hashable) -> None:
        """Start what comes with the question for an asset's size."""
        self._siblings.probe([self._ref(asset) for asset in names.values() if asset.size is None])
        if self._around.guesses:
            self._guess(self._around.guesses.looked_at, names, key, program)

    def _opened(self, names: dict[str, Asset], key: str, program: Hashable) -> None:
        """Start the files that the program will open next, if it does as in the item before."""
        self._siblings.opened()
        if self._around.guesses:
            self._guess(self._around.guesses.opened, names, key, program)

    def _guess(
        self, ask: Callable[..., set[str]], names: dict[str, Asset], key: str, program: Hashable
    ) -> None:
        assets = {asset.key: asset for asset in names.values()}
        for guess in ask(program, self._collection_id, self._item_id, key, among=assets):
            if (assets[guess].size or 0) <= EXTENT:
                self._around.content.fetch_ahead(self._ref(assets[guess]))

    def _ref(self, asset: Asset) -> AssetRef:
        catalog = self._around.catalog

        def locate(after: float) -> Location:
            if after:
                item = catalog.renewed_item(self._collection_id, self._item_id, after)
            else:
                item = self._item()
            found = _find(item, asset.key)
            if found and found.is_cut:
                item = catalog.renewed_item(self._collection_id, self._item_id, item.fetched)
                found = _find(item, asset.key)
            if found is None:
                raise NotFound(f"{self._path} no longer has the asset {asset.key!r}")
            return located(found, item.fetched, self._around.hrefs)

        identity = (catalog.root, self._collection_id, self._item_id, asset.key)
        return to_ref(identity, locate, asset)

    def _render(self) -> bytes:
        item = self._item()
        dataset = posixpath.dirname(posixpath.dirname(self._path))
        return documents.item_json(
            item,
            path=self._path,
            above=self._above,
            files=self._names(item),
            find_item=partial(self._around.item_path, beside=dataset),
            scrub=self._around.scrub,
        )


class AssetFile(File):
    """The bytes of one asset.

    `size` is the catalog's own word for it, else None: then storage is asked. `modified` is the
    time of a file whose storage tells none. `looked_at` and `opened` are told which program asks
    for a size that is not known, and opens.
    """

    def __init__(
        self,
        content: Content,
        asset: AssetRef,
        *,
        size: int | None,
        modified: float,
        looked_at: Callable[[Hashable], None] = lambda _: None,
        opened: Callable[[Hashable], None] = lambda _: None,
    ) -> None:
        self._content = content
        self._asset = asset
        self._size = size
        self._modified = modified
        self._looked_at = looked_at
        self._opened = opened

    @property
    def asset(self) -> AssetRef:
        """What content and downloads know it as."""
        return self._asset

    @property
    def told_size(self) -> int | None:
        """The catalog's own word for its size."""
        return self._size

    def attributes(self, program: Hashable = None) -> Attributes:
        """Return size and time, with a request if neither catalog nor cache knows them."""
        known = self.known_attributes()
        if known:
            return known
        self._looked_at(program)
        return self._from_storage()

    def known_attributes(self) -> Attributes | None:
        """Return size and time if they are at hand."""
        if self._content.known_version(self._asset):
            return self._from_storage()
        if self._size is not None:
            return Attributes(is_directory=False, size=self._size, modified=self._modified)
        return None

    def open(self, program: Hashable = None) -> Bytes:
        """Return the bytes of the present version."""
        self._opened(program)
        return self._content.open(self._asset)

    def identities(self) -> list[tuple[str, ...]]:
        """Return the asset's."""
        return [self._asset.identity]

    def plan(self) -> Plan:
        """Return what has to be done to have the file on disk; asks for its version."""
        return self._content.open(self._asset).plan()

    def _from_storage(self) -> Attributes:
        version = self._content.version(self._asset)
        # Where the catalog told the size, the time was told too: it must not change afterwards.
        told = version.modified is None or version.size == self._size
        return Attributes(
            is_directory=False,
            size=version.size,
            modified=self._modified if told else version.modified or 0.0,
        )


class _Siblings:
    """Guesses whether a program that stats one asset will stat them all.

    `ls -l`, `cp -r`, file managers list the directory and then stat every name: there the probes
    are made side by side, a round trip instead of thirteen. GDAL opens one file and lists the
    directory afterwards, for side-cars: it must not pay for the other twelve.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._lock = threading.Lock()
        self._listed = 0.0
        self._has_opened = False

    def listed(self) -> None:
        with self._lock:
            self._listed = time.monotonic()

    def opened(self) -> None:
        with self._lock:
            self._has_opened = True

    def probe(self, assets: list[AssetRef]) -> None:
        with self._lock:
            listed = time.monotonic() - self._listed < _LISTED_SECONDS and self._listed > 0
            go = listed and not self._has_opened
            if go:
                self._listed = 0.0
        if go:
            for asset in assets:
                self._content.probe_ahead(asset)


def item_files(item: Item, hrefs: Hrefs) -> dict[str, Asset]:
    """Return file name -> asset for the assets of an item that can be read here."""
    return file_names(item.assets, _RESERVED, hrefs)


def file_names(
    assets: tuple[Asset, ...], reserved: frozenset[str], hrefs: Hrefs
) -> dict[str, Asset]:
    """Return file name -> asset for the assets that can be opened here."""
    return asset_names(hrefs.files(assets), reserved)


def located(asset: Asset, fetched: float, hrefs: Hrefs) -> Location:
    """Return where an asset is, by each href that can be opened."""
    here, *others = hrefs.of(asset) or [asset.href]
    return Location(here, fetched, tuple(others))


def _find(item: Item, key: str) -> Asset | None:
    return next((one for one in item.assets if one.key == key), None)


def to_ref(
    identity: tuple[str, ...], locate: Callable[[float], Location], asset: Asset
) -> AssetRef:
    """Return what content knows an asset as, by what the catalog says of it."""
    return AssetRef(
        identity,
        locate,
        is_html=is_html(asset),
        is_local=is_local(asset.href),
        checksum=parse_checksum(asset.checksum),
    )


def is_html(asset: Asset) -> bool:
    """Say whether the asset is meant to be a web page."""
    return "html" in (asset.media_type or "") or asset.key.endswith((".html", ".htm"))
