"""A collection's items out of its mirror: one file of stac-geoparquet, which the collection names.

Owns which asset that is, its download, and whether it is believed.

1. A mirror may be older than what it mirrors. So it must have as many rows as the server counts
   items, and of the first one the server must say the same, before anything of it is stored. Where
   the server does not count, the listing ends with a doubt, and is walked by pages when it is old.
2. Parquet is read from its end, so all of it has to be here. Its file has no name: whatever
   becomes of this process, it is gone.
3. Who waits for the listing sees no names meanwhile, and gives up on a walk that does not get on.
   So the walk is touched now and then.

*Threading.* One thread loads, and one stores what was loaded before.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import IO, Any

import msgspec

from mlhubfs.catalog.index import Index
from mlhubfs.catalog.models import Asset, Collection, Item, Listed, Page, parse_item, parse_listed
from mlhubfs.catalog.parquet import NEEDED, is_readable, open_table
from mlhubfs.catalog.source import Source
from mlhubfs.catalog.walker import AnyClaim
from mlhubfs.errors import BadAnswer, MlhubfsError, NotFound, NotWritten
from mlhubfs.transport.buckets import over_http
from mlhubfs.transport.client import Stream
from mlhubfs.transport.workers import Begin

_log = logging.getLogger("mlhubfs.catalog")
_ROLE = "collection-mirror"
_TYPES = frozenset({"application/vnd.apache.parquet", "application/x-parquet"})
_FEW = 1000  # items that pages bring sooner
_BATCH = 2000  # items stored at once: 60 ms, and 10 MB of memory
_PIECE = 256 << 10
_LIMIT = 4 << 30  # bytes: 590,326 items have 30 MB
_TOUCHED_SECONDS = 5.0


class _Assets(msgspec.Struct):
    assets: dict[str, Any]


class Mirror:
    """The mirror of a collection of `source`, whose items go into `index`.

    `collection` returns what is known of the collection; `begin` is for storing items.
    """

    doubt: str | None = "perhaps, for it is its mirror's, and the server does not count"

    def __init__(
        self,
        source: Source,
        collection: Callable[[], Collection],
        index: Index,
        begin: Begin = lambda task: task,
    ) -> None:
        self._source = source
        self._collection = collection
        self._index = index
        self._begin = begin
        self._url = ""

    def is_worth(self, page: Page) -> bool:
        """Say whether a collection that is not small has a mirror that can be read."""
        if page.matched is not None and page.matched <= _FEW:
            return False
        try:
            collection = self._collection()
        except MlhubfsError:
            return False
        mirror = mirror_of(collection)
        if mirror and not is_readable():
            _log.info("%s has a mirror, but %s; it is walked by pages", collection.id, NEEDED)
            return False
        if mirror:
            self._url = _url_of(mirror)
        return mirror is not None

    def load(self, claim: AnyClaim, is_wanted: Callable[[], bool]) -> bool:
        """Add the mirror's items to the claimed walk; say whether those were all that it has.

        Raises the transport's errors, BadAnswer where the mirror is not believed, NotWritten where
        there is no room for it, and IndexUnusable.
        """
        touch = _toucher(claim)
        try:
            with tempfile.TemporaryFile(dir=self._index.path.parent) as file:
                if not self._fetch(file, touch, is_wanted):
                    return False
                return self._read(file, claim, touch, is_wanted)
        except OSError as error:
            raise NotWritten(f"its mirror cannot be kept meanwhile: {error}") from None

    def _fetch(
        self, file: IO[bytes], touch: Callable[[], None], is_wanted: Callable[[], bool]
    ) -> bool:
        def into(stream: Stream) -> bool:
            while piece := stream.read(_PIECE):
                file.write(piece)
                if max(stream.total or 0, file.tell()) > _LIMIT:
                    raise BadAnswer(f"its mirror has more than {_LIMIT} bytes")
                if not is_wanted():
                    return False
                touch()
            file.flush()
            return True

        return self._source.pour(self._url, into, limit=_LIMIT + 1)

    def _read(
        self,
        file: IO[bytes],
        claim: AnyClaim,
        touch: Callable[[], None],
        is_wanted: Callable[[], bool],
    ) -> bool:
        collection_id, matched = claim.walk.collection, claim.walk.matched
        adopt = self._source.adopter(collection_id)
        with open_table(file, touch) as (count, rows):
            if matched not in {None, count}:
                raise BadAnswer(f"its mirror has {count} items, the server counts {matched}")
            items = (adopt(parse_listed(row)) for row in rows)
            first = list(islice(items, 1))
            for one in first:
                item = parse_item(one.document, 0.0)
                self._compare(collection_id, self._source.settled(collection_id, item))
            return self._store(chain(first, items), claim, is_wanted)

    def _compare(self, collection_id: str, item: Item) -> None:
        """Raise BadAnswer where the server has another such item, or none: see 1."""
        try:
            served = self._source.item(collection_id, item.id)
        except NotFound:
            raise BadAnswer(f"its mirror has {item.id!r}, the server has not") from None
        if _files(served) != _files(item):
            raise BadAnswer(f"the assets of {item.id!r} in its mirror are not those of the server")

    def _store(
        self, items: Iterator[Listed], claim: AnyClaim, is_wanted: Callable[[], bool]
    ) -> bool:
        batch = list(islice(items, _BATCH))
        while batch:
            if not is_wanted():
                return False
            stored = self._begin(partial(claim.append, batch, cursor=claim.walk.cursor))
            try:
                batch = list(islice(items, _BATCH))
            finally:
                stored()
        return True


def _toucher(claim: AnyClaim) -> Callable[[], None]:
    """Return what touches the walk, if that is a while ago: see 3."""
    touched = time.monotonic()

    def touch() -> None:
        nonlocal touched
        if time.monotonic() - touched > _TOUCHED_SECONDS:
            claim.append((), cursor=claim.walk.cursor)
            touched = time.monotonic()

    return touch


def mirror_of(collection: Collection) -> Asset | None:
    """Return the asset that is a collection's mirror, None where there is none."""
    found = [one for one in collection.assets if _type_of(one) in _TYPES and one.href]
    if not found:
        return None
    roles = msgspec.json.decode(collection.document, type=_Assets).assets
    return next((one for one in found if _is_mirror(roles[one.key])), None)


def _type_of(asset: Asset) -> str:
    return (asset.media_type or "").partition(";")[0].strip()


def _is_mirror(asset: dict[str, Any]) -> bool:
    roles = asset.get("roles")
    return isinstance(roles, list) and _ROLE in roles


def _url_of(asset: Asset) -> str:
    try:
        return over_http(asset.href, asset.account)
    except ValueError:
        return asset.href  # the transport says what is wrong with it


def _files(item: Item) -> dict[str, str]:
    return {asset.key: asset.href for asset in item.assets}
