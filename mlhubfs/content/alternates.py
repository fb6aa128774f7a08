"""An asset at one href after the other: its own, and where else the catalog says it is.

Owns which failures are a reason to try the next one, for reads and for downloads.

*Threading.* Any thread.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from mlhubfs.content.asset import AssetRef, Location
from mlhubfs.errors import BadAnswer, Denied, NotFound, Offline, Unavailable

_log = logging.getLogger("mlhubfs.content")
_ELSEWHERE = (BadAnswer, Denied, NotFound, Unavailable)  # another href may have what one has not
H = TypeVar("H")
T = TypeVar("T")


def first_answer(hrefs: Sequence[H], ask: Callable[[H], T]) -> T:
    """Return what `ask` has of the first that works; else raise what it says of the very first."""
    own, *others = hrefs
    try:
        return ask(own)
    except Offline:
        raise
    except _ELSEWHERE as error:
        for other in others:
            _log.info("%s; trying another href", error)
            with contextlib.suppress(*_ELSEWHERE):
                return ask(other)
        raise


def at_each_href(asset: AssetRef) -> list[AssetRef]:
    """Return the asset as it is at each of its hrefs alone, its own first; each renews its link."""
    link = asset.locate(0.0)

    def locate(place: int, after: float) -> Location:
        now = asset.locate(after) if after else link
        if place >= len(now.hrefs):
            raise NotFound(f"{asset} is no longer at as many addresses as it was")
        return Location(now.hrefs[place], now.fetched)

    return [replace(asset, locate=partial(locate, place)) for place in range(len(link.hrefs))]
