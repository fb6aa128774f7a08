"""From one page to the next: what `next` links may hold, and what of it can be believed.

A `next` link becomes a cursor: a text that tells how to ask for the page, today or later. Most are
an href to GET, and that is the cursor. STAC's item search also has `method`, `headers`, `body`, and
`merge`, with which the body is only what changes in the one that was sent before: those become
JSON, with the body that is to be sent.

What looks simple and is not:

1. A `next` link names the host that the server believes it has: http for https, an internal name, a
   staging host. Where it points into the items of the same collection, only its query is taken, and
   asked at our own root, which is also the one place that the key may go to. And what is named as
   plain http on our own host, which we speak https with, is asked by https.
2. `next` links were recorded with the caller's key inside; the key is cut out.
3. The 2022 server leaves `limit` out of its `next` links: it is sent again.
4. A link that counts pages (`page=3`) means pages of the same size: the limit stays as it is.
5. A search that is not below one collection must be told which: a body may have forgotten it.

*Threading.* Stateless; any thread that may wait on the network.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit

import msgspec

from mlhubfs.errors import BadAnswer
from mlhubfs.transport.client import Transport, without_key

Body = dict[str, Any]
_PAGE_NUMBERS = frozenset({"page", "page_number", "pageNumber", "p"})
# What is ours to say; the rest a server may wish to have repeated.
_OURS = frozenset("accept accept-encoding authorization cookie host connection expect te".split())
_FRAMING = ("content-", "transfer-", "proxy-", "sec-")


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """A link of a page."""

    rel: Any = None
    href: Any = None
    method: Any = None
    headers: Any = None
    body: Any = None
    merge: Any = None


class Cursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to ask for a page: by GET, or where there is a body, by POST."""

    href: str
    headers: dict[str, str] = {}
    body: Body | None = None


def next_of(links: list[Link] | None, sent: Mapping[str, Any]) -> str | None:
    """Return the cursor of the `next` link, if there is one that leads somewhere.

    `sent` is what the page was asked for with, for links that merge into it.
    """
    link = next((one for one in links or () if one.rel == "next"), None)
    if link is None or not isinstance(link.href, str):
        return None
    is_post = isinstance(link.method, str) and link.method.upper() == "POST"
    headers = _repeated(link.headers)
    if not is_post and not headers:
        return link.href
    body = None
    if is_post:
        body = dict(link.body) if isinstance(link.body, dict) else {}
        body = {**sent, **body} if link.merge is True else body
    return msgspec.json.encode(Cursor(link.href, headers, body)).decode()


def parse_cursor(text: str) -> Cursor:
    """Return how to ask for the page at a cursor."""
    if not text.startswith("{"):
        return Cursor(text)
    try:
        return msgspec.json.decode(text, type=Cursor)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"a next link cannot be followed: {error}") from None


class Pages:
    """The pages of the routes below `root`."""

    def __init__(self, transport: Transport, root: str) -> None:
        self._transport = transport
        self._root = root

    def ask(
        self,
        route: str,
        following: str | None,
        *,
        limit: int | None,
        otherwise: int | None = None,
        deadline: float | None = None,
        query: Mapping[str, str] | None = None,
        whole: Mapping[str, Any] | None = None,
    ) -> tuple[bytes | bytearray, Body]:
        """Return the page of `route` that `following` leads to, and what it was asked for with.

        It has `limit` items, or `otherwise` so many where no link says how many. `query` is what
        links may have forgotten, `whole` what a search not below that route has to be told.
        """
        cursor = parse_cursor(following or "")
        url, params = self.locate(route, cursor.href)
        if cursor.body is None:
            given = {name for name, _ in params}
            params += [one for one in (query or {}).items() if one[0] not in given]
            params = _limited(params, limit, otherwise)
            document = self._transport.get_document(url, params, cursor.headers, deadline=deadline)
            return document.body, _as_body({**(whole or {}), **dict(params)})
        body = {**_as_body(query or {}), **cursor.body}
        if not url.endswith(route):
            body = {**(whole or {}), **body}  # see 5
        body = dict(_limited(body.items(), limit, otherwise))
        if params:
            url += f"?{urlencode(params)}"
        data = msgspec.json.encode(body)
        document = self._transport.post_document(url, data, cursor.headers, deadline=deadline)
        return document.body, body

    def locate(self, route: str, href: str) -> tuple[str, list[tuple[str, str]]]:
        """Return where a link of a page leads, see 1 and 2, and its query."""
        ours = urlsplit(self._root + route)
        try:
            parts = urlsplit(without_key(urljoin(ours.geturl(), href)))
        except ValueError:
            raise BadAnswer(f"a next link of {self._root}{route} is no URL") from None
        query = parse_qsl(parts.query, keep_blank_values=True)
        if unquote(parts.path).rstrip("/").endswith(unquote(route)):
            return ours.geturl(), query
        if (ours.scheme, parts.scheme, parts.hostname) == ("https", "http", ours.hostname):
            parts = parts._replace(scheme="https", netloc=ours.netloc)
        return parts._replace(query="", fragment="").geturl(), query


def _repeated(headers: Any) -> dict[str, str]:
    if not isinstance(headers, dict):
        return {}
    return {
        name: value
        for name, value in headers.items()
        if isinstance(value, str)
        and f"{name}{value}".isprintable()
        and name.lower() not in _OURS
        and not name.lower().startswith(_FRAMING)
    }


def _limited(
    params: Iterable[tuple[str, Any]], limit: int | None, otherwise: int | None
) -> list[tuple[str, Any]]:
    """Return the parameters of a page with the limit that is wanted; see 3 and 4."""
    given = list(params)
    names = {name for name, _ in given}
    if limit and not names & _PAGE_NUMBERS:
        given = [one for one in given if one[0] != "limit"]
        return [*given, ("limit", limit)]
    return given if "limit" in names or not otherwise else [*given, ("limit", otherwise)]


def _as_body(query: Mapping[str, Any]) -> Body:
    """Return what a query asks for, as a body says it."""
    body = dict(query)
    for name in {"collections", "ids", "bbox", "q"} & body.keys():
        if isinstance(body[name], str):
            body[name] = body[name].split(",")
    with contextlib.suppress(ValueError, msgspec.DecodeError):  # a link's may be anything
        if isinstance(body.get("query"), str):
            body["query"] = msgspec.json.decode(body["query"])
        body |= {"limit": int(body["limit"])} if "limit" in body else {}
        body |= {"bbox": [float(side) for side in body["bbox"]]} if "bbox" in body else {}
    return body
