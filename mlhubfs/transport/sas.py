"""Planetary Computer's signatures: a token for each container of Azure's, put into the query.

Owns the tokens: asked for when first needed, kept in memory until shortly before they expire, and
forgotten when storage refuses one. https://planetarycomputer.microsoft.com/docs/concepts/sas/

*Threading.* Any thread; one asks for a container's token while the others wait for it.
"""

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from mlhubfs.errors import BadAnswer, NotFound
from mlhubfs.transport.signing import Ask

ENDPOINT = "/api/sas/v1/token"
_HOST = re.compile(r"([a-z0-9]{3,24})\.blob\.core\.windows\.net")
_EARLY_SECONDS = 60.0  # as Planetary Computer's own client; a request lasts no longer
_PUBLIC_SECONDS = 300.0  # how long a container is taken to need no token


class _Token(NamedTuple):
    query: str
    until: float
    """POSIX seconds."""


class _Answer(msgspec.Struct):
    token: str
    expiry: str = msgspec.field(name="msft:expiry")


class SasSigner:
    """Signs URLs of Azure's blobs with tokens of the service at `endpoint`."""

    def __init__(self, endpoint: str, *, clock: Callable[[], float] = time.time) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._tokens: dict[str, _Token] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def sign(self, url: str, ask: Ask) -> str:
        """Return the URL with its container's token; raises what `ask` raises, and BadAnswer."""
        container = container_of(url)
        if container is None:
            return url
        token = self._tokens.get(container)
        if token is None or self._is_over(token):
            token = self._fetched(container, ask)
        if not token.query:
            return url
        address, mark, fragment = url.partition("#")
        return f"{address}{'&' if '?' in address else '?'}{token.query}{mark}{fragment}"

    def renew(self, signed: str, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 - of the protocol
        """Forget the token that a URL was signed with, if no other thread has a newer one yet."""
        container = container_of(signed.partition("?")[0])
        token = self._tokens.get(container or "")
        if container and token and signed.partition("#")[0].endswith(token.query):
            self._tokens.pop(container, None)
        return True

    def _fetched(self, container: str, ask: Ask) -> _Token:
        with self._locks[container]:
            token = self._tokens.get(container)  # of the thread that was first
            if token is None or self._is_over(token):
                token = self._tokens[container] = self._ask(container, ask)
            return token

    def _is_over(self, token: _Token) -> bool:
        return token.until <= self._clock()

    def _ask(self, container: str, ask: Ask) -> _Token:
        try:
            return parse_token(ask(f"{self._endpoint}/{container}"))
        except NotFound:  # one that the service does not know: a public one
            return _Token("", self._clock() + _PUBLIC_SECONDS)


def container_of(url: str) -> str | None:
    """Return `account/container` of a blob that has no signature yet, else None."""
    parts = urlsplit(url)
    match = _HOST.fullmatch(parts.hostname or "")
    container = parts.path.lstrip("/").partition("/")[0]
    if not match or not re.fullmatch(r"[a-z0-9$-]+", container) or "sig=" in parts.query:
        return None
    return f"{match[1]}/{container}"


def parse_token(body: bytes) -> _Token:
    """Return the token of the service's answer; raises BadAnswer."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        expiry = datetime.fromisoformat(answer.expiry).timestamp()
    except (msgspec.MsgspecError, ValueError):
        raise BadAnswer("the service of SAS tokens answered something else") from None
    if not re.fullmatch(r"[!-~]+", answer.token) or "#" in answer.token:
        raise BadAnswer("the service of SAS tokens answered what is no token")
    return _Token(answer.token.lstrip("?"), expiry - _EARLY_SECONDS)
