"""Which of an asset's hrefs can be opened here, and so which assets are files.

Owns the choice between an asset's own href and its alternates, and the account of Azure's storage
where the catalog names none. What is no file stays in stac.json.

*Threading.* Any thread. Two may tell of the same scheme at once.
"""

import logging
import posixpath
from collections.abc import Iterable
from urllib.parse import urlsplit

from mlhubfs.catalog.models import Asset
from mlhubfs.transport.buckets import BUCKET_SCHEMES, lacks_account, over_http

_log = logging.getLogger("mlhubfs.tree")
_WEB = frozenset({"http", "https"})


class Hrefs:
    """What can be opened; files of this machine only where `allows_files`.

    `account` is that of Azure's storage where the catalog names none.
    """

    def __init__(self, *, allows_files: bool = False, account: str | None = None) -> None:
        self._account = account
        self._schemes = _WEB | BUCKET_SCHEMES | ({"file"} if allows_files else set())
        self._told: set[str] = set()

    def of(self, asset: Asset) -> list[str]:
        """Return the URLs of an asset to be tried, in that order; its own goes first."""
        urls = (self._opened(asset, href) for href in (asset.href, *asset.alternates))
        return [url for url in urls if url]

    def files(self, assets: Iterable[Asset]) -> list[Asset]:
        """Return the assets that are files here; says once a scheme that there are others."""
        found = []
        for asset in assets:
            if is_directory(asset):
                continue
            if self.of(asset):
                found.append(asset)
            else:
                self._tell(asset.href)
        return found

    def _opened(self, asset: Asset, href: str) -> str | None:
        if urlsplit(href).scheme.lower() not in self._schemes:
            return None
        try:
            return over_http(href, asset.account or self._account)
        except ValueError:
            return None

    def _tell(self, href: str) -> None:
        scheme = urlsplit(href).scheme.lower()
        if scheme in self._told:
            return
        self._told.add(scheme)
        what = f"assets at {scheme:.20}: URLs such as this one cannot be opened"
        if not href:
            what = "assets without a usable href"
        elif lacks_account(href):
            what = (
                f"assets at {scheme}: URLs without an account of Azure's: set "
                "AZURE_STORAGE_ACCOUNT, or mount with -o azure_account=NAME; until then"
            )
        _log.info("%s: they are in stac.json, and are no files", what)


def is_directory(asset: Asset) -> bool:
    """Say whether an asset is a directory of many objects, as Zarr is, and no file."""
    parts = urlsplit(asset.href)
    name = posixpath.basename(parts.path.rstrip("/")).lower()
    if "zarr" in (asset.media_type or "") and not name.endswith((".zip", ".json")):
        return True
    # A web server's URL may end in a slash and still be a file.
    is_prefix = parts.path.endswith("/") and parts.scheme.lower() in BUCKET_SCHEMES
    return is_prefix or name.endswith((".zarr", ".n5"))
