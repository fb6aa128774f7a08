"""One collection: items of a kind, looked up or searched.

*Threading.* Values: any thread. An iterator of items serves one thread at a time.
"""

import posixpath
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlhubfs.catalog import models
from mlhubfs.errors import BadCondition
from mlhubfs.library.access import Access
from mlhubfs.library.asset import Asset, to_assets
from mlhubfs.library.conditions import Bounds, Conditions, Times, check_name, of_items
from mlhubfs.library.fields import decode, text, texts
from mlhubfs.library.item import Item, load_item, to_item
from mlhubfs.tree import documents
from mlhubfs.tree.collection import COMMON, CollectionDirectory, common_files


@dataclass(frozen=True)
class Collection:
    """A STAC Collection."""

    id: str
    title: str | None
    description: str | None = field(repr=False)
    license: str | None
    citation: str | None = field(repr=False)
    """How to cite it (`sci:citation`)."""
    types: tuple[str, ...]
    """`source_imagery`, `labels` or both, as its dataset says; empty where none names it."""
    extensions: tuple[str, ...] = field(repr=False)
    """The STAC extensions that it uses: schema URLs, short names before STAC 1.0."""
    keywords: tuple[str, ...]
    assets: Mapping[str, Asset] = field(repr=False, hash=False)
    """The files of the collection itself, by key."""
    path: str
    """Where a mount has its directory, from its root."""
    _access: Access = field(repr=False, compare=False)
    _model: models.Collection = field(repr=False, compare=False)

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON, as the mount's collection.json has it, without the links to its items."""
        directory = self._access.session.tree.directory(self.path)
        return decode(directory.describe()) if isinstance(directory, CollectionDirectory) else {}

    def items(
        self,
        where: Conditions = (),
        bbox: Bounds | None = None,
        datetime: Times = None,
        limit: int | None = None,
    ) -> Iterator[Item]:
        """Yield its items that fulfil all conditions, at most `limit`, as they are found.

        `where` is written as in the tree's `@where` (`"cloud_and_shadow=false"`), or a dict of
        property -> value, or list of values of which any will do. `bbox` is west, south, east,
        north in degrees, also as a text; `datetime` a moment, or a tuple of the first and the last
        one. Who takes no more items ends the search. Raises BadCondition, and the errors of the
        transport.
        """
        if limit is not None and not 0 <= limit <= sys.maxsize:
            raise BadCondition(f"limit {limit}: give a whole number from 0, or None for all")
        conditions = of_items(where, bbox, datetime)
        found = self._access.session.catalog.search(self.id, conditions, limit)
        return (to_item(self._access, self.id, model) for model in found)

    def item(self, item_id: str) -> Item:
        """Return an item by its id: one request, or none; raises NotFound."""
        check_name(item_id)
        return load_item(self._access, self.id, item_id)


def load_collection(access: Access, collection_id: str) -> Collection:
    """Return a collection by its id; raises NotFound."""
    return to_collection(access, access.session.catalog.collection(collection_id))


def to_collection(access: Access, model: models.Collection) -> Collection:
    """Return the catalog's collection as users see it."""
    around = access.session.around
    fields = documents.read(model.document, around.scrub)
    path = around.collection_path(model.id)
    return Collection(
        id=model.id,
        title=text(fields, "title"),
        description=text(fields, "description"),
        license=text(fields, "license"),
        citation=text(fields, "sci:citation"),
        types=_types(model.id, around.catalog.datasets().values()),
        extensions=texts(fields, "stac_extensions"),
        keywords=texts(fields, "keywords"),
        assets=to_assets(
            fields, posixpath.join(path, COMMON), common_files(model, around.hrefs), access
        ),
        path=path,
        _access=access,
        _model=model,
    )


def _types(collection_id: str, datasets: Iterable[models.Dataset]) -> tuple[str, ...]:
    """Return what the datasets that name a collection say that it holds."""
    refs = (ref for one in datasets for ref in one.collections or ())
    types = (kind for ref in refs if ref.id == collection_id for kind in ref.types or ())
    return tuple(dict.fromkeys(types))
