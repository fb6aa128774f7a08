"""Items that fulfil conditions, found where that costs least, and only as they are taken.

Owns the choice of the way: a listing that is complete is searched on disk, without a request; else
a server that filters is asked for what it can tell apart, and what it answers is looked through
again; else the collection is walked, which indexes it along the way. Who stops taking ends it.

A server that says it filters may not, or may fail at it. So its first page decides: where that is
refused, or holds an item that was not asked for, the collection is walked.

*Threading.* An iterator serves one thread at a time; any may make one.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from mlhubfs.catalog.conditions import condition
from mlhubfs.catalog.filters import express
from mlhubfs.catalog.listing import Listing
from mlhubfs.catalog.models import Listed, Page
from mlhubfs.catalog.pager import Pager
from mlhubfs.catalog.source import Source
from mlhubfs.catalog.stored import Stored
from mlhubfs.catalog.walker import MOST_EMPTY_PAGES
from mlhubfs.catalog.where import Where
from mlhubfs.errors import BadAnswer, Denied, IndexUnusable, NotFound, Unavailable

_log = logging.getLogger("mlhubfs.catalog")
FIRST_SECONDS = 10.0
"""How long the first page may take: some answer 500 to what they cannot filter by."""
_AGAIN_SECONDS = 300.0
_LANGUAGES = frozenset({"filter", "query"})


class _Member(msgspec.Struct):
    collection: Any = None


class Search:
    """Searches the collections of `source`; pages have at most `page_size` items.

    `filters` tells which query parameters the source honours; `learn` is told of each page.
    """

    def __init__(
        self,
        source: Source,
        stored: Stored,
        *,
        page_size: int,
        filters: Callable[[], frozenset[str]],
        learn: Callable[[str, Page], None],
    ) -> None:
        self._source = source
        self._stored = stored
        self._page_size = page_size
        self._filters = filters
        self._learn = learn
        self._unhelpful: dict[str, float] = {}
        self._types: dict[str, dict[str, str]] = {}

    def batches(self, listing: Listing, where: Where) -> Iterator[list[Listed]]:
        """Yield what is found, in order, batch by batch of what is looked through; some are empty.

        Raises what the source raises, and is at its end then.
        """
        batches = None if listing.complete else self._asked(listing.name, where)
        for batch in self._walked(listing) if batches is None else batches:
            yield [item for item in batch if where.matches(item.document)]

    def pages(self, collection_id: str, query: Mapping[str, str]) -> Iterator[Page]:
        """Yield a collection's pages, of the items that `query` asks for, until they lead back.

        Raises BadAnswer, too, where a search brings items of other collections.
        """

        def ask(cursor: str | None, limit: int, deadline: float | None) -> Page:
            if query and cursor is None:
                deadline = time.monotonic() + FIRST_SECONDS
            page = self._source.page(
                collection_id, cursor, limit=limit, deadline=deadline, query=query
            )
            if "collections" in query and not all(_is_of(collection_id, one) for one in page.items):
                raise BadAnswer(f"the server's search is not of {collection_id} only")
            return page

        pager = Pager(ask, most=self._page_size)
        seen = set[str | None]()
        following: str | None = None
        empty_pages = 0
        while following not in seen and empty_pages < MOST_EMPTY_PAGES:
            seen.add(following)
            page = pager.page(following)
            self._learn(collection_id, page)
            empty_pages = 0 if page.items else empty_pages + 1
            yield page
            following = page.next
            if following is None:
                return

    def by_id(self, collection_id: str, item_id: str) -> Page | None:
        """Return the page that a search by id brings, None where that is no help."""
        is_one = item_id and "," not in item_id + collection_id
        if not is_one or "ids" not in self._filters():
            return None
        try:
            return next(self.pages(collection_id, {"ids": item_id, "collections": collection_id}))
        except (BadAnswer, NotFound, Unavailable) as error:
            _log.info("the server does not search %s by id: %s", collection_id, error)
            return None

    def _asked(self, collection_id: str, where: Where) -> Iterator[Sequence[Listed]] | None:
        """Return the items that the server finds, or None where it is no help."""
        if time.monotonic() < self._unhelpful.get(collection_id, 0.0):
            return None
        try:
            query, asked_for = self._tell(collection_id, where)
        except (Denied, Unavailable) as error:
            self._give_up(collection_id, str(error))
            return None
        if not query:
            return None
        pages = self.pages(collection_id, query)
        try:
            first = next(pages)
        except (BadAnswer, NotFound, Unavailable) as error:
            self._give_up(collection_id, str(error))
            return None
        if not all(asked_for.matches(item.document) for item in first.items):
            self._give_up(collection_id, "it ignores what it is asked for")
            return None
        return (page.items for page in chain((first,), pages))

    def _tell(self, collection_id: str, where: Where) -> tuple[dict[str, str], Where]:
        """Return what the server can be asked for, and the conditions that this is of."""
        if not where.conditions:
            return {}, where
        filters = self._filters()
        if "collections" in filters and "," in collection_id:
            filters -= _LANGUAGES  # it would be taken for several
        query = where.query(filters)
        asked_for = tuple(condition(name, (value,)) for name, value in query.items())
        others = Where(tuple(one for one in where.conditions if one.name not in query))
        if others.conditions and _LANGUAGES & filters:
            more, expressed = express(others, filters, self._queryables(collection_id))
            query |= more
            asked_for += expressed.conditions
            if more and "collections" in filters:
                query["collections"] = collection_id
        return query, Where(asked_for)

    def _queryables(self, collection_id: str) -> dict[str, str]:
        types = self._types.get(collection_id)
        if types is None:
            types = self._types[collection_id] = self._source.queryables(collection_id)
        return types

    def _give_up(self, collection_id: str, reason: str) -> None:
        _log.info("the server does not filter %s: %s", collection_id, reason)
        self._unhelpful[collection_id] = time.monotonic() + _AGAIN_SECONDS

    def _walked(self, listing: Listing) -> Iterator[Sequence[Listed]]:
        """Yield all items, from the index as far as it goes."""
        position = 0
        try:
            for batch in listing.documents():
                yield batch
                position += len(batch)
        except IndexUnusable as error:
            if not listing.in_memory:
                self._stored.report(error)
            # The server's order is the same, so what was looked through stands before `position`.
            for page in self.pages(listing.name, {}):
                yield page.items[position:]
                position = max(0, position - len(page.items))


def _is_of(collection_id: str, item: Listed) -> bool:
    """Say whether an item calls itself one of that collection."""
    try:
        return bool(msgspec.json.decode(item.document, type=_Member).collection == collection_id)
    except msgspec.MsgspecError:
        return False
