"""One file from storage to disk, by as many connections as make it faster.

Owns the division into requests, what is done when one of them fails, and what when the file turns
out to be another one. Knows neither names nor progress bars.

1. *The first request* is for the first bytes, and tells size, version, and where redirects lead. A
   file that it brings whole is done. Where storage ignores ranges it is the whole file, in one
   stream, which begins anew if it breaks off.
2. *Every answer names its version*, and is used only if that is the version that the part is of, so
   there is no If-Range: where the file has changed that would bring it from its first byte, to who
   asked for the middle. A changed file starts again.
3. *Without any validator* two answers cannot be told to be of the same version: one stream then.
4. *Requests are of megabytes*, not of a share of the file each: a connection that is slow, or was
   added late, does what it can, and ends cleanly. They get shorter towards the end.
5. *Bytes are compared when all are there*, by one more reading from disk: they come in no order.

*Threading.* The caller's thread fetches the first bytes, and waits for those of the pool that fetch
the others. Writes go to the part,
which has its own lock; what is decided for all is decided under `_lock`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager

from mlhubfs.content.asset import AssetRef
from mlhubfs.content.checksum import Checksum
from mlhubfs.download.gaps import Claim
from mlhubfs.download.link import Broken, Link
from mlhubfs.download.pace import Pace
from mlhubfs.download.part import PartFile, Version
from mlhubfs.errors import (
    BadAnswer,
    Changed,
    Interrupted,
    MlhubfsError,
    NotWritten,
    Unavailable,
)
from mlhubfs.transport.client import Stream, Transport
from mlhubfs.transport.workers import STEP_SECONDS, Workers

LONGEST_REQUEST = 8 << 20
_SHORTEST_REQUEST = 1 << 20
_PIECE = 1 << 20  # read and written at once
_FIRST_PIECE = 16 << 10  # so that on a bad line something is gained before it breaks off
_PROGRESS = 64 << 10  # bytes; a connection that brings fewer before it breaks off has failed
_TRIES = 5  # for a file that changes again and again, or breaks off where it cannot be resumed
_FAILURES = 8  # in a row, with growing pauses, 6 s in all
_PAUSE_SECONDS = 0.025
_UNKNOWN = 1 << 62  # a size, where only the end of the stream will tell
_SHOWN = 12  # digits of a digest: enough to tell two apart


class _Wrong(BadAnswer):
    """What came is not what was announced."""


class Transfer:
    """Brings `asset`, as it is at the first of its hrefs, into `part`.

    `size` is the catalog's word for it, in bytes. `slots` are the connections that this file has to
    share with others; the caller holds one. `progress` is told how many bytes have come, and how
    many have to come again, as a negative.
    """

    def __init__(
        self,
        transport: Transport,
        workers: Workers,
        slots: threading.Semaphore,
        asset: AssetRef,
        part: PartFile,
        *,
        size: int | None,
        most: int,
        progress: Callable[[int], None],
    ) -> None:
        self._workers = workers
        self._slots = slots
        self._asset = asset
        self._part = part
        self._size = size
        self._most = most
        self._progress = progress
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._helpers: list[Future[None]] = []
        self._connections = 1
        self._pace = Pace(most)
        self._came = 0
        self._in_one = False
        self._link = Link(transport, asset)
        self._md5: bytes | None = None
        self._modified: float | None = None

    def run(self) -> None:
        """Fetch what is missing, and compare it with what is told of it.

        Raises the errors of the transport, BadAnswer where it differs, and NotWritten.
        """
        self._part.reopen()
        for tries_left in reversed(range(_TRIES)):
            try:
                self._fetch()
            except (Changed, Unavailable, _Wrong) as error:
                if not (self._in_one or isinstance(error, Changed | _Wrong)):
                    raise
                self._restart()  # what is there cannot be completed
                if not tries_left or isinstance(error, _Wrong):
                    raise
            else:
                self._part.finish(self._modified)
                return

    def _fetch(self) -> None:
        try:
            if self._part.version is None:
                self._fetch_first()
            self._fetch_rest()
            self._compare()
        except MlhubfsError:
            self._stop()
            wait(self._helpers)
            raise
        except BaseException:  # an interrupt: whoever pressed the key does not wait for a server
            self._stop()
            raise

    def _compare(self) -> None:
        """Compare what is there with what storage and the catalog say of it (5)."""
        if self._part.gaps.missing():
            raise Unavailable(f"{self._asset} did not come in full")
        self._compare_size(self._part.done)
        storage = Checksum("md5", self._md5.hex()) if self._md5 else None
        catalog = self._asset.checksum
        found = {one.kind: self._part.digest(one.kind) for one in (storage, catalog) if one}
        for told, whose in ((storage, "storage's"), (catalog, "the catalog's (file:checksum)")):
            if told and found[told.kind] != told.digest:
                raise _Wrong(
                    f"{self._asset} came with another {told.kind.upper()} than {whose}: expected "
                    f"{told.digest[:_SHOWN]}..., found {found[told.kind][:_SHOWN]}..."
                )

    def _compare_size(self, size: int) -> None:
        if size != self._size and self._size is not None:
            raise _Wrong(f"{self._asset} has {size} bytes, and {self._size} were announced")

    def _stop(self) -> None:
        self._stopping.set()
        self._part.gaps.end()

    def _restart(self) -> None:
        self._progress(-self._part.done)
        self._part.forget()
        self._stopping.clear()
        self._helpers.clear()
        self._connections, self._pace = 1, Pace(self._most)
        self._link.forget()
        self._md5 = None

    def _fetch_first(self) -> None:
        total = 0

        def into(stream: Stream) -> None:
            nonlocal total
            self._in_one |= stream.is_whole or not stream.validator  # (3)
            if not stream.validator and stream.stop != stream.total:
                total = stream.total or 0  # all of it is asked for
                return
            self._learn(stream)
            if stream.total is not None:
                self._compare_size(stream.total)
            size = _UNKNOWN if stream.total is None else stream.total
            self._part.begin(Version(size, stream.validator))
            with self._claim(_UNKNOWN if stream.stop is None else stream.stop) as claim:
                if claim:
                    self._drain(stream, claim)
            if stream.total is None:
                self._part.settle()

        try:
            self._link.ask(0, LONGEST_REQUEST, into)
            if self._part.version is None:
                self._link.ask(0, total, into)
        except Unavailable:
            if self._part.version is None or self._in_one:
                raise

    def _fetch_rest(self) -> None:
        """Have others fetch what is missing; whoever stalls when all is there is not waited for."""
        if self._part.gaps.missing():
            self._part.hold()
            first = self._workers.submit(self._lead)
            self._helpers.append(first)
            while self._part.gaps.missing() and not first.done():
                wait([first], STEP_SECONDS)
        if self._stopping.is_set():  # one of them has failed, and says why
            for helper in self._helpers:
                self._workers.wait(helper)

    def _lead(self) -> None:
        """Fetch by the first connection, whose failure is the download's."""
        try:
            self._work()
        except MlhubfsError:
            self._stop()
            raise
        finally:
            self._part.release()

    @contextmanager
    def _claim(self, most: int) -> Iterator[Claim | None]:
        """Hold a claim for as long as the block takes."""
        claim = self._part.gaps.claim(most)
        try:
            yield claim
        finally:
            if claim:
                self._part.gaps.give_back(claim)

    def _work(self) -> None:
        """Fetch claim after claim until none is left."""
        failures = 0
        while not self._stopping.is_set():
            before = self._came
            try:
                with self._claim(self._share()) as claim:
                    if claim is None:
                        return
                    self._pour(claim)
            except Unavailable as error:
                # What others have brought meanwhile counts too: the server is there.
                failures = failures + 1 if self._came - before < _PROGRESS else 0
                is_hopeless = failures and not isinstance(error, Broken)
                if is_hopeless or failures == _FAILURES or self._in_one:
                    raise
                self._stopping.wait(_PAUSE_SECONDS * 2**failures if failures else 0)

    def _help(self) -> None:
        """Fetch beside the first connection; to fail means to leave it to the others."""
        try:
            while not self._stopping.is_set():
                with self._claim(self._share()) as claim:
                    if claim is None:
                        return
                    self._pour(claim, once=True)
        except (Changed, NotWritten, Interrupted):
            self._stop()
            raise
        except MlhubfsError:  # if it is the same for all, the first connection will tell
            with self._lock:
                self._pace.refused(self._connections)
        finally:
            with self._lock:
                self._connections -= 1
            self._slots.release()
            self._part.release()

    def _pour(self, claim: Claim, *, once: bool = False) -> None:
        def into(stream: Stream) -> None:
            version = self._part.version
            if stream.is_whole or version != (stream.total, stream.validator):
                raise Changed(f"{self._asset} was replaced on the server")
            self._learn(stream)
            self._drain(stream, claim)

        if claim.at < claim.stop:
            self._link.ask(claim.at, claim.stop, into, once=once)

    def _drain(self, stream: Stream, claim: Claim) -> None:
        came = 0
        while piece := stream.read(max(_FIRST_PIECE, min(came, _PIECE))):
            new = self._part.write(claim, piece)
            came += len(piece)
            self._look(new)
            if new < len(piece) or self._stopping.is_set():
                return

    def _learn(self, stream: Stream) -> None:
        self._md5 = stream.md5 or self._md5
        self._modified = stream.modified

    def _share(self) -> int:
        each = self._part.gaps.left() // (2 * max(self._connections, 1))
        return max(_SHORTEST_REQUEST, min(each, LONGEST_REQUEST))

    def _look(self, new: int) -> None:
        """After each piece: tell and note what is there, and see whether to connect once more."""
        with self._lock:
            self._came += new
            self._progress(new)
            if self._in_one or self._stopping.is_set():
                return
            wanted = self._pace.wanted(self._connections, self._came, time.monotonic())
            work = self._part.gaps.left() // _SHORTEST_REQUEST
            for _ in range(min(wanted - self._connections, work)):
                if not self._slots.acquire(blocking=False):
                    break
                self._connections += 1
                self._part.hold()
                self._helpers.append(self._workers.submit(self._help))
        self._part.note()
