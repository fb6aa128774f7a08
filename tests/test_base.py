"""What relative hrefs of an API's assets are meant from: alone, on a page, from the index."""

import json

import pytest
from faulty import Asset, FaultyServer, Reply
from rooms import Rooms, answer, asked, mlhub, stac_collection, stac_item

from mlhubfs.catalog.base import are_settled, self_href
from mlhubfs.catalog.models import parse_item
from mlhubfs.catalog.where import Where

ITEMS = "/v1/collections/c/items"


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


def on_page(host, href):
    """Have one item with a relative asset, its `self` link being `href`, and walk its page."""
    links = [{"rel": "self", "href": href}] if href else []
    mlhub(host, {"d": {"c": [stac_item("a", {"x": "../x.tif"}, links)]}})


def href_of(rooms):
    """Return where the asset of that item is."""
    return rooms.catalog.item("c", "a").assets[0].href


def walked(rooms):
    """Return the rooms, their index filled."""
    assert [name for name, _ in rooms.catalog.listing("c").iterate()] == ["a"]
    return rooms


@pytest.mark.promise(
    "Relative hrefs of an API's assets are meant from where the item was redirected to, else from "
    "its `self` link, else from the API's URL of the item; a `self` link that names the API's own "
    "route, or an address that the catalog may not, does not count."
)
class TestRelativeHrefs:
    """The same from the server, from memory and from the index."""

    def test_alone_from_where_the_item_came_from(self, host, tmp_path):
        """After redirects, and again when another mount has it from the index."""
        on_page(host, None)
        host.on(f"{ITEMS}/a", Reply(302, {"Location": "/moved/items/a.json?token=SECRET"}))
        item = stac_item("a", {"x": "../x.tif", "y": "#part", "zarr": {"href": "s.zarr"}})
        host.on("/moved/items/a.json", answer(item))
        host.on("/moved/x.tif", Asset(b"bytes"))
        with Rooms(host, index=tmp_path / "index") as rooms:
            assert rooms.read("/d/c/a/x.tif") == b"bytes"
        with Rooms(host, index=tmp_path / "index", offline=True) as rooms:
            assert href_of(rooms) == f"{host.url}/moved/x.tif"
            assert b"SECRET" not in rooms.catalog.item("c", "a").document

    @pytest.mark.parametrize(
        ("link", "base"),
        [
            ("/files/deep/a.json?token=x", "/files/"),
            (None, "/v1/collections/c/"),
            ("http://internal:8080/v1/collections/c/items/a", "/v1/collections/c/"),
            ("http://10.0.0.1/files/deep/a.json", "/v1/collections/c/"),
            ("s3://bucket/deep/a.json", "/v1/collections/c/"),
            ("deep/er/a.json", "/v1/collections/c/"),
            ("http://[oops/a.json", "/v1/collections/c/"),
        ],
    )
    def test_on_a_page_from_the_self_link(self, host, tmp_path, link, base):
        """Where that can be believed; else from the API's URL of the item; alone likewise."""
        link = host.url + link if link and link.startswith("/") else link
        on_page(host, link)
        with Rooms(host) as rooms:
            assert href_of(rooms) == f"{host.url}{base}x.tif"
        with Rooms(host) as rooms:
            assert href_of(walked(rooms)) == f"{host.url}{base}x.tif"
        with Rooms(host, index=tmp_path / "index") as rooms:
            walked(rooms)
        asked(host)
        with Rooms(host, index=tmp_path / "index") as rooms:
            assert href_of(rooms) == f"{host.url}{base}x.tif"
            found = list(rooms.catalog.search("c", Where()))
            assert found[0].assets[0].href == f"{host.url}{base}x.tif"
        assert f"{ITEMS}/a" not in asked(host)

    def test_a_collection_has_its_own(self, host):
        """In the list of collections as alone, and after a redirect."""
        links = [{"rel": "self", "href": f"{host.url}/files/c.json"}]
        collection = stac_collection("c", {"t": {"href": "t.csv"}}, links)
        mlhub(host, {"d": {"c": []}}, collections={"c": collection})
        with Rooms(host) as rooms:
            assert rooms.catalog.collections()["c"].assets[0].href == f"{host.url}/files/t.csv"
        with Rooms(host) as rooms:
            assert rooms.catalog.collection("c").assets[0].href == f"{host.url}/files/t.csv"
        host.on("/v1/collections/c", Reply(307, {"Location": "/moved/c.json"}))
        host.on("/moved/c.json", answer(collection))
        host.on("/moved/t.csv", Asset(b"1,2"))
        with Rooms(host) as rooms:
            assert rooms.read("/d/c/_common/t.csv") == b"1,2"


def test_what_is_no_file_stands_in_stac_json_with_an_absolute_href(host):
    """Stores, other schemes, and alternates; what has no href stays as it is."""
    assets = {
        "store": {"href": "../s.zarr", "alternate": {"m": {"href": "//m.org/s.zarr"}}},
        "ftp": {"href": "ftp://h/x"},
        "none": {"title": "not yet"},
        "good": {"href": "good.tif"},
    }
    mlhub(host, {"d": {"c": [stac_item("a", assets)]}})
    with Rooms(host) as rooms:
        assert rooms.names("/d/c/a") == ["stac.json", "good.tif"]
        assert json.loads(rooms.read("/d/c/a/stac.json"))["assets"] == {
            "store": {
                "href": f"{host.url}/v1/collections/c/s.zarr",
                "alternate": {"m": {"href": "http://m.org/s.zarr"}},
            },
            "ftp": {"href": "ftp://h/x"},
            "none": {"title": "not yet"},
            "good": {"href": "./good.tif"},
        }


def test_an_item_with_absolute_hrefs_is_as_it_came(host):
    """To the byte: it is not written anew, and its `self` link is not looked for."""
    assets = {"x": "https://h.org/x.tif", "y": "s3://b/y", "n": {}}
    body = json.dumps(stac_item("a", assets)).encode()
    assert are_settled(parse_item(body, 0.0).assets)
    mlhub(host, {"d": {"c": []}})
    host.on(f"{ITEMS}/a", answer(body))
    with Rooms(host) as rooms:
        assert rooms.catalog.item("c", "a").document == body


@pytest.mark.parametrize("links", [None, 3, [], [3], [{"rel": "self"}], [{"href": "http://h"}]])
def test_links_may_be_anything(links):
    """Then there is none to itself."""
    assert self_href(json.dumps({"links": links}).encode()) is None
