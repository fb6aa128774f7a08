"""Whether an asset has the bytes that the catalog says: `file:checksum`, a multihash.

Owns the digest of what is read on and on from the beginning to the end. Readers jump: then nothing
is judged. https://multiformats.io/multihash/

*Threading.* Any thread; one lock, held while bytes are added to the digest.
"""

import hashlib
import threading
from typing import NamedTuple

_KINDS = {  # the code and the length in bytes, each a varint -> hashlib's name
    "1114": "sha1",
    "1220": "sha256",
    "1340": "sha512",
    "d50110": "md5",
}
_EARLY = 8 << 20  # bytes kept until those before them come: the kernel asks with many threads


class Checksum(NamedTuple):
    """What the digest of an asset is to be."""

    kind: str
    digest: str
    """In hexadecimal digits."""


def parse_checksum(text: object) -> Checksum | None:
    """Return what a `file:checksum` says, None where that is of no known kind."""
    if not isinstance(text, str):
        return None
    text = text.lower()
    for code, kind in _KINDS.items():
        digest = text.removeprefix(code)
        if len(digest) < len(text) and len(digest) == 2 * hashlib.new(kind).digest_size:
            return Checksum(kind, digest)
    return None


class Proof:
    """The digest of an asset of `size` bytes, as far as it has been read in about its order."""

    def __init__(self, expected: Checksum, size: int) -> None:
        self._expected = expected
        self._size = size
        self._digest = hashlib.new(expected.kind, usedforsecurity=False)
        self._at = 0
        self._is_judged = False
        self._early: dict[int, bytes | memoryview] = {}
        self._lock = threading.Lock()

    def note(self, offset: int, data: bytes | memoryview) -> bool | None:
        """Take note of a read; say at the end of all bytes, once, whether they are right."""
        with self._lock:
            if self._is_judged:
                return None
            if offset > self._at:
                self._keep(offset, data)
                return None
            self._add(offset, data)
            while (following := self._early.pop(self._at, None)) is not None:
                self._add(self._at, following)
            self._is_judged = self._at == self._size
            if not self._is_judged:
                return None
            return self._digest.hexdigest() == self._expected.digest

    def _add(self, offset: int, data: bytes | memoryview) -> None:
        new = memoryview(data)[self._at - offset :]
        self._digest.update(new)
        self._at += len(new)

    def _keep(self, offset: int, data: bytes | memoryview) -> None:
        if sum(map(len, self._early.values())) + len(data) > _EARLY:
            self._early.clear()  # it jumps about: what was passed over is not waited for
        else:
            self._early[offset] = data
