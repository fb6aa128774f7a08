r"""What was listed, on disk: the names of a source's items in order, and their JSON.

Owns the walks, each a *generation* of one collection's listing: positions 0 to count - 1, and
where the next page is. Does not fetch, nor decide when a listing is too old; `listing` does.

    walking --finish--> serving --(a newer one finishes)--> retired --sweep--> gone
       \--discard-----------------------------------------> retired

A collection has at most one walk under way and one that serves; the one that serves goes on serving
while its successor is walked. What a listing is built from:

    walk = index.serving(collection) or index.under_way(collection)
    for position, item_id, modified in index.names(walk.number, start): ...

and where that comes to an end too early,

    with index.claim(collection) as claim:      # None: another walks it; see its walk's count grow
        page = fetch(claim.walk.cursor)
        claim.append(page.items, cursor=page.next, matched=page.matched)
        claim.finish()                          # where page.next is None

A claim costs 0.2 ms: hold it while there are readers that pull, let go when they rest, so that
another mount's readers may pull on. Whoever claims next resumes at the cursor.

What looks simple and is not:

1. A reader must see one generation from its first name to its last, at offsets that stay. So a walk
   that was replaced stays until nobody, in any process, holds it (`hold`; `names` does while it is
   iterated). Between two batches no transaction is open: it would keep the log from being cut.
2. Two mounts must not walk one collection at once. A claim is a lock on a side file, which the
   kernel releases when its holder ends, not a lease: a laptop that slept would lose a lease in the
   middle of a page. `append` checks all the same that the walk is where the claim left it.
3. A page goes in whole with its cursor, or not at all: after kill -9 the walk resumes at the page
   that was under way. A page that comes twice changes nothing: of an id the first item is kept.
4. Personal links never reach the disk: everything passes `strip` first (`index_documents`).

*Threading.* Any thread; a Claim and an iterator serve one at a time. No thread-locals. Not across
fork: open it after. Every method raises IndexUnusable where the disk fails; go on without then.
"""

import contextlib
import hashlib
import re
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlhubfs.catalog.index_claim import Claim
from mlhubfs.catalog.index_database import Database
from mlhubfs.catalog.index_documents import Strip, unpack
from mlhubfs.catalog.index_walk import (
    PLACES,
    Walk,
    delete_some,
    find_walk,
    find_walks,
    insert_walk,
)
from mlhubfs.catalog.locks import FileLock, try_lock
from mlhubfs.catalog.models import Listed
from mlhubfs.errors import IndexUnusable, WalkGone

__all__ = ["Claim", "Index", "IndexUnusable", "Walk", "WalkGone", "path_of"]

_BATCH = 1000  # names a query: 1 ms, and 150 kB of memory
_ANSWER_LEVEL = 6


