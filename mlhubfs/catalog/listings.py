"""The listings of one source: which walk the readers of a collection see, and when it is refreshed.

Owns the table of them. A listing that has come to its end serves until it is older than the time to
live; then it serves on, while it is compared with the server in the background and, where it has
changed, walked anew: the next who opens the directory sees the new one. What changed in its middle
is not seen by that, so it is walked anew also when it is _LASTING times as old as its walk took:
that costs a thousandth of the time, however large it is. One that could be kept in memory only is
walked anew when it is old.

*Threading.* Any thread; one lock, held for some queries of the index, never for the network.
"""

import logging
import threading
import time
from collections.abc import Callable

from mlhubfs.catalog.index import Index
from mlhubfs.catalog.index_memory import MemoryIndex
from mlhubfs.catalog.index_walk import Walk
from mlhubfs.catalog.listing import Listing
from mlhubfs.catalog.stored import Stored
from mlhubfs.catalog.walker import AnyIndex, Walker
from mlhubfs.errors import IndexUnusable, Interrupted, MlhubfsError
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.catalog")
_LASTING = 1000
_LEAST_SECONDS = 1.0  # a walk is taken to have lasted, whatever the clock says
_ENTERING_SECONDS = 0.01  # between the lock and the first row of another process's walk


class Listings:
    """Listings of collections, each walked by what `make_walker(collection, index)` returns.

    Times are seconds; `patience` as `Listing` says.
    """

    def __init__(
        self,
        stored: Stored,
        workers: Workers,
        make_walker: Callable[[str, AnyIndex], Walker],
        *,
        ttl: float,
        patience: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stored = stored
        self._workers = workers
        self._make_walker = make_walker
        self._ttl = ttl
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._listings: dict[str, Listing] = {}

    def listing(self, collection: str) -> Listing:
        """Return the listing whose names are to be shown now."""
        with self._lock:
            listing = self._listings.get(collection)
            if listing is None or self._is_over(listing):
                listing = self._listings[collection] = self._open(collection)
        if listing.complete and not listing.in_memory and self._is_old(listing):
            self._workers.flight(f"refresh {collection}", lambda: self._refresh_quietly(collection))
        return listing

    def known(self, collection: str, item_id: str) -> float | None:
        """Return the POSIX time of an item that a listing in memory names, if that is not old."""
        listing = self._listings.get(collection)
        if listing is None or not listing.in_memory or self._is_old(listing):
            return None
        return listing.modified(item_id)

    def has(self, collection: str) -> bool:
        """Say whether a walk of a collection has come to its end."""
        return any(
            (walk.collection, walk.state) == (collection, "serving") for walk in self.walks()
        )

    def refresh(self, collection: str) -> None:
        """Compare a finished listing with the server, and walk it anew where it has changed.

        Raises what the source raises, and IndexUnusable.
        """
        index = self._stored.index
        serving = index.serving(collection) if index else None
        if index and serving:
            anew = self._has_lasted(serving)
            self._make_walker(collection, index).refresh(index, serving, anew=anew)
            index.sweep()

    def problems(self) -> list[str]:
        """Return a line for each listing that is known to be incomplete."""
        found = {one.name: one.problem for one in self._listings.values() if one.problem}
        for walk in self.walks():
            if walk.problem and walk.state in {"walking", "serving"}:
                found.setdefault(walk.collection, walk.problem)
        return [f"{name}: {problem}" for name, problem in found.items()]

    def walks(self) -> list[Walk]:
        """Return the walks that the index has."""
        try:
            return self._stored.index.walks() if self._stored.index else []
        except IndexUnusable as error:
            self._stored.report(error)
            return []

    def _open(self, collection: str) -> Listing:
        index = self._stored.index
        if index is not None:
            try:
                return self._bind(index, _enter(index, collection))
            except IndexUnusable as error:
                self._stored.report(error)
        memory = MemoryIndex(self._clock)
        return self._bind(memory, memory.begin(collection))

    def _bind(self, index: AnyIndex, walk: Walk) -> Listing:
        walker = self._make_walker(walk.collection, index)
        return Listing(walk, index, walker, self._workers, patience=self._patience)

    def _is_over(self, listing: Listing) -> bool:
        if listing.in_memory:
            return self._is_old(listing)
        index = self._stored.index
        try:
            listing.look()
            serving = index.serving(listing.name) if index else None
        except IndexUnusable as error:
            self._stored.report(error)
            return True
        return serving.number != listing.number if serving else listing.complete

    def _is_old(self, listing: Listing) -> bool:
        return not 0 <= self._clock() - listing.touched < self._ttl

    def _has_lasted(self, serving: Walk) -> bool:
        finished = serving.finished or 0.0
        took = max(_LEAST_SECONDS, finished - serving.started)
        return self._clock() - finished > _LASTING * took

    def _refresh_quietly(self, collection: str) -> None:
        try:
            self.refresh(collection)
        except Interrupted:
            pass  # unmounted meanwhile
        except IndexUnusable as error:
            self._stored.report(error)
        except MlhubfsError as error:
            _log.info("the listing of %s cannot be refreshed now: %s", collection, error)


def _enter(index: Index, collection: str) -> Walk:
    """Return the walk whose names are to be shown, begun if there is none."""
    while True:
        walk = index.serving(collection) or index.under_way(collection)
        if walk:
            return walk
        claim = index.claim(collection)
        if claim:
            with claim:
                return claim.walk
        time.sleep(_ENTERING_SECONDS)
