"""One file of an item or a collection: what it is, and its bytes.

Owns what is told of it and how it is written to disk; its bytes at an offset are `file`'s.

*Threading.* Values: any thread.
"""

import io
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mlhubfs.catalog import models
from mlhubfs.download.downloader import IfExists
from mlhubfs.errors import NotFound
from mlhubfs.library.access import Access
from mlhubfs.library.fields import Fields, objects, text, texts
from mlhubfs.library.file import BUFFER, AssetFile
from mlhubfs.tree import item as tree

_LINKS = frozenset({"href", "alternate"})


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

    def download(self, to: str | os.PathLike[str] = ".", *, if_exists: str = "resume") -> Path:
        """Write the bytes to the file `to`, or into the folder `to`; return the file's path.

        A folder is one that exists, or whose name ends in a slash; folders are made as needed. The
        file is there when it is whole, and has the catalog's size and checksum. `if_exists` is
        `resume` (leave a file that is whole, go on with a part), `skip` (leave any) or `overwrite`.
        Raises NotWritten, InUse where another process is at the file, and the transport's errors;
        what had come by then is kept for the next time, but for wrong bytes (BadAnswer).
        """
        if if_exists not in list(IfExists):
            choices = ", ".join(IfExists)
            raise ValueError(f"if_exists is {if_exists!r}: give one of {choices}")
        path = Path(to)
        if path.is_dir() or os.fspath(to).endswith("/"):
            path /= posixpath.basename(self._readable())
        session = self._access.session
        file = session.tree.file(self._readable())
        if not isinstance(file, tree.AssetFile):
            raise NotFound(f"{self.path} is no asset")
        session.downloader.fetch(
            file.asset, path, size=file.told_size, if_exists=IfExists(if_exists)
        )
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
