"""What has to be done to have an asset on disk."""

from collections.abc import Callable
from typing import NamedTuple


class Plan(NamedTuple):
    """The bytes of an asset that are on disk, and the way to the others."""

    size: int
    """Bytes of the asset."""
    lacking: int
    """Bytes that are not on disk."""
    tasks: list[Callable[[], int]]
    """To be run in any order, by any threads; each brings some bytes and returns how many."""
    is_local: bool = False
    """Whether it is a file of this machine, of which no copy is kept."""
