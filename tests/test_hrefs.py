"""Where an asset is: which of its hrefs are opened, which assets are files."""

import errno
import json
import logging

import pytest
from faulty import Asset as Stored
from faulty import FaultyServer, Reply
from mounted import fails, names
from rooms import Rooms, answer, asked, mlhub, stac_collection, stac_item

from mlhubfs.catalog.models import Asset, parse_collection, parse_item
from mlhubfs.transport.buckets import over_http
from mlhubfs.tree.hrefs import Hrefs, is_directory


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("gs://buck/a b.tif", "https://storage.googleapis.com/buck/a%20b.tif"),
        ("GS://buck.et/a", "https://storage.googleapis.com/buck.et/a"),
        ("az://acc.blob.core.windows.net/box/a", "https://acc.blob.core.windows.net/box/a"),
        ("abfs://box@acc.dfs.core.windows.net/a", "https://acc.blob.core.windows.net/box/a"),
        ("abfss://box@acc.blob.core.windows.net/a", "https://acc.blob.core.windows.net/box/a"),
        ("https://h.org/a", "https://h.org/a"),
    ],
)
def test_a_bucket_has_a_public_form(url, public):
    """Of Google's and of Azure's stores; a web URL is its own."""
    assert over_http(url) == public


@pytest.mark.parametrize("url", ["az://box/a", "gs:///a", "abfs://box@evil.org/a", "s3://a b/c"])
def test_what_names_no_store_has_none(url):
    """A container alone tells no account, and other hosts are not Azure's."""
    with pytest.raises(ValueError, match="expected"):
        over_http(url)


@pytest.mark.parametrize(
    ("href", "media_type", "is_one"),
    [
        ("https://h/a.zarr", None, True),
        ("https://h/a.zarr/", None, True),
        ("https://h/a", "application/vnd+zarr", True),
        ("https://h/a.json", "application/vnd+zarr", False),
        ("https://h/a.zarr.zip", None, False),
        ("s3://b/prefix/", None, True),
        ("https://h/download/", None, False),
    ],
)
def test_zarr_is_a_directory(href, media_type, is_one):
    """By its type or its name; a zipped store and a file of references are files."""
    assert is_directory(Asset("k", href, media_type)) is is_one


def test_the_own_href_goes_first_and_what_cannot_be_opened_is_left_out():
    """Alternates follow in the order of the document."""
    asset = {"href": "http://h/a", "alternate": {"s3": {"href": "s3://b/a"}, "d": {"href": "d:/a"}}}
    (parsed,) = parse_item(json.dumps(stac_item("i", {"k": asset})).encode(), 0).assets
    assert Hrefs().of(parsed) == ["http://h/a", "https://b.s3.amazonaws.com/a"]
    (url,) = Hrefs().of(Asset("k", "ftp://h/a", alternates=("gs://b/a",)))
    assert url == "https://storage.googleapis.com/b/a"


@pytest.mark.parametrize(
    "alternate",
    [None, [], 3, {"a": None}, {"a": {}}, {"a": {"href": 3}}, {"a": {"href": "http://["}}],
)
def test_nonsense_in_alternate_is_passed_over(alternate):
    """An item stays usable whatever stands there."""
    item = stac_item("i", {"k": {"href": "a.tif", "alternate": alternate}})
    assert parse_item(json.dumps(item).encode(), 0).assets[0].alternates == ()


SCHEMES = {"there": {"type": "ms-azure", "account": "fromscheme"}, "odd": 3}


def hrefs_of(rooms, **settings):
    """Return the URLs of the first item's assets."""
    hrefs = Hrefs(**settings)
    return [url for asset in rooms.catalog.item("c", "i").assets for url in hrefs.of(asset)]


@pytest.mark.parametrize(
    ("asset", "collection", "account"),
    [
        ({"xarray:storage_options": {"account_name": "fromitem"}}, "fromcollection", "fromitem"),
        ({"table:storage_options": {"account_name": "fromitem"}}, None, "fromitem"),
        ({"storage:refs": ["odd", "there"]}, "fromcollection", "fromscheme"),
        ({"storage:refs": [["there"], 3]}, "fromcollection", "fromcollection"),
        ({"xarray:storage_options": {"account_name": 3}}, "fromcollection", "fromcollection"),
        ({}, None, "fromuser"),
        ({}, 3, "fromuser"),
    ],
)
def test_a_container_is_in_the_account_that_is_named(asset, collection, account):
    """By the asset, the item's storage schemes, the collection, else the user."""
    with FaultyServer() as host, Rooms(host) as rooms:
        about = {**stac_collection("c"), "msft:storage_account": collection}
        item = stac_item("i", {"k": {"href": "az://box/a b", **asset}})
        item["properties"]["storage:schemes"] = SCHEMES
        mlhub(host, {"d": {"c": [item]}}, collections={"c": about})
        url = f"https://{account}.blob.core.windows.net/box/a%20b"
        assert hrefs_of(rooms, account="fromuser") == [url]


