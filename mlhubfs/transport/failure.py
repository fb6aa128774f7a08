"""What went wrong, from a status or an exception of the libraries, in the project's own words.

Owns the translation into `Failed`. Neither the text of a library's exception nor of a server's
error page is passed on: both can hold the URL with its token, or the key.

*Threading.* No state.
"""

import http.client
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import requests
from requests.exceptions import ProxyError
from urllib3 import exceptions as errors

from mlhubfs.errors import (
    BadAnswer,
    Busy,
    Denied,
    MlhubfsError,
    NotFound,
    Rejected,
    TimedOut,
    Unavailable,
)
from mlhubfs.transport.origin import describe
from mlhubfs.transport.retry import (
    LIE,
    NEVER,
    REFUSED,
    TRANSIENT,
    UNRESOLVED,
    Failed,
    retry_after,
)

CAUGHT = (
    requests.RequestException,
    errors.HTTPError,
    http.client.HTTPException,
    OSError,
)
"""All that requests and what it stands on raise when the network is at fault."""


def status_failure(
    url: str, status: int, headers: Mapping[str, str], *, wants_key: bool | None
) -> Failed:
    """Return what a status of 400 or more means; `wants_key` as `Session.asks_for_key` says."""
    where = describe(url)
    after = retry_after(headers.get("Retry-After"))
    if status in {401, 403}:
        remedy = {
            None: "the link has expired, or was never yours",
            True: "set MLHUB_API_KEY, or run `mlhubfs configure`",
            False: "check the API key, `mlhubfs configure` sets it",
        }[wants_key]
        return Failed(Denied, f"{where} answered {status}, access refused: {remedy}")
    if status in {404, 410}:
        return Failed(NotFound, f"{where} answered {status}: it does not exist, or no longer")
    if status == 408:
        return Failed(TimedOut, f"{where} answered 408", tries=TRANSIENT, after=after)
    if status == 429:
        return Failed(Busy, f"{where} answered 429", tries=TRANSIENT, after=after)
    if status >= 500 and status != 501:  # not implemented: not the next time either
        return Failed(Unavailable, f"{where} answered {status}", tries=TRANSIENT, after=after)
    return Failed(Rejected, f"{where} answered {status}, which was not expected")


class Meaning(NamedTuple):
    """Exceptions, any of them anywhere in the chain, and what they mean."""

    kinds: tuple[type[BaseException], ...]
    kind: type[MlhubfsError]
    tries: int
    words: str


MEANINGS = (
    Meaning(
        (ssl.SSLCertVerificationError,),
        Unavailable,
        NEVER,
        "the certificate of {where} is not trusted ({reason}): see REQUESTS_CA_BUNDLE",
    ),
    Meaning((socket.gaierror,), Unavailable, UNRESOLVED, "the host of {where} has no address"),
    Meaning((ProxyError,), Unavailable, REFUSED, "the proxy does not lead to {where} ({reason})"),
    Meaning(
        (errors.NewConnectionError,), Unavailable, REFUSED, "{where} cannot be reached ({reason})"
    ),
    Meaning(
        (errors.TimeoutError, TimeoutError), TimedOut, TRANSIENT, "{where} was silent too long"
    ),
    Meaning((ssl.SSLError,), Unavailable, LIE, "{where} does not speak TLS as we do ({reason})"),
    Meaning(
        (requests.exceptions.InvalidURL, errors.LocationValueError),
        BadAnswer,
        NEVER,
        "{where} is not a usable URL",
    ),
    Meaning((errors.InvalidHeader,), BadAnswer, LIE, "{where} answered with a malformed header"),
    Meaning((Exception,), Unavailable, TRANSIENT, "{where} broke off its answer ({reason})"),
)
"""The first that fits counts, so the order is from the precise to the general."""


def network_failure(url: str, error: BaseException) -> Failed:
    """Return what an exception among `CAUGHT` means, that a request of `url` has raised."""
    chain = tuple(_chain(error))
    meaning = next(m for m in MEANINGS if any(isinstance(link, m.kinds) for link in chain))
    words = meaning.words.format(where=describe(url), reason=_reason(chain))
    return Failed(meaning.kind, words, tries=meaning.tries)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        reason = getattr(link, "reason", None)
        link = reason if isinstance(reason, BaseException) else link.__cause__ or link.__context__


def _reason(chain: tuple[BaseException, ...]) -> str:
    """Return the innermost reason, in words that hold no URL."""
    for link in reversed(chain):
        if isinstance(link, ssl.SSLError):
            return getattr(link, "verify_message", "") or link.reason or "TLS"
        if isinstance(link, OSError) and isinstance(link.errno, int):
            return os.strerror(link.errno).lower()
    return type(chain[-1]).__name__
