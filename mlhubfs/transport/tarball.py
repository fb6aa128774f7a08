"""The files in a tarball, read where they are: nothing is unpacked. And which path is one.

Owns the table of its members, some 300 bytes each, which is made by reading through it once, and
where its links lead: hard ones to another name's bytes, symbolic ones as in a folder, never out.

*Threading.* Any thread; the file stays open, so that one that is replaced is read to its end.
"""

import logging
import os
import posixpath
import tarfile
from collections.abc import Mapping
from io import RawIOBase
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from mlhubfs.errors import BadAnswer, Changed, ConfigError, Denied, NotFound
from mlhubfs.tarheader import TarHeader
from mlhubfs.transport.document import Document
from mlhubfs.transport.gunzip import Gunzip
from mlhubfs.transport.local import ROOTS, Folder, limited, path_of
from mlhubfs.transport.ranges import Part

_log = logging.getLogger("mlhubfs.transport")
_FOREIGN = tuple(
    ".tar.xz .txz .tar.bz2 .tbz .tbz2 .tar.zst .tzst .tar.lz .tar.lz4 .tar.z .zip .7z .rar".split()
)
_MOST_LINKS = 40  # from one to the next, as in Linux


class _Bytes(Protocol):
    def read(self, offset: int, size: int) -> bytes: ...


class _Member(NamedTuple):
    offset: int
    size: int
    modified: float


class Tarball:
    """The files in the tarball at `path`, gzipped or not; their URLs are those of a folder there.

    Or of a folder at `name`, for a copy. Raises NotFound and BadAnswer where it is no such thing.
    """

    def __init__(self, path: Path, *, name: Path | None = None) -> None:
        self._path = os.path.realpath(name or path)
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"{path} cannot be read: {error.strerror}") from None
        self._edition = self._stamp()
        try:
            is_gzip = os.pread(self._descriptor, 2, 0) == b"\x1f\x8b"
            self._bytes: _Bytes = (Gunzip if is_gzip else _Plain)(self._descriptor)
            self._table = _table(self._bytes, path)
            self._root = self._find_root()
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def root(self) -> str:
        """The URL of the catalog.json or collection.json that no folder lies above of."""
        return self._root

    def _find_root(self) -> str:
        names = [name for name in self._table if posixpath.basename(name) in ROOTS]
        if not names:
            raise NotFound(f"{self._path} holds neither a catalog.json nor a collection.json")
        names.sort(key=lambda name: (name.count("/"), ROOTS.index(posixpath.basename(name)), name))
        return Path(self._path, names[0]).as_uri()

    def document(self, url: str) -> Document:
        """Return a whole file."""
        member = self._find(url)
        return Document(limited(self._read(member.offset, member.size), url), url)

    def range(self, url: str, start: int, stop: int) -> Part:
        """Return the bytes [start, stop) of a file."""
        offset, size, modified = self._find(url)
        data = self._read(offset + start, max(0, min(stop, size) - start))
        validator = f"etag:{self._edition[0]:x}-{offset:x}"
        return Part(data, size, validator, modified, url)

    def close(self) -> None:
        """Close the file; nothing may be read any more."""
        os.close(self._descriptor)

    def _read(self, offset: int, size: int) -> bytes:
        """Return bytes of the archive, unless they may be others than when its table was made."""
        data = self._bytes.read(offset, size)
        if self._stamp() != self._edition:
            raise Changed(f"{self._path} was written to: mount it again")
        return data

    def _stamp(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_mtime_ns, found.st_size

    def _find(self, url: str) -> _Member:
        path = path_of(url)
        name = os.path.relpath(path, self._path)
        member = self._table.get(name)
        if not isinstance(member, _Member):
            member = _follow(self._table, name)
        if member is None:
            raise NotFound(f"there is no file {path}")
        return member


class _Plain:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)


class _Stream(RawIOBase):
    """The bytes as `tarfile` wants them."""

    def __init__(self, source: _Bytes) -> None:
        self._source = source
        self._at = 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (self._at if whence == os.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(self._at, size)
        self._at += len(data)
        return data


def _table(source: _Bytes, path: Path) -> dict[str, _Member | str]:
    """Return what is at each name: a file, or where a symbolic link leads."""
    table: dict[str, _Member | str] = {}
    try:
        with tarfile.open(fileobj=_Stream(source), mode="r:", tarinfo=TarHeader) as archive:
            while member := archive.next():
                name = os.path.normpath(member.name)
                if member.issparse():  # its bytes are in pieces, and are not those at its place
                    _log.warning("passed over in %s: %s is a sparse file", path, name)
                    table.pop(name, None)  # the last of a name counts
                elif member.isreg():
                    table[name] = _Member(member.offset_data, member.size, member.mtime)
                elif member.issym():
                    table[name] = member.linkname
                elif member.islnk() and (there := os.path.normpath(member.linkname)) in table:
                    table[name] = table[there]
                archive.members = []  # type: ignore[attr-defined]  # else a kilobyte of each is kept
    except (tarfile.TarError, EOFError) as error:
        raise BadAnswer(f"{path} is no tarball, or damaged: {error}") from None
    return table


def _follow(table: Mapping[str, _Member | str], name: str) -> _Member | None:
    """Return the file that a name leads to by symbolic links, None where there is none.

    Raises Denied where they lead out of the tarball, or in a circle.
    """
    here: list[str] = []
    ahead = name.split("/")[::-1]
    links = 0
    is_astray = False
    while ahead:
        step = ahead.pop()
        target = table.get("/".join([*here, step]))
        if isinstance(target, str):
            links += 1
            is_astray = target.startswith("/") or links > _MOST_LINKS
            ahead += target.split("/")[::-1]
        elif step == "..":
            is_astray = not here
            here = here[:-1]
        elif step not in {"", "."}:
            here.append(step)
        if is_astray:
            raise Denied(f"{name} is not read: it lies outside of the tarball, or links to itself")
    member = table.get("/".join(here))
    return member if isinstance(member, _Member) else None


def open_files(url: str) -> Folder | Tarball:
    """Return the files of the catalog at a `file:` URL: a folder, a document in one, a tarball.

    Raises NotFound, BadAnswer and ConfigError.
    """
    path = Path(path_of(url))
    if not path.exists():
        raise NotFound(f"there is nothing at {path}")
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise NotFound(f"{path} is a pipe or a device: give a file, or a folder")
    return Tarball(path) if is_tarball(url) else Folder(path)


def is_tarball(url: str) -> bool:
    """Say whether a URL names a tarball; raises ConfigError for an archive that is not read."""
    path = urlsplit(url).path
    if path.lower().endswith(_FOREIGN):
        name = posixpath.basename(path)
        raise ConfigError(f"{name} is an archive of a kind that is not read: .tar and .tar.gz are")
    return path.endswith((".tar.gz", ".tgz", ".tar"))
