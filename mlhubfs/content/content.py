"""What an asset's bytes are: its version, and the reading of it at an offset.

Owns the way of a block: recently read ones in memory, else the disk cache, else the network, where
each missing block is fetched once, whoever asks. Knows an asset only as `AssetRef`: an identity and
a way to a link; not items, not names.

*Identity.* An asset is (source, collection, item, key), never its link, which is new at every
request. Its bytes are a `Version`: validator and size. A block's key holds both, so that a block
of another version is never served. A reader is bound to the version it was opened with: when the
storage answers with another one, the read fails with Changed, and the next open sees the new file.

*Links.* The URL at which storage last answered is asked directly. When it refuses (401, 403, 404,
410) a new link is asked for, once; so is it when a link that is not new refuses.

*Threading.* Any thread. Disk and network work is done by two pools, and the asker waits for them
interruptibly: a network that hangs must not keep what is on disk from being read.
"""

import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from mlhubfs.content.blocks import BLOCK_SIZE, cut, runs, span, wanted_blocks
from mlhubfs.errors import Changed, Denied, MlhubfsError, NotFound
from mlhubfs.transport.client import Part, Transport
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.content")
T = TypeVar("T")
_RECENT_BYTES = 64 << 20  # blocks in memory: the kernel reads each in two or more pieces
_VERSIONS = 1 << 16  # some 20 MB
_NEW_LINK_SECONDS = 5.0  # a link this young that is refused would be refused again


class Location(NamedTuple):
    """Where an asset can be fetched for now."""

    href: str
    fetched: float
    """When the link was made, on the monotonic clock."""


@dataclass(frozen=True)
class AssetRef:
    """An asset as content knows it."""

    identity: tuple[str, ...]
    """Source, collection, item and key: what it is, whatever its link."""

    locate: Callable[[float], Location]
    """Return a link made after the given monotonic time; 0 takes the one at hand."""

    is_html: bool = False
    """Whether it is meant to be an HTML page, which is else taken for an error in disguise."""

    @property
    def key(self) -> str:
        """The identity as 32 hexadecimal digits."""
        return _digest(*self.identity)


class Version(NamedTuple):
    """Which bytes an asset has."""

    size: int
    validator: str
    modified: float | None
    """POSIX seconds of `Last-Modified`, where the storage says."""
    checked: float
    """POSIX seconds at which the storage last said so."""

    def is_same(self, other: "Version") -> bool:
        """Say whether `other` has the same bytes."""
        return (self.size, self.validator) == (other.size, other.validator)


