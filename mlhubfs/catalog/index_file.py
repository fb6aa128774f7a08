"""The SQLite file of an index: its schema, and whether it is there, ours and sound.

Owns the checks, the making, and the setting aside of what is none or damaged. Transactions and
connections that stay are the database's.

1. A file must not be renamed while someone has it open: SQLite would delete the new file's log by
   name when the old one is closed. So whoever has it open holds a shared lock on
   `<name>.locks/open`, and it is set aside, and made anew, only under the exclusive one.
2. Checking a whole file at every start would read all of it. Damage shows when a page is read; it
   is noted in the lock file then, and the next one to open the index alone sets the file aside.

*Threading.* Any thread, any process. Raises sqlite3.Error and OSError as they come.
"""

import contextlib
import logging
import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from mlhubfs.catalog.locks import FileLock, lock
from mlhubfs.errors import IndexUnusable

_log = logging.getLogger("mlhubfs.catalog")

SCHEMA_VERSION = 1
APPLICATION = 0x6D6C6866
"""It spells `mlhf`, and tells our files from other programs' databases."""

_CACHE_KILOBYTES = 2048  # per connection; the kernel's page cache holds the rest
_LOG_BYTES = 16 << 20  # what the write-ahead log is cut back to
_OPENING_SECONDS = 5.0
_MOMENT_SECONDS = 0.05
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
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class IndexFile:
    """The file at `path`, and the folder of its lock files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.locks = path.with_name(f"{path.name}.locks")
        """The folder of the lock files that belong to it."""

    def open(self) -> FileLock:
        """Return what says that the file is in use; it is made if it is absent or unfit.

        Raises IndexUnusable where that cannot be.
        """
        for folder in (self.path.parent, self.locks):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        gate = self.locks / "open"
        deadline = time.monotonic() + _OPENING_SECONDS
        was_made = False
        while True:
            presence = lock(gate, shared=True, seconds=_OPENING_SECONDS)
            if presence is None:
                raise IndexUnusable(f"the index {self.path} is being made by another process")
            fault = self._inspect()
            if fault is None:
                return presence
            presence.release()
            # For a moment only: another process may have mended it, and has it open from then on.
            alone = None if was_made else lock(gate, seconds=_MOMENT_SECONDS)
            if alone:
                with alone:
                    self._make()
                was_made = True
            elif was_made or time.monotonic() >= deadline:
                raise IndexUnusable(
                    f"the index {self.path} is {fault}, and another mount has it open: it is made "
                    "anew when that has ended"
                )

    def connect(self, *pragmas: str) -> sqlite3.Connection:
        """Return a connection in autocommit mode, for any thread."""
        connection = sqlite3.connect(
            f"file:{quote(os.fspath(self.path.absolute()))}?mode=rw",
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

    def remove(self) -> None:
        """Remove the file and its lock files, unless somebody has it open; see 1."""
        alone = lock(self.locks / "open", seconds=_MOMENT_SECONDS)
        if alone:
            for ending in ("", "-wal", "-shm"):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)
            alone.release(remove=True)
            with contextlib.suppress(OSError):
                self.locks.rmdir()

    def note_damage(self) -> None:
        """Have the file set aside by the next one who opens it alone."""
        with contextlib.suppress(OSError):
            (self.locks / "open").write_bytes(_DAMAGED)

    def _make(self) -> None:
        fault = self._inspect()  # another process may have mended it meanwhile
        if fault is None:
            return
        if fault != "absent":
            self._set_aside(fault)
        (self.locks / "open").write_bytes(b"")
        self._create()

    def _inspect(self) -> str | None:
        """Return what is wrong with the file, in words, or None."""
        if (self.locks / "open").read_bytes() == _DAMAGED:
            return "damaged"
        if not self.path.exists() or not self.path.stat().st_size:
            return "absent"
        try:
            with contextlib.closing(self.connect("query_only = ON")) as connection:
                application = connection.execute("PRAGMA application_id").fetchone()[0]
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if application != APPLICATION:
                    return "no index of mlhubfs"
                if version != SCHEMA_VERSION:
                    return f"of version {version}, not {SCHEMA_VERSION}"
                connection.execute("SELECT number FROM walks LIMIT 1").fetchall()
        except sqlite3.Error as error:
            if is_damage(error) or _primary_code(error) == sqlite3.SQLITE_ERROR:
                return f"damaged ({error})"
            raise
        return None

    def _set_aside(self, fault: str) -> None:
        aside = self.path.with_name(f"{self.path.name}.aside")
        _log.warning(
            "the index %s is %s: it is set aside as %s, and made anew",
            self.path,
            fault,
            aside.name,
        )
        for ending in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{ending}").replace(f"{aside}{ending}")
        Path(f"{self.path}-shm").unlink(missing_ok=True)

    def _create(self) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        with contextlib.closing(self.connect()) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before anything is in it
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise IndexUnusable(
                    f"{self.path.parent} is on a file system without shared memory, which an "
                    "index needs: choose another cache_dir"
                )
            connection.executescript(_SCHEMA)


def is_damage(error: sqlite3.Error) -> bool:
    """Say whether an error tells that the file is no database, or a broken one."""
    return _primary_code(error) in _DAMAGE


def _primary_code(error: sqlite3.Error) -> int:
    # Extended codes carry the primary one in their low byte.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
