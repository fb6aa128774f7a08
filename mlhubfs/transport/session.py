"""requests, tamed: no cookies, no .netrc, no redirects or retries of its own, nothing logged.

Owns what is sent and the way there (proxy, certificates), for one hop; `client` follows redirects
and tries again.

*Threading.* One `Session` serves any number of threads: nothing in it changes after it is made,
except the pools, which urllib3 locks, the routes, which come out the same whoever finds them, and
the origins of which a warning was given, at worst twice.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Timeout

from mlhubfs.config import Permission, netloc
from mlhubfs.errors import ConfigError
from mlhubfs.transport.local import is_local
from mlhubfs.transport.origin import Origin, origin
from mlhubfs.transport.reach import Reach
from mlhubfs.transport.watch import Admit, pools
from mlhubfs.version import __version__

_log = logging.getLogger("mlhubfs.transport")
USER_AGENT = f"mlhubfs/{__version__} (+python-requests)"

AZURE = {"x-ms-version": "2021-06-08"}
"""Without it Azure Blob Storage leaves out Accept-Ranges and the quotes of an ETag."""


class Route(NamedTuple):
    """How an origin is reached: the proxies, and the certificates to believe."""

    proxies: dict[str, str]
    verify: bool | str


class Session:
    """The connections to all hosts.

    `api_key` goes to the origin of `root_url` and nowhere else, and over plain http only within
    this machine. `pool_size` connections are kept for each host. `allow_private`: see `Reach`.
    `permissions` go to their hosts likewise.
    """

    def __init__(
        self,
        *,
        root_url: str,
        api_key: str | None,
        ca_bundle: str | None,
        pool_size: int,
        allow_private: bool,
        permissions: Sequence[Permission] = (),
    ) -> None:
        # urllib3 logs whole URLs, tokens included, at DEBUG, and at WARNING for a broken header.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        # A local catalog has no origin, and nobody who would ask for a key.
        self._root = None if is_local(root_url) else origin(root_url)
        self._permissions = permissions
        self._told: set[Origin] = set()
        self._reach = Reach(self._root, allows_private=allow_private)
        self._authorization: dict[str, str] = {}
        if self._root is None:
            pass
        elif api_key and self._root.confidential():
            self._authorization = {"Authorization": f"Bearer {api_key}"}
        elif api_key:
            _log.warning(
                "the API key is not sent to %s over plain http: use https", self._root.host
            )
        self._ca_bundle = ca_bundle
        self._routes: dict[Origin, Route] = {}
        self._requests = _Requests()
        self._requests.trust_env = False
        self._requests.headers.clear()
        self._requests.headers["User-Agent"] = USER_AGENT
        self._requests.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self._requests.mount(scheme, _Adapter(self._reach.check_peer, pool_size))

    def send(
        self, url: str, headers: Mapping[str, str], body: bytes | None, timeout: Timeout
    ) -> requests.Response:
        """Send a GET, or a POST of `body`; return the answer, headers read and body not."""
        target = origin(url)
        self.check_name(target)
        sent = {**headers, **self._permission(target)}
        if target.host.endswith(".blob.core.windows.net"):
            sent |= AZURE
        route = self._routes.get(target) or self._find(target, url)
        request = requests.Request("GET" if body is None else "POST", url, sent, data=body)
        prepared = self._requests.prepare_request(request)
        return self._requests.send(
            prepared,
            stream=True,
            timeout=timeout,  # type: ignore[arg-type]  # requests takes urllib3's, its stubs do not
            verify=route.verify,
            proxies=route.proxies,
            allow_redirects=False,
        )

    def check_name(self, target: Origin) -> None:
        """Raise Failed if the host is one that the catalog may not name."""
        self._reach.check_name(target)

    def asks_for_key(self, url: str) -> bool | None:
        """Tell whether a refusal of `url` means that a key is missing; None if it is no matter."""
        return None if origin(url) != self._root else not self._authorization

    def close(self) -> None:
        """Close the connections that are idle."""
        self._requests.close()

    def _permission(self, target: Origin) -> dict[str, str]:
        own = self._authorization if target == self._root else {}
        return {**own, **dict(self._permitted(target).headers)}

    def with_query(self, url: str) -> str:
        """Return `url` with the query parameters that its host is to be sent."""
        query = urlencode(self._permitted(origin(url)).query, quote_via=quote)
        return f"{url}{'&' if '?' in url else '?'}{query}" if query else url

    def _permitted(self, target: Origin) -> Permission:
        told = withheld(target, self._permissions)
        if told is None:
            return _permission_of(target, self._permissions)
        if target not in self._told:
            self._told.add(target)
            _log.warning("%s", told)
        return Permission("")

    def _find(self, target: Origin, url: str) -> Route:
        """Look up the environment's proxies and certificates, which costs more than a request."""
        with requests.Session() as environment:
            found = environment.merge_environment_settings(url, {}, True, self._ca_bundle, None)
        verify = found["verify"] or True
        if isinstance(verify, str) and not os.path.exists(verify):  # noqa: PTH110 - requests' own test
            raise ConfigError(
                f"there is no CA bundle at {verify}: correct REQUESTS_CA_BUNDLE, or unset it"
            )
        # Through a proxy, what is said within this machine would leave it.
        proxies = {} if target.loopback() else dict(found["proxies"])
        route = self._routes[target] = Route(proxies, verify)
        return route


def withheld(target: Origin, permissions: Sequence[Permission]) -> str | None:
    """Say what is not sent to `target`, though there are permissions for it; None where all is."""
    found = _permission_of(target, permissions)
    kinds = [kind for kind in ("headers", "query") if getattr(found, kind)]
    if target.confidential() or not kinds:
        return None
    return f"{' and '.join(kinds)} for {found.host} are not sent over plain http: use https"


def _permission_of(target: Origin, permissions: Sequence[Permission]) -> Permission:
    host = f"[{target.host}]" if ":" in target.host else target.host
    exact = f"{host}:{target.port}"
    hosts = {exact, netloc(f"{target.scheme}://{exact}")}
    return next((one for one in permissions if one.host in hosts), Permission(""))


class _Requests(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Find no redirect: even with allow_redirects=False requests would read its whole body."""
        return None


class _Adapter(HTTPAdapter):
    """An adapter whose connections can be cut, and lead where they may (see `watch`)."""

    def __init__(self, admit: Admit, pool_size: int) -> None:
        self._pools = pools(admit)
        super().__init__(pool_size, pool_size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager
