"""One item: a picture, or the labels on one, with its assets.

*Threading.* Values: any thread.
"""

import datetime as dt
import posixpath
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mlhubfs.catalog import models
from mlhubfs.library.access import Access
from mlhubfs.library.asset import Asset, to_assets
from mlhubfs.library.fields import decode, objects, text
from mlhubfs.tree import documents
from mlhubfs.tree.item import item_files


@dataclass(frozen=True)
class Link:
    """A link of an item, in the server's words."""

    rel: str
    href: str
    title: str | None


@dataclass(frozen=True)
class Item:
    """A STAC Item."""

    id: str
    collection_id: str
    datetime: dt.datetime | None
    """In UTC; the start of an item that lasts for a while."""
    bbox: tuple[float, ...] | None
    """West, south, east, north in degrees; with heights, six numbers."""
    properties: Mapping[str, Any] = field(repr=False, hash=False)
    assets: Mapping[str, Asset] = field(repr=False, hash=False)
    """By key."""
    links: tuple[Link, ...] = field(repr=False)
    path: str
    """Where a mount has its directory, from its root."""
    _access: Access = field(repr=False, compare=False)
    _model: models.Item = field(repr=False, compare=False)

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON, as the mount's stac.json has it: with relative links, without secrets."""
        file = self._access.session.tree.file(posixpath.join(self.path, "stac.json"))
        # Not by its size: to ask that would render it once more.
        return decode(bytes(file.open().read(0, sys.maxsize)))

    def sources(self) -> list["Item"]:
        """Return the imagery that its labels were made from, by its `source` links.

        Dead links are passed over, and said in the log.
        """
        document = documents.read(self._model.document, self._access.session.around.scrub)
        linked = documents.source_items(document)
        return self._access.each(lambda one: load_item(self._access, *one), linked, of=self.id)


def load_item(access: Access, collection_id: str, item_id: str) -> Item:
    """Return an item by its id; raises NotFound."""
    return to_item(access, collection_id, access.session.catalog.item(collection_id, item_id))


def to_item(access: Access, collection_id: str, model: models.Item) -> Item:
    """Return the catalog's item as users see it."""
    around = access.session.around
    fields = documents.read(model.document, around.scrub)
    path = around.item_path(collection_id, model.id)
    bbox = fields.get("bbox")
    return Item(
        id=model.id,
        collection_id=collection_id,
        datetime=dt.datetime.fromtimestamp(model.modified, dt.UTC) if model.modified else None,
        bbox=tuple(bbox) if isinstance(bbox, list) else None,
        properties=MappingProxyType(fields.get("properties") or {}),
        assets=to_assets(fields, path, item_files(model, around.hrefs), access),
        links=tuple(
            Link(rel, href, text(one, "title"))
            for one in objects(fields, "links")
            if (rel := text(one, "rel")) and (href := text(one, "href"))
        ),
        path=path,
        _access=access,
        _model=model,
    )
