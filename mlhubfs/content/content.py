"""The bytes of assets, at any offset: the room's front door.

Owns the way of a read: blocks from memory, else from the disk cache, else from the network, and
what to bring ahead of it. Knows an asset only as `AssetRef`; not items, not names.

*Identity.* An asset is (source, collection, item, key), never its link, which is new at every
request. Its bytes are a `Version`: validator and size. A block's key holds both, so that a block
of another version is never served. A reader is bound to the version it was opened with: when the
storage answers with another one, the read fails with Changed, and the next open sees the new file.

*Threading.* Any thread. Disk and network work is done by two pools, and the asker waits for them
interruptibly: a network that hangs must not keep what is on disk from being read.
"""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from mlhubfs.content.asset import AssetRef, Version
from mlhubfs.content.blocks import BLOCK, EXTENT, blocks_of, span
from mlhubfs.content.checksum import Proof
from mlhubfs.content.doubts import Doubts
from mlhubfs.content.local import LocalReader
from mlhubfs.content.origin import Origin, VersionCache
from mlhubfs.content.plan import Plan
from mlhubfs.content.readahead import Readahead
from mlhubfs.content.store import BlockCache, BlockStore
from mlhubfs.errors import BadAnswer, MlhubfsError
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.content")


class Cache(BlockCache, VersionCache, Protocol):
    """What is kept between mounts."""


