"""The bytes of one range, out of an answer that may be anything.

Owns `Part` and the judgement of answers to a ranged GET: what is used of them is exactly what was
asked for, or nothing. Sends nothing.

*Threading.* No state.
"""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, NoReturn

import requests

from mlhubfs.errors import BadAnswer, Unavailable
from mlhubfs.transport.origin import describe
from mlhubfs.transport.retry import LIE, NEVER, TRANSIENT, Failed

WHOLE_LIMIT = 256 << 20
"""Bytes of an asset that are read for one range because the server ignores Range; more would fill
the memory, and be read again for each range."""


class Part(NamedTuple):
    """A range of an asset's bytes, and what the answer tells of the asset."""

    data: bytes
    """Exactly the bytes [start, min(stop, total))."""

    total: int
    """Size of the whole asset in bytes."""

    validator: str
    """`etag:` and the ETag without quotes and `W/`, else `modified:` and Last-Modified, else ''."""

    modified: float | None
    """Last-Modified in POSIX seconds."""

    url: str
    """Where the bytes came from, after redirects: may be asked directly next time. A secret."""

    whole: bytes | None = None
    """The whole asset, if the server ignored the range and sent it; `data` is a slice of it."""


def part(
    response: requests.Response,
    start: int,
    stop: int,
    *,
    expect_html: bool,
    known: Part | None = None,
) -> Part:
    """Return the range [start, stop) out of a 200, 206 or 416, or `known` for a 304.

    Raises Failed if it is not there.
    """
    status, headers = response.status_code, response.headers
    if status == 304 and known:
        return _unchanged(response, known)
    if status not in {200, 206, 416}:
        lie(response, f"answered {status} to a request for a range", tries=NEVER)
    if status != 416:
        check_kind(response, expect_html=expect_html)
    whole: bytes | None = None
    if status == 206:
        total, length = content_range(response, start, stop)
        data = read_exactly(response, length)
    elif status == 200:
        whole = _read_whole(response)
        data, total = whole[start:stop], len(whole)
    else:
        total, data = beyond_the_end(response, start), b""
    return Part(data, total, validator(headers), modified(headers), str(response.url), whole)


def unless(validator: str) -> dict[str, str]:
    """Return the headers that ask for an asset unless it still has `validator`.

    If-None-Match compares weakly, so that the ETag matches with `W/` and without. There is no
    If-Modified-Since: servers answer 304 to it also for a file that was replaced by an older one,
    and tell no more than the Last-Modified that a range of one byte comes with.
    """
    kind, _, etag = validator.partition(":")
    usable = kind == "etag" and re.fullmatch(r"[!#-~]+", etag)
    return {"If-None-Match": f'"{etag}"'} if usable else {}


def validator(headers: Any) -> str:
    """Return what tells this version of an asset from others, '' if nothing does."""
    etag = (headers.get("ETag") or "").strip().removeprefix("W/").strip('"')
    if etag:
        return f"etag:{etag}"
    changed = (headers.get("Last-Modified") or "").strip()
    return f"modified:{changed}" if changed else ""


def modified(headers: Any) -> float | None:
    """Return Last-Modified in POSIX seconds, None if it is absent or no date."""
    try:
        moment = parsedate_to_datetime(headers.get("Last-Modified") or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def is_html(response: requests.Response) -> bool:
    """Tell whether the answer calls itself a web page."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in {"text/html", "application/xhtml+xml"}


def declared_length(response: requests.Response) -> int | None:
    """Return the Content-Length, None where there is none or it does not count."""
    text = response.headers.get("Content-Length", "").strip()
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) and not chunked else None


def read_exactly(response: requests.Response, length: int) -> bytes:
    """Return the body, which must be `length` bytes; the connection is free again afterwards."""
    declared = declared_length(response)
    if declared is not None and declared != length:
        lie(response, f"announced {declared} bytes for a range of {length}")
    data: bytes = response.raw.read(length)
    if len(data) < length:
        cut(response, len(data), length)
    if declared is None and response.raw.read(1):
        lie(response, f"sent more than the {length} bytes of the range")
    return data


def _unchanged(response: requests.Response, known: Part) -> Part:
    """Return `known`, and where it is now, if a 304 speaks of that version."""
    if "ETag" in response.headers and validator(response.headers) != known.validator:
        lie(response, "answered 304, which says unchanged, with another ETag")
    return known._replace(url=str(response.url))


def check_kind(response: requests.Response, *, expect_html: bool) -> None:
    """Refuse what is not the bytes themselves: compressed, several ranges, a web page."""
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in {"", "identity"}:
        lie(response, f"compressed a range ({coding[:20]!r}), though asked not to")
    if response.headers.get("Content-Type", "").strip().lower().startswith("multipart/byteranges"):
        lie(response, "answered several ranges to a request for one")
    if is_html(response) and not expect_html:
        lie(response, "answered a web page instead of the file: is a login or a portal in between?")


def content_range(response: requests.Response, start: int, stop: int) -> tuple[int, int]:
    """Return the asset's size and the body's length, if the range is the one that was asked for."""
    text = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", text, re.ASCII)
    if not match:
        lie(response, f"answered 206 with the Content-Range {text[:80]!r}")
    first, end = int(match[1]), int(match[2]) + 1
    if match[3] == "*" and end >= stop:
        lie(response, f"does not say how large the file is (Content-Range {text!r})")
    total = end if match[3] == "*" else int(match[3])
    if first != start or end != min(stop, total) or end <= start:
        lie(response, f"answered {text!r} to a request for bytes {start}-{stop - 1}")
    return total, end - start


def _read_whole(response: requests.Response) -> bytes:
    """Return the body of a 200, if its end can be told from a broken connection."""
    declared = declared_length(response)
    if declared is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
        lie(response, "ignores ranges and does not say how large the file is", tries=NEVER)
    if declared is not None and declared <= WHOLE_LIMIT:
        return read_exactly(response, declared)
    data: bytes = b"" if declared else response.raw.read(WHOLE_LIMIT + 1)
    if declared or len(data) > WHOLE_LIMIT:
        size = f"{declared} bytes" if declared else f"more than {WHOLE_LIMIT} bytes"
        lie(response, f"ignores ranges, and the file is too large for that ({size})", tries=NEVER)
    return data


def beyond_the_end(response: requests.Response, start: int) -> int:
    """Return the asset's size out of a 416."""
    text = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(r"bytes\s+\*/(\d{1,18})", text, re.ASCII)
    if not match or int(match[1]) > start:
        lie(response, f"refused bytes from {start} on with the Content-Range {text[:80]!r}")
    return int(match[1])


def lie(response: requests.Response, what: str, *, tries: int = LIE) -> NoReturn:
    """Refuse an answer that contradicts itself or the question."""
    raise Failed(BadAnswer, f"{describe(str(response.url))} {what}", tries=tries)


def cut(response: requests.Response, came: int, length: int) -> NoReturn:
    """Say that the body ended before its time."""
    what = f"{describe(str(response.url))} broke off after {came} of {length} bytes"
    raise Failed(Unavailable, what, tries=TRANSIENT)
