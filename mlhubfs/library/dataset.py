"""One dataset: collections that belong together, and how to cite them.

*Threading.* Values: any thread.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mlhubfs.catalog import models
from mlhubfs.library.access import Access
from mlhubfs.library.collection import Collection, load_collection
from mlhubfs.library.fields import decode, moment, objects, text, texts
from mlhubfs.tree import documents


@dataclass(frozen=True)
class Dataset:
    """MLHub's dataset: collections that belong together, and how to cite them."""

    id: str
    title: str | None
    description: str | None = field(repr=False)
    citation: str | None = field(repr=False)
    """How to cite it, in the words of its authors."""
    doi: str | None
    """As in `10.34911/rdnt.d2ce8i`; not every dataset has one, and two may share one."""
    tags: tuple[str, ...]
    licences: tuple[str, ...]
    """Those of its collections, each once."""
    status: str | None = field(repr=False)
    registry: str | None = field(repr=False)
    """The URL of its page in MLHub's registry."""
    documentation_link: str | None = field(repr=False)
    date_added: dt.datetime | None = field(repr=False)
    """In UTC."""
    date_modified: dt.datetime | None = field(repr=False)
    """In UTC."""
    path: str
    """Where a mount has its directory, from its root."""
    _access: Access = field(repr=False, compare=False)
    _model: models.Dataset = field(repr=False, compare=False)

    @property
    def document(self) -> dict[str, Any]:
        """The API's dataset object, as the mount's dataset.json has it: without secrets."""
        return _decode(self._access, self._model)

    @property
    def collections(self) -> list[Collection]:
        """Its collections in the server's order, each once: a request for each, or none.

        One that the server does not have is passed over, and said in the log.
        """
        return self._load(self._model.collection_ids)

    @property
    def source_imagery(self) -> list[Collection]:
        """Those of its collections that hold imagery, also if they hold labels too."""
        return self._load(self._ids_of("source_imagery"))

    @property
    def labels(self) -> list[Collection]:
        """Those of its collections that hold labels, also if they hold imagery too."""
        return self._load(self._ids_of("labels"))

    @property
    def total_archive_size(self) -> int | None:
        """Bytes of its collections' archives in all: a request for each.

        One without an archive is passed over, and said in the log; None where all are.
        """
        catalog = self._access.session.catalog
        archives = self._access.each(catalog.archive, self._model.collection_ids, of=self.id)
        return sum(one.size for one in archives) if archives else None

    def _ids_of(self, kind: str) -> Iterable[str]:
        refs = self._model.collections or ()
        return dict.fromkeys(ref.id for ref in refs if kind in (ref.types or ()))

    def _load(self, collection_ids: Iterable[str]) -> list[Collection]:
        return self._access.each(partial(load_collection, self._access), collection_ids, of=self.id)


def to_dataset(access: Access, model: models.Dataset) -> Dataset:
    """Return the catalog's dataset as users see it."""
    fields = _decode(access, model)
    licences = (text(one, "license") for one in objects(fields, "collections"))
    return Dataset(
        id=model.id,
        title=text(fields, "title"),
        description=text(fields, "description"),
        citation=text(fields, "citation"),
        doi=text(fields, "doi"),
        tags=texts(fields, "tags"),
        licences=tuple(dict.fromkeys(one for one in licences if one)),
        status=text(fields, "status"),
        registry=text(fields, "registry"),
        documentation_link=text(fields, "documentation_link"),
        date_added=moment(fields, "date_added"),
        date_modified=moment(fields, "date_modified"),
        path=access.session.around.dataset_path(model.id),
        _access=access,
        _model=model,
    )


def _decode(access: Access, model: models.Dataset) -> dict[str, Any]:
    return decode(documents.dataset_json(model, access.session.around.scrub))
