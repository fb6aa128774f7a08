"""Which addresses a catalog may send us to: those of the internet, and those where it is itself.

Owns the judgement of an address. A catalog on a server names hosts: in assets, in links, in
redirects. One in this machine, in this network, or the metadata service of a cloud is not the
catalog's to name, unless it stands in the same kind of place. What kind that is, is settled by the
first connection to the source, for a name can be given another address at any time.

Judged is the address that a socket is connected to, before a byte is sent. Where a proxy stands in
between, the proxy looks names up and decides; only hosts written as addresses are judged.

*Threading.* Any thread. Two that connect to the source first find the same kind of place.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from mlhubfs.errors import Denied
from mlhubfs.transport.origin import Origin
from mlhubfs.transport.retry import Failed

PUBLIC = "public"
_LOOPBACK = "loopback"
_METADATA = frozenset(
    # AWS and most others; AWS over IPv6; Alibaba; Oracle; Azure
    map(
        ip_address,
        "169.254.169.254 fd00:ec2::254 100.100.100.200 192.0.0.192 168.63.129.16".split(),
    )
)
_NAT64 = ip_network("64:ff9b::/96")


class Reach:
    """What may be connected to on behalf of the source at `root`, a catalog on disk if None."""

    def __init__(self, root: Origin | None, *, allows_private: bool = False) -> None:
        self._root = root
        self._allows_private = allows_private
        self._home = literal(root) if root else _LOOPBACK

    def check_name(self, target: Origin) -> None:
        """Raise Failed if the host is written as an address that may not be connected to."""
        kind = literal(target)
        if kind:
            self._check(kind, target.host, target.host)

    def check_peer(self, host: str, port: int | None, address: str) -> None:
        """Raise Failed if `address`, which `host` turned out to have, may not be spoken to."""
        kind = kind_of(ip_address(address.partition("%")[0]))
        is_root = self._root is not None and (host, port) == (self._root.host, self._root.port)
        if self._home is None and is_root:
            self._home = kind
        self._check(kind, host, address)

    def _check(self, kind: str, host: str, address: str) -> None:
        if kind not in {PUBLIC, self._home} and not self._allows_private:
            at = "" if host == address else f" ({address})"
            raise Failed(
                Denied,
                f"{host}{at} is not asked: the catalog named it, and it is a {kind} address, where "
                "the catalog is not; if you trust the catalog, mount with -o allow_private",
            )


def literal(target: Origin) -> str | None:
    """Return the kind of a host that is written as an address, or is this one's name, else None."""
    if target.loopback():
        return _LOOPBACK
    try:
        return kind_of(ip_address(target.host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return kind_of(IPv4Address(socket.inet_aton(target.host)))  # 127.1, 0x7f000001
    except (OSError, UnicodeError):
        return None


def kind_of(address: IPv4Address | IPv6Address) -> str:
    """Return `public`, or what an address belongs to: this machine, its link, its network."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return kind_of(inner)
    if address in _METADATA:
        return "metadata service"
    if address.is_loopback or address.is_unspecified:  # connecting to 0.0.0.0 leads here
        return _LOOPBACK
    if address.is_link_local:
        return "link-local"
    return PUBLIC if address.is_global else "private"