class Content:
    """Versions and bytes of assets; see `Origin` for the times, `BlockStore` for the budget."""

    def __init__(
        self,
        transport: Transport,
        cache: Cache | None,
        *,
        network: Workers,
        disk: Workers,
        ttl: float,
        negative_ttl: float,
        timeout: float = 60.0,
        budget: int = 256 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._network = network
        self._doubts = Doubts(cache, disk)
        self._store = BlockStore(cache, network=network, disk=disk, budget=budget)
        self._origin = Origin(
            transport,
            cache,
            network=network,
            disk=disk,
            ttl=ttl,
            negative_ttl=negative_ttl,
            timeout=timeout,
            arrived=self._keep,
            clock=clock,
        )

    def version(self, asset: AssetRef) -> Version:
        """Return the asset's version: known, from disk, or by one request."""
        return self._origin.version(asset)

    def known_version(self, asset: AssetRef) -> Version | None:
        """Return the asset's version if memory holds one that is trusted; never waits."""
        return self._origin.known_version(asset)

    def probe_ahead(self, asset: AssetRef) -> None:
        """Start to find out the asset's version, if it is not known; returns at once."""
        self._origin.probe_ahead(asset)

    def fetch_ahead(self, asset: AssetRef) -> None:
        """Start to bring a small asset, of a larger one its first block; returns at once."""
        known = self._origin.known_version(asset)
        if asset.is_local or (known and known.size <= BLOCK):
            return  # it came with the version, to memory and to disk
        self._network.submit(lambda: self._fetch_quietly(asset))

    def open(self, asset: AssetRef) -> "Reader | LocalReader":
        """Return a reader bound to the asset's present version."""
        version = self._origin.version(asset)
        key = version.key(asset)
        fetch = partial(self._origin.fetch, asset, version)
        if asset.is_local:
            return LocalReader(self._network, version, fetch)
        if asset.checksum is None:
            return Reader(self._store, version, key, fetch)
        doubts = self._doubts
        served = doubts.key_now(key)
        proof = None if doubts.is_settled(key) else Proof(asset.checksum, version.size)

        def proved(is_right: bool) -> None:
            doubts.settle(key, served, str(asset), is_right=is_right)

        if proof and not version.size:  # the kernel will ask for no bytes of it
            proved(bool(proof.note(0, b"")))
        return Reader(self._store, version, served, fetch, proof=proof, proved=proved)

    def _fetch_quietly(self, asset: AssetRef) -> None:
        try:
            self.open(asset).fetch_ahead()
        except MlhubfsError as error:
            _log.debug("fetch ahead: %s", error)

    def _keep(self, asset: AssetRef, version: Version, data: bytes) -> None:
        self._store.keep(version.key(asset), 0, data, version.size)


class Reader:
    """One asset, open: `read` at any offset, from any thread."""

    def __init__(
        self,
        store: BlockStore,
        version: Version,
        key: str,
        fetch: Callable[[int, int], bytes],
        *,
        proof: Proof | None = None,
        proved: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.version = version
        """The version that every byte read comes from."""
        self._store = store
        self._key = key
        self._fetch = fetch
        self._proof = proof
        self._proved = proved
        self._wrong = ""
        self._readahead = Readahead(version.size)
        self._lock = threading.Lock()

    @property
    def edition(self) -> str:
        """What is equal for equal bytes of the asset: not when it was checked."""
        return self._key

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return the bytes [offset, offset + size), fewer at the end of the file.

        Raises BadAnswer when all were read and do not have the catalog's checksum, and ever after:
        the kernel asks once more before it tells a program of an error.
        """
        if self._wrong:
            raise BadAnswer(self._wrong)
        data = self._read(offset, size)
        is_right = self._proof.note(offset, data) if self._proof else None
        if is_right is not None:
            try:
                self._proved(is_right)
            except BadAnswer as error:
                self._wrong = str(error)
                raise
        return data

    def _read(self, offset: int, size: int) -> bytes | memoryview:
        stop = min(offset + size, self.version.size)
        if offset >= stop:
            return b""
        at_hand = self._store.at_hand(self._key, offset, stop)
        needed = blocks_of(offset, stop)
        if self.version.size > EXTENT:
            self._look_ahead(needed, offset, stop, at_hand)
        if at_hand is not None:
            return at_hand
        blocks = self._blocks(needed)
        start = offset - needed.start * BLOCK
        if len(needed) == 1:
            return blocks[needed.start][start : start + stop - offset]
        joined = b"".join(blocks[number] for number in needed)
        return memoryview(joined)[start : start + stop - offset]

    def plan(self) -> Plan:
        """Return what has to be done to have all of it on disk."""
        runs = self._store.lacks(self._key, self.version.size)
        lacking = sum(map(self._length, runs))
        return Plan(self.version.size, lacking, [partial(self._bring, run) for run in runs])

    def _length(self, run: range) -> int:
        start, stop = span(run, self.version.size)
        return stop - start

    def _bring(self, run: range) -> int:
        self._store.get(self._key, run, self.version.size, self._fetch)
        return self._length(run)

    def fetch_ahead(self) -> None:
        """Start to bring all of it, if it is small."""
        if 0 < self.version.size <= EXTENT:
            whole = blocks_of(0, self.version.size)
            self._store.start(self._key, whole, self.version.size, self._fetch)

    def _blocks(self, needed: range) -> dict[int, memoryview]:
        """Return the blocks; if one of a small asset is missing, all of it is fetched."""
        size = self.version.size
        if size > EXTENT:
            return self._store.get(self._key, needed, size, self._fetch)
        blocks = self._store.peek(self._key, needed)
        if len(blocks) < len(needed):
            blocks = self._store.get(self._key, blocks_of(0, size), size, self._fetch)
        return blocks

    def _look_ahead(
        self, needed: range, offset: int, stop: int, at_hand: memoryview | None
    ) -> None:
        """Start to bring what this read announces."""
        waits = at_hand is None and len(self._store.peek(self._key, needed)) < len(needed)
        is_lost = waits and not self._store.has(self._key, needed)
        with self._lock:
            ahead = self._readahead.note(offset, stop, waits=waits, lost=is_lost)
        for start, end in ahead:
            wanted = blocks_of(start, end)
            if not self._store.start(self._key, wanted, self.version.size, self._fetch):
                with self._lock:
                    self._readahead.deny()
