"""Downloads: each file once, complete and checked, or not at all.

Owns what is done about a file that is there already, and how many connections all downloads have
together. What to download is the caller's matter, and so is what is shown meanwhile.

    downloader = Downloader(transport, workers)
    downloader.fetch(asset, Path("B02.tif"))

*Threading.* Any thread; `fetch` takes the thread that calls it, and others of the pool.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mlhubfs.content.alternates import at_each_href, first_answer
from mlhubfs.content.asset import AssetRef
from mlhubfs.download.link import Link
from mlhubfs.download.part import PartFile, Version, digest_of
from mlhubfs.download.transfer import Transfer
from mlhubfs.errors import MlhubfsError
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers

CONNECTIONS = 32
"""At most, for all downloads together."""

Progress = Callable[[int], None]
"""Is told how many bytes have come; a negative number says how many will come again."""


class IfExists(StrEnum):
    """What to do about a file that is there, and about the part of one."""

    RESUME = "resume"
    """Leave it if it has the catalog's size and digest, or else storage's size; otherwise fetch it
    anew, from its part on."""
    SKIP = "skip"
    """Leave it, whatever it is."""
    OVERWRITE = "overwrite"
    """Fetch it anew."""


class Wanted(NamedTuple):
    """A file to download."""

    asset: AssetRef
    target: Path
    size: int | None = None
    """Bytes, where the catalog tells: a file of another size is not complete."""


class Downloader:
    """Downloads files with at most `connections` requests at the same time."""

    def __init__(
        self, transport: Transport, workers: Workers, *, connections: int = CONNECTIONS
    ) -> None:
        self._transport = transport
        self._workers = workers
        self._connections = connections
        self._slots = threading.Semaphore(connections)

    def fetch(
        self,
        asset: AssetRef,
        target: Path,
        *,
        size: int | None = None,
        if_exists: IfExists = IfExists.RESUME,
        progress: Progress = lambda _: None,
    ) -> bool:
        """Have `asset` in the file `target`; return whether any of it had to be fetched.

        `size` is the catalog's word for it. Raises the errors of the transport, NotWritten, and
        InUse; what has come until then is kept beside `target`, and the next call goes on from
        there. But of a file that is not what storage or the catalog says (BadAnswer) nothing is
        kept.
        """
        if self.is_there(target, size, if_exists) and (
            if_exists is IfExists.SKIP or self._is_right(asset, target, size)
        ):
            return False
        part = PartFile(target, asset.key)
        try:
            if if_exists is IfExists.OVERWRITE:
                part.forget()
            progress(part.done)
            with self._slots:
                first_answer(at_each_href(asset), partial(self._bring, part, size, progress))
        except BaseException:
            part.keep()
            raise
        finally:
            part.release()
        return True

    def fetch_all(
        self, files: Iterable[Wanted], *, if_exists: IfExists = IfExists.RESUME
    ) -> Iterator[tuple[Wanted, MlhubfsError | None]]:
        """Fetch many files side by side; yield each when it is there, or with its error.

        `files` is asked for the next one when there is room for it. A target that is on its way
        already is passed over.
        """
        flying: deque[tuple[Wanted, Future[bool]]] = deque()
        for one in files:
            if any(one.target == other.target for other, _ in flying):
                continue  # who names a dataset and an item of it means the item once
            if len(flying) >= 2 * self._connections:
                yield self._landed(*flying.popleft())
            flying.append((one, self._workers.submit(partial(self._fetch, one, if_exists))))
        while flying:
            yield self._landed(*flying.popleft())

    def put(self, target: Path, content: bytes) -> None:
        """Have `content` in the file `target`; raises NotWritten and InUse."""
        part = PartFile(target, "")
        try:
            part.begin(Version(len(content), ""))
            claim = part.gaps.claim(len(content))
            if claim:
                part.write(claim, content)
            part.finish(None)
        except BaseException:
            part.keep()
            raise
        finally:
            part.release()

    @staticmethod
    def is_there(target: Path, size: int | None, if_exists: IfExists) -> bool:
        """Say whether a file is there, of the catalog's size where that is told; asks no server."""
        if if_exists is IfExists.OVERWRITE:
            return False
        if not target.is_file():
            return False
        return if_exists is IfExists.SKIP or size is None or target.stat().st_size == size

    def _is_right(self, asset: AssetRef, target: Path, size: int | None) -> bool:
        """Say whether a file that is there is the asset.

        It is by its digest where the catalog tells one, else by its size, which storage is asked
        for where the catalog tells none.
        """
        try:
            if asset.checksum:
                return digest_of(target, asset.checksum.kind) == asset.checksum.digest
            if size is None:
                with self._slots:
                    size = first_answer(at_each_href(asset), self._ask_size)
            return size is None or target.stat().st_size == size
        except OSError:  # it has gone meanwhile, or cannot be read: a new one can
            return False

    def _ask_size(self, asset: AssetRef) -> int | None:
        return Link(self._transport, asset).size()

    def _bring(self, part: PartFile, size: int | None, progress: Progress, asset: AssetRef) -> None:
        Transfer(
            self._transport,
            self._workers,
            self._slots,
            asset,
            part,
            size=size,
            most=self._connections,
            progress=progress,
        ).run()

    def _fetch(self, one: Wanted, if_exists: IfExists) -> bool:
        return self.fetch(one.asset, one.target, size=one.size, if_exists=if_exists)

    def _landed(self, one: Wanted, future: Future[bool]) -> tuple[Wanted, MlhubfsError | None]:
        try:
            self._workers.wait(future)
        except MlhubfsError as error:
            return one, error
        return one, None
