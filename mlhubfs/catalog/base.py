"""The URL that the relative hrefs of an API's items and collections are meant from.

Owns what that is to the document: its `self` link, and its assets' hrefs made absolute. They are
written into the document, so that memory, index and stac.json need not know where it came from.
Static catalogs settle theirs in `node`. Asks for nothing.

*Threading.* No state.
"""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mlhubfs.catalog.models import Asset, ItemOrCollection
from mlhubfs.catalog.node import joined, settle_assets
from mlhubfs.errors import BadAnswer

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class _Links(msgspec.Struct):
    links: Any = None


def are_settled(assets: Iterable[Asset]) -> bool:
    """Say whether all hrefs of assets are absolute, as nearly everybody's are."""
    hrefs = (href for asset in assets for href in (asset.href, *asset.alternates))
    return all(_SCHEME.match(href) or not href for href in hrefs)


def settled(value: ItemOrCollection, url: str) -> ItemOrCollection:
    """Return an item or a collection whose assets' hrefs are absolute, meant from `url`."""
    base = urlsplit(url)._replace(query="", fragment="").geturl()  # a query may be a permission
    document = _decode(value.document, Any)
    settle_assets(document, base)
    return msgspec.structs.replace(
        value,
        assets=tuple(_settled_asset(asset, base) for asset in value.assets),
        document=msgspec.json.encode(document),
    )


def self_href(document: bytes) -> str | None:
    """Return the href of a document's `self` link where it is an http(s) URL."""
    links = _decode(document, _Links).links
    for link in links if isinstance(links, list) else ():
        href = link.get("href") if isinstance(link, dict) and link.get("rel") == "self" else None
        if isinstance(href, str) and re.match("https?://", href, re.IGNORECASE):
            return href
    return None


def _decode(document: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(document, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"there is no STAC document: {error}") from None


def _settled_asset(asset: Asset, base: str) -> Asset:
    return msgspec.structs.replace(
        asset,
        href=asset.href and joined(base, asset.href),
        alternates=tuple(joined(base, href) for href in asset.alternates),
    )
