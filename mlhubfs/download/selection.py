"""Assets instead of archives: which, and where they go.

Owns the choice among the files of a dataset, and the layout, which is that of MLHub's archives and
of the mount: `{dataset}/{collection}/{item}/{asset}.{ext}`. Files that belong to all items go to
`{collection}/_common/`, once. The catalog's JSON beside them names and links what is there, or on
its way: what a later download brings, its JSON adds. So that of a collection comes after its items.

*Threading.* One thread takes the files; the tree that they come from may be shared.
"""

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.models import Collection, Item
from mlhubfs.catalog.where import Where
from mlhubfs.download.archives import archived_collections
from mlhubfs.download.downloader import Wanted
from mlhubfs.errors import MlhubfsError, NotFound
from mlhubfs.tree.collection import CollectionDirectory, json_name
from mlhubfs.tree.dataset import DatasetDirectory
from mlhubfs.tree.item import AssetFile, ItemDirectory
from mlhubfs.tree.names import encode
from mlhubfs.tree.nodes import Directory, Document, Node, Symlink
from mlhubfs.tree.root import Root, Tree, target_of

SHARED_KEYS = frozenset("documentation readme test_split train_split validation_split".split())
"""Keys of assets that are one file for all items of a collection, by MLHub's convention."""
_COMMON = "_common"
_STAC = "stac.json"
_INWARD = frozenset("root parent collection child item".split())


@dataclass(frozen=True)
class Selection:
    """Which assets are wanted; by default all."""

    collections: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Collection id -> asset keys, none of them for all; no collection for all of them."""
    where: Where = field(default_factory=Where)
    """What the items must fulfil."""
    catalog_only: bool = False
    """Whether no asset is wanted, but the JSON alone."""

    def has_asset(self, collection_id: str, key: str) -> bool:
        """Say whether a collection's assets with a key are wanted."""
        keys = self.collections.get(collection_id)
        return not self.catalog_only and (not keys or key in keys)


class Text(NamedTuple):
    """A document of the catalog, to be written to a file."""

    target: Path
    content: bytes


class Missing(NamedTuple):
    """An item whose files cannot be told."""

    target: Path
    error: MlhubfsError


Found = Wanted | Text | Missing


