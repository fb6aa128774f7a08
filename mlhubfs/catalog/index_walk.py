"""A walk of one collection's items, as the rows of the index are, and how these are changed.

Owns the SQL of walks, names and documents. Who may change them is the claim's matter; nothing here
begins or ends a transaction.

*Threading.* Values, and functions on the connection that the caller has.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from mlhubfs.catalog.models import Listed

PLACES = 1 << 32
"""Positions that a walk has room for: `place` is walk * PLACES + position."""

_DELETED = 5000  # names at once: 40 ms in which others cannot write
_INSERT = "INSERT INTO names VALUES (?, ?, ?, ?, ?) ON CONFLICT (walk, id) DO NOTHING"
_COLUMNS = (
    "number, collection, state, count, matched, pages, rewinds, passed, cursor, problem, started,"
    " touched, finished"
)


class Walk(msgspec.Struct, frozen=True):
    """One generation of a collection's listing, as it stood when it was asked for."""

    number: int
    """Grows with each new walk; never used again."""
    collection: str
    state: str
    """`walking`, `serving`, `retired`, or `swept` while it is being deleted."""
    count: int
    """How many items it has."""
    matched: int | None
    """How many the server says there are, where it does."""
    pages: int
    """Pages since the walk began or was last rewound."""
    rewinds: int
    """How often it began again at the first page."""
    passed: int
    """How many of its items have come since it began or was last rewound."""
    cursor: str | None
    """What the next page is asked with; None before the first page, and after the last one."""
    problem: str | None
    """Why its names may be fewer than the collection's, in words, where that is so."""
    started: float
    """POSIX seconds."""
    touched: float
    """When a page last came, or the listing was last found unchanged; POSIX seconds."""
    finished: float | None
    """When its last page had come; POSIX seconds."""

    @property
    def at_end(self) -> bool:
        """Whether there is no page left to ask for."""
        return self.pages > 0 and self.cursor is None


def find_walk(connection: sqlite3.Connection, condition: str, value: str | int) -> Walk | None:
    """Return the walk that fulfils an SQL condition with one parameter, or None."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM walks WHERE {condition}",  # noqa: S608 - written in the callers
        (value,),
    )
    return next((Walk(*row) for row in rows.fetchall()), None)


def find_walks(connection: sqlite3.Connection) -> list[Walk]:
    """Return every walk there is, by collection; a collection's newest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM walks ORDER BY collection, number DESC"  # noqa: S608 - constant
    )
    return [Walk(*row) for row in rows.fetchall()]


def insert_walk(connection: sqlite3.Connection, collection: str, now: float) -> int:
    """Begin a walk; return its number."""
    done = connection.execute(
        "INSERT INTO walks (collection, state, started, touched) VALUES (?, 'walking', ?, ?)",
        (collection, now, now),
    )
    return int(done.lastrowid or 0)


def insert_items(
    connection: sqlite3.Connection, walk: Walk, items: Sequence[Listed], packed: Sequence[bytes]
) -> tuple[int, int]:
    """Add the items whose ids are new to the walk; return how many it has then, and how many came.

    Those that came before the last rewind are only noted to have come again.
    """
    place = walk.number * PLACES + walk.count
    rows = [
        (number, walk.number, item.id, item.modified, walk.rewinds)
        for number, item in enumerate(items, place)
    ]
    connection.execute("SAVEPOINT page")
    if not rows or connection.executemany(_INSERT, rows).rowcount == len(rows):
        connection.executemany("INSERT INTO documents VALUES (?, ?)", enumerate(packed, place))
        done = (walk.count + len(rows), len(rows))
    else:
        connection.execute("ROLLBACK TO page")
        done = _insert_new(connection, walk, rows, packed)
    connection.execute("RELEASE page")
    return done


def _insert_new(
    connection: sqlite3.Connection,
    walk: Walk,
    rows: Sequence[tuple[int, int, str, float, int]],
    packed: Sequence[bytes],
) -> tuple[int, int]:
    """Do so one by one, for some of the ids are known: places are to be without gaps."""
    place = first = walk.number * PLACES
    place += walk.count
    again = []
    for (_, *row), document in zip(rows, packed, strict=True):
        if connection.execute(_INSERT, (place, *row)).rowcount:
            connection.execute("INSERT INTO documents VALUES (?, ?)", (place, document))
            place += 1
        else:
            again.append((walk.rewinds, walk.number, row[1], walk.rewinds))
    passed = place - first - walk.count
    if walk.rewinds:
        passed += connection.executemany(
            "UPDATE names SET pass = ? WHERE walk = ? AND id = ? AND pass < ?", again
        ).rowcount
    return place - first, passed


def delete_some(connection: sqlite3.Connection, number: int) -> int:
    """Delete the next names of a walk; return how many. With the last ones the walk goes too."""
    first, stop = number * PLACES, (number + 1) * PLACES
    row = connection.execute(
        "SELECT min(place) FROM names WHERE place >= ? AND place < ?", (first, stop)
    ).fetchone()
    if row[0] is None:
        connection.execute("DELETE FROM walks WHERE number = ?", (number,))
        return 0
    places = (row[0], min(row[0] + _DELETED, stop))
    connection.execute("DELETE FROM documents WHERE place >= ? AND place < ?", places)
    return connection.execute("DELETE FROM names WHERE place >= ? AND place < ?", places).rowcount
