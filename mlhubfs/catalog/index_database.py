"""The connections to the SQLite file of an index, and its transactions.

Owns who may read and write at a time, and what becomes of SQLite's errors. Knows no walks (`index`)
and not how the file came to be (`index_file`).

1. Python's usual connection per thread is of no use: the threads that serve the kernel lose their
   thread-locals after every call (ctypes). So there are a few connections that whoever needs one
   borrows, and one that writes.
2. Write-ahead logging lets readers read while a page goes in. `synchronous=NORMAL`: a transaction
   survives kill -9 at any moment; a power cut may cost the last ones, never the file.

*Threading.* Any thread. Not across fork: open after it.
"""

import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from mlhubfs.catalog.index_file import IndexFile, is_damage
from mlhubfs.errors import IndexUnusable

_READERS = 4  # connections; a look-up takes 30 us, a batch of names 1 ms
_SHRUNK_PAGES = 1000  # of 4 KiB: 20 ms in which others cannot write


class Database:
    """The file at `path`, made where it is absent, set aside where it is not ours.

    Raises IndexUnusable, from every method.
    """

    def __init__(self, path: Path) -> None:
        self._file = IndexFile(path)
        self.locks = self._file.locks
        """The folder of the lock files that belong to this database."""
        self._readers: deque[sqlite3.Connection] = deque()
        self._reader_slots = threading.BoundedSemaphore(_READERS)
        self._writer: sqlite3.Connection | None = None
        self._writer_lock = threading.Lock()
        self._closed = False
        with self._translated():
            self._presence = self._file.open()

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

    def shrink(self) -> int:
        """Give some of the pages that are free back to the disk; return how many."""
        with self.writing() as connection:
            free = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
            connection.execute(f"PRAGMA incremental_vacuum({_SHRUNK_PAGES})").fetchall()
            return free - int(connection.execute("PRAGMA freelist_count").fetchone()[0])

    def damaged(self, reason: str) -> IndexUnusable:
        """Note that the file is damaged, to be set aside at the next start; return the error."""
        self._file.note_damage()
        return IndexUnusable(
            f"the index {self._file.path} is damaged ({reason}): the next mount makes it anew"
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

    def remove(self) -> None:
        """Remove the file, which was closed, unless others have it open."""
        with contextlib.suppress(OSError):
            self._file.remove()

    def _connect(self, *pragmas: str) -> sqlite3.Connection:
        if self._closed:
            raise IndexUnusable(f"the index {self._file.path} is closed")
        return self._file.connect(*pragmas)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if is_damage(error):
                raise self.damaged(str(error)) from error
            raise IndexUnusable(f"the index {self._file.path} cannot be used: {error}") from error
        except OSError as error:
            raise IndexUnusable(f"the index {self._file.path} cannot be used: {error}") from error