class Index:
    """The index in the file at `path`, of the source at the URL `root`.

    `strip` takes an item's JSON and returns it without what must not be stored. `clock` tells POSIX
    seconds. Raises IndexUnusable if the file can neither be opened nor made.
    """

    def __init__(
        self, path: Path, *, root: str, strip: Strip, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._strip = strip
        self._clock = clock
        self.is_closed = False
        self._claims = weakref.WeakSet[Claim]()
        self._database = Database(path)
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO source SELECT ? WHERE NOT EXISTS (SELECT * FROM source)", (root,)
            )

    def close(self) -> None:
        """Let go of the file."""
        self.is_closed = True
        for claim in list(self._claims):
            claim.release()
        self._database.close()

    def remove(self) -> None:
        """Let go of the file, and remove it unless others have it open."""
        self.close()
        self._database.remove()

    @property
    def root(self) -> str:
        """The root URL of the source whose items these are, as it was when the file was made."""
        return str(self._rows("SELECT root FROM source")[0][0])

    def serving(self, collection: str) -> Walk | None:
        """Return the newest walk of a collection that was finished."""
        return self._walk("collection = ? AND state = 'serving'", collection)

    def under_way(self, collection: str) -> Walk | None:
        """Return the walk of a collection that was begun and not finished, by whomever."""
        return self._walk("collection = ? AND state = 'walking'", collection)

    def walk(self, number: int) -> Walk | None:
        """Return the walk with that number as it stands now, or None where it is deleted."""
        return self._walk("number = ? AND state != 'swept'", number)

    def walks(self) -> list[Walk]:
        """Return every walk there is, by collection; the collection's newest first."""
        with self._database.reading() as connection:
            return find_walks(connection)

    def size(self) -> int:
        """Return the bytes that the index takes on disk."""
        sizes = 0
        for ending in ("", "-wal"):
            with contextlib.suppress(OSError):
                sizes += Path(f"{self.path}{ending}").stat().st_size
        return sizes

    def names(self, number: int, start: int = 0) -> Iterator[tuple[int, str, float]]:
        """Yield (position, id, POSIX time) of a walk from `start` on, as far as it has come.

        The walk is held until the iterator ends or is closed. Raises WalkGone if it is deleted.
        """
        with self.hold(number):
            rows = [(start - 1, "", 0.0)]
            while rows:
                following = rows[-1][0] + 1
                rows = self._some("SELECT place - ?, id, modified FROM names", number, following)
                yield from rows

    def documents(self, number: int, start: int = 0) -> list[Listed]:
        """Return the next items of a walk from position `start` on; none where it has no more."""
        query = "SELECT place - ?, id, modified, document FROM names JOIN documents USING (place)"
        rows = self._some(query, number, start)
        found = self._rows("SELECT dictionary FROM walks WHERE number = ?", number) if rows else []
        return [
            Listed(item_id, modified, self._unpack(document, dictionary))
            for (dictionary,) in found
            for _, item_id, modified, document in rows
        ]

    def hold(self, number: int) -> FileLock:
        """Return a lock that keeps a walk from being deleted until it is released.

        Costs an open file; one for all readers of a walk will do. Raises WalkGone.
        """
        held = self._lock(self._held_path(number), shared=True)
        if held is None or self.walk(number) is None:
            if held:
                held.release()
            raise WalkGone(f"the walk {number} is deleted")
        return held

    def item(self, collection: str, item_id: str, since: float = 0.0) -> bytes | None:
        """Return the JSON of an item, as far as it is stored, or None; the newest walk's.

        Only walks that were touched at the POSIX time `since` or later count.
        """
        found = self._find(
            "SELECT document, dictionary FROM walks JOIN names ON walk = number"
            " JOIN documents USING (place)",
            collection,
            item_id,
            since,
        )
        return None if found is None else self._unpack(*found)

    def known(self, collection: str, item_id: str, since: float = 0.0) -> float | None:
        """Return the POSIX time of an item that such walks name, or None."""
        found = self._find(
            "SELECT modified FROM walks JOIN names ON walk = number", collection, item_id, since
        )
        return None if found is None else float(found[0])

    def claim(self, collection: str, number: int | None = None) -> Claim | None:
        """Return the right to walk a collection, or None while another thread or process has it.

        The walk under way is resumed; where there is none, a new one begins. With `number` it must
        be that one: raises WalkGone if it has ended.
        """
        claimed = self._lock(self._claim_path(collection))
        if claimed is None:
            return None
        try:
            walk = self._begin(collection) if number is None else self._resume(collection, number)
        except BaseException:
            claimed.release(remove=True)
            raise
        claim = Claim(walk, claimed, self._database, strip=self._strip, clock=self._clock)
        self._claims.add(claim)
        return claim

    def keep(self, question: str, document: bytes) -> None:
        """Store what was asked for singly, stripped like the items; in place of what was before."""
        packed = zlib.compress(self._strip(document), _ANSWER_LEVEL)
        with self._database.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (question, packed))

    def kept(self, question: str) -> bytes | None:
        """Return what `keep` stored, or None."""
        rows = self._rows("SELECT document FROM answers WHERE question = ?", question)
        try:
            return zlib.decompress(rows[0][0]) if rows else None
        except zlib.error as error:
            raise self._database.damaged(str(error)) from error

    def confirm(self, number: int, *, matched: int | None = None) -> None:
        """Note that the server's listing was found to be what this walk has."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE walks SET touched = ?, matched = coalesce(?, matched)"
                " WHERE number = ? AND state = 'serving'",
                (self._clock(), matched, number),
            )

    def sweep(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Delete the retired walks that nobody holds; return how many rows went.

        The disk gets back what they took. In batches, with pauses as long as they took, so that
        others may write. To be called in the background, after `finish` and at the start; a sweep
        that was cut short is taken up again.
        """
        swept = 0
        for (number,) in self._rows("SELECT number FROM walks WHERE state IN ('retired', 'swept')"):
            held = self._lock(self._held_path(number))
            if held is None:
                continue
            try:
                for rows in self._sweep(number):
                    swept += rows
                    if stop():
                        return swept
            finally:
                held.release(remove=True)
        for _ in _unhurried(self._database.shrink):
            if stop():
                break
        return swept

    def _sweep(self, number: int) -> Iterator[int]:
        with self._database.writing() as connection:
            # From here on `hold` refuses it, in the sweep that takes this one up too.
            connection.execute("UPDATE walks SET state = 'swept' WHERE number = ?", (number,))

        def delete() -> int:
            with self._database.writing() as connection:
                return delete_some(connection, number)

        yield from _unhurried(delete)

    def _begin(self, collection: str) -> Walk:
        walk = self.under_way(collection)
        while walk is None:
            with self._database.writing() as connection:
                insert_walk(connection, collection, self._clock())
            walk = self.under_way(collection)
        return walk

    def _resume(self, collection: str, number: int) -> Walk:
        walk = self.under_way(collection)
        if walk is None or walk.number != number:
            raise WalkGone(f"the walk {number} has ended")
        return walk

    def _walk(self, condition: str, value: str | int) -> Walk | None:
        with self._database.reading() as connection:
            return find_walk(connection, condition, value)

    def _find(self, query: str, collection: str, item_id: str, since: float) -> Any:
        try:
            rows = self._rows(
                f"{query} WHERE collection = ? AND state IN ('walking', 'serving') AND id = ?"
                " AND touched >= ? ORDER BY number DESC LIMIT 1",
                collection,
                item_id,
                since,
            )
        except UnicodeEncodeError:
            return None  # a name of bytes that are no UTF-8: no server's JSON can hold it
        return rows[0] if rows else None

    def _some(self, query: str, number: int, start: int) -> list[Any]:
        """Return the next rows of a query over a walk, whose first column is the position."""
        first = number * PLACES
        return self._rows(
            f"{query} WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
            first,
            first + start,
            first + PLACES,
            _BATCH,
        )

    def _unpack(self, document: bytes, dictionary: bytes) -> bytes:
        try:
            return unpack(document, dictionary)
        except zlib.error as error:
            raise self._database.damaged(str(error)) from error

    def _rows(self, query: str, *values: str | float) -> list[Any]:
        with self._database.reading() as connection:
            return connection.execute(query, values).fetchall()

    def _lock(self, path: Path, *, shared: bool = False) -> FileLock | None:
        try:
            return try_lock(path, shared=shared)
        except OSError as error:
            raise IndexUnusable(f"the index {self.path} cannot be locked: {error}") from error

    def _held_path(self, number: int) -> Path:
        return self._database.locks / f"held-{number}"

    def _claim_path(self, collection: str) -> Path:
        digest = hashlib.blake2b(collection.encode(errors="replace"), digest_size=12).hexdigest()
        return self._database.locks / f"claim-{digest}"


def path_of(folder: Path, root: str) -> Path:
    """Return where in `folder` the index of the source at the URL `root` is."""
    parts = urlsplit(root)
    host = re.sub(r"[^\w.-]+", "-", parts.netloc or parts.path).strip("-")[-60:]
    digest = hashlib.blake2b(root.rstrip("/").encode(), digest_size=8).hexdigest()
    return folder / f"{host}-{digest}.sqlite"


def _unhurried(act: Callable[[], int]) -> Iterator[int]:
    """Do something again and again until it says 0, with pauses as long as it took."""
    while True:
        began = time.monotonic()
        done = act()
        took = time.monotonic() - began
        yield done
        if not done:
            return
        time.sleep(took)
