"""A dataset's items out of its catalog file, `/catalog/{dataset}`: all in one download.

Owns which members of the file are items of which collection, and what of their JSON cannot be
used: the file's asset links lead to storage without a permission, so they are cut, and look like
the download links that the index has cut, which are asked for anew when an asset is read. The other
collections of the dataset that nobody has walked get theirs along the way.

*Threading.* One thread loads, and one stores what was loaded before.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable

from mlhubfs.catalog.index import Index
from mlhubfs.catalog.models import Dataset, Listed, Page, parse_archived
from mlhubfs.catalog.source import Source
from mlhubfs.catalog.tarball import files
from mlhubfs.catalog.walker import AnyClaim, AnyIndex
from mlhubfs.errors import BadAnswer, MlhubfsError
from mlhubfs.transport.client import Body
from mlhubfs.transport.workers import Begin

_log = logging.getLogger("mlhubfs.catalog")
_FEW = 1000  # items that pages bring sooner
_BATCH = 2000  # items stored at once: 60 ms, and 10 MB of memory
_FIRST_PAGE = ""  # a cursor, for None would say that there is no page left
_SECONDS = 4 * 3600.0  # for a download; a silence ends it long before
_ITEM = re.compile(r"(?:\./)?[^/]+/([^/]+)/([^/]+)/([^/]+)\.json")
# It begins with letters to be sought and ends at one character, which takes a tenth of the time of
# other patterns. JSON is written with a space there, or without.
_HREF = re.compile(rb'"href": ?"(?:https?|s3)://[^"]*+"')
_HREF_AMONG_ESCAPES = re.compile(rb'"href": ?"(?:https?|s3)://[^"\\]*+"')


class CatalogFile:
    """The catalog file of `dataset`, whose items go into `index`; `begin` is for storing them."""

    doubt: str | None = None  # the API itself made the file

    def __init__(
        self, source: Source, dataset: Dataset, index: AnyIndex, begin: Begin = lambda task: task
    ) -> None:
        self._begin = begin
        self._source = source
        self._dataset = dataset
        self._collections = frozenset(dataset.collection_ids)
        self._index = index
        link = f"{source.root}/download/...".encode().replace(b"\\", rb"\\")
        self._cut_href = b'"href":"%s"' % link

    def is_worth(self, page: Page) -> bool:
        """Say whether there is a file, for a collection of more than some pages."""
        if page.matched is not None and page.matched <= _FEW:
            return False
        if not all(b"/download/" in bytes(item.document) for item in page.items[:1]):
            return False  # not MLHub's links: the file's would be other ones, under other names
        try:
            return self._source.has_catalog_file(self._dataset.id)
        except MlhubfsError:
            return False

    def load(self, claim: AnyClaim, is_wanted: Callable[[], bool]) -> bool:
        """Add the file's items to the claimed walk, and to walks of the other collections.

        Returns whether the file came to its end. Raises the transport's errors and IndexUnusable.
        """
        walks = _Walks(self._index, claim, self._collections, self._cut, self._begin)

        def into(body: Body) -> bool:
            for path, document in files(body.read, self._is_item):
                if not walks.add(path, document, is_wanted):
                    return False
            walks.flush()
            return True

        try:
            is_all = self._source.pour_catalog_file(
                self._dataset.id, into, deadline=time.monotonic() + _SECONDS
            )
            walks.close(is_all=is_all)
        except BaseException:
            walks.close(is_all=False)
            raise
        return is_all

    def _cut(self, assets: bytes) -> bytes:
        pattern = _HREF_AMONG_ESCAPES if b"\\" in assets else _HREF
        return pattern.sub(self._cut_href, assets)

    def _is_item(self, path: str) -> bool:
        match = _ITEM.fullmatch(path)
        return bool(match and match[1] in self._collections and not match[3].startswith("."))


class _Walks:
    """The walks that one file fills."""

    def __init__(
        self,
        index: AnyIndex,
        claim: AnyClaim,
        collections: frozenset[str],
        cut: Callable[[bytes], bytes],
        begin: Begin,
    ) -> None:
        self._index = index
        self._cut = cut
        self._claims: dict[str, AnyClaim | None] = {claim.walk.collection: claim}
        self._main = claim
        self._batches: dict[str, list[Listed]] = {one: [] for one in collections}
        self._begin = begin
        self._stored: Callable[[], object] = lambda: None

    def add(self, path: str, document: bytes, is_wanted: Callable[[], bool]) -> bool:
        """Take an item; return False where it is time to stop."""
        collection = path.split("/")[-3]
        try:
            item = parse_archived(document, self._cut)
        except BadAnswer as error:
            _log.warning("passed over in the catalog file: %s", error)
            return True
        batch = self._batches[collection]
        batch.append(item)
        if len(batch) < _BATCH:
            return True
        self._store(collection)
        return is_wanted()

    def flush(self) -> None:
        """Store what is left."""
        for collection in self._batches:
            self._store(collection)
        self._settle()

    def close(self, *, is_all: bool) -> None:
        """End the other collections' walks: the file had all of them, or they wait for pages."""
        with contextlib.suppress(MlhubfsError):  # another error ended it, and is told
            self._settle()
        for claim in self._claims.values():
            if claim is None or claim is self._main:
                continue
            with claim:
                if is_all:
                    claim.finish()

    def _settle(self) -> None:
        """Wait until the last batch is stored."""
        stored, self._stored = self._stored, lambda: None
        stored()

    def _store(self, collection: str) -> None:
        batch = self._batches[collection]
        self._batches[collection] = []
        if not batch:
            return
        if collection not in self._claims:
            self._claims[collection] = self._claim(collection)
        claim = self._claims[collection]
        self._settle()
        if claim:
            cursor = claim.walk.cursor or _FIRST_PAGE
            self._stored = self._begin(lambda: claim.append(batch, cursor=cursor))

    def _claim(self, collection: str) -> AnyClaim | None:
        if self._index.serving(collection) or not isinstance(self._index, Index):
            return None
        return self._index.claim(collection)
