"""Ids as file names, and back.

Owns the rules by which a dataset, collection or item id becomes a name in the tree, and an asset
the name of its file. Pure functions; knows no node and no request.

An id becomes a name by percent-encoding what a path cannot hold or the tree gives a meaning: `/`,
control characters, `%` itself, a leading `@` (views) or `.` (hidden files, `.` and `..`), and the
first character of a name that its directory uses itself (`collection.json`). The empty id is `%`.
An encoded name gives its id back without a look-up; any other spelling of the same id names
nothing, so that no item has two paths. A name over 255 bytes is cut and ends in `~` and a hash of
the id: the one case in which the id has to be looked for in the listing.
"""

import hashlib
import itertools
import posixpath
import re
from collections.abc import Container, Iterable
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from mlhubfs.catalog.models import Asset

LONGEST = 255  # bytes of a name, by Linux's NAME_MAX
_UNSAFE = re.compile(r"[/%\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")  # most ids: their own names
_CUT = re.compile(r"~[0-9a-f]{16}(\.[A-Za-z0-9.]{1,12})?$")
_SUFFIX = re.compile(r"(\.tar)?\.[A-Za-z][A-Za-z0-9]{0,9}$")

# Endings that say what a file is. A list of our own: the system's MIME table differs by machine,
# and a file must have the same name everywhere.
_KNOWN = frozenset(
    "tif tiff vrt jp2 png jpg jpeg webp gif hdf h5 hdf5 he5 nc nc4 grib grb grb2 npy npz zarr "
    "json geojson ndjson jsonl topojson csv tsv parquet gpkg shp shx dbf prj fgb kml kmz gml "
    "las laz copc ply txt md rst pdf html htm xml yaml yml toml zip gz tgz tar bz2 xz zst "
    "py ipynb pth pt onnx pkl mp4 safe db sqlite".split()
)
_BY_MEDIA_TYPE = {
    "application/geo+json": "geojson",
    "application/geopackage+sqlite3": "gpkg",
    "application/gzip": "gz",
    "application/json": "json",
    "application/netcdf": "nc",
    "application/pdf": "pdf",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.laszip+copc": "laz",
    "application/x-hdf": "hdf",
    "application/x-hdf5": "h5",
    "application/x-netcdf": "nc",
    "application/x-parquet": "parquet",
    "application/xml": "xml",
    "application/zip": "zip",
    "image/gif": "gif",
    "image/jp2": "jp2",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/tiff": "tif",
    "image/vnd.stac.geotiff": "tif",
    "image/webp": "webp",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
    "text/xml": "xml",
}


def encode(identifier: str, reserved: frozenset[str] = frozenset(), extension: str = "") -> str:
    """Return the file name of `identifier` in a directory that uses the names in `reserved`.

    `extension` (with its dot, or empty) is appended, and outlives a cut.
    """
    if not extension and _PLAIN.fullmatch(identifier) and identifier not in reserved:
        return identifier
    name = _UNSAFE.sub(_percent, identifier)
    if name[:1] in {"@", "."}:
        name = _percent_character(name[0]) + name[1:]
    name = (name or "%") + extension
    if name in reserved:
        name = _percent_character(name[0]) + name[1:]
    if len(name.encode()) <= LONGEST and not is_cut(name):
        return name  # what looks like a cut name is cut too, or two ids could share it
    mark = f"~{_digest(identifier, 8)}{extension}"
    stem = name.encode()[: LONGEST - len(mark)].decode(errors="ignore")
    return re.sub(r"%[0-9A-F]?$", "", stem) + mark


def decode(name: str, reserved: frozenset[str] = frozenset()) -> str | None:
    """Return the id whose name is `name`, or None where the name is no id's, or a cut one."""
    try:
        identifier = "" if name == "%" else unquote_to_bytes(name).decode("utf-8", "surrogatepass")
    except UnicodeError:
        return None
    return identifier if encode(identifier, reserved) == name else None


def is_cut(name: str) -> bool:
    """Say whether `name` may be that of an id too long for one."""
    # A cut takes back at most one character (4 bytes) and two more of a split %XX.
    return len(name.encode(errors="replace")) > LONGEST - 8 and bool(_CUT.search(name))


def asset_names(assets: Iterable[Asset], reserved: frozenset[str]) -> dict[str, Asset]:
    """Return file name -> asset, for the assets that have bytes to read.

    Where two assets would share a name, the one whose key is that very name keeps it, else the
    first in the order of keys; the others get a suffix made from their key, so that a name does
    not depend on which asset the server happened to list first.
    """
    wanted: dict[str, list[Asset]] = {}
    for asset in assets:
        extension = _extension(asset)
        wanted.setdefault(encode(asset.key, reserved, extension), []).append(asset)
    names = {}
    others: list[Asset] = []
    for name, rivals in wanted.items():
        rivals.sort(key=lambda asset, name=name: (asset.key != name, asset.key))  # type: ignore[misc]
        names[name] = rivals[0]
        others += rivals[1:]
    for asset in sorted(others, key=lambda asset: asset.key):
        names[_suffixed(asset, reserved, names)] = asset
    return names


def _suffixed(asset: Asset, reserved: frozenset[str], taken: Container[str]) -> str:
    """Return a name for an asset whose own is taken: nearly always the first that is tried."""
    extension = _extension(asset)
    stem = asset.key.removesuffix(extension)
    for again in itertools.count():
        key = f"{stem}~{_digest(asset.key + again * '~', 4)}"
        name = encode(key, reserved, extension or _suffix(asset.key))
        if name not in taken:
            return name
    raise AssertionError("unreachable")


def _extension(asset: Asset) -> str:
    """Return what must be added to the asset's key for its name to end in an extension."""
    if _suffix(asset.key)[1:].rpartition(".")[2].lower() in _KNOWN:
        return ""
    path = urlsplit(asset.href).path
    last = unquote(posixpath.basename(path))
    if "/download/" not in path and _SUFFIX.search(last) and len(last) <= LONGEST:
        return _suffix(last)
    media_type = (asset.media_type or "").partition(";")[0].strip().lower()
    known = _BY_MEDIA_TYPE.get(media_type)
    return f".{known}" if known else ""


def _suffix(name: str) -> str:
    match = _SUFFIX.search(name)
    return match[0] if match else ""


def _percent(match: re.Match[str]) -> str:
    return _percent_character(match[0])


def _percent_character(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _digest(identifier: str, size: int) -> str:
    data = identifier.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=size).hexdigest()
