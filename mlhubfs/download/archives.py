"""Collection archives, `/archive/{collection}`: which a word means, how large, and where they go.

*Threading.* Any.
"""

import posixpath
from pathlib import Path

from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.doi import is_doi
from mlhubfs.download.downloader import Wanted
from mlhubfs.errors import NotFound
from mlhubfs.tree.archive import ARCHIVE
from mlhubfs.tree.collection import CollectionDirectory
from mlhubfs.tree.dataset import DatasetDirectory
from mlhubfs.tree.item import AssetFile
from mlhubfs.tree.names import encode
from mlhubfs.tree.nodes import Node
from mlhubfs.tree.root import Root, Tree
from mlhubfs.tree.surroundings import Surroundings


def find_path(around: Surroundings, word: str) -> str:
    """Return where in the tree that is which `word` means; raises NotFound for an unknown DOI.

    A dataset's id or DOI, a collection's id, or a path already: "/" is all of the source.
    """
    datasets = around.catalog.datasets()
    if word in datasets:
        return around.dataset_path(word)
    if is_doi(word):
        return around.dataset_path(around.catalog.dataset(word).id)
    if any(word in one.collection_ids for one in datasets.values()):
        return around.collection_path(word)
    return "/" + word.strip("/")


def archived_collections(catalog: Catalog, node: Node) -> tuple[str, ...]:
    """Return the ids of the collections whose archives are a node's, in the server's order."""
    if isinstance(node, Root):
        named = (ref for one in catalog.datasets().values() for ref in one.collection_ids)
        return (*dict.fromkeys(named), *catalog.loose_collections())
    if isinstance(node, DatasetDirectory):
        return catalog.datasets()[node.dataset_id].collection_ids
    return (node.collection_id,) if isinstance(node, CollectionDirectory) else ()


def wanted_archive(around: Surroundings, tree: Tree, collection_id: str, folder: Path) -> Wanted:
    """Return a collection's archive as a file of `folder`; raises NotFound where there is none."""
    archive = tree.file(posixpath.join(around.collection_path(collection_id), ARCHIVE))
    if not isinstance(archive, AssetFile):
        raise NotFound(f"{collection_id} has no archive")
    return Wanted(archive.asset, archive_path(folder, collection_id), archive.told_size)


def archive_path(folder: Path, collection_id: str) -> Path:
    """Return the file for a collection's archive in `folder`, named as MLHub's client named it."""
    return folder / encode(collection_id, extension=".tar.gz")
