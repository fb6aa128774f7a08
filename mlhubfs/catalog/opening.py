"""Which kind of source a URL is: asked once, when it is opened.

Owns the telling apart, by the document at the URL: a landing page says what it conforms to, or
where its data are; another STAC document is a static catalog, unless it is a part of an API. What
is neither is taken for MLHub's API, whose root need not answer. Offline, what was found the last
time counts.

*Threading.* No state.
"""

from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec

from mlhubfs.catalog.api import Api
from mlhubfs.catalog.node import joined
from mlhubfs.catalog.pager import FIRST
from mlhubfs.catalog.parquet import is_parquet
from mlhubfs.catalog.static import StaticCatalog
from mlhubfs.catalog.stored import Stored
from mlhubfs.errors import BadAnswer, ConfigError, Denied, NotFound, Offline
from mlhubfs.transport.client import Document, Transport, describe
from mlhubfs.transport.local import is_local
from mlhubfs.transport.workers import Workers

_LANDING = frozenset({"data", "conformance", "search", "service-desc"})
_STATIC = frozenset({"Catalog", "Collection", "Feature", "FeatureCollection"})


class _Root(msgspec.Struct):
    type: Any = None
    stac_version: Any = None
    conforms_to: Any = msgspec.field(default=None, name="conformsTo")
    links: Any = None


def open_source(
    transport: Transport,
    url: str,
    stored: Stored,
    *,
    fetchers: Workers,
    page_size: int,
    ttl: float,
) -> Api | StaticCatalog:
    """Return the source at `url`; see `Api` and `StaticCatalog` for the others.

    Raises Unavailable and its kinds where the server does not answer, NotFound, Denied and
    BadAnswer where a static catalog was meant and there is none, and ConfigError where there is
    but a part of an API.
    """
    document = None
    try:
        document = transport.get_document(url)
    except Offline:
        root = stored.api_root(url)
    except (NotFound, Denied, BadAnswer):
        if is_local(url) or url.endswith(".json"):
            raise
        root = url  # MLHub's API has no need of a landing page
    else:
        root = _api_root(document, url)
        stored.keep_api_root(root)
    if root is None:
        return StaticCatalog(transport, url, fetchers=fetchers, ttl=ttl, first=document)
    return Api(transport, root, page_size=min(FIRST, page_size))


def _api_root(document: Document, url: str) -> str | None:
    """Return the root of the API whose landing page is at `url`, or None for a static catalog."""
    if is_local(url) or is_parquet(bytes(document.body[:4])):
        return None
    try:
        root = msgspec.json.decode(document.body, type=_Root)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None if url.endswith(".json") else url  # MLHub's, perhaps: its datasets will tell
    links = root.links if isinstance(root.links, list) else []
    hrefs = {
        link["rel"]: link.get("href")
        for link in links
        if isinstance(link, dict) and isinstance(link.get("rel"), str)
    }
    is_stac = root.type in _STATIC or (root.stac_version and links)
    if is_stac and not root.conforms_to and not _LANDING & hrefs.keys():
        _refuse_part(root.type, hrefs, document.url)
        return None
    return _below(url, document.url, hrefs.get("data"))


def _refuse_part(kind: object, hrefs: dict[str, Any], base: str) -> None:
    """Raise ConfigError where a document tells of items that only an API's root leads to."""
    if kind == "FeatureCollection" and "next" in hrefs:
        what = "one page of the items"
    elif kind in {"Collection", None} and "items" in hrefs and not {"item", "child"} & hrefs.keys():
        what = "a collection"  # without its type, before STAC 1.0
    else:
        return
    root = joined(base, hrefs["root"]) if isinstance(hrefs.get("root"), str) else base
    named = "" if root == base else f", {describe(root)}"
    raise ConfigError(f"{describe(base)} is {what} of a STAC API: mount its root URL{named}")


def _below(url: str, base: str, data: object) -> str:
    """Return what `/collections` is below, by the `data` link where that can be believed.

    Servers name the host that they believe they have, or forget the prefix that a proxy gives them:
    a link is believed where it leads to a path below that of the landing page.
    """
    if not isinstance(data, str):
        return url
    try:
        here, there = urlsplit(url), urlsplit(urljoin(base, data))
    except ValueError:
        return url
    folder = here.path.removesuffix("/")
    if folder.endswith(".json"):
        folder = folder.rpartition("/")[0]
    path = there.path.rstrip("/").removesuffix("/collections")
    if here.hostname != there.hostname or not f"{path}/".startswith(f"{folder}/"):
        return url
    return here._replace(path=path, query="", fragment="").geturl()
