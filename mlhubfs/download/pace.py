"""How many connections one download is worth: as many as make it faster.

Owns that decision. A connection alone gets what its server, or the window of TCP over a long way,
allows it; many get more, until the line, the disk or this machine is full. So they are doubled for
as long as the rate grows with them.

*Threading.* For whoever holds the lock of the download.
"""

FIRST = 8
"""Connections at the beginning; over a long way it takes round trips to learn whether more pay."""
_WINDOW_SECONDS = 0.2  # enough for a new connection's first bytes at 50 ms
_LONGEST_WINDOW_SECONDS = 5.0
_GAIN = 1.1  # a rate that is higher by less is chance


class Pace:
    """Watches one download that may have at most `most` connections."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._window = _WINDOW_SECONDS
        self._since: tuple[float, int] | None = None
        self._best = 0.0

    def wanted(self, connections: int, came: int, now: float) -> int:
        """Return how many connections there should be.

        Now there are `connections`, and `came` bytes have come until the monotonic time `now`.
        """
        if self._since is None:
            self._since = now, came
            return min(self._most, max(FIRST, connections))
        seconds, size = now - self._since[0], came - self._since[1]
        if seconds < self._window:
            return connections
        self._since = now, came
        if size / seconds > self._best * _GAIN:
            self._best = size / seconds
            return min(self._most, connections * 2)
        self._window = min(self._window * 2, _LONGEST_WINDOW_SECONDS)
        return connections

    def refused(self, connections: int) -> None:
        """Take note that the server has not taken one of `connections`."""
        self._most = max(1, min(self._most, connections - 1))
