"""The root of a mounted static catalog: the directory of its first document, and README.txt."""

from collections.abc import Iterator

from mlhubfs.tree import documents
from mlhubfs.tree.collection import CollectionDirectory, json_name
from mlhubfs.tree.nodes import Children, Document, Entry, Node
from mlhubfs.tree.surroundings import RESERVED_IN_ROOT, Surroundings

_README = "README.txt"


class TopDirectory(CollectionDirectory):
    """The directory of the catalog or collection `top`, from which all others hang."""

    reserved = CollectionDirectory.reserved | RESERVED_IN_ROOT

    def __init__(self, around: Surroundings, top: str) -> None:
        super().__init__(around, "/", top, above=(json_name(around.catalog.collection(top)),))

    def children(self) -> Children:
        """Return README.txt, and what the document links to."""
        others = super().children()

        def iterate(start: int) -> Iterator[Entry]:
            if start == 0:
                yield Entry(_README, is_directory=False)
            yield from others(max(0, start - 1))

        def count() -> int | None:
            below = others.count()
            return None if below is None else below + 1

        return Children(iterate, lambda number: number == 0 or others.is_known(number - 1), count)

    def identities(self) -> list[tuple[str, ...]]:
        """Return that of the source."""
        return [(self._around.catalog.root,)]

    def child(self, name: str) -> Node:
        """Return README.txt, or what the document links to."""
        if name != _README:
            return super().child(name)
        catalog = self._around.catalog
        return Document(
            lambda: documents.readme(catalog.root, 0, catalog.problems(), is_static=True),
            self.attributes().modified,
        )
