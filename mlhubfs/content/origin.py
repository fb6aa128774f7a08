"""Where assets' bytes come from: their links, their versions, one range at a time.

Owns what is known of an asset's version, in memory and on disk, and the link at which storage last
answered. That URL is asked directly; when it refuses (401, 403, 404, 410) a new link is asked for,
once, and so it is when a link that is not new refuses. When it fails otherwise, the asset's other
hrefs are asked. Where storage ignores ranges, each answer is the whole file: those who want parts
of it at the same time share one.

*Threading.* Any thread; those that serve the kernel wait in the workers.
"""

import json
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from mlhubfs.content.alternates import first_answer
from mlhubfs.content.asset import AssetRef, Location, Version
from mlhubfs.content.blocks import BLOCK
from mlhubfs.errors import BadAnswer, Changed, Denied, MlhubfsError, NotFound, Unavailable
from mlhubfs.transport.client import Part, Transport
from mlhubfs.transport.workers import Workers

_log = logging.getLogger("mlhubfs.content")
_NEW_LINK_SECONDS = 5.0  # a link this young that is refused would be refused again
_REMEMBERED = 1 << 16  # versions and links, some 300 bytes each
T = TypeVar("T")


class _Way(NamedTuple):
    """Where an asset is asked for."""

    href: str
    place: int
    """Which of the asset's hrefs that was, before redirects."""
    fetched: float
    """When the link was made, on the monotonic clock."""


class VersionCache(Protocol):
    """Where versions are kept between mounts; may forget anything at any time."""

    def get(self, key: str) -> bytes | None:
        """Return the value, if it is there and sound."""

    def put(self, key: str, value: bytes) -> None:
        """Keep a value; returns at once."""


