"""Collection archives, `/archive/{collection}`: which a word means, how large, and where they go.

*Threading.* Any.
"""

from pathlib import Path

from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.models import Dataset
from mlhubfs.download.downloader import Wanted
from mlhubfs.errors import NotFound
from mlhubfs.tree.archive import ARCHIVE
from mlhubfs.tree.collection import CollectionDirectory
from mlhubfs.tree.dataset import DatasetDirectory
from mlhubfs.tree.item import AssetFile
from mlhubfs.tree.names import encode
from mlhubfs.tree.nodes import Node
from mlhubfs.tree.root import Tree
from mlhubfs.tree.surroundings import RESERVED_IN_DATASET, RESERVED_IN_ROOT


def find_path(catalog: Catalog, word: str) -> str:
    """Return where in the tree that is which `word` means.

    A dataset's id or DOI, a collection's id, or a path already.
    """
    for dataset in catalog.datasets().values():
        is_doi = "/" in word and word.casefold() == (dataset.doi or "").casefold()
        if is_doi or word == dataset.id:
            return _dataset_path(dataset)
    return _collection_path(catalog, word) or "/" + word.strip("/")


def archived_collections(catalog: Catalog, node: Node) -> tuple[str, ...]:
    """Return the ids of the collections whose archives are a node's, in the server's order."""
    if isinstance(node, DatasetDirectory):
        return catalog.datasets()[node.dataset_id].collection_ids
    return (node.collection_id,) if isinstance(node, CollectionDirectory) else ()


def wanted_archive(catalog: Catalog, tree: Tree, collection_id: str, folder: Path) -> Wanted:
    """Return a collection's archive as a file of `folder`; raises NotFound where there is none."""
    path = _collection_path(catalog, collection_id)
    archive = tree.file(f"{path}/{ARCHIVE}") if path else None
    if not isinstance(archive, AssetFile):
        raise NotFound(f"{collection_id} has no archive")
    return Wanted(archive.asset, archive_path(folder, collection_id), archive.told_size)


def archive_path(folder: Path, collection_id: str) -> Path:
    """Return the file for a collection's archive in `folder`, named as MLHub's client named it."""
    return folder / encode(collection_id, extension=".tar.gz")


def _dataset_path(dataset: Dataset) -> str:
    return f"/{encode(dataset.id, RESERVED_IN_ROOT)}"


def _collection_path(catalog: Catalog, collection_id: str) -> str | None:
    """Return the path of a collection, None where no dataset names it: then it has no archive."""
    for dataset in catalog.datasets().values():
        if collection_id in dataset.collection_ids:
            return f"{_dataset_path(dataset)}/{encode(collection_id, RESERVED_IN_DATASET)}"
    return None
