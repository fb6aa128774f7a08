"""A dataset's directory: its JSON and its collections."""

import posixpath

from mlhubfs.catalog.models import Dataset
from mlhubfs.errors import NotFound
from mlhubfs.tree import documents
from mlhubfs.tree.collection import CollectionDirectory
from mlhubfs.tree.names import encode
from mlhubfs.tree.nodes import (
    Attributes,
    Children,
    Directory,
    Document,
    Entry,
    Node,
    directory_attributes,
    numbered,
)
from mlhubfs.tree.surroundings import RESERVED_IN_DATASET, Surroundings


class DatasetDirectory(Directory):
    """The dataset `dataset_id` at `path`, from the mount's root."""

    def __init__(self, around: Surroundings, path: str, dataset_id: str) -> None:
        self._around = around
        self._path = path
        self._id = dataset_id

    def attributes(self) -> Attributes:
        """Return the dataset's date of modification."""
        return directory_attributes(self._dataset().modified)

    def children(self) -> Children:
        """Return the documents and the collections, in the server's order."""
        entries = [
            Entry("catalog.json", is_directory=False),
            Entry("dataset.json", is_directory=False),
        ]
        names = (encode(one, RESERVED_IN_DATASET) for one in self._dataset().collection_ids)
        return numbered(entries + [Entry(name, is_directory=True) for name in names])

    def child(self, name: str) -> Node:
        """Return a document or a collection; no request."""
        dataset = self._dataset()
        if name == "catalog.json":
            return Document(lambda: documents.dataset_catalog(self._dataset()), dataset.modified)
        if name == "dataset.json":
            scrub = self._around.scrub
            return Document(
                lambda: documents.dataset_json(self._dataset(), scrub), dataset.modified
            )
        for collection_id in dataset.collection_ids:
            if encode(collection_id, RESERVED_IN_DATASET) == name:
                path = posixpath.join(self._path, name)
                return CollectionDirectory(self._around, path, collection_id)
        raise NotFound(f"the dataset {self._id} has no collection {name!r}")

    def _dataset(self) -> Dataset:
        dataset = self._around.catalog.datasets().get(self._id)
        if dataset is None:
            raise NotFound(f"there is no dataset {self._id!r} any more")
        return dataset
