"""A JSON document, out of an answer that may be anything.

Owns `Document`, its decompression and its limits. Does not parse: that is the catalog's.

*Threading.* No state.
"""

import zlib
from typing import NamedTuple

import requests

from mlhubfs.errors import BadAnswer, Unavailable
from mlhubfs.transport.origin import describe
from mlhubfs.transport.ranges import declared_length, is_html
from mlhubfs.transport.retry import LIE, NEVER, TRANSIENT, Failed

LIMIT = 256 << 20
"""Bytes of a decoded document. The largest seen is a catalog of 90 MB; more than this is a mistake,
or 1,000 times its compressed size and meant to fill the memory."""

PIECE = 256 << 10
"""Bytes of the body read at a time."""


class Document(NamedTuple):
    """The body of an answer, and where it came from."""

    body: bytes | bytearray
    """As the server meant it, decompressed."""

    url: str
    """After redirects: what relative links in the body are relative to. May hold secrets."""


def document(response: requests.Response) -> Document:
    """Return the body of a 200; raise Failed if it is no document."""
    where = describe(str(response.url))
    if response.status_code != 200:
        raise Failed(BadAnswer, f"{where} answered {response.status_code}, which was not expected")
    if is_html(response):
        what = f"{where} answered a web page instead of JSON: is this the root of an API?"
        raise Failed(BadAnswer, what, tries=LIE)
    body: bytes | bytearray = _read(response, where)
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding in {"gzip", "x-gzip"}:
        body = _gunzip(body, where)
    elif coding not in {"", "identity"}:
        what = f"{where} compressed its answer as {coding[:20]!r}, though asked for gzip"
        raise Failed(BadAnswer, what)
    return Document(body, str(response.url))


def _read(response: requests.Response, where: str) -> bytearray:
    declared = declared_length(response)
    body = bytearray()  # grows in place: pieces and their sum would be twice the memory
    while piece := response.raw.read(PIECE):
        body += piece
        if len(body) > LIMIT:
            raise _too_large(where)
    if declared is not None and len(body) != declared:
        what = f"{where} broke off after {len(body)} of {declared} bytes"
        raise Failed(Unavailable, what, tries=TRANSIENT)
    return body


def _gunzip(packed: bytes | bytearray, where: str) -> bytes:
    """Return what `packed` holds. urllib3 would not notice a stream that is cut short."""
    pieces: list[bytes] = []
    room = LIMIT + 1
    while packed:
        gunzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            pieces.append(gunzip.decompress(packed, room))
        except zlib.error:
            raise Failed(BadAnswer, f"{where} answered damaged gzip", tries=LIE) from None
        room -= len(pieces[-1])
        if room <= 0:
            raise _too_large(where)
        if not gunzip.eof:
            what = f"{where} broke off in the middle of its gzip"
            raise Failed(Unavailable, what, tries=TRANSIENT)
        packed = gunzip.unused_data
    return b"".join(pieces)


def _too_large(where: str) -> Failed:
    return Failed(BadAnswer, f"{where} answered more than {LIMIT} bytes of JSON", tries=NEVER)
