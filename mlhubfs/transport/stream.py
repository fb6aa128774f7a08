"""A range of an asset as it arrives, for who writes it to a file: more than fits in memory.

Owns the judgement of such an answer, by the rules of `ranges`: every byte that is given out belongs
where it is said to belong, or an error comes instead.

*Threading.* For the thread that made the request.
"""

import base64
import binascii
import re
from typing import Any

import requests

from mlhubfs.errors import BadAnswer
from mlhubfs.transport.local import Files
from mlhubfs.transport.origin import describe
from mlhubfs.transport.ranges import (
    beyond_the_end,
    check_kind,
    content_range,
    cut,
    declared_length,
    lie,
    modified,
    validator,
)
from mlhubfs.transport.retry import NEVER

_MD5_BYTES = 16


class Stream:
    """The bytes [start, stop) of an asset; raises Failed if the answer cannot be those asked for.

    A server that ignores ranges sends all of it: then `start` is 0 and `is_whole` is set.
    """

    def __init__(
        self, response: requests.Response, start: int, stop: int, *, expect_html: bool
    ) -> None:
        if response.status_code not in {200, 206, 416}:
            lie(response, f"answered {response.status_code} to a request for a range", tries=NEVER)
        if response.status_code != 416:
            check_kind(response, expect_html=expect_html)
        self._response = response
        self.start = start
        """Offset of the first byte."""
        self.is_whole = response.status_code == 200
        """Whether the server ignored the range."""
        self.total: int | None
        """Size of the whole asset; None where only the end of the stream will tell."""
        if response.status_code == 206:
            self.total, length = content_range(response, start, stop)
            self.stop: int | None = start + length
        elif self.is_whole:
            self.start, self.total = 0, declared_length(response)
            self.stop = self.total
            if self.total is None and not _is_chunked(response):
                lie(response, "does not say how large the file is", tries=NEVER)
        else:
            self.total = beyond_the_end(response, start)
            self.stop = start
        self.validator = validator(response.headers)
        self.modified = modified(response.headers)
        self.md5 = told_md5(response.headers, is_whole=self.is_whole)
        """Digest of the whole asset, where storage tells one."""
        self.url = str(response.url)
        """Where the bytes come from, after redirects. A secret."""
        self._at = self.start
        _check_length(response, None if self.stop is None else self.stop - self.start)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, nothing at the end; raises Failed where that comes early."""
        if self.stop is not None:
            size = min(size, self.stop - self._at)
        piece: bytes = self._response.raw.read(size) if size else b""
        self._at += len(piece)
        if not piece and self.stop is not None and self._at < self.stop:
            cut(self._response, self._at - self.start, self.stop - self.start)
        return piece


class FileStream(Stream):
    """The same of a file of a local catalog, which is read piece by piece."""

    def __init__(self, files: Files, url: str, start: int, stop: int) -> None:
        self._files = files
        first = files.range(url, start, start + 1)
        self.start, self.is_whole, self.md5, self.url = start, False, None, url
        self.total, self.stop = first.total, max(start, min(stop, first.total))
        self.validator, self.modified = first.validator, first.modified
        self._at = start

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, nothing at the end; raises BadAnswer if the file changed."""
        stop = min(self._at + size, self.stop or 0)
        if stop <= self._at:
            return b""
        part = self._files.range(self.url, self._at, stop)
        if part.validator != self.validator:
            raise BadAnswer(f"{describe(self.url)} changed while it was read")
        self._at = stop
        return part.data


def told_md5(headers: Any, *, is_whole: bool) -> bytes | None:
    """Return the MD5 of the whole asset that storage's `headers` tell, None if they tell none.

    An ETag of 32 digits is one on S3 alone, and there not of what is encrypted with another's key.
    """
    texts = [headers.get("x-ms-blob-content-md5")]  # Azure, on ranges
    if is_whole:
        texts.append(headers.get("Content-MD5"))  # on a range it would be the range's (RFC 1864)
    texts += re.findall(r"\bmd5=([A-Za-z0-9+/=]+)", headers.get("x-goog-hash") or "")
    for text in filter(None, texts):
        try:
            digest = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(digest) == _MD5_BYTES:
            return digest
    etag = re.fullmatch(r'"([0-9a-f]{32})"', headers.get("ETag") or "")
    encrypted = headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
    encrypted |= "x-amz-server-side-encryption-customer-algorithm" in headers
    if etag and not encrypted and "x-amz-request-id" in headers:
        return bytes.fromhex(etag[1])
    return None


def _is_chunked(response: requests.Response) -> bool:
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower()


def _check_length(response: requests.Response, length: int | None) -> None:
    declared = declared_length(response)
    if response.status_code == 206 and declared is not None and declared != length:
        lie(response, f"announced {declared} bytes for a range of {length}")
