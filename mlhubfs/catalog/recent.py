"""The items of the pages that came last, whose download links still work.

Owns their JSON, page by page, the oldest out first. The index keeps items without their links, and
whoever lists a directory often reads in it next: that must not cost a request an item. Of items
with the same id in one listing it is the first, as in the index.

*Threading.* Any thread; one lock, held for no longer than a look-up.
"""

import threading
from collections import deque
from collections.abc import Iterator

from mlhubfs.catalog.models import Item, Json, Page, parse_item


class Recent:
    """At most `capacity` bytes of JSON."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._pages: deque[tuple[str, Page, dict[str, Json]]] = deque()
        self._size = 0

    def learn(self, collection: str, page: Page) -> None:
        """Keep the items of a page, if they are not too much altogether."""
        if page.size > self._capacity:
            return
        items = {item.id: item.document for item in reversed(page.items)}
        bare = Page((), page.next, page.matched, page.fetched, page.size, page.is_first)
        with self._lock:
            if not page.is_first:
                for known in self._of_listing(collection):
                    for item_id in known.keys() & items.keys():
                        del items[item_id]
            self._pages.appendleft((collection, bare, items))
            self._size += page.size
            while self._size > self._capacity:
                self._size -= self._pages.pop()[1].size

    def item(self, collection: str, item_id: str, after: float) -> Item | None:
        """Return an item of a page that was asked for after the monotonic time `after`, or None."""
        with self._lock:
            for name, page, items in self._pages:
                if name == collection and item_id in items and page.fetched > after:
                    return parse_item(items[item_id], page.fetched)
        return None

    def _of_listing(self, collection: str) -> Iterator[dict[str, Json]]:
        """Yield the items of each page since the last one that began a listing."""
        for name, page, items in self._pages:
            if name == collection:
                yield items
                if page.is_first:
                    return
