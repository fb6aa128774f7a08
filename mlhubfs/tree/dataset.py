"""A dataset's directory: its JSON and its collections."""

import posixpath

from mlhubfs.catalog.models import Dataset
from mlhubfs.errors import NotFound
from mlhubfs.tree import documents
from mlhubfs.tree.choices import choose_collections
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
from mlhubfs.tree.where import WHERE, WhereDirectory


class DatasetDirectory(Directory):
    """The dataset `dataset_id` at `path`, from the mount's root."""

    def __init__(self, around: Surroundings, path: str, dataset_id: str) -> None:
        self._around = around
        self._path = path
        self._id = dataset_id

    @property
    def dataset_id(self) -> str:
        """Which dataset it is."""
        return self._id

    def attributes(self) -> Attributes:
        """Return the dataset's date of modification."""
        return directory_attributes(self._dataset().modified)

    def children(self) -> Children:
        """Return the documents and the collections, in the server's order."""
        entries = [
            Entry("catalog.json", is_directory=False),
            Entry("dataset.json", is_directory=False),
        ]
        if self._around.show_views:
            entries.append(Entry(WHERE, is_directory=True))
        attributes = self.attributes()
        names = self._names(self._dataset())
        return numbered(
            entries + [Entry(name, is_directory=True, attributes=attributes) for name in names]
        )

    def child(self, name: str) -> Node:
        """Return a document or a collection; no request."""
        dataset = self._dataset()
        if name == "catalog.json":
            return Document(self._render_catalog, dataset.modified)
        if name == "dataset.json":
            scrub = self._around.scrub
            return Document(
                lambda: documents.dataset_json(self._dataset(), scrub), dataset.modified
            )
        if name == WHERE:
            choice = choose_collections(self._path, self._dataset)
            return WhereDirectory(choice, posixpath.join(self._path, WHERE))
        collection_id = self._names(dataset).get(name)
        if collection_id is None:
            raise NotFound(f"the dataset {self._id} has no collection {name!r}")
        path = posixpath.join(self._path, name)
        return CollectionDirectory(
            self._around,
            path,
            collection_id,
            above=("catalog.json", "collection.json"),
            modified=lambda: self._dataset().modified,
        )

    def identities(self) -> list[tuple[str, ...]]:
        """Return those of its collections."""
        return [(self._around.catalog.root, one) for one in self._dataset().collection_ids]

    def _render_catalog(self) -> bytes:
        dataset = self._dataset()
        return documents.dataset_catalog(dataset, self._names(dataset), self._around.scrub)

    @staticmethod
    def _names(dataset: Dataset) -> dict[str, str]:
        """Return file name -> collection id."""
        return {encode(one, RESERVED_IN_DATASET): one for one in dataset.collection_ids}

    def _dataset(self) -> Dataset:
        dataset = self._around.catalog.datasets().get(self._id)
        if dataset is None:
            raise NotFound(f"there is no dataset {self._id!r} any more")
        return dataset
