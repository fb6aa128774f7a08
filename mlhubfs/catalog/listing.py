"""The items of one collection, page by page, shared by all who read the directory.

Owns the walk: which names are known, in the server's order, where the next page is, whether and
why the walk is incomplete. Does not fetch: it is given a function that does.

Keeps an id and a time per item, not the item. A page is asked for when a reader has come to the end
of what is known, and by one reader for all. A walk that failed goes on from the same page at the
next attempt.

*Threading.* Any thread may iterate. One page is fetched at a time (a flight of the workers); `_ids`
only ever grows, so readers index it without a lock.
"""

import logging
import time
from collections.abc import Callable, Iterator

from mlhubfs.catalog.models import Page
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.catalog")
MOST_EMPTY_PAGES = 10
"""In a row; a server that sends more will not send names any more."""


class Listing:
    """The walk of collection `name`; `fetch(next_link)` gets its pages, None being the first."""

    def __init__(self, name: str, fetch: Callable[[str | None], Page], workers: Workers) -> None:
        self.name = name
        self.complete = False
        """Whether the walk has ended."""
        self.problem: str | None = None
        """Why the names may be fewer than the collection's, where that is so."""
        self.matched: int | None = None
        """How many items the server says there are, where it does."""
        self.touched = time.monotonic()
        """When the last page came, on the monotonic clock."""
        self._fetch = fetch
        self._workers = workers
        self._ids: list[str] = []
        self._modified: dict[str, float] = {}
        self._next: str | None = None
        self._seen: set[str] = set()
        self._pages = 0
        self._empty_pages = 0

    def __len__(self) -> int:
        """Return the number of items known so far."""
        return len(self._ids)

    def modified(self, item_id: str) -> float | None:
        """Return the POSIX time of an item that is known by now, else None."""
        return self._modified.get(item_id)

    def iterate(self, start: int = 0) -> Iterator[tuple[str, float]]:
        """Yield (id, POSIX time) from the item number `start` on, fetching pages as needed."""
        index = start
        while self.reach(index):
            item_id = self._ids[index]
            yield item_id, self._modified[item_id]
            index += 1

    def reach(self, index: int) -> bool:
        """Fetch pages until item number `index` is known; say whether there is one."""
        while index >= len(self._ids) and not self.complete:
            number = self._pages
            self._workers.once(f"page {id(self)} {number}", lambda n=number: self._advance(n))  # type: ignore[misc]
        return index < len(self._ids)

    def _advance(self, number: int) -> None:
        if number != self._pages:
            return  # another reader's flight landed between our look and our start
        page = self._fetch(self._next)
        known = len(self._ids)
        for item in page.items:
            if item.id not in self._modified:
                self._modified[item.id] = item.modified
                self._ids.append(item.id)
        self.matched = page.matched if page.matched is not None else self.matched
        self._empty_pages = 0 if len(self._ids) > known else self._empty_pages + 1
        self.touched = time.monotonic()
        self._follow(page)
        self._pages += 1

    def _follow(self, page: Page) -> None:
        if page.next is None:
            if self.matched is not None and len(self._ids) < self.matched:
                self._end(
                    f"the server lists {len(self._ids)} of the {self.matched} items it counts"
                )
            self.complete = True
        elif page.next in self._seen:
            self._end(f"the server's next link leads back, after {len(self._ids)} items")
        elif self._empty_pages >= MOST_EMPTY_PAGES:
            self._end(f"{self._empty_pages} pages in a row brought nothing new")
        else:
            self._seen.add(page.next)
            self._next = page.next

    def _end(self, problem: str) -> None:
        self.problem = problem
        self.complete = True
        _log.warning("the listing of %s is incomplete: %s", self.name, problem)
