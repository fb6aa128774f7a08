"""The pages of one collection: how many items to ask for in each, and one of them ahead.

Owns the size of a page: 100 items at first, so that names appear soon, then as many as the server
takes and _PAGE_BYTES hold. Does not keep anything of what comes.

A server that is asked for too much answers 4xx, 5xx, or not in time; MLHub's answered 503. So a
size that was not given before is tried for a short time only, and halved where it is refused. One
that gives fewer than it was asked for has a limit of its own.

*Threading.* One page at a time: who walks has a claim. `ahead` may be called beside it, but not
beside another `ahead`.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from mlhubfs.catalog.models import Page
from mlhubfs.errors import BadAnswer, NotFound, Rejected, Unavailable
from mlhubfs.transport.workers import Begin

FIRST = 100
"""Items of the first page: 0.6 MB of BigEarthNet, a second of MLHub's time."""

_PAGE_BYTES = 16 << 20  # 2,400 items of 7 kB; two pages are in memory at once
_GROWTH = 10
_LEAST = 10  # items: MLHub's own default
_BOLD_SECONDS = 5.0  # for a size that was never given; longer where pages take long
_BOLD_FACTOR = 20


class Ask(Protocol):
    """Gets one page: the first one where `cursor` is None."""

    def __call__(self, cursor: str | None, limit: int, deadline: float | None) -> Page:
        """Ask for `limit` items until the monotonic time `deadline`."""


class _Ahead(NamedTuple):
    cursor: str
    page: Callable[[], Page]


class Pager:
    """Asks for pages with at most `most` items; `begin` is for those that are asked for ahead."""

    def __init__(self, ask: Ask, *, most: int, begin: Begin = lambda task: task) -> None:
        self._ask = ask
        self._begin = begin
        self._ahead: _Ahead | None = None
        self._most = most
        self._given = 0
        self._asked = 0
        self._seconds = 0.0
        self.limit = min(FIRST, most)
        """How many items the next page is asked for."""

    def page(self, cursor: str | None) -> Page:
        """Return the page at `cursor`; raises what the source raises for a size that it takes."""
        ahead, self._ahead = self._ahead, None
        return ahead.page() if ahead and ahead.cursor == cursor else self._get(cursor)

    def ahead(self, cursor: str) -> None:
        """Ask for the page at `cursor`, which `page` is to return later."""
        self._ahead = _Ahead(cursor, self._begin(partial(self._get, cursor)))

    @property
    def is_ahead(self) -> bool:
        """Whether a page was asked for that nobody has taken."""
        return self._ahead is not None

    def _get(self, cursor: str | None) -> Page:
        while True:
            limit, began = self.limit, time.monotonic()
            is_bold = limit > max(self._given, FIRST)
            patience = max(_BOLD_SECONDS, self._seconds * _BOLD_FACTOR)
            try:
                page = self._ask(cursor, limit, began + patience if is_bold else None)
            except (Unavailable, BadAnswer, NotFound) as error:
                if not self._shrink(error, is_bold=is_bold, is_first=cursor is None):
                    raise
                continue
            self._seconds = time.monotonic() - began
            self._learn(limit, page)
            return msgspec.structs.replace(page, is_first=cursor is None)

    def has_more(self, cursor: str | None, page: Page) -> bool:
        """Say whether a last page that is as full as it could be may not be the last.

        Half of it is asked for: a server that pages at all links to the other half.
        """
        half = len(page.items) // 2
        if half == 0 or len(page.items) < self._asked:
            return False
        return self._ask(cursor, half, None).next is None

    def _shrink(self, error: Exception, *, is_bold: bool, is_first: bool) -> bool:
        """Ask for half the next time; say whether that is to be now."""
        if self.limit <= _LEAST:
            return False
        self.limit = max(_LEAST, self.limit // 2, min(self._given, FIRST) if is_bold else 0)
        self._most = min(self._most, self.limit)
        return is_bold or (is_first and isinstance(error, Rejected))

    def _learn(self, limit: int, page: Page) -> None:
        self._asked = limit
        count = len(page.items)
        self._given = max(self._given, count)
        fitting = self._most
        if page.size and count:
            fitting = min(fitting, max(_LEAST, _PAGE_BYTES * count // page.size))
        is_capped = 0 < count < limit and page.next is not None
        self.limit = min(limit if is_capped else limit * _GROWTH, fitting)