class Selector:
    """Finds the files of `selection` below a path of `tree`, for the same path below `folder`."""

    def __init__(self, tree: Tree, catalog: Catalog, selection: Selection, folder: Path) -> None:
        self._tree = tree
        self._catalog = catalog
        self._selection = selection
        self._folder = folder
        self._shared: set[Path] = set()
        self._keys: dict[str, set[str]] = {}
        self._matched: set[Path] = set()
        self._coming: set[Path] = set()
        """The JSON of levels that are being searched, and is written after what is below."""

    def files(self, path: str) -> Iterator[Found]:
        """Yield what is wanted of the dataset, collection, item or file at an absolute path.

        Raises what the catalog raises where it cannot be listed; for one item that is `Missing`.
        """
        node = self._tree.node(path)
        if isinstance(node, Symlink):  # of a view: the files go where they always stand
            yield from self.files(target_of(path, node))
        elif isinstance(node, AssetFile | Document):
            yield from self._file(path, node)
        elif isinstance(node, Root):
            yield from self._source(node)
        elif isinstance(node, DatasetDirectory):
            self._raise_if_unknown(path, self._collection_ids(node))
            yield from self._dataset(path)
        elif isinstance(node, CollectionDirectory):
            if self._selection.collections:
                known = {one.collection_id for _, one in self._below(path, node)}
                self._raise_if_unknown(path, known)
            yield from self._chosen(self._below(path, node))
        elif isinstance(node, ItemDirectory):
            if self._has_item(path, node):
                yield from self._item(path, node.ids[0])
        else:
            yield from self._whole(path)

    def unknown_assets(self) -> list[str]:
        """Say of each selected asset that nothing of its collection had, so far, what there was.

        A collection of which no item was found tells nothing.
        """
        return [
            f"{collection_id} has no asset {key!r}, but {', '.join(sorted(met))}"
            for collection_id, met in self._keys.items()
            for key in sorted(self._selection.collections.get(collection_id, frozenset()) - met)
        ]

    def _source(self, root: Root) -> Iterator[Found]:
        """Yield what is wanted of all datasets, and of the collections without one."""
        nodes = {f"/{one.name}": root.child(one.name) for one in root.children()(0)}
        known = {path: self._collection_ids(node) for path, node in nodes.items()}
        self._raise_if_unknown("/", set().union(*known.values()))
        wanted = self._selection.collections
        for path, node in nodes.items():
            if isinstance(node, DatasetDirectory):
                if not wanted or known[path] & wanted.keys():
                    yield from self._dataset(path)
            elif isinstance(node, CollectionDirectory):
                yield from self._chosen(self._below(path, node))

    def _collection_ids(self, node: Node) -> set[str]:
        return set(archived_collections(self._catalog, node))

    def _dataset(self, path: str) -> Iterator[Found]:
        directories: dict[str, CollectionDirectory] = {}
        for entry in self._tree.directory(path).children()(0):
            below = f"{path}/{entry.name}"
            node = self._tree.node(below)
            if isinstance(node, CollectionDirectory):
                directories[below] = node
        text = self._text(f"{path}/catalog.json")
        self._coming.add(text.target)
        yield from self._chosen(directories.items())
        catalog = self._linked(text)
        if self._is_without_match(catalog):
            self._coming.discard(text.target)
            return
        yield self._text(f"{path}/dataset.json")
        yield _text(text.target, catalog)

    def _below(
        self, path: str, node: CollectionDirectory
    ) -> Iterator[tuple[str, CollectionDirectory]]:
        """Yield a collection or catalog, and all that are below it, with their paths."""
        yield path, node
        for child_id in self._catalog.children(node.collection_id):
            there = posixpath.join(path, encode(child_id, node.reserved))
            child = self._tree.node(there)
            if isinstance(child, CollectionDirectory):
                yield from self._below(there, child)

    def _chosen(self, directories: Iterable[tuple[str, CollectionDirectory]]) -> Iterator[Found]:
        wanted = self._selection.collections
        levels: list[_Level] = []
        for below, node in directories:
            if not wanted or node.collection_id in wanted:
                collection = self._catalog.collection(node.collection_id)
                level = _Level(node, collection, self._target(below) / json_name(collection))
                levels.append(level)
                self._coming.add(level.target)
                yield from self._collection(below, level)
        for level in reversed(levels):  # what is below comes first
            yield from self._described(level)

    def _raise_if_unknown(self, path: str, known: set[str]) -> None:
        for unknown in sorted(self._selection.collections.keys() - known):
            raise NotFound(f"{path} has no collection {unknown!r}, but {', '.join(sorted(known))}")

    def _collection(self, path: str, level: "_Level") -> Iterator[Found]:
        """Yield what is wanted of a collection but its JSON."""
        collection_id, where = level.node.collection_id, self._selection.where
        items: Iterator[Item] = iter(())
        if level.collection.has_items:
            items = self._catalog.search(collection_id, where)
        first = next(items, None)
        if level.collection.assets and (first or not where.conditions):
            yield from self._common(posixpath.join(path, _COMMON), collection_id)
        for item in chain([first] if first else [], items):
            below = posixpath.join(path, encode(item.id, level.node.reserved))
            try:
                yield from self._item(below, collection_id)
                self._matched.add(level.target)
            except MlhubfsError as error:
                yield Missing(self._target(below), error)

    def _described(self, level: "_Level") -> Iterator[Found]:
        """Yield a collection's JSON, with links to what is there by now."""
        document = self._linked(Text(level.target, level.node.describe()))
        folder = level.target.parent
        names = sorted(one.parent.name for one in folder.glob(f"*/{_STAC}"))
        document["links"] += [
            {"rel": "item", "href": f"./{name}/{_STAC}", "type": "application/geo+json"}
            for name in names
        ]
        if level.target not in self._matched and self._is_without_match(document):
            self._coming.discard(level.target)
            return
        self._keep_assets(document, folder, level.node.collection_id)
        yield _text(level.target, document)

    def _is_without_match(self, document: dict[str, Any]) -> bool:
        """Say whether a level stays away because none of its items fulfils the conditions."""
        has_any = any(link["rel"] in {"child", "item"} for link in document["links"])
        return bool(self._selection.where.conditions) and not has_any

    def _linked(self, text: Text) -> dict[str, Any]:
        """Return a document of the catalog, without links to JSON that is not there."""
        document: dict[str, Any] = msgspec.json.decode(text.content)
        document["links"] = [
            link
            for link in document["links"]
            if link["rel"] not in _INWARD or self._is_there(text.target.parent, link["href"])
        ]
        return document

    def _keep_assets(self, document: dict[str, Any], folder: Path, collection_id: str) -> None:
        """Drop the assets that are neither wanted nor there."""
        assets = document.get("assets") or {}
        for key, asset in list(assets.items()):
            # The catalog alone describes all of it: a later download brings the files.
            is_wanted = self._selection.catalog_only or self._selection.has_asset(
                collection_id, key
            )
            href = asset.get("href") if isinstance(asset, dict) else None
            if not is_wanted and not self._is_there(folder, str(href)):
                del assets[key]

    def _is_there(self, folder: Path, href: str) -> bool:
        path = os.path.normpath(folder / href)
        return Path(path) in self._coming or os.path.isfile(path)  # noqa: PTH113 - any href at all

    def _has_item(self, path: str, node: ItemDirectory) -> bool:
        """Say whether an item that is named by its path, or by one below it, is wanted."""
        self._raise_if_unknown(path, {node.ids[0]})
        return self._selection.where.matches(self._catalog.item(*node.ids).document)

    def _file(self, path: str, node: AssetFile | Document) -> Iterator[Found]:
        above = self._tree.node(posixpath.dirname(path))
        if isinstance(above, ItemDirectory) and not self._has_item(path, above):
            return
        if isinstance(node, Document):
            yield self._text(path)
            return
        _, collection_id, *_, key = node.asset.identity
        self._raise_if_unknown(path, {collection_id})
        if self._selection.has_asset(collection_id, key):
            yield Wanted(node.asset, self._target(path), node.told_size)

    def _common(self, path: str, collection_id: str) -> Iterator[Found]:
        for file in self._assets(path, collection_id):
            wanted = Wanted(file.asset, self._target(f"{path}/{file.name}"), file.size)
            self._shared.add(wanted.target)
            if self._selection.has_asset(collection_id, file.key):
                yield wanted

    def _item(self, path: str, collection_id: str) -> Iterator[Found]:
        moved: dict[str, str] = {}
        for file in self._assets(path, collection_id):
            target = self._target(path) / file.name
            if file.key in SHARED_KEYS:
                target = self._target(path).parent / _COMMON / file.name
                moved[file.key] = f"../{_COMMON}/{file.name}"
            if target in self._shared or not self._selection.has_asset(collection_id, file.key):
                continue
            if file.key in moved:
                self._shared.add(target)
            yield Wanted(file.asset, target, file.size)
        text = self._text(f"{path}/{_STAC}")
        document = self._linked(text)
        for key, href in moved.items():
            document["assets"][key]["href"] = href
        self._keep_assets(document, text.target.parent, collection_id)
        yield _text(text.target, document)

    def _whole(self, path: str) -> Iterator[Found]:
        """Yield all that a view leads to, or a collection's own directory of files."""
        directory = self._tree.directory(path)
        for entry in directory.children()(0):
            if entry.name.startswith("@"):
                continue  # a view
            if isinstance(directory.child(entry.name), Directory):
                raise NotFound(f"{path} is no dataset, collection, item or file: give one of these")
            yield from self.files(posixpath.join(path, entry.name))

    def _assets(self, path: str, collection_id: str) -> Iterator["_File"]:
        met = self._keys.setdefault(collection_id, set())
        directory = self._tree.directory(path)
        for entry in directory.children()(0):
            node = directory.child(entry.name)
            if isinstance(node, AssetFile):
                file = _File(entry.name, node)
                met.add(file.key)
                yield file

    def _text(self, path: str) -> Text:
        file = self._tree.file(path)
        return Text(self._target(path), bytes(file.open().read(0, file.attributes().size)))

    def _target(self, path: str) -> Path:
        return self._folder / path.lstrip("/")


class _Level(NamedTuple):
    """A collection or catalog that is being searched, and where its JSON goes."""

    node: CollectionDirectory
    collection: Collection
    target: Path


class _File:
    """A name in an item's directory, and the asset behind it."""

    def __init__(self, name: str, node: AssetFile) -> None:
        self.name = name
        self.asset = node.asset
        self.key = node.asset.identity[-1]
        self.size = node.told_size


def _text(target: Path, document: dict[str, Any]) -> Text:
    return Text(target, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
