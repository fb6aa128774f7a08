"""The names that a search has found so far, at positions that stay.

Owns them while a directory of them is open: a reader may come back to any. More is looked for as it
is wanted, no further. Does not search: `search`.

*Threading.* Any thread; the search goes on in a flight of the workers, a batch at a time, so that
who waits for it can be let go.
"""

from array import array
from collections.abc import Iterator, Sequence

from mlhubfs.catalog.models import Listed
from mlhubfs.transport.workers import Workers


class Matches:
    """What `batches` bring, as (id, POSIX time)."""

    def __init__(self, batches: Iterator[Sequence[Listed]], workers: Workers) -> None:
        self._batches = batches
        self._workers = workers
        # Packed: as objects, the names of 590,326 items would take 100 MB.
        self._block = bytearray()
        self._stops = array("Q", [0])
        self._times = array("d")
        self._failure: Exception | None = None
        self.complete = False
        """Whether all have been found."""

    def __len__(self) -> int:
        """Return how many are known so far."""
        return len(self._times)

    def iterate(self, start: int = 0) -> Iterator[tuple[str, float]]:
        """Yield (id, POSIX time) from number `start` on, looking for more as needed."""
        position = start
        while self.reach(position):
            name = self._block[self._stops[position] : self._stops[position + 1]]
            yield name.decode("utf-8", "surrogatepass"), self._times[position]
            position += 1

    def reach(self, position: int) -> bool:
        """Search until number `position` is known; say whether there is one.

        Raises what the search raises, and again each time.
        """
        while position >= len(self) and not self.complete:
            self._workers.once(f"search {id(self)}", self._advance)
        return position < len(self)

    def _advance(self) -> None:
        if self._failure:
            raise self._failure
        try:
            batch = next(self._batches, None)
        except Exception as error:
            self._failure = error  # an iterator that has raised only says that it is at its end
            raise
        if batch is None:
            self.complete = True
            return
        for item in batch:
            self._block += item.id.encode("utf-8", "surrogatepass")
            self._stops.append(len(self._block))
            self._times.append(item.modified)
