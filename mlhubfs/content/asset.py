"""What an asset is to this room: an identity, a way to a link, a version."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mlhubfs.content.checksum import Checksum


class Location(NamedTuple):
    """Where an asset can be fetched for now."""

    href: str
    fetched: float
    """When the link was made, on the monotonic clock."""
    others: tuple[str, ...] = ()
    """Where else it is, to be asked in that order where `href` fails."""

    @property
    def hrefs(self) -> tuple[str, ...]:
        """Where it is, in the order of asking."""
        return self.href, *self.others


@dataclass(frozen=True)
class AssetRef:
    """An asset as content knows it."""

    identity: tuple[str, ...]
    """Source, collection, item and key: what it is, whatever its link."""

    locate: Callable[[float], Location]
    """Return a link made after the given monotonic time; 0 takes the one at hand."""

    is_html: bool = False
    """Whether it is meant to be an HTML page, which is else taken for an error in disguise."""

    is_local: bool = False
    """Whether it is a file of this machine: looked at whenever it is opened, and kept nowhere."""
    checksum: Checksum | None = None
    """What its bytes are to be, by the catalog's word."""

    @cached_property
    def key(self) -> str:
        """What names the asset, in hexadecimal digits."""
        return key_of(self.identity)

    def __str__(self) -> str:
        """Return collection, item and key: what may be shown."""
        return "/".join(part for part in self.identity[1:] if part)


class Version(NamedTuple):
    """Which bytes an asset has."""

    size: int
    validator: str
    modified: float | None
    """POSIX seconds of `Last-Modified`, where the storage says."""
    checked: float
    """POSIX seconds at which the storage last said so."""

    def is_same(self, other: "Version") -> bool:
        """Say whether `other` has the same bytes."""
        return (self.size, self.validator) == (other.size, other.validator)

    def key(self, asset: AssetRef) -> str:
        """Return what names the asset's bytes in this version; it begins with the asset's key."""
        return f"{asset.key}.{_digest(self.validator, str(self.size))}"


def key_of(identity: tuple[str, ...]) -> str:
    """Return 16 hexadecimal digits for each part of an identity, or of the first parts of one.

    So all that is kept of a collection, or of an item, is one range of keys. 64 bits for a part: of
    a collection of 590,326 items, two share theirs with a probability of 1 in 100 million.
    """
    return "".join(_digest(part) for part in identity)


def _digest(*parts: str) -> str:
    # ascii() of the tuple is unambiguous, whatever the ids hold.
    return hashlib.blake2b(ascii(parts).encode(), digest_size=8).hexdigest()
