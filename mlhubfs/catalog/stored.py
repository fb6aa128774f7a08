"""The index as the look-ups use it: it may fail, and then it does not know.

Owns the going on without where the disk fails, and the log line for it, once per kind of trouble;
and the questions under which single answers are kept: datasets, collections, what is told of
archives, items of no walk.

*Threading.* Any thread.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from mlhubfs.catalog import models
from mlhubfs.catalog.index import Index
from mlhubfs.errors import IndexUnusable, MlhubfsError

_log = logging.getLogger("mlhubfs.catalog")
T = TypeVar("T")


class Stored:
    """What `index` knows, nothing where there is none; `clock` tells POSIX seconds."""

    def __init__(self, index: Index | None, clock: Callable[[], float] = time.time) -> None:
        self.index = index
        self._clock = clock
        self._troubles: set[str] = set()
        self._written: dict[str, int] = {}

    def item(self, collection: str, item_id: str, *, ttl: float | None) -> models.Item | None:
        """Return an item of a walk touched within `ttl` seconds; None: of any, or asked for singly.

        Its links are of LONG_AGO.
        """
        document = self._try(lambda index: index.item(collection, item_id, self._since(ttl)))
        if document is None and ttl is None:
            document = self._kept(_item_question(collection, item_id))
        return models.parse_item(document, models.LONG_AGO) if document else None

    def known(self, collection: str, item_id: str, *, ttl: float | None) -> float | None:
        """Return the POSIX time of an item that such a walk names, or None."""
        return self._try(lambda index: index.known(collection, item_id, self._since(ttl)))

    def keep_item(self, collection: str, item: models.Item) -> None:
        """Keep an item that was looked up, unless a walk has it."""
        if self.known(collection, item.id, ttl=None) is None:
            self._keep(_item_question(collection, item.id), item.document)

    def keep_api_root(self, root: str | None) -> None:
        """Keep where the source has its API; None: it is a static catalog."""
        self._keep("root", msgspec.json.encode(root))

    def api_root(self, otherwise: str) -> str | None:
        """Return what was kept of that; `otherwise`, where nothing was."""
        body = self._kept("root")
        return msgspec.json.decode(body, type=str | None) if body else otherwise

    def keep_datasets(self, datasets: Sequence[models.Dataset] | None) -> None:
        """Keep the list of datasets; None: the source knows none.

        But not in the place of a list: a portal's page or a proxy's 404 looks the same.
        """
        if datasets is None and self._kept("datasets"):
            return
        documents = None if datasets is None else [msgspec.Raw(one.document) for one in datasets]
        self._keep("datasets", msgspec.json.encode(documents))

    def datasets(self) -> list[models.Dataset] | None:
        """Return the datasets that were kept, or raise LookupError."""
        body = self._kept("datasets")
        if body is None:
            raise LookupError
        return None if body == b"null" else models.parse_datasets(body)

    def keep_collections(self, collections: Sequence[models.Collection]) -> None:
        """Keep the list of collections."""
        self._keep_list("collections", collections)

    def collections(self) -> list[models.Collection] | None:
        """Return the list of collections that was kept, or None."""
        body = self._kept("collections")
        return models.parse_collections(body, models.LONG_AGO) if body else None

    def keep_collection(self, collection: models.Collection) -> None:
        """Keep one collection."""
        self._keep(f"collection {collection.id!r}", collection.document)

    def keep_children(self, collection_id: str, children: Sequence[models.Collection]) -> None:
        """Keep what is below a catalog or collection."""
        self._keep_list(f"below {collection_id!r}", children)

    def children(self, collection_id: str) -> list[models.Collection] | None:
        """Return what was kept of what is below a catalog or collection, or None."""
        body = self._kept(f"below {collection_id!r}")
        return models.parse_collections(body, models.LONG_AGO) if body else None

    def collection(self, collection_id: str) -> models.Collection | None:
        """Return a collection that was kept, alone or in the list, or None."""
        body = self._kept(f"collection {collection_id!r}")
        if body:
            return models.parse_collection(body, models.LONG_AGO)
        return next((one for one in self.collections() or () if one.id == collection_id), None)

    def keep_archive(self, archive: models.Archive) -> None:
        """Keep what is known of a collection's archive."""
        self._keep(f"archive {archive.collection!r}", msgspec.json.encode(archive))

    def archive(self, collection_id: str) -> models.Archive | None:
        """Return what was kept of a collection's archive, or None."""
        body = self._kept(f"archive {collection_id!r}")
        return msgspec.json.decode(body, type=models.Archive) if body else None

    def report(self, error: MlhubfsError) -> None:
        """Say, once per kind of trouble, that the index fails."""
        kind = str(error.__cause__ or error)
        if kind not in self._troubles and not (self.index and self.index.is_closed):
            self._troubles.add(kind)
            _log.warning("%s; it goes on without", error)

    def _keep_list(self, question: str, collections: Sequence[models.Collection]) -> None:
        documents = [msgspec.Raw(one.document) for one in collections]
        self._keep(question, msgspec.json.encode({"collections": documents}))

    def _since(self, ttl: float | None) -> float:
        return 0.0 if ttl is None else self._clock() - ttl

    def _kept(self, question: str) -> bytes | None:
        return self._try(lambda index: index.kept(question))

    def _keep(self, question: str, document: bytes) -> None:
        digest = hash(document)
        if self._written.get(question) != digest:
            self._try(lambda index: index.keep(question, document))
            if not question.startswith("item "):
                self._written[question] = digest  # these come again with every time to live

    def _try(self, use: Callable[[Index], T]) -> T | None:
        if self.index is None:
            return None
        try:
            return use(self.index)
        except IndexUnusable as error:
            self.report(error)
        except UnicodeEncodeError:
            pass  # an id that is no UTF-8
        return None


def _item_question(collection: str, item_id: str) -> str:
    return f"item {collection!r} {item_id!r}"  # unambiguous, whatever the ids hold