class BlockCache(Protocol):
    """Where bytes are kept between mounts; may forget anything at any time."""

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return key -> data of those that are there."""

    def put(self, key: str, data: bytes) -> None:
        """Keep data; returns at once."""


class Content:
    """Versions and bytes of assets; `ttl` is how many seconds a version is trusted."""

    def __init__(
        self,
        transport: Transport,
        cache: BlockCache | None,
        *,
        network: Workers,
        disk: Workers,
        ttl: float,
        negative_ttl: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._transport = transport
        self._cache = cache
        self._network = network
        self._disk = disk
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._versions: OrderedDict[str, Version] = OrderedDict()
        self._missing: OrderedDict[str, tuple[float, MlhubfsError]] = OrderedDict()
        self._links: OrderedDict[str, Location] = OrderedDict()
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._recent_bytes = 0
        self._fetching: dict[str, Future[dict[int, bytes]]] = {}

    def version(self, asset: AssetRef) -> Version:
        """Return the asset's version: known, from disk, or by one ranged request.

        Raises NotFound, remembered for the negative time to live, and the transport's errors.
        """
        known = self.known_version(asset)
        if known:
            return known
        self._raise_if_missing(asset.key)
        if self._cache:
            cache = self._cache
            key = f"{asset.key}:version"
            stored = self._disk.wait(self._disk.submit(lambda: cache.get([key]).get(key)))
            version = _parse_version(stored)
            if version:
                with self._lock:
                    _remember(self._versions, asset.key, version)
                if self._is_trusted(version):
                    return version
        return self._network.once(f"probe {asset.key}", lambda: self._probe(asset))

    def known_version(self, asset: AssetRef) -> Version | None:
        """Return the asset's version if memory holds one that is trusted; never waits."""
        with self._lock:
            version = self._versions.get(asset.key)
        return version if version and self._is_trusted(version) else None

    def probe_ahead(self, asset: AssetRef) -> None:
        """Start to find out the asset's version, if it is not known; returns at once."""
        if not self.known_version(asset) and asset.key not in self._missing:
            self._network.submit(lambda: self._probe_quietly(asset))

    def open(self, asset: AssetRef) -> "Reader":
        """Return a reader bound to the asset's present version."""
        return Reader(self, asset, self.version(asset))

    def read(self, asset: AssetRef, version: Version, offset: int, size: int) -> bytes:
        """Return the bytes [offset, offset + size) of that version, fewer at its end."""
        stop = min(offset + size, version.size)
        if offset >= stop:
            return b""
        needed = range(offset // BLOCK_SIZE, -(-stop // BLOCK_SIZE))
        blocks = self._blocks(asset, version, needed)
        if len(needed) == 1:
            start = offset - needed.start * BLOCK_SIZE
            return blocks[needed.start][start : start + stop - offset]
        joined = b"".join(blocks[number] for number in needed)
        start = offset - needed.start * BLOCK_SIZE
        return joined[start : start + stop - offset]

    def _blocks(self, asset: AssetRef, version: Version, needed: range) -> dict[int, bytes]:
        """Return at least the blocks `needed`."""
        prefix = _digest(asset.key, version.validator, str(version.size))
        found = self._from_memory(prefix, needed)
        if len(found) == len(needed):
            return found
        wanted = wanted_blocks(needed.start * BLOCK_SIZE, needed.stop * BLOCK_SIZE, version.size)
        found |= self._from_disk(prefix, [number for number in wanted if number not in found])
        if all(number in found for number in needed):
            return found
        missing = [number for number in wanted if number not in found]
        landed, futures = self._start_fetches(asset, version, prefix, missing)
        found |= landed
        for future in futures:
            fetched: dict[int, bytes] = self._network.wait(future)
            found.update(fetched)
        return found

    def _from_memory(self, prefix: str, numbers: Iterable[int]) -> dict[int, bytes]:
        found = {}
        with self._lock:
            for number in numbers:
                block = self._recent.get(f"{prefix}:{number}")
                if block is not None:
                    self._recent.move_to_end(f"{prefix}:{number}")
                    found[number] = block
        return found

    def _from_disk(self, prefix: str, numbers: list[int]) -> dict[int, bytes]:
        if not self._cache or not numbers:
            return {}
        cache = self._cache
        keys = {f"{prefix}:{number}": number for number in numbers}
        stored = self._disk.wait(self._disk.submit(lambda: cache.get(keys)))
        found = {keys[key]: block for key, block in stored.items()}
        self._keep_recent(prefix, found)
        return found

    def _start_fetches(
        self, asset: AssetRef, version: Version, prefix: str, missing: list[int]
    ) -> tuple[dict[int, bytes], set[Future[dict[int, bytes]]]]:
        """Join the fetches under way for `missing` blocks, and start one per run of the rest.

        Returns what has landed since memory was looked at, while the disk was, and the fetches.
        """
        landed, futures, mine = {}, set(), []
        with self._lock:
            for number in missing:
                block = self._recent.get(f"{prefix}:{number}")
                under_way = self._fetching.get(f"{prefix}:{number}")
                if block is not None:
                    landed[number] = block
                elif under_way:
                    futures.add(under_way)
                else:
                    mine.append(number)
            claimed = [(run, Future[dict[int, bytes]]()) for run in runs(mine)]
            for run, future in claimed:
                self._fetching.update({f"{prefix}:{number}": future for number in run})
        for run, future in claimed:
            futures.add(future)
            self._network.submit(partial(self._fetch, asset, version, prefix, run, future))
        return landed, futures

    def _fetch(
        self,
        asset: AssetRef,
        version: Version,
        prefix: str,
        run: range,
        future: Future[dict[int, bytes]],
    ) -> None:
        """Fetch one run of blocks and hand it, or the error, to all who wait for `future`."""
        try:
            blocks = self._bring(asset, version, prefix, run)
        except BaseException as error:  # noqa: BLE001 - handed on to every waiter
            self._land(prefix, run)
            future.set_exception(error)
        else:
            self._land(prefix, run)
            future.set_result(blocks)

    def _bring(
        self, asset: AssetRef, version: Version, prefix: str, run: range
    ) -> dict[int, bytes]:
        start, stop = span(run, version.size)
        part = self._get_range(asset, start, stop)
        present = self._version_of(part)
        self._note_version(asset, present)
        if not present.is_same(version):
            raise Changed(
                f"{'/'.join(asset.identity[1:])} was replaced on the server while it was open: "
                "open it again"
            )
        blocks = cut(part.data, run.start) if part.whole is None else cut(part.whole, 0)
        self._keep(prefix, blocks)
        return blocks

    def _land(self, prefix: str, run: range) -> None:
        # Blocks reach memory before they leave this table, and `_start_fetches` looks at both under
        # the lock. Only a block dropped from memory in between is fetched twice.
        with self._lock:
            for number in run:
                del self._fetching[f"{prefix}:{number}"]

    def _probe(self, asset: AssetRef) -> Version:
        """Ask for the first block, which also tells the version; one byte if one was known."""
        # A reader that looked while another's probe was under way may get here when it has landed.
        known = self.known_version(asset)
        if known:
            return known
        self._raise_if_missing(asset.key)
        with self._lock:
            before = self._versions.get(asset.key)
        try:
            part = self._get_range(asset, 0, 1 if before else BLOCK_SIZE)
        except NotFound as error:
            with self._lock:
                until = time.monotonic() + self._negative_ttl
                _remember(self._missing, asset.key, (until, error))
            raise
        version = self._version_of(part)
        prefix = _digest(asset.key, version.validator, str(version.size))
        if part.whole is not None:
            self._keep(prefix, cut(part.whole, 0))
        elif not before:
            self._keep(prefix, cut(part.data, 0))
        # Last: who sees the version may read at once, and must find the block.
        self._note_version(asset, version)
        return version

    def _probe_quietly(self, asset: AssetRef) -> None:
        try:
            self.version(asset)
        except MlhubfsError as error:
            _log.debug("probe ahead: %s", error)

    def _get_range(self, asset: AssetRef, start: int, stop: int) -> Part:
        with self._lock:
            resolved = self._links.get(asset.key)
        link = resolved or asset.locate(0.0)
        try:
            part = self._transport.get_range(link.href, start, stop, expect_html=asset.is_html)
        except (Denied, NotFound):
            if not resolved and time.monotonic() - link.fetched < _NEW_LINK_SECONDS:
                raise
            with self._lock:
                self._links.pop(asset.key, None)
            link = asset.locate(link.fetched)
            part = self._transport.get_range(link.href, start, stop, expect_html=asset.is_html)
        with self._lock:
            _remember(self._links, asset.key, Location(part.url, link.fetched))
        return part

    def _version_of(self, part: Part) -> Version:
        return Version(part.total, part.validator, part.modified, self._clock())

    def _note_version(self, asset: AssetRef, version: Version) -> None:
        with self._lock:
            before = self._versions.get(asset.key)
            _remember(self._versions, asset.key, version)
        # A time stamp alone is not worth a write per request.
        stale = before is None or version.checked - before.checked > self._ttl / 2
        if self._cache and (stale or not before or not before.is_same(version)):
            self._cache.put(f"{asset.key}:version", json.dumps(version).encode())

    def _keep(self, prefix: str, blocks: dict[int, bytes]) -> None:
        self._keep_recent(prefix, blocks)
        if self._cache:
            for number, block in blocks.items():
                self._cache.put(f"{prefix}:{number}", block)

    def _keep_recent(self, prefix: str, blocks: dict[int, bytes]) -> None:
        with self._lock:
            for number, block in blocks.items():
                key = f"{prefix}:{number}"
                self._recent_bytes += len(block) - len(self._recent.pop(key, b""))
                self._recent[key] = block
            while self._recent_bytes > _RECENT_BYTES:
                _, dropped = self._recent.popitem(last=False)
                self._recent_bytes -= len(dropped)

    def _is_trusted(self, version: Version) -> bool:
        # A clock that was set back makes `checked` lie in the future: not trusted either.
        return 0 <= self._clock() - version.checked < self._ttl

    def _raise_if_missing(self, key: str) -> None:
        with self._lock:
            until, error = self._missing.get(key, (0.0, None))
        if error and time.monotonic() < until:
            raise NotFound(str(error))


class Reader:
    """One asset, open: `read` at any offset, from any thread."""

    def __init__(self, content: Content, asset: AssetRef, version: Version) -> None:
        self._content = content
        self._asset = asset
        self.version = version
        """The version that every byte read comes from."""

    @property
    def edition(self) -> tuple[int, str]:
        """What is equal for equal bytes of the asset: not when it was checked."""
        return self.version.size, self.version.validator

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes [offset, offset + size), fewer at the end of the file."""
        return self._content.read(self._asset, self.version, offset, size)


def _remember(table: OrderedDict[str, T], key: str, value: T) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _VERSIONS:
        table.popitem(last=False)


def _parse_version(data: bytes | None) -> Version | None:
    if data is None:
        return None
    try:
        size, validator, modified, checked = json.loads(data)
    except (ValueError, TypeError):
        return None  # another release's format
    return Version(size, validator, modified, checked)


def _digest(*parts: str) -> str:
    # ascii() of the tuple is unambiguous, whatever the ids hold.
    return hashlib.blake2b(ascii(parts).encode(), digest_size=16).hexdigest()