class Origin:
    """Versions and ranges of assets.

    `ttl` is how many seconds a version is trusted, `negative_ttl` how many a missing file is
    remembered, `timeout` the deadline of one range, a new link for it included. `arrived` is
    given the bytes, from 0 on, that come along with the question for a version.
    """

    def __init__(
        self,
        transport: Transport,
        cache: VersionCache | None,
        *,
        network: Workers,
        disk: Workers,
        ttl: float,
        negative_ttl: float,
        timeout: float,
        arrived: Callable[[AssetRef, Version, bytes], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._transport = transport
        self._cache = cache
        self._network = network
        self._disk = disk
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._timeout = timeout
        self._arrived = arrived
        self._clock = clock
        self._lock = threading.Lock()
        self._versions: OrderedDict[str, Version] = OrderedDict()
        self._missing: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()
        self._ways: OrderedDict[str, _Way] = OrderedDict()
        self._rangeless: OrderedDict[str, None] = OrderedDict()

    def version(self, asset: AssetRef) -> Version:
        """Return the asset's version: known, from disk, or by one request.

        Raises NotFound, remembered for the negative time to live, and the transport's errors.
        """
        known = self.known_version(asset)
        if known:
            return known
        self._raise_if_missing(asset.key)
        stored = self._stored_version(asset)
        if stored and self._is_trusted(asset, stored):
            return stored
        return self._network.once(f"probe {asset.key}", lambda: self._probe(asset))

    def known_version(self, asset: AssetRef) -> Version | None:
        """Return the asset's version if memory holds one that is trusted; never waits."""
        with self._lock:
            version = self._versions.get(asset.key)
        return version if version and self._is_trusted(asset, version) else None

    def probe_ahead(self, asset: AssetRef) -> None:
        """Start to find out the asset's version, if it is not known; returns at once."""
        with self._lock:
            is_missing = asset.key in self._missing
        if not is_missing and not self.known_version(asset):
            self._network.submit(lambda: self._probe_quietly(asset))

    def fetch(self, asset: AssetRef, version: Version, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop) of that version, or all from 0 where ranges are ignored.

        Raises Changed where the asset has another version by now.
        """
        with self._lock:
            is_rangeless = asset.key in self._rangeless
        ask = partial(self._get_range, asset, start, stop)
        part = self._network.once(f"whole {asset.key}", ask) if is_rangeless else ask()
        if is_rangeless and part.whole is None:  # it has ranges after all: this may be another's
            part = ask()
        found = self._version_of(part)
        self._note(asset, found)
        if not found.is_same(version):
            raise Changed(f"{asset} was replaced on the server while it was open: open it again")
        return part.data if part.whole is None else part.whole

    def _stored_version(self, asset: AssetRef) -> Version | None:
        if self._cache is None or asset.is_local:
            return None
        cache = self._cache
        stored = self._disk.wait(self._disk.submit(lambda: cache.get(_version_key(asset))))
        version = _parse_version(stored)
        if version:
            with self._lock:
                _remember(self._versions, asset.key, version)
        return version

    def _probe(self, asset: AssetRef) -> Version:
        """Ask for the first block, which also tells the version.

        If one was known, ask whether it still holds, and for one byte, which tells it too.
        """
        # A reader that looked while another's probe was under way may get here when it has landed.
        known = self.known_version(asset)
        if known:
            return known
        self._raise_if_missing(asset.key)
        with self._lock:
            before = self._versions.get(asset.key)
        is_looked_at = bool(before) or asset.is_local
        try:
            part = self._get_range(asset, 0, 1 if is_looked_at else BLOCK, before)
        except NotFound as error:
            with self._lock:
                until = time.monotonic() + self._negative_ttl
                _remember(self._missing, asset.key, (until, str(error)))
                is_news = asset.key not in self._told
                _remember(self._told, asset.key, None)
            if is_news:
                _log.info("%s is named by the catalog and not there: %s", asset, error)
            raise
        version = self._version_of(part)
        if part.whole is not None:
            self._arrived(asset, version, part.whole)
        elif not is_looked_at:
            self._arrived(asset, version, part.data)
        # Last: who sees the version may read at once, and must find the block.
        self._note(asset, version)
        return version

    def _probe_quietly(self, asset: AssetRef) -> None:
        try:
            self.version(asset)
        except MlhubfsError as error:
            _log.debug("probe ahead: %s", error)

    def _get_range(
        self, asset: AssetRef, start: int, stop: int, before: Version | None = None
    ) -> Part:
        known = before and Part(b"", before.size, before.validator, before.modified, url="")
        deadline = time.monotonic() + self._timeout

        def ask(way: _Way) -> tuple[_Way, Part]:
            part = self._transport.get_range(
                way.href, start, stop, expect_html=asset.is_html, known=known, deadline=deadline
            )
            if way.place and not part.validator:  # nothing else would tell two hrefs' bytes apart
                part = part._replace(validator=f"href:{way.place}")
            return way, part

        with self._lock:
            resolved = self._ways.get(asset.key)
        ways = [resolved] if resolved else _ways(asset.locate(0.0))
        try:
            way, part = first_answer(ways, ask)
        except (Denied, NotFound):
            if not resolved and time.monotonic() - ways[0].fetched < _NEW_LINK_SECONDS:
                raise
            with self._lock:
                self._ways.pop(asset.key, None)
            way, part = first_answer(_ways(asset.locate(ways[0].fetched)), ask)
        except (BadAnswer, Unavailable):
            others = _ways(asset.locate(0.0))
            if not resolved or len(others) == 1:
                raise  # all have been asked
            way, part = first_answer([one for one in others if one.place != resolved.place], ask)
        with self._lock:
            _remember(self._ways, asset.key, way._replace(href=part.url))
            self._rangeless.pop(asset.key, None)
            if part.whole is not None:
                _remember(self._rangeless, asset.key, None)
        return part

    def _version_of(self, part: Part) -> Version:
        return Version(part.total, part.validator, part.modified, self._clock())

    def _note(self, asset: AssetRef, version: Version) -> None:
        """Take note of the version that an answer came from."""
        with self._lock:
            before = self._versions.get(asset.key)
            _remember(self._versions, asset.key, version)
        if asset.is_local:
            return
        # A later time alone is not worth a write per request.
        refreshes = before is None or not 0 <= version.checked - before.checked < self._ttl / 2
        if self._cache is not None and (refreshes or not before or not before.is_same(version)):
            self._cache.put(_version_key(asset), json.dumps(version).encode())

    def _is_trusted(self, asset: AssetRef, version: Version) -> bool:
        if asset.is_local:
            return False  # to look again costs no request
        # A clock that was set back makes `checked` lie in the future: not trusted either.
        return math.isinf(self._ttl) or 0 <= self._clock() - version.checked < self._ttl

    def _raise_if_missing(self, key: str) -> None:
        with self._lock:
            until, reason = self._missing.get(key, (0.0, ""))
            if reason and time.monotonic() < until:
                raise NotFound(reason)
            self._missing.pop(key, None)


def _ways(link: Location) -> list[_Way]:
    return [_Way(href, place, link.fetched) for place, href in enumerate(link.hrefs)]


def _remember(table: OrderedDict[str, T], key: str, value: T) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _REMEMBERED:
        table.popitem(last=False)


def _version_key(asset: AssetRef) -> str:
    return f"{asset.key}:version"


def _parse_version(data: bytes | None) -> Version | None:
    if data is None:
        return None
    try:
        size, validator, modified, checked = json.loads(data)
    except (ValueError, TypeError):
        return None  # another release's format
    return Version(size, validator, modified, checked)
