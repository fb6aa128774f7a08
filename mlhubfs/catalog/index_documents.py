"""The JSON of an item as the index keeps it: without personal links, and small.

Owns what is cut out before anything reaches the disk, and the compression.

The items of one collection differ in little but numbers, so each is compressed against a dictionary
made of a few of its fellows: 260 bytes a BigEarthNet item of 5.6 kB, where zlib alone needs 942, in
half the time (12 us). Level 3 because 4 to 6 take half as long again for a tenth less.

*Threading.* Functions without state; a `Packer` serves one thread at a time.
"""

import re
import zlib
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import msgspec

Strip = Callable[[bytes], bytes]

_LEVEL = 3
_WINDOW_BITS = 15  # five items of BigEarthNet; with 14 they take 370 bytes
_MEMORY_LEVEL = 5  # the state, which is copied for each item, has 140 kB; with 8 it is 270
_WINDOW = 1 << _WINDOW_BITS  # how far zlib looks back; a dictionary is of use up to that
_TOKEN_LENGTH = 200  # MLHub's had 312 and more; whatever is as long under /download/ is one
_ROUTE = b"/download/"
_SECRET = re.compile(
    rb"([?&](?:(?:api[_-]?|subscription-)?key|(?:access_)?token|sig|signature"
    rb"|x-(?:amz|goog)-(?:signature|credential|security-token))=)"
    rb"""[^&#\s"'<>)\\]+""",
    re.IGNORECASE,
)


def stripper(root: str) -> Strip:
    """Return the function that cuts download tokens, keys and signatures out of an item's JSON.

    What follows `/download/` under the API at `root`, or under MLHub's own route, or what is as
    long as a token anywhere, becomes `...`: the link stays recognisable, and has to be asked for
    anew; so do values of a query that are a permission (`key=`, `sig=`, `X-Amz-Signature=`, ...).
    Works on the bytes: 6 us an item of 7 kB; parsed and written again it would be 90.
    """
    parts = urlsplit(root)
    owners = (f"//{parts.netloc}{parts.path.rstrip('/')}".encode(), b"/mlhub/v1")
    plain, escaped = _tokens(owners, b'"'), _tokens(owners, rb'"\\')

    def strip(document: bytes) -> bytes:
        tokens = plain
        if b"\\" in document:
            # A slash or a letter may be written as an escape, which would hide what is sought.
            document = msgspec.json.encode(msgspec.json.decode(document))
            tokens = escaped
        document = tokens.sub(_ROUTE + b"...", document)
        return _SECRET.sub(rb"\1...", document) if b"?" in document else document

    return strip


def _tokens(owners: Iterable[bytes], ends: bytes) -> re.Pattern[bytes]:
    """Return what finds the route and the token behind it, up to one of the characters `ends`."""
    # One literal to be sought and one character to stop at: anything else takes twice as long.
    # Those of a catalog file are cut already, and passed over.
    ours = b"|".join(b"(?<=%s)" % re.escape(owner + _ROUTE) for owner in owners)
    return re.compile(
        rb'%s(?!\.\.\.")(?:[^%s]{%d,}+|(?:%s)[^%s]*+)' % (_ROUTE, ends, _TOKEN_LENGTH, ours, ends)
    )


def dictionary_of(documents: Iterable[bytes]) -> bytes:
    """Return a dictionary for documents like these, which should be about three."""
    return b"".join(one[: _WINDOW // 3] for one in sorted(set(documents)))[:_WINDOW]


class Packer:
    """Compresses documents against a dictionary."""

    def __init__(self, dictionary: bytes) -> None:
        self._fresh = zlib.compressobj(
            _LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zdict=dictionary
        )

    def pack(self, document: bytes) -> bytes:
        """Return `document` compressed."""
        # A copy, because to read the dictionary in again costs more than to compress an item.
        compressor = self._fresh.copy()
        return compressor.compress(document) + compressor.flush()


def unpack(packed: bytes, dictionary: bytes) -> bytes:
    """Return the document that a Packer with that dictionary compressed; raises zlib.error."""
    expander = zlib.decompressobj(zdict=dictionary)
    document = expander.decompress(packed)
    if not expander.eof:
        raise zlib.error("a document of the index is cut short")
    return document
