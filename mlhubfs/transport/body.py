"""The body of an answer that is too large to be had at once, piece by piece.

Owns the check that it comes whole. What is in it is the reader's matter.

*Threading.* For the thread that made the request.
"""

import requests

from mlhubfs.errors import BadAnswer, Unavailable
from mlhubfs.transport.origin import describe
from mlhubfs.transport.ranges import declared_length, is_html
from mlhubfs.transport.retry import Failed


class Body:
    """The body of a 200; raises Failed if the answer is none, or a web page."""

    def __init__(self, response: requests.Response) -> None:
        self._where = describe(str(response.url))
        if response.status_code != 200 or is_html(response):
            raise Failed(BadAnswer, f"{self._where} did not answer with a file")
        self._response = response
        self._declared = declared_length(response)
        self.came = 0
        """Bytes read so far."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, nothing at the end; raises Failed where it comes too early."""
        piece: bytes = self._response.raw.read(size)
        self.came += len(piece)
        if not piece and self._declared is not None and self.came != self._declared:
            what = f"{self._where} broke off after {self.came} of {self._declared} bytes"
            raise Failed(Unavailable, what)
        return piece
