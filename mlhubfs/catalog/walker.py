"""Walking a collection: from one page to the next, and when to believe that it has ended.

Owns the judgement: which page comes next, what is an end, what is a loop, when a listing is short.
What was walked is the index's, how a page is asked for the pager's, who waits for it `listing`'s.

What looks simple and is not:

1. A cursor that the server no longer knows (a 4xx on the next link) may be one page that is ill. So
   the walk begins again at the first page, over the names that it has; where that leads to the same
   refusal, with nothing won, the error is the reader's.
2. After that the walk may have names that the server no longer lists. They cannot be taken out, for
   readers hold positions; so it ends with a problem, and is walked anew when its time is over.
3. A walk that ends with a problem must not replace a better one.
4. A last page that is as full as it could be, from a server that does not count, may be the last,
   or the server may forget its links: half of it is asked for, and should link to the rest.
5. A reader who waits for a page waits for the one behind it next. So that is on its way while this
   one is stored: never more than one, and none behind the first, before which names are wanted soon
   and the quicker way is not looked into. The claim is kept until it is stored too.

*Threading.* Who calls `advance` is given the claim for that page; any thread, any process.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Protocol

from mlhubfs.catalog.index import Claim, Index
from mlhubfs.catalog.index_memory import MemoryClaim, MemoryIndex
from mlhubfs.catalog.index_walk import Walk
from mlhubfs.catalog.models import Page
from mlhubfs.catalog.pager import Pager
from mlhubfs.errors import Interrupted, MlhubfsError, NotFound, Rejected

_log = logging.getLogger("mlhubfs.catalog")
AnyIndex = Index | MemoryIndex
AnyClaim = Claim | MemoryClaim
MOST_EMPTY_PAGES = 10
"""In a row; a server that sends more will not send names any more."""
_WANTED_SECONDS = 10.0  # how long a download goes on for nobody: `ls | head` must not cost 90 MB


class Bulk(Protocol):
    """A quicker way to the items of a collection than its pages."""

    doubt: str | None
    """Why those may not be all, in words, where the server does not count them."""

    def is_worth(self, page: Page) -> bool:
        """Say whether to go that way behind the first page."""

    def load(self, claim: AnyClaim, is_wanted: Callable[[], bool]) -> bool:
        """Add items, as long as they are wanted; say whether those were all that it has."""


class Walker:
    """Walks the collection `name` with the pages of `pager`.

    `learn` is told of each page. `bulk` is tried once; it works on a thread that `later` gives it.
    """

    def __init__(
        self,
        name: str,
        pager: Pager,
        *,
        bulk: Bulk | None = None,
        later: Callable[[Callable[[], object]], object] = lambda task: task(),
        learn: Callable[[Page], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.pulled = time.monotonic()
        """When a reader last wanted more, on the monotonic clock."""
        self._pager = pager
        self._bulk = bulk
        self._later = later
        self._learn = learn
        self._lock = threading.Lock()
        self._wanted = -1
        self._behind: tuple[int, str] | None = None
        self._kept: tuple[AnyIndex, AnyClaim] | None = None
        self._pass = (0, 0)
        self._seen: set[int] = set()
        self._empty_pages = 0
        self._rewound: int | None = None

    @property
    def is_ahead(self) -> bool:
        """Whether a page was asked for that is still to be stored."""
        return self._pager.is_ahead

    def want(self, position: int) -> None:
        """Note that a reader has come to that position, and reads on."""
        self.pulled = time.monotonic()
        with self._lock:
            self._wanted = max(self._wanted, position)
            self._look_ahead()

    def note_waiting(self) -> None:
        """Note that a reader still waits, for the walk may get on without names."""
        self.pulled = time.monotonic()

    def advance(self, index: AnyIndex, seen: Walk) -> bool:
        """Take a walk one page further than `seen`; False where another, or a process, is at it.

        Raises WalkGone where it has ended, IndexUnusable, and what the source raises.
        """
        claim = self._take_claim(index, seen)
        if claim is None:
            return False
        with contextlib.ExitStack() as ending:
            ending.enter_context(claim)
            if claim.walk != seen:
                return True  # it has come further since
            page = self._step(index, claim)
            if self._keeps(index, claim):
                ending.pop_all()
                return True
            bulk, self._bulk = self._bulk, None
            if bulk and page and page.next and claim.walk.pages == 1:
                # Elsewhere, for the names of the first page shall not wait for it.
                self._later(partial(self._load, index, claim, bulk, page, ending.pop_all()))
        return True

    def refresh(self, index: AnyIndex, serving: Walk, *, anew: bool = False) -> bool:
        """See whether a finished walk is still what the server lists; if not, walk it anew.

        The first page and the count are compared, unless it is to be walked `anew` in any case; a
        collection of one page always is. Returns False where another is at it.
        """
        if not serving.problem and not anew:
            page = self._pager.page(None)
            if _is_same(index, serving, page):
                index.confirm(serving.number, matched=page.matched)
                return True
        claim = index.claim(self.name)
        if claim is None:
            return False
        with claim:
            self.want(sys.maxsize)
            number = claim.walk.number
            while (claim.walk.number, claim.walk.state) == (number, "walking"):
                self._step(index, claim)
        return True

    def _take_claim(self, index: AnyIndex, seen: Walk) -> AnyClaim | None:
        with self._lock:
            kept, self._kept = self._kept, None
        if kept and kept[0] is index and kept[1].walk.number == seen.number:
            return kept[1]
        if kept:
            kept[1].release()
        return index.claim(self.name, seen.number)

    def _keeps(self, index: AnyIndex, claim: AnyClaim) -> bool:
        """Keep the claim for a page that is ahead: another process would ask for it too."""
        with self._lock:
            self._behind = None
            if not self.is_ahead or claim.walk.state != "walking":
                return False
            self._kept = (index, claim)
            return True

    def _step(self, index: AnyIndex, claim: AnyClaim) -> Page | None:
        """Bring one page, and return it if one came."""
        walk = claim.walk
        if self._pass != (walk.number, walk.rewinds):
            self._pass, self._empty_pages = (walk.number, walk.rewinds), 0
            self._seen.clear()
        if walk.at_end:  # the process that had its last page was killed before it could say so
            self._end(index, claim, _shortage(walk))
            return None
        with self._lock:
            self._behind = None  # it is asked for now
        try:
            page = self._pager.page(walk.cursor)
            forgets = page.next is None and page.matched is None and walk.matched is None
            is_doubtful = forgets and self._pager.has_more(walk.cursor, page)  # see 4
        except Interrupted:
            raise
        except MlhubfsError as error:
            is_refused = isinstance(error, (NotFound, Rejected)) and walk.cursor is not None
            if is_refused and self._rewind(claim, error):
                return None
            claim.fail(str(error))
            raise
        self._note_next(walk.count, page.next)
        self._learn(page)
        passed = walk.passed
        walk = claim.append(page.items, cursor=page.next, matched=page.matched)
        problem = _shortage(walk)
        if is_doubtful:
            problem = f"the server's last page is full ({walk.count} items in all) and has no link"
        self._empty_pages = self._empty_pages + 1 if walk.passed == passed else 0
        if page.next is None:
            self._end(index, claim, problem)
        elif hash(page.next) in self._seen:
            problem = f"the server's next link leads back, after {walk.count} items"
            self._end(index, claim, problem)
        elif self._empty_pages >= MOST_EMPTY_PAGES:
            self._end(index, claim, f"{self._empty_pages} pages in a row brought nothing new")
        else:
            self._seen.add(hash(page.next))
        return page

    def _note_next(self, position: int, cursor: str | None) -> None:
        """Note the link of a page whose first item has that position; see 5."""
        if position and cursor and hash(cursor) not in self._seen:
            with self._lock:
                self._behind = (position, cursor)
                self._look_ahead()

    def _look_ahead(self) -> None:
        if self._behind and self._wanted >= self._behind[0]:
            _, cursor = self._behind
            self._behind = None
            self._pager.ahead(cursor)

    def _load(
        self, index: AnyIndex, claim: AnyClaim, bulk: Bulk, page: Page, ending: contextlib.ExitStack
    ) -> None:
        """Let the quicker way bring the rest, as far as it goes; what it lacks, pages bring."""
        with ending:
            if not bulk.is_worth(page):
                return
            try:
                is_all = bulk.load(claim, lambda: time.monotonic() - self.pulled < _WANTED_SECONDS)
            except Interrupted:
                return
            except MlhubfsError as error:
                _log.warning("%s: %s; it is walked by pages", self.name, error)
                return
            walk = claim.walk
            if walk.matched is not None and walk.count > walk.matched:
                _log.warning(
                    "%s: one file holds %d items, the server counts %d; it is walked by pages",
                    self.name, walk.count, walk.matched,
                )  # fmt: skip
                claim.rewind()
            elif is_all and walk.matched in {None, walk.count}:
                self._end(index, claim, bulk.doubt if walk.matched is None else None)

    def _rewind(self, claim: AnyClaim, error: MlhubfsError) -> bool:
        """Begin again at the first page, unless that was just tried; see 1."""
        walk = claim.walk
        if self._rewound == walk.count:
            self._rewound = None
            return False
        _log.warning(
            "the server no longer knows how to go on in %s after %d items (%s): "
            "its pages are read again from the first", self.name, walk.count, error,
        )  # fmt: skip
        self._rewound = walk.count
        claim.rewind()
        return True

    def _end(self, index: AnyIndex, claim: AnyClaim, problem: str | None) -> None:
        walk = claim.walk
        if not problem and walk.passed < walk.count:  # see 2
            more = walk.count - walk.passed
            problem = (
                f"the server listed {walk.passed} items when asked again, and {more} more before"
            )
        if problem:
            _log.warning("the listing of %s is incomplete: %s", self.name, problem)
        serving = index.serving(self.name)
        if problem and serving and (serving.count > walk.count or not serving.problem):  # see 3
            claim.discard()
            index.confirm(serving.number)
        else:
            claim.finish(problem)


def _shortage(walk: Walk) -> str | None:
    if walk.matched is not None and walk.count < walk.matched:
        return f"the server lists {walk.count} of the {walk.matched} items it counts"
    return None


def _is_same(index: AnyIndex, serving: Walk, page: Page) -> bool:
    if page.next is None:
        return False  # to take it anew costs one page, and finds whatever has changed
    ids = list(dict.fromkeys(item.id for item in page.items))
    known = [item_id for _, item_id, _ in islice(index.names(serving.number), len(ids))]
    return ids == known and page.matched in {None, serving.count}
