"""Files of this machine in the place of a server: for a catalog that is a folder, or in a tarball.

Owns which files may be read: those below the catalog's own folder, whatever its links say, and
symbolic links lead no further. The rooms above see the same documents and parts as over HTTP, at
`file:` URLs; what is in a tarball has the URL that it would have if the tarball were a folder.

*Threading.* Any thread.
"""

import os
import stat
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from mlhubfs.errors import BadAnswer, Denied, NotFound
from mlhubfs.transport.document import LIMIT, Document
from mlhubfs.transport.ranges import Part

ROOTS = ("catalog.json", "collection.json")
"""What the document is called that a catalog begins with."""


class Files(Protocol):
    """Where the documents and the bytes at `file:` URLs come from."""

    @property
    def root(self) -> str:
        """The URL of the document that the catalog begins with; raises NotFound."""

    def document(self, url: str) -> Document:
        """Return the whole file, at most 256 MiB; raises NotFound, Denied, BadAnswer."""

    def range(self, url: str, start: int, stop: int) -> Part:
        """Return the bytes [start, stop) of a file, fewer at its end; raises NotFound, Denied."""


class Folder:
    """The files below the directory `path`, or below that of the document `path`."""

    def __init__(self, path: Path) -> None:
        self._document = None if path.is_dir() else path
        self._root = os.path.realpath(path.parent if self._document else path)

    @property
    def root(self) -> str:
        """The URL of the document, else of the folder's catalog.json or collection.json."""
        if self._document:
            return self._document.as_uri()
        found = [path for path in (Path(self._root, name) for name in ROOTS) if path.exists()]
        if not found:
            raise NotFound(f"{self._root} holds neither a catalog.json nor a collection.json")
        return found[0].as_uri()

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def document(self, url: str) -> Document:
        """Return the whole file."""
        descriptor = self._open(url)
        with os.fdopen(descriptor, "rb") as file:
            body = file.read(LIMIT + 1)
        return Document(limited(body, url), url)

    def range(self, url: str, start: int, stop: int) -> Part:
        """Return the bytes [start, stop) of a file."""
        descriptor = self._open(url)
        try:
            found = os.fstat(descriptor)
            data = os.pread(descriptor, stop - start, start)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if (found.st_size, found.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise BadAnswer(f"{path_of(url)} was written to while it was read")
        validator = f"etag:{found.st_ino:x}-{found.st_mtime_ns:x}"
        return Part(data, found.st_size, validator, found.st_mtime, url)

    def _open(self, url: str) -> int:
        path = path_of(url)
        try:
            # A pipe would wait for its writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no file {path}") from None
        except (OSError, ValueError) as error:
            raise Denied(f"{path} cannot be read: {error}") from None
        # Not the path that was asked for, but what was opened by it: links may have changed.
        there = Path(f"/proc/self/fd/{descriptor}").readlink()  # or "pipe:[4711]"
        is_inside = there.is_relative_to(self._root)
        if is_inside and stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        if is_inside:
            raise NotFound(f"{path} is no file")
        raise Denied(f"{path} is not read: it lies outside of the catalog's folder {self._root}")


def is_local(url: str) -> bool:
    """Say whether a URL is that of a file of this machine."""
    return url[:5].lower() == "file:"


def path_of(url: str) -> str:
    """Return the absolute path that a `file:` URL names; raises NotFound for another machine's."""
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise NotFound(f"a file on the machine {parts.netloc!r} cannot be read")
    return os.path.normpath(unquote(parts.path, errors="surrogateescape"))


def limited(body: bytes, url: str) -> bytes:
    """Return the body of a document; raises BadAnswer where it is too large to be one."""
    if len(body) > LIMIT:
        raise BadAnswer(f"{path_of(url)} has more than {LIMIT} bytes of JSON")
    return body