def test_the_collections_own_assets_are_in_its_account():
    """And one that names its account in the host stays there."""
    assets = {"a": {"href": "abfs://box/a"}, "b": {"href": "abfs://box@b.dfs.core.windows.net/a"}}
    about = {**stac_collection("c", assets), "msft:storage_account": "account"}
    first, second = parse_collection(json.dumps(about).encode(), 0.0).assets
    assert Hrefs().of(first) == ["https://account.blob.core.windows.net/box/a"]
    assert Hrefs().of(second) == ["https://b.blob.core.windows.net/box/a"]


@pytest.mark.parametrize("account", ["evil.org/", "a@b", "UPPER", "", "x" * 25])
def test_what_is_no_account_makes_no_url(account):
    """A catalog cannot name another host with it."""
    assert Hrefs().of(Asset("k", "az://box/a", account=account)) == []


def test_a_collection_is_looked_up_only_for_containers_without_account():
    """And a missing one hides no other asset."""
    with FaultyServer() as host, Rooms(host) as rooms:
        mlhub(host, {"d": {"c": [stac_item("i", {"k": "https://h/a", "b": {"href": "s3://b/a"}})]}})
        rooms.catalog.item("c", "i")
        assert asked(host) == ["/v1/collections/c/items/i"]
    with FaultyServer() as host, Rooms(host) as rooms:
        item = stac_item("i", {"k": "https://h/a", "b": {"href": "az://b/a"}})
        mlhub(host, {"d": {"c": [item]}})
        host.on("/v1/collections/c", Reply(404))
        assert hrefs_of(rooms) == ["https://h/a"]


@pytest.mark.promise(
    "An asset without an href, or with none that can be opened here, stands in `stac.json` and is "
    "no file, and the log says so once for each scheme."
)
def test_a_scheme_is_told_of_once(caplog):
    """Whatever the number of assets, and without the rest of their hrefs."""
    hrefs = Hrefs()
    with caplog.at_level(logging.INFO):
        for href in (
            "ftp://h/SECRET", "ftp://h/b", "hdfs://h/a", "file:///etc/passwd", "az://b/SECRET",
            "az://b/c", "", "",
        ):  # fmt: skip
            assert hrefs.files([Asset("k", href)]) == []
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "assets at ftp", "assets at hdfs", "assets at file", "assets at az",
        "assets without a usable href",
    ]  # fmt: skip
    assert "-o azure_account=NAME" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.fixture
def host():
    with FaultyServer() as host:
        collection = stac_collection("c", links=[{"rel": "item", "href": "items/one.json"}])
        host.on("/collection.json", answer(collection))
        yield host


@pytest.mark.promise(
    "Where an asset has `alternate` hrefs, those that can be opened are tried in their order when "
    "the one before fails."
)
def test_the_next_href_is_tried_where_one_fails(mounted, host):
    """Refused, gone, a login page: the bytes come from the mirror; else its own error is told."""
    web = Reply(200, {"Content-Type": "text/html"}, b"<html>log in</html>")
    host.on("/refused", Reply(403))
    host.on("/login", web)
    host.on("/mirror/a.tif", Stored(b"mirrored"))

    def asset(href, *others):
        alternates = {str(number): {"href": other} for number, other in enumerate(others)}
        return {"href": href, "type": "image/tiff", "alternate": alternates}

    item = stac_item(
        "one",
        {
            "refused": asset("/refused", "ftp://h/a", "../mirror/a.tif"),
            "gone": asset("/gone", "/login", "../mirror/a.tif"),
            "odd": asset("ftp://h/x", "../mirror/a.tif"),
            "lost": asset("/refused", "/gone"),
            "ftp": asset("ftp://h/x"),
            "store": asset("/store.zarr"),
        },
    )
    host.on("/items/one.json", answer(item))
    with mounted(f"{host.url}/collection.json", allow=["answered a web page"]) as mount:
        folder = mount.path / "one"
        for name in ("refused", "gone", "odd"):
            (path,) = folder.glob(f"{name}*")
            assert path.read_bytes() == b"mirrored"
        (lost,) = folder.glob("lost*")
        with fails(errno.EACCES):
            lost.read_bytes()
        told = json.loads((folder / "stac.json").read_bytes())["assets"]
        assert told["ftp"]["href"] == "ftp://h/x"
        assert told["store"]["href"] == f"{host.url}/store.zarr"
        assert not [name for name in names(folder) if name.startswith(("ftp", "store"))]
