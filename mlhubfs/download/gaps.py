"""Which bytes of a file are still missing, and who is fetching them.

Owns the division of a file among those who fetch it at the same time. Knows neither disk nor
network.

*A claim can be taken over.* When nothing else is left and a claim has not got further for
`STALLED_SECONDS`, who has nothing to do takes what is left of it: a connection that hangs holds
the last bytes up no longer. The one before finds its claim empty and writes nothing more; a piece
that it is writing at that moment has the same bytes as the other's.

*Threading.* Any thread; one lock. A `Claim` is written by who holds it, and by who takes it over.
"""

import threading
import time
from collections.abc import Callable, Iterable

STALLED_SECONDS = 5.0
_LOOK_SECONDS = 0.25  # between two looks at claims that may have stalled

Range = tuple[int, int]
"""Offsets: the first byte, and the one behind the last."""


class Claim:
    """A range that one connection fetches: [at, stop) is what is left of it."""

    def __init__(self, at: int, stop: int, now: float) -> None:
        self.at = at
        self.stop = stop
        self.touched = now


class Gaps:
    """The ranges of a file that are missing."""

    def __init__(
        self, missing: Iterable[Range], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._free = [one for one in missing if one[0] < one[1]]
        self._claims: list[Claim] = []
        self._is_over = False

    def missing(self) -> list[Range]:
        """Return what is not there yet, also what is on its way."""
        with self._changed:
            ranges = sorted([*self._free, *((one.at, one.stop) for one in self._busy())])
        merged: list[Range] = []
        for start, stop in ranges:
            touches = merged and merged[-1][1] == start
            merged.append((merged.pop()[0] if touches else start, stop))
        return merged

    def left(self) -> int:
        """Return how many bytes nobody is fetching."""
        with self._changed:
            return sum(stop - start for start, stop in self._free)

    def claim(self, most: int) -> Claim | None:
        """Return up to `most` bytes to fetch, waiting for them if need be; None at the end."""
        with self._changed:
            while not self._is_over:
                if self._free:
                    return self._take(most)
                if not self._busy():
                    return None
                stalled = self._stalled()
                if stalled:
                    return self._take_over(stalled)
                self._changed.wait(_LOOK_SECONDS)
        return None

    def room(self, claim: Claim) -> int:
        """Return how many bytes of a claim are left to its holder."""
        with self._changed:
            return claim.stop - claim.at

    def advance(self, claim: Claim, size: int) -> int:
        """Say that so many bytes of a claim are there now; return how many of them are news."""
        with self._changed:
            claim.touched = self._clock()
            step = min(size, claim.stop - claim.at)
            claim.at += step
            return step

    def give_back(self, claim: Claim) -> None:
        """Leave what is left of a claim to others."""
        with self._changed:
            if claim in self._claims:
                self._claims.remove(claim)
                if claim.at < claim.stop:
                    self._free.insert(0, (claim.at, claim.stop))
            self._changed.notify_all()

    def end(self) -> None:
        """Give out no more claims."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _busy(self) -> list[Claim]:
        return [one for one in self._claims if one.at < one.stop]

    def _stalled(self) -> Claim | None:
        now = self._clock()
        return next((one for one in self._busy() if now - one.touched > STALLED_SECONDS), None)

    def _take(self, most: int) -> Claim:
        start, stop = self._free.pop(0)
        if stop - start > most:
            self._free.insert(0, (start + most, stop))
            stop = start + most
        return self._claimed(start, stop)

    def _take_over(self, other: Claim) -> Claim:
        start, stop = other.at, other.stop
        other.stop = start
        return self._claimed(start, stop)

    def _claimed(self, start: int, stop: int) -> Claim:
        claim = Claim(start, stop, self._clock())
        self._claims.append(claim)
        return claim
