"""The way in: one source's datasets, collections, items and assets.

*Threading.* Any thread may use a Catalog, and the values that come out of it.
"""

import difflib
import os
import posixpath
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from mlhubfs import config
from mlhubfs.catalog import models
from mlhubfs.catalog.doi import is_doi
from mlhubfs.errors import NotFound
from mlhubfs.library.access import Access
from mlhubfs.library.asset import Asset
from mlhubfs.library.collection import Collection, load_collection, to_collection
from mlhubfs.library.conditions import check_name, of_datasets
from mlhubfs.library.dataset import Dataset, to_dataset
from mlhubfs.library.item import Item, load_item
from mlhubfs.tree.collection import CollectionDirectory, CommonDirectory
from mlhubfs.tree.dataset import DatasetDirectory
from mlhubfs.tree.item import AssetFile, ItemDirectory
from mlhubfs.tree.nodes import File, Node


class Catalog:
    """The catalog at `source`, the root URL of an MLHub or STAC API.

        with mlhubfs.Catalog("http://127.0.0.1:7462/mlhub/v1") as catalog:
            for item in catalog.collection("bigearthnet_v1_labels").items("labels=Rice fields"):
                print(item.id, item.assets["labels"].open().read())

    Without a source: `$MLHUB_ROOT_URL`, else MLHub's own root. The API key is `api_key`, else that
    of the environment or of the `profile`, as for a mount; further settings are those of
    `mlhubfs mount -o`, by name: bytes, seconds and bools, or texts as there (`ttl="1h"`). It shares
    listings and blocks on disk with mounts.

    To be closed (`with`, or `close`); else that happens when neither it nor what came out of it is
    used any more, at the latest at exit. Raises ConfigError, and the transport's errors where the
    source does not answer or refuses the key.
    """

    def __init__(
        self,
        source: str | None = None,
        api_key: str | None = None,
        profile: str | None = None,
        **settings: Any,
    ) -> None:
        self._access = Access(
            config.load(os.environ, source=source, api_key=api_key, profile=profile, **settings)
        )

    @classmethod
    def of(cls, settings: config.Config) -> Self:
        """Return the catalog of a source with all of its settings; raises as `Catalog` does."""
        catalog = cls.__new__(cls)
        catalog._access = Access(settings)  # noqa: SLF001 - its own
        return catalog

    def __repr__(self) -> str:
        return f"Catalog({self.source!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def source(self) -> str:
        """The root URL of the API."""
        return self._access.config.source

    def close(self) -> None:
        """Let go of connections and caches; what came out of it asks for nothing any more."""
        self._access.close()

    def datasets(
        self, tags: str | Iterable[str] = (), text: str | Iterable[str] = ()
    ) -> list[Dataset]:
        """Return the datasets that have all `tags`, exactly, and all phrases `text`, in any case.

        A phrase is looked for in all texts of the dataset. Empty where the source has collections
        only (a STAC API).
        """
        where = of_datasets(tags, text)
        held = self._access.session.catalog.datasets().values()
        found = [to_dataset(self._access, one) for one in held]
        return [one for one in found if where.admits(one.document)]

    def dataset(self, id_or_doi: str) -> Dataset:
        """Return the dataset with that id, or that DOI: what holds a slash is a DOI.

        Of several with one DOI it is the first. Raises NotFound, which names what is near.
        """
        check_name(id_or_doi)
        catalog = self._access.session.catalog
        try:
            return to_dataset(self._access, catalog.dataset(id_or_doi))
        except NotFound:
            known = catalog.datasets()
            if "/" not in id_or_doi:
                raise NotFound(self._no("dataset", id_or_doi, known)) from None
            dois = [one.doi for one in known.values() if one.doi]
            raise NotFound(self._no("dataset with the DOI", id_or_doi, dois)) from None

    def collections(self, match: str = "") -> list[Collection]:
        """Return the collections with `match`, in any case, in one of their texts.

        These are id, title, description, licence, citation and extensions. An API that announces
        free-text search is asked for them, and may pass over parts of words.
        """
        made: dict[str, Collection] = {}

        def fulfil(model: models.Collection) -> bool:
            one = made[model.id] = to_collection(self._access, model)
            return match.casefold() in _texts(one).casefold()

        found = self._access.session.catalog.collections_that(fulfil, of_datasets((), match))
        return [made[model.id] for model in found]

    def collection(self, collection_id: str) -> Collection:
        """Return the collection with that id; raises NotFound, which names what is near."""
        check_name(collection_id)
        try:
            return load_collection(self._access, collection_id)
        except NotFound:
            known = self._access.session.catalog.collections()
            raise NotFound(self._no("collection", collection_id, known)) from None

    def find(self, name: str) -> Dataset | Collection | Item | Asset:
        """Return what `name` names: a dataset or collection by id, a dataset by DOI, else a path.

        A path with one part begins with a slash. Raises NotFound.
        """
        check_name(name)
        if is_doi(name):
            return self.dataset(name)
        if "/" in name:
            return self.at(name)
        catalog = self._access.session.catalog
        datasets = catalog.datasets()
        if name in datasets:
            return to_dataset(self._access, datasets[name])
        try:
            return load_collection(self._access, name)
        except NotFound:
            known = [*datasets, *catalog.collections()]
            raise NotFound(self._no("dataset or collection", name, known)) from None

    def at(self, path: str) -> Dataset | Collection | Item | Asset:
        """Return what a mount of the source has at `path`, from the mount's root.

        Of a document (`stac.json`) that is what it describes. Raises NotFound.
        """
        check_name(path)
        tree = self._access.session.tree
        path = posixpath.normpath("/" + path.lstrip("/"))  # it would leave two slashes
        node = tree.followed(path)
        above = tree.directory(posixpath.dirname(path)) if isinstance(node, File) else node
        found = self._of(above)
        if found is None:
            raise NotFound(f"{path} is no dataset, collection, item or asset")
        if isinstance(found, Item | Collection) and isinstance(node, AssetFile):
            # By name: the path may be a view's, and an asset's is where it stands.
            names = {posixpath.basename(one.path): one for one in found.assets.values() if one.path}
            return names.get(posixpath.basename(path), found)
        return found

    def _of(self, node: Node) -> Dataset | Collection | Item | None:
        match node:
            case DatasetDirectory():
                return self.dataset(node.dataset_id)
            case CollectionDirectory() | CommonDirectory():
                return self.collection(node.collection_id)
            case ItemDirectory():
                return load_item(self._access, *node.ids)
        return None

    def _no(self, kind: str, wanted: str, known: Iterable[str]) -> str:
        near = ", ".join(difflib.get_close_matches(wanted, list(known), n=3))
        return f"no {kind} {wanted!r} at {self.source}" + (f"; near: {near}" if near else "")


def _texts(one: Collection) -> str:
    texts = (one.id, one.title, one.description, one.license, one.citation, *one.extensions)
    return "\n".join(text for text in texts if text)
