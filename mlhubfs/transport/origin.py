"""What a URL may be told, told about, and followed to.

Owns the rules of the URL itself: how it is written into a message, whose origin it is, where a
redirect may lead. Pure functions; asks the network nothing.

*Threading.* No state.
"""

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import unquote_plus, urljoin, urlsplit

from mlhubfs.errors import BadAnswer
from mlhubfs.transport.buckets import over_http
from mlhubfs.transport.retry import Failed

_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"(?<=/download/).+")


class Origin(NamedTuple):
    """Whom a permission is meant for: the same key goes to equal origins only."""

    scheme: str
    host: str
    port: int

    def loopback(self) -> bool:
        """Tell whether this is the machine that we run on, so that no wire is crossed."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def confidential(self) -> bool:
        """Tell whether permissions may be sent there: nobody on the way can read them."""
        return self.scheme == "https" or self.loopback()


def origin(url: str) -> Origin:
    """Return the origin of an http or https URL; ValueError if `url` is none."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("expected http://host/... or https://host/...")
    return Origin(parts.scheme, parts.hostname.rstrip("."), parts.port or _PORTS[parts.scheme])


def describe(url: str) -> str:
    """Return what may be said of `url` in a log or an error: neither user, query nor token."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unreadable URL"
    host = parts.netloc.rpartition("@")[2]
    path = _TOKEN.sub("...", parts.path)
    return "".join(c if c.isprintable() else "?" for c in f"{parts.scheme}://{host}{path}")


def without_key(url: str, key: str | None = None) -> str:
    """Return `url` without its `key` parameters, or without those that are `key`.

    Servers have been seen to write the caller's API key into the links that they answer with.
    What else the query holds stays as it is, to the byte: it may be signed.
    """
    head, mark, rest = url.partition("?")
    query, hash_, fragment = rest.partition("#")
    kept = [pair for pair in query.split("&") if not _is_key(pair, key)]
    return head + (mark if any(kept) else "") + "&".join(kept) + hash_ + fragment


def _is_key(pair: str, key: str | None) -> bool:
    name, _, value = pair.partition("=")
    return unquote_plus(name) == "key" and (key is None or unquote_plus(value) == key)


def followed(url: str, location: str | None) -> str:
    """Return where a redirect from `url` leads, if it may be followed; else raise Failed."""
    if not location:
        raise _refused(url, "redirects without saying where to")
    try:
        # The header was read as latin-1; servers that write raw UTF-8 mean UTF-8.
        target = over_http(urljoin(url, location.encode("latin-1").decode("utf-8", "replace")))
        whose = origin(target)
    except ValueError:
        scheme = location.partition(":")[0] if ":" in location else ""
        known = re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme, re.IGNORECASE)
        what = f"a {scheme.lower()}: URL" if known else "something that is no URL"
        raise _refused(url, f"redirects to {what}, which cannot be followed") from None
    if url.startswith("https:") and whose.scheme == "http" and not whose.loopback():
        raise _refused(url, f"redirects from https to plain http at {whose.host}")
    return target


def _refused(url: str, why: str) -> Failed:
    return Failed(BadAnswer, f"{describe(url)} {why}")
