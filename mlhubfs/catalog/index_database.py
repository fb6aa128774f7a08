"""The SQLite file under the index: its schema, its connections, its troubles.

Owns the opening, the checks, the setting aside and the transactions. Knows no walks (`index`).

1. Python's usual connection per thread is of no use: the threads that serve the kernel lose their
   thread-locals after every call (ctypes). So there are a few connections that whoever needs one
   borrows, and one that writes.
2. Write-ahead logging lets readers read while a page goes in. `synchronous=NORMAL`: a transaction
   survives kill -9 at any moment; a power cut may cost the last ones, never the file.
3. A file must not be renamed while someone has it open: SQLite would delete the new file's log by
   name when the old one is closed. So whoever has it open holds a shared lock on
   `<name>.locks/open`, and it is set aside, and made anew, only under the exclusive one.
4. Checking a whole file at every start would read all of it. Damage shows when a page is read; it
   is noted in the lock file then, and the next one to open the index alone sets the file aside.

*Threading.* Any thread. Not across fork: open after it.
"""

import contextlib
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from mlhubfs.catalog.locks import FileLock, lock
from mlhubfs.errors import IndexUnusable

_log = logging.getLogger("mlhubfs.catalog")

SCHEMA_VERSION = 1
_APPLICATION = 0x6D6C6866  # "mlhf": tells our files from other programs' databases
_READERS = 4  # connections; a look-up takes 30 us, a batch of names 1 ms
_CACHE_KILOBYTES = 2048  # per connection; the kernel's page cache holds the rest
_LOG_BYTES = 16 << 20  # what the write-ahead log is cut back to
_OPENING_SECONDS = 5.0
_BUSY_SECONDS = 10.0  # transactions of others take 100 ms (10,000 items)
_DAMAGED = b"damaged"
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

# `place` is walk << 32 | position: rows of a walk lie together and in order. Names and documents
# are apart, so that a listing of 590,326 items reads 60 MB, not 300. `pass` counts the rewinds of
# its walk when a name last came; `answers` is what was asked for singly.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE source (root TEXT NOT NULL);
CREATE TABLE walks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('walking', 'serving', 'retired', 'swept')),
    count INTEGER NOT NULL DEFAULT 0,
    matched INTEGER,
    pages INTEGER NOT NULL DEFAULT 0,
    rewinds INTEGER NOT NULL DEFAULT 0,
    passed INTEGER NOT NULL DEFAULT 0,
    cursor TEXT,
    problem TEXT,
    started REAL NOT NULL,
    touched REAL NOT NULL,
    finished REAL,
    dictionary BLOB NOT NULL DEFAULT x''
);
CREATE UNIQUE INDEX live_walks ON walks (collection, state)
    WHERE state IN ('walking', 'serving');
