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
    read: set[str] = field(default_factory=set)
    guessed: set[str] = field(default_factory=set)
    wrong: int = 0
    """Guesses in a row that were not taken up."""


class Guesses:
    """What each program reads of an item."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: OrderedDict[Hashable, _Reading] = OrderedDict()

    def looked_at(
        self, program: Hashable, collection: str, item: str, key: str, *, among: Collection[str]
    ) -> set[str]:
        """Return the keys, of those `among` which they are, to fetch with an asset of unknown size.

        The kernel asks for the size before it opens, and that costs a round trip of its own.
        """
        with self._lock:
            reading = self._readings.get((program, collection))
            if reading is None or item == reading.item or key not in reading.read:
                return set()
            return self._turn(reading, item, key, among)

    def opened(
        self, program: Hashable, collection: str, item: str, key: str, *, among: Collection[str]
    ) -> set[str]:
        """Take note that an asset is opened; return the keys to fetch with it."""
        with self._lock:
            reading = self._readings.setdefault((program, collection), _Reading(item))
            self._readings.move_to_end((program, collection))
            if len(self._readings) > _PROGRAMS:
                self._readings.popitem(last=False)
            guess = set() if item == reading.item else self._turn(reading, item, key, among)
            reading.read.add(key)
            return guess

    @staticmethod
    def _turn(reading: _Reading, item: str, key: str, among: Collection[str]) -> set[str]:
        """Judge the last guess, and make the next."""
        if reading.guessed:
            reading.wrong = 0 if reading.guessed <= reading.read else reading.wrong + 1
        reading.guessed = reading.read & set(among) - {key} if key in reading.read else set()
        reading.item, reading.read = item, set()
        return set(reading.guessed) if reading.wrong < _PATIENCE else set()
