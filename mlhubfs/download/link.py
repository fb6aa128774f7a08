"""Requests for ranges of one asset, at the link that works.

Owns which link that is: the one that last answered, after redirects, and a new one where it is
refused. What is made of the bytes is the caller's matter.

*Threading.* Any thread; who is late to learn of a new link asks for one more.
"""

import time
from collections.abc import Callable

from mlhubfs.content.asset import AssetRef, Location
from mlhubfs.errors import Denied, NotFound, Unavailable
from mlhubfs.transport.client import Stream, Transport

_NEW_LINK_SECONDS = 5.0  # a link this young that is refused would be refused again


class Broken(Unavailable):
    """A connection broke off in the middle; it has not been tried again yet."""


class Link:
    """The link of `asset`, which is asked at the first of its hrefs."""

    def __init__(self, transport: Transport, asset: AssetRef) -> None:
        self._transport = transport
        self._asset = asset
        self._last: Location | None = None

    def ask(
        self, start: int, stop: int, into: Callable[[Stream], None], *, once: bool = False
    ) -> None:
        """Let `into` have the bytes [start, stop), as `Transport.pour_range` does.

        Raises its errors, and Broken once `into` has been called.
        """
        known = self._last
        link = known or self._asset.locate(0.0)
        try:
            self._ask_at(link, start, stop, into, once=once)
        except (Denied, NotFound):
            if known is None and time.monotonic() - link.fetched < _NEW_LINK_SECONDS:
                raise
            self._ask_at(self._asset.locate(link.fetched), start, stop, into, once=once)

    def size(self) -> int | None:
        """Return how many bytes storage has by one request; None where only the end would tell."""
        sizes: list[int | None] = []

        def take(stream: Stream) -> None:
            sizes.append(stream.total)
            if not stream.is_whole:
                stream.read(1)  # the connection can then be used again

        self.ask(0, 1, take)
        return sizes[-1]

    def forget(self) -> None:
        """Ask at the asset's own link the next time."""
        self._last = None

    def _ask_at(
        self,
        link: Location,
        start: int,
        stop: int,
        into: Callable[[Stream], None],
        *,
        once: bool,
    ) -> None:
        has_begun = False

        def take(stream: Stream) -> None:
            nonlocal has_begun
            has_begun = True
            self._last = Location(stream.url, link.fetched)
            into(stream)

        try:
            self._transport.pour_range(
                link.href, start, stop, take, expect_html=self._asset.is_html, once=once
            )
        except Unavailable as error:
            raise Broken(str(error)) if has_begun else error from None
