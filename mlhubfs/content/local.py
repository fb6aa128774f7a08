"""A file of this machine, open: its bytes are read where they are, and kept nowhere.

Owns that way around blocks, memory and the cache: the kernel keeps such a file's pages already, and
a copy would take the place of bytes that have crossed the network.

*Threading.* Any thread; a worker reads, for a disk may hang, or be another machine's.
"""

from collections.abc import Callable
from functools import partial

from mlhubfs.content.asset import Version
from mlhubfs.content.plan import Plan
from mlhubfs.transport.workers import Workers


class LocalReader:
    """The version `version` of a file; `fetch` brings its bytes, or raises Changed."""

    def __init__(
        self, workers: Workers, version: Version, fetch: Callable[[int, int], bytes]
    ) -> None:
        self.version = version
        """The version that every byte read comes from."""
        self._workers = workers
        self._fetch = fetch

    @property
    def edition(self) -> tuple[int, str]:
        """What is equal for equal bytes of the file: not when it was looked at."""
        return self.version.size, self.version.validator

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes [offset, offset + size), fewer at the end of the file."""
        stop = min(offset + size, self.version.size)
        if offset >= stop:
            return b""
        return self._workers.wait(self._workers.submit(partial(self._fetch, offset, stop)))

    def plan(self) -> Plan:
        """Return that there is nothing to do."""
        return Plan(self.version.size, 0, [], is_local=True)

    def fetch_ahead(self) -> None:
        """Do nothing: it is here."""
