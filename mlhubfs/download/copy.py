"""A copy of a file of a server, for what has to read all over it: a tarball.

Owns which version the copy is of: the one that the server has when it is asked for. What another
process is about to fetch is waited for. The fetching is `downloader`'s.

*Threading.* Any thread, any process.
"""

import contextlib
import fcntl
import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from mlhubfs.content.asset import AssetRef, Location
from mlhubfs.download.downloader import Downloader, IfExists
from mlhubfs.download.part import Version
from mlhubfs.errors import Changed, NotWritten, Offline, Unavailable
from mlhubfs.transport.client import Transport, describe
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.download")
_WHOLE = ".tar"
_LOCK = "lock"


def size_of_copies(folder: Path) -> int:
    """Return how many bytes the copies in a folder of `Copies` have, those begun included."""
    return sum(path.stat().st_size for path in _files(folder))


def remove_copies(folder: Path) -> int:
    """Remove the copies in a folder of `Copies`, unless one is being fetched; return their bytes.

    Who has one open reads on.
    """
    removed = 0
    with contextlib.suppress(FileNotFoundError, BlockingIOError), _locked(folder, fcntl.LOCK_NB):
        for path in _files(folder):
            removed += path.stat().st_size
            path.unlink()
    return removed


@contextlib.contextmanager
def _locked(folder: Path, flags: int = 0) -> Iterator[None]:
    with (folder / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | flags)
        yield


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name != _LOCK]


class Copies:
    """Copies in `folder` of the file at `url`: the present one, and none else when it is there."""

    def __init__(self, transport: Transport, workers: Workers, url: str, folder: Path) -> None:
        self._transport = transport
        self._downloader = Downloader(transport, workers)
        self._url = url
        self._folder = folder

    def present(self) -> Path:
        """Return the path of a copy of the version that the server has now.

        Where the server cannot be reached, the copy of the last time will do. Raises the errors of
        the transport, Changed, and NotWritten where there is no room.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self._folder):
                return self._renewed()
        except OSError as error:
            raise NotWritten(f"{describe(self._url)} cannot be kept: {error}") from None

    def _renewed(self) -> Path:
        try:
            version = self._ask()
        except Unavailable as error:
            kept = next(self._folder.glob(f"*{_WHOLE}"), None)
            if kept is None:
                raise
            if not isinstance(error, Offline):
                _log.warning("%s; what came of it the last time is used", error)
            return kept
        return self._fetch(version)

    def _ask(self) -> Version:
        part = self._transport.get_range(self._url, 0, 1)
        return Version(part.total, part.validator)

    def _fetch(self, version: Version) -> Path:
        digest = hashlib.blake2b(ascii(version).encode(), digest_size=8).hexdigest()
        target = self._folder / f"{digest}{_WHOLE}"
        # Without a validator, one version cannot be told from another.
        how = IfExists.SKIP if version.validator else IfExists.OVERWRITE
        asset = AssetRef((self._url,), lambda _: Location(self._url, time.monotonic()))
        is_new = self._downloader.fetch(asset, target, if_exists=how)
        if is_new and self._ask() != version:
            target.unlink()
            raise Changed(f"{describe(self._url)} was replaced while it was fetched: try again")
        for other in _files(self._folder):
            if other != target:
                other.unlink()
        return target
