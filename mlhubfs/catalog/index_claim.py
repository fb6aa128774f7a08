"""The right to take a walk further, and what may be done with it.

Owns the packing of items on their way to the disk, and that nothing happens to a walk that is not
where it was left. The SQL is `index_walk`'s.

*Threading.* A Claim serves one thread at a time.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence

from mlhubfs.catalog.index_database import Database
from mlhubfs.catalog.index_documents import Packer, Strip, dictionary_of
from mlhubfs.catalog.index_walk import Walk, find_walk, insert_items, insert_walk
from mlhubfs.catalog.locks import FileLock, Releasable
from mlhubfs.catalog.models import Listed
from mlhubfs.errors import WalkGone


class Claim(Releasable):
    """The right to go on with a walk, which `claimed` is the lock of; see `Index.claim`.

    Every method raises IndexUnusable, and WalkGone where the walk is not where the claim left it.
    """

    def __init__(
        self,
        walk: Walk,
        claimed: FileLock,
        database: Database,
        *,
        strip: Strip,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.walk = walk
        """The walk as this claim left it."""
        self._claimed = claimed
        self._database = database
        self._strip = strip
        self._clock = clock
        self._packer: Packer | None = None

    def release(self) -> None:
        """Let others walk on."""
        self._claimed.release(remove=True)

    def append(
        self, items: Sequence[Listed], *, cursor: str | None, matched: int | None = None
    ) -> Walk:
        """Add a page, in one transaction with the `cursor` of the next one; return the walk.

        Of items with the same id the first stays. A `cursor` is kept as it is given: what is
        secret in it must have been cut out. None says that this was the last page.
        """
        packer, dictionary = self._packing(items)
        packed = [packer.pack(self._strip(bytes(one.document))) for one in items] if packer else []

        def change(connection: sqlite3.Connection) -> int:
            count, passed = insert_items(connection, self.walk, items, packed)
            connection.execute(
                "UPDATE walks SET count = ?, passed = passed + ?, matched = coalesce(?, matched),"
                " pages = pages + 1, cursor = ?, problem = NULL, touched = ?,"
                " dictionary = CASE WHEN dictionary = x'' THEN ? ELSE dictionary END"
                " WHERE number = ?",
                (
                    count,
                    passed,
                    matched,
                    cursor,
                    self._clock(),
                    dictionary,
                    self.walk.number,
                ),
            )
            return self.walk.number

        walk = self._perform(change)
        self._packer = packer
        return walk

    def fail(self, problem: str) -> Walk:
        """Note why the walk came to a halt; it stays under way, and is to go on later."""
        return self._update("problem = ?", problem)

    def rewind(self) -> Walk:
        """Begin again at the first page, for a cursor that the server no longer knows.

        The names stay, at their positions: those that come again change nothing, new ones follow.
        """
        return self._update("cursor = NULL, pages = 0, passed = 0, rewinds = rewinds + 1")

    def discard(self) -> Walk:
        """Give up what was walked, and begin a new walk, which is returned."""

        def change(connection: sqlite3.Connection) -> int:
            connection.execute(
                "UPDATE walks SET state = 'retired' WHERE number = ?", (self.walk.number,)
            )
            return insert_walk(connection, self.walk.collection, self._clock())

        walk = self._perform(change)
        self._packer = None
        return walk

    def finish(self, problem: str | None = None) -> Walk:
        """Let this walk serve, and retire the one that served before, in one transaction.

        `problem` says why it is known to be incomplete though the server has no more pages. A walk
        that is worse than what it would replace is not to be finished, but `fail`ed.
        """

        def change(connection: sqlite3.Connection) -> int:
            connection.execute(
                "UPDATE walks SET state = 'retired' WHERE collection = ? AND state = 'serving'",
                (self.walk.collection,),
            )
            now = self._clock()
            connection.execute(
                "UPDATE walks SET state = 'serving', problem = ?, finished = ?, touched = ?,"
                " cursor = NULL WHERE number = ?",
                (problem, now, now, self.walk.number),
            )
            return self.walk.number

        return self._perform(change)

    def _update(self, assignments: str, *values: str) -> Walk:
        def change(connection: sqlite3.Connection) -> int:
            connection.execute(
                f"UPDATE walks SET {assignments} WHERE number = ?",  # noqa: S608 - ours, above
                (*values, self.walk.number),
            )
            return self.walk.number

        return self._perform(change)

    def _perform(self, change: Callable[[sqlite3.Connection], int]) -> Walk:
        """Make one change of the walk; `change` returns the number of the walk to go on with."""
        with self._database.writing() as connection:
            if find_walk(connection, "number = ?", self.walk.number) != self.walk:
                raise WalkGone(f"the walk {self.walk.number} is no longer where it was left")
            if self.walk.state != "walking":
                raise WalkGone(f"the walk {self.walk.number} has ended")
            walk = find_walk(connection, "number = ?", change(connection))
        if walk is None:
            raise WalkGone(f"the walk {self.walk.number} is deleted")
        # Not before the transaction is through: if it fails, the same page can be tried again.
        self.walk = walk
        return walk

    def _packing(self, items: Sequence[Listed]) -> tuple[Packer | None, bytes]:
        """Return the walk's packer and its dictionary, made of the first page that has items."""
        if self._packer or not items:
            return self._packer, b""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT dictionary FROM walks WHERE number = ?", (self.walk.number,)
            ).fetchall()
        dictionary: bytes = rows[0][0] if rows else b""
        if not dictionary:
            # One page may hold several kinds of items.
            some = (items[0], items[len(items) // 2], items[-1])
            dictionary = dictionary_of([self._strip(bytes(one.document)) for one in some])
        return Packer(dictionary), dictionary
