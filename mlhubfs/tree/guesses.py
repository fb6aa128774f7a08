"""Which files of an item a program will read next, judged by those that it read in the item before.

Owns the guess; fetches nothing. A program that reads three bands of every chip opens them one after
the other: once it has opened the first of an item, the others can come with it.

It is seen once and then guessed: the first item costs what it always did. A guess that the program
did not take up was wrong; `_PATIENCE` wrong ones in a row, and nothing is fetched for it, while
guessing goes on: one that would have been right is trusted again.

*Program.* What the kernel names, which is a thread: threads that share a process and read items of
their own do not disturb each other. Collections are told apart, for who reads images and labels in
turn.

*Threading.* Any thread; one lock.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field

_PATIENCE = 2  # one may be an item that lacks a file, or the last of a sample
_PROGRAMS = 1024  # remembered, times the collections that they read


@dataclass(slots=True)
class _Reading:
    item: str
    read: set[str]
    guessed: set[str] = field(default_factory=set)
    wrong: int = 0
    """Guesses in a row that were not taken up."""


class Guesses:
    """What each program reads of an item."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: OrderedDict[Hashable, _Reading] = OrderedDict()

    def opened(
        self, program: Hashable, collection: str, item: str, key: str, *, among: Collection[str]
    ) -> set[str]:
        """Take note that an asset is opened; return the keys `among` which to fetch others now."""
        with self._lock:
            reading = self._reading(program, collection, item, key)
            if reading.item == item:
                reading.read.add(key)
                return set()
            if reading.guessed:
                reading.wrong = 0 if reading.guessed <= reading.read else reading.wrong + 1
            reading.guessed = reading.read & set(among) - {key} if key in reading.read else set()
            reading.item, reading.read = item, {key}
            return set(reading.guessed) if reading.wrong < _PATIENCE else set()

    def _reading(self, program: Hashable, collection: str, item: str, key: str) -> _Reading:
        reading = self._readings.setdefault((program, collection), _Reading(item, {key}))
        self._readings.move_to_end((program, collection))
        if len(self._readings) > _PROGRAMS:
            self._readings.popitem(last=False)
        return reading
