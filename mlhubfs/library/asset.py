"""One file of an item or a collection: what it is, and its bytes.

Owns what is told of it and how it is written to disk; its bytes at an offset are `file`'s.

*Threading.* Values: any thread.
"""

import contextlib
import io
import os
import posixpath
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from mlhubfs.catalog import models
from mlhubfs.errors import NotFound
from mlhubfs.library.access import Access
from mlhubfs.library.fields import Fields, objects, text, texts
from mlhubfs.library.file import BUFFER, AssetFile

_LINKS = frozenset({"href", "alternate"})
_PIECE = 4 << 20  # bytes of a download that are in memory at once


@dataclass(frozen=True)
class Band:
    """A spectral band of an asset (extension eo, or `bands` of STAC 1.1)."""

    name: str | None
    """As the mission calls it: `B04`."""
    common_name: str | None
    """As all missions would: `red`."""


@dataclass(frozen=True)
class Asset:
    """One file of an item or a collection.

    Where its bytes are fetched is not shown: links are personal, and new at every request.
    """

    key: str
    """Its name in the item: `B04`."""
    title: str | None
    media_type: str | None
    """As the catalog says; it has been seen to lie."""
    roles: tuple[str, ...]
    bands: tuple[Band, ...]
    path: str | None
    """Where a mount has the file, from its root; None where nothing here can read it."""
    document: dict[str, Any] = field(repr=False, hash=False)
    """Its JSON, without the link."""
    _access: Access = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """Its size in bytes, asked of the storage where neither catalog nor cache tells it."""
        return self._access.session.tree.file(self._readable()).attributes().size

    def open(self) -> io.BufferedReader:
        """Return the bytes as a seekable binary file; what is read comes through the cache."""
        return io.BufferedReader(AssetFile(self._access, self._readable()), BUFFER)

    def download(self, to: str | os.PathLike[str] = ".") -> Path:
        """Write the bytes to the file `to`, or into the folder `to`; return the file's path.

        A folder is one that exists, or whose name ends in a slash; folders are made as needed. The
        file is there when it is whole, and takes the place of one that was there before.
        """
        path = Path(to)
        if path.is_dir() or os.fspath(to).endswith("/"):
            path /= posixpath.basename(self._readable())
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.open() as source, _replacing(path) as target:
            shutil.copyfileobj(source, target, _PIECE)
        return path

    def _readable(self) -> str:
        if self.path is None:
            raise NotFound(f"the asset {self.key!r} is at no address that can be read here")
        return self.path


def to_assets(
    fields: Fields, folder: str, files: Mapping[str, models.Asset], access: Access
) -> Mapping[str, Asset]:
    """Return key -> asset of an item or collection whose `files` stand in the `folder`."""
    paths = {asset.key: posixpath.join(folder, name) for name, asset in files.items()}
    described = fields.get("assets")
    return MappingProxyType(
        {
            key: _to_asset(key, one, paths.get(key), access)
            for key, one in (described if isinstance(described, dict) else {}).items()
            if isinstance(one, dict)
        }
    )


def _to_asset(key: str, fields: Fields, path: str | None, access: Access) -> Asset:
    bands = objects(fields, "eo:bands") or objects(fields, "bands")
    return Asset(
        key=key,
        title=text(fields, "title"),
        media_type=text(fields, "type"),
        roles=texts(fields, "roles"),
        bands=tuple(
            Band(text(one, "name"), text(one, "common_name") or text(one, "eo:common_name"))
            for one in bands
        ),
        path=path,
        document={name: value for name, value in fields.items() if name not in _LINKS},
        _access=access,
    )


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write that becomes the one at `path` if all goes well."""
    part = path.with_name(f".mlhubfs-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
