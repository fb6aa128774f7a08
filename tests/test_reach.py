"""Which addresses are spoken to for a catalog: the socket's peer is judged, before any byte."""

import errno
import socket
from ipaddress import ip_address

import pytest
from faulty import Asset, FaultyServer, Reply
from mounted import fails
from rooms import answer, stac_collection, stac_item

from mlhubfs.errors import Denied
from mlhubfs.transport.client import Transport
from mlhubfs.transport.origin import origin
from mlhubfs.transport.reach import Reach, kind_of, literal
from mlhubfs.transport.retry import Failed


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [
        ("8.8.8.8 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808", "public"),
        ("127.0.0.1 127.9.9.9 ::1 0.0.0.0 :: ::ffff:127.0.0.1 64:ff9b::7f00:1", "loopback"),
        ("169.254.1.1 fe80::1 ::ffff:169.254.1.1", "link-local"),
        ("10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 fc00::1 fd12::1 2002:a00:1::", "private"),
        ("169.254.169.254 fd00:ec2::254 100.100.100.200 168.63.129.16", "metadata service"),
    ],
)
def test_an_address_is_of_a_kind(addresses, kind):
    """An IPv4 address that is wrapped in an IPv6 one is what it is inside."""
    assert {kind_of(ip_address(one)) for one in addresses.split()} == {kind}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "localhost"])
def test_a_host_may_be_written_in_many_ways(host):
    """All that the resolver takes for an address is taken for one."""
    assert literal(origin(f"http://{host}/")) == "loopback"
    assert literal(origin("http://host.example.org/")) is None


def test_the_first_connection_to_the_source_settles_where_it_is():
    """A name that gets another address later leads no further than before."""
    reach = Reach(origin("http://catalog.example.org/v1"))
    reach.check_peer("catalog.example.org", 80, "8.8.8.8")
    with pytest.raises(Failed, match="allow_private"):
        reach.check_peer("catalog.example.org", 80, "169.254.169.254")


def test_another_port_of_the_host_does_not_settle_it():
    """Only the source's own origin does, and only its first connection."""
    reach = Reach(origin("http://catalog.example.org/v1"))
    with pytest.raises(Failed):
        reach.check_peer("catalog.example.org", 9200, "10.0.0.1")
    reach.check_peer("catalog.example.org", 80, "10.0.0.1")
    reach.check_peer("storage.example.org", 443, "10.0.0.2")
    reach.check_peer("storage.example.org", 443, "8.8.8.8")
    with pytest.raises(Failed):
        reach.check_peer("storage.example.org", 443, "127.0.0.1")


def test_a_catalog_on_disk_is_at_this_machine():
    """It may name servers here, and none in the network."""
    reach = Reach(None)
    reach.check_name(origin("http://localhost:8080/"))
    with pytest.raises(Failed, match=r"192\.168\.0\.1 is not asked"):
        reach.check_name(origin("http://192.168.0.1/"))


@pytest.fixture
def inner():
    """A server on this machine, which nobody outside is to reach."""
    with FaultyServer() as server:
        server.on("/secret", answer({"secret": 1}))
        server.on("/a.tif", Asset(b"inside"))
        yield server


@pytest.fixture
def source(monkeypatch):
    """A server that is a proxy to `http://catalog.example.org`, which so is somewhere else."""
    lookup = socket.getaddrinfo

    def rebound(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        return lookup("127.0.0.1" if name == "rebound.example.org" else host, *args, **kwargs)

    with FaultyServer() as server:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "rebound.example.org")
        monkeypatch.setattr(socket, "getaddrinfo", rebound)
        yield server


@pytest.fixture
def transport(source):
    with_source = Transport(root_url="http://catalog.example.org/v1", backoff=0.001)
    yield with_source
    with_source.close()


@pytest.mark.promise(
    "Private, link-local and metadata addresses that a catalog names (assets, links, redirects, "
    "names that resolve to them) are refused with EACCES, unless the source itself is at an "
    "address of that kind or `allow_private` is given."
)
@pytest.mark.parametrize("host", ["127.0.0.1", "rebound.example.org"])
def test_no_request_reaches_what_is_here(transport, source, inner, host):
    """By an address, by a name with such an address, by a redirect: connected, not asked."""
    there = f"http://{host}:{inner.url.rpartition(':')[2]}"
    source.on("http://catalog.example.org/r", Reply(302, {"Location": f"{there}/secret"}))
    for ask in (
        lambda: transport.get_document(f"{there}/secret"),
        lambda: transport.get_document("http://catalog.example.org/r"),
        lambda: transport.get_range(f"{there}/a.tif", 0, 6),
        lambda: transport.post_document(f"{there}/secret", b"{}"),
    ):
        with pytest.raises(Denied, match=rf"{host}.* is a loopback address.* allow_private"):
            ask()
    assert inner.requests == []


def test_an_address_is_not_given_to_a_proxy(transport, source):
    """A proxy may stand where such addresses lead somewhere."""
    with pytest.raises(Denied, match="metadata service"):
        transport.get_document("http://169.254.169.254/latest/meta-data/")
    assert source.requests == []


def test_allow_private_lets_all_of_it_through(source, inner):
    """For those who trust the catalog."""
    transport = Transport(root_url="http://catalog.example.org/v1", allow_private=True)
    port = inner.url.rpartition(":")[2]
    assert transport.get_range(f"http://rebound.example.org:{port}/a.tif", 0, 6).data == b"inside"
    transport.close()


def test_a_mount_refuses_with_eacces(mounted, inner):
    """A catalog on this machine's loopback that names the network: the other assets are there."""
    item = stac_item(
        "one", {"bad": {"href": "http://10.255.255.1/x.tif"}, "good": {"href": "../a.tif"}}
    )
    collection = stac_collection("c", links=[{"rel": "item", "href": "items/one.json"}])
    inner.on("/collection.json", answer(collection))
    inner.on("/items/one.json", answer(item))
    with mounted(f"{inner.url}/collection.json") as mount:
        assert (mount.path / "one" / "good.tif").read_bytes() == b"inside"
        with fails(errno.EACCES):
            (mount.path / "one" / "bad.tif").read_bytes()
