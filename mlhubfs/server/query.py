"""What a request asks for: its key, the page it wants, the datasets that it describes.

Owns the meaning of the query's parameters and the words in which they are refused. Knows no routes.

*Threading.* Functions of their arguments.
"""

import hmac
import re
from dataclasses import dataclass
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request

from mlhubfs.server.collection import Collection, Item, Json
from mlhubfs.server.filters import parse_filter

NO_KEY = "Must provide API key or Bearer token to access this route."
WRONG_KEY = "Could not identify user from API key or Authentication header."
_DEFAULT_LIMIT = 10  # the recorded one
_LARGEST_LIMIT = 10_000
_LIMIT = re.compile(r"-?[0-9]{1,18}")
_NEXT = "next:"


@dataclass(frozen=True)
class Page:
    """One page of a collection's items; `next_query` is empty on the last."""

    items: list[Item]
    limit: int
    matched: int
    next_query: str


def check_key(request: Request, api_key: str | None) -> None:
    """Refuse `request` with 401 unless it carries `api_key`; None lets everyone in."""
    if api_key is None:
        return
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    offered = [each for each in request.query_params.getlist("key") if each]
    if scheme.lower() == "bearer" and bearer:
        offered.append(bearer.strip())
    if not offered:
        raise HTTPException(401, NO_KEY)
    right = api_key.encode()
    if not any(hmac.compare_digest(each.encode(errors="replace"), right) for each in offered):
        raise HTTPException(401, WRONG_KEY)


def read_page(request: Request, collection: Collection) -> Page:
    """Return the page of `collection` that `limit`, `bbox`, `datetime` and `token` ask for."""
    query = request.query_params
    limit, after = _limit(query.get("limit")), _after(query.get("token"))
    try:
        wanted = parse_filter(query.get("bbox"), query.get("datetime"))
    except (ValueError, OverflowError) as error:
        raise HTTPException(400, f"bbox or datetime cannot be used: {error}") from error
    items: list[Item] = []
    next_query = ""
    for item in collection.items(after, wanted):
        if len(items) == limit:
            # Without the limit, as recorded: it is the caller's to send again.
            kept = {name: query[name] for name in ("bbox", "datetime") if query.get(name)}
            token = _NEXT + items[-1].document["id"]
            next_query = _query_string({**kept, "token": token})
            break
        items.append(item)
    return Page(items, limit, collection.count(wanted), next_query)


def is_wanted(request: Request, dataset: Json) -> bool:
    """Return whether `dataset` has all `tags` of the query and mentions each of its `text`s."""
    tags = set(request.query_params.getlist("tags"))
    phrases = [each.casefold() for each in request.query_params.getlist("text")]
    texts = [each.casefold() for each in _texts(dataset)] if phrases else []
    return tags <= set(dataset.get("tags") or ()) and all(
        any(phrase in text for text in texts) for phrase in phrases
    )


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not _LIMIT.fullmatch(text):
        raise HTTPException(400, f"limit={text} is not a whole number")
    return min(max(int(text), 1), _LARGEST_LIMIT)


def _after(token: str | None) -> str | None:
    """Return the id of the last item of the page before, None for the first page."""
    if token is None:
        return None
    if not token.startswith(_NEXT):
        raise HTTPException(400, f"token={token} is none that this server gave")
    return token.removeprefix(_NEXT)


def _query_string(parameters: dict[str, str]) -> str:
    return "&".join(
        f"{name}={quote(value, safe='', errors='surrogatepass')}"
        for name, value in parameters.items()
    )


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in _texts(each)]
