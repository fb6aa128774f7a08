"""The index without a disk: walks and names in memory, for where the real one cannot be used.

Owns what `index.Index` owns, of one process and for its lifetime; the methods mean the same. Keeps
an id and a time per item and not its JSON, so `item` never finds any.

*Threading.* Any thread; one lock, held for a page at most.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from mlhubfs.catalog.index_walk import Walk
from mlhubfs.catalog.locks import Releasable
from mlhubfs.catalog.models import Listed
from mlhubfs.errors import WalkGone


class MemoryIndex:
    """Walks of one source, in memory; `clock` tells POSIX seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.rows: dict[int, _Rows] = {}
        self.claimed: set[str] = set()

    def serving(self, collection: str) -> Walk | None:
        """As `Index.serving`."""
        return self._find(collection, "serving")

    def under_way(self, collection: str) -> Walk | None:
        """As `Index.under_way`."""
        return self._find(collection, "walking")

    def walk(self, number: int) -> Walk | None:
        """As `Index.walk`."""
        rows = self.rows.get(number)
        return rows.walk if rows else None

    def names(self, number: int, start: int = 0) -> Iterator[tuple[int, str, float]]:
        """As `Index.names`."""
        rows = self._rows(number)
        for position in range(start, len(rows.ids)):
            yield position, rows.ids[position], rows.modified[rows.ids[position]]

    def hold(self, number: int) -> "Held":
        """As `Index.hold`."""
        with self.lock:
            self._rows(number).holders += 1
        return Held(lambda: self._let_go(number))

    def item(self, collection: str, item_id: str, since: float = 0.0) -> None:
        """Return None: no JSON is kept."""

    def known(self, collection: str, item_id: str, since: float = 0.0) -> float | None:
        """As `Index.known`."""
        for walk in (self.under_way(collection), self.serving(collection)):
            rows = self.rows.get(walk.number) if walk and walk.touched >= since else None
            if rows and item_id in rows.modified:
                return rows.modified[item_id]
        return None

    def claim(self, collection: str, number: int | None = None) -> "MemoryClaim | None":
        """As `Index.claim`."""
        with self.lock:
            if collection in self.claimed:
                return None
            walk = self._find(collection, "walking")
            if number is not None and (walk is None or walk.number != number):
                raise WalkGone(f"the walk {number} has ended")
            walk = walk or self.begin(collection)
            self.claimed.add(collection)
        return MemoryClaim(self, walk)

    def confirm(self, number: int, *, matched: int | None = None) -> None:
        """As `Index.confirm`."""
        rows = self._rows(number)
        known = rows.walk.matched if matched is None else matched
        rows.walk = msgspec.structs.replace(rows.walk, touched=self.clock(), matched=known)

    def begin(self, collection: str, names: Iterable[tuple[str, float]] = ()) -> Walk:
        """Begin a walk, which has `names` from the start."""
        number = max(self.rows, default=0) + 1
        rows = self.rows[number] = _Rows(collection, number, self.clock())
        rows.add([Listed(item_id, modified, b"") for item_id, modified in names])
        rows.walk = msgspec.structs.replace(rows.walk, count=len(rows.ids))
        return rows.walk

    def retire(self, walk: Walk | None) -> None:
        """Let a walk go, unless somebody holds it."""
        if walk:
            rows = self.rows[walk.number]
            rows.walk = msgspec.structs.replace(rows.walk, state="retired")
            if not rows.holders:
                del self.rows[walk.number]

    def _let_go(self, number: int) -> None:
        rows = self.rows.get(number)
        if rows:
            rows.holders -= 1
            if rows.walk.state == "retired" and not rows.holders:
                self.rows.pop(number, None)

    def _find(self, collection: str, state: str) -> Walk | None:
        walks = (rows.walk for rows in list(self.rows.values()))
        return next((o for o in walks if (o.collection, o.state) == (collection, state)), None)

    def _rows(self, number: int) -> "_Rows":
        rows = self.rows.get(number)
        if rows is None:
            raise WalkGone(f"the walk {number} is deleted")
        return rows


class Held:
    """What keeps a walk from being deleted."""

    def __init__(self, let_go: Callable[[], None]) -> None:
        self.release = let_go


class MemoryClaim(Releasable):
    """The right to go on with a walk in memory; as `index.Claim`."""

    def __init__(self, index: MemoryIndex, walk: Walk) -> None:
        self.walk = walk
        self._index = index

    def release(self) -> None:
        """As `Claim.release`."""
        self._index.claimed.discard(self.walk.collection)

    def append(
        self, items: Sequence[Listed], *, cursor: str | None, matched: int | None = None
    ) -> Walk:
        """As `Claim.append`."""
        rows = self._index.rows[self.walk.number]
        with self._index.lock:
            rows.add(items)
        return self._become(
            count=len(rows.ids),
            passed=len(rows.passed) if rows.passed is not None else len(rows.ids),
            pages=self.walk.pages + 1,
            cursor=cursor,
            problem=None,
            matched=self.walk.matched if matched is None else matched,
            touched=self._index.clock(),
        )

    def fail(self, problem: str) -> Walk:
        """As `Claim.fail`."""
        return self._become(problem=problem)

    def rewind(self) -> Walk:
        """As `Claim.rewind`."""
        self._index.rows[self.walk.number].passed = set()
        return self._become(cursor=None, pages=0, passed=0, rewinds=self.walk.rewinds + 1)

    def discard(self) -> Walk:
        """As `Claim.discard`."""
        with self._index.lock:
            self._index.retire(self.walk)
            self.walk = self._index.begin(self.walk.collection)
        return self.walk

    def finish(self, problem: str | None = None) -> Walk:
        """As `Claim.finish`."""
        with self._index.lock:
            self._index.retire(self._index.serving(self.walk.collection))
        now = self._index.clock()
        return self._become(
            state="serving", problem=problem, finished=now, touched=now, cursor=None
        )

    def _become(self, **changes: object) -> Walk:
        self.walk = msgspec.structs.replace(self.walk, **changes)
        self._index.rows[self.walk.number].walk = self.walk
        return self.walk


class _Rows:
    """The names of a walk; `ids` only ever grows, so readers index it without a lock."""

    def __init__(self, collection: str, number: int, now: float) -> None:
        self.walk = Walk(
            number, collection, "walking", 0, None, 0, 0, 0, None, None, now, now, None
        )
        self.ids: list[str] = []
        self.modified: dict[str, float] = {}
        self.passed: set[str] | None = None
        self.holders = 0

    def add(self, items: Sequence[Listed]) -> None:
        for item in items:
            if item.id not in self.modified:
                self.modified[item.id] = item.modified
                self.ids.append(item.id)
            if self.passed is not None:
                self.passed.add(item.id)