CREATE TABLE names (
    place INTEGER PRIMARY KEY,
    walk INTEGER NOT NULL,
    id TEXT NOT NULL,
    modified REAL NOT NULL,
    pass INTEGER NOT NULL
);
CREATE UNIQUE INDEX names_by_id ON names (walk, id);
CREATE TABLE documents (place INTEGER PRIMARY KEY, document BLOB NOT NULL);
CREATE TABLE answers (question TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class Database:
    """The file at `path`, made where it is absent, set aside where it is not ours.

    Raises IndexUnusable, from every method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.locks = path.with_name(f"{path.name}.locks")
        """The folder of the lock files that belong to this database."""
        self._readers: deque[sqlite3.Connection] = deque()
        self._reader_slots = threading.BoundedSemaphore(_READERS)
        self._writer: sqlite3.Connection | None = None
        self._writer_lock = threading.Lock()
        self._closed = False
        with self._translated():
            for folder in (path.parent, self.locks):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            self._presence = self._enter()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for a query; every row must be fetched before it is given back."""
        with self._reader_slots, self._translated():
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._connect("query_only = ON")
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            if self._closed:
                connection.close()
            else:
                self._readers.append(connection)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection that writes for one transaction: all of it happens, or nothing."""
        with self._writer_lock, self._translated():
            connection = self._writer or self._connect()
            self._writer = None
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close()  # which rolls back
                raise
            if self._closed:
                connection.close()
            else:
                self._writer = connection

    def damaged(self, reason: str) -> IndexUnusable:
        """Note that the file is damaged, to be set aside at the next start; return the error."""
        with contextlib.suppress(OSError):
            (self.locks / "open").write_bytes(_DAMAGED)
        return IndexUnusable(
            f"the index {self._path} is damaged ({reason}): the next mount makes it anew"
        )

    def close(self) -> None:
        """Let go of the file. Those who use it at this moment end with IndexUnusable, or well."""
        self._closed = True
        with self._writer_lock:
            if self._writer:
                self._writer.close()
                self._writer = None
        while self._readers:
            with contextlib.suppress(IndexError):
                self._readers.pop().close()
        self._presence.release()

    def _enter(self) -> FileLock:
        gate = self.locks / "open"
        for _ in range(2):
            presence = lock(gate, shared=True, seconds=_OPENING_SECONDS)
            if presence is None:
                raise IndexUnusable(f"the index {self._path} is being made by another process")
            if self._inspect() is None:
                return presence
            presence.release()
            self._make(gate)
        raise IndexUnusable(f"the index {self._path} cannot be made")

    def _make(self, gate: Path) -> None:
        with contextlib.ExitStack() as ending:
            alone = lock(gate, seconds=_OPENING_SECONDS)
            if alone is None:
                raise IndexUnusable(
                    f"the index {self._path} is {self._inspect() or 'to be made'}, and another "
                    "mount has it open: it is made anew when that has ended"
                )
            ending.enter_context(alone)
            fault = self._inspect()  # another process may have mended it meanwhile
            if fault is None:
                return
            if fault != "absent":
                self._set_aside(fault)
            gate.write_bytes(b"")
            self._create()

    def _inspect(self) -> str | None:
        """Return what is wrong with the file, in words, or None."""
        if (self.locks / "open").read_bytes() == _DAMAGED:
            return "damaged"
        if not self._path.exists() or not self._path.stat().st_size:
            return "absent"
        try:
            with contextlib.closing(self._connect("query_only = ON")) as connection:
                application = connection.execute("PRAGMA application_id").fetchone()[0]
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if application != _APPLICATION:
                    return "no index of mlhubfs"
                if version != SCHEMA_VERSION:
                    return f"of version {version}, not {SCHEMA_VERSION}"
                connection.execute("SELECT number FROM walks LIMIT 1").fetchall()
        except sqlite3.Error as error:
            if _primary_code(error) in {*_DAMAGE, sqlite3.SQLITE_ERROR}:
                return f"damaged ({error})"
            raise
        return None

    def _set_aside(self, fault: str) -> None:
        aside = self._path.with_name(f"{self._path.name}.aside")
        _log.warning(
            "the index %s is %s: it is set aside as %s, and made anew",
            self._path,
            fault,
            aside.name,
        )
        for ending in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{ending}").replace(f"{aside}{ending}")
        Path(f"{self._path}-shm").unlink(missing_ok=True)

    def _create(self) -> None:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        with contextlib.closing(self._connect()) as connection:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise IndexUnusable(
                    f"{self._path.parent} is on a file system without shared memory, which an "
                    "index needs: choose another cache_dir"
                )
            connection.executescript(_SCHEMA)

    def _connect(self, *pragmas: str) -> sqlite3.Connection:
        if self._closed:
            raise IndexUnusable(f"the index {self._path} is closed")
        connection = sqlite3.connect(
            f"file:{quote(os.fspath(self._path.absolute()))}?mode=rw",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            for pragma in (
                "synchronous = NORMAL",
                "trusted_schema = OFF",
                f"cache_size = -{_CACHE_KILOBYTES}",
                f"journal_size_limit = {_LOG_BYTES}",
                *pragmas,
            ):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if _primary_code(error) in _DAMAGE:
                raise self.damaged(str(error)) from error
            raise IndexUnusable(f"the index {self._path} cannot be used: {error}") from error
        except OSError as error:
            raise IndexUnusable(f"the index {self._path} cannot be used: {error}") from error


def _primary_code(error: sqlite3.Error) -> int:
    # Extended codes carry the primary one in their low byte.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
