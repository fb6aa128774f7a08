"""What a URL is the root of: MLHub's API, a STAC API, a static catalog."""

import pytest
from faulty import FaultyServer, Reply
from rooms import answer, stac_collection, stac_item

from mlhubfs.catalog.api import Api
from mlhubfs.catalog.index import Index
from mlhubfs.catalog.opening import open_source
from mlhubfs.catalog.static import StaticCatalog
from mlhubfs.catalog.stored import Stored
from mlhubfs.errors import BadAnswer, ConfigError, NotFound, Offline, Unavailable
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers

CORE = "https://api.stacspec.org/v1.0.0/core"
CATALOG = {"type": "Catalog", "stac_version": "1.1.0", "id": "x", "description": "x", "links": []}


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


def opened(host, path="/stac", stored=None, **more):
    """Open what is at a path of `host`."""
    transport = Transport(root_url=host.url, backoff=0.001, timeout=20, **more)
    try:
        return open_source(
            transport, host.url + path, stored or Stored(None),
            fetchers=Workers(limit=1), page_size=100, ttl=60.0,
        )  # fmt: skip
    finally:
        transport.close()


def linked(**links):
    """Return the links of a landing page."""
    return [{"rel": rel.replace("_", "-"), "href": href} for rel, href in links.items()]


@pytest.mark.parametrize(
    "document",
    [
        CATALOG,
        {**CATALOG, "links": linked(child="a/collection.json", root="./catalog.json")},
        stac_collection("c"),
        stac_item("a"),
        {"type": "FeatureCollection", "features": []},
        {"stac_version": "0.9.0", "id": "old", "links": linked(child="a.json")},
    ],
)
def test_a_stac_document_without_a_landing_pages_marks_is_a_static_catalog(host, document):
    """It neither says what it conforms to nor where its data are."""
    host.on("/stac", answer(document))
    source = opened(host)
    assert isinstance(source, StaticCatalog)
    assert source.root == f"{host.url}/stac"


@pytest.mark.parametrize(
    "document",
    [
        {**CATALOG, "conformsTo": [CORE]},
        {**CATALOG, "links": linked(data="/stac/collections", child="/stac/collections/c")},
        {**CATALOG, "links": linked(search="/stac/search")},
        {**CATALOG, "links": linked(service_desc="/stac/api")},
        {"title": "MLHub"},
        [],
        5,
    ],
)
def test_a_landing_page_is_an_api(host, document):
    """And so is what is no STAC: MLHub's root need not be."""
    host.on("/stac", answer(document))
    source = opened(host)
    assert isinstance(source, Api)
    assert source.root == f"{host.url}/stac"


ITEMS = {"type": "FeatureCollection", "features": [stac_item("a")]}


@pytest.mark.parametrize(
    ("document", "links", "told"),
    [
        (stac_collection("c"), {"items": "/stac/items", "root": "/api"}, "a collection of .*/api$"),
        ({**stac_collection("c"), "type": None}, {"items": "/stac/items", "root": "/api"}, "/api$"),
        (stac_collection("c"), {"items": "/stac/items"}, "a collection of a STAC API: .*root URL$"),
        (ITEMS, {"next": "?token=2", "root": "/api"}, "one page of the items of .*/api$"),
        (ITEMS, {"next": "?token=2", "root": "/stac"}, "one page of .*root URL$"),
    ],
)
def test_a_part_of_an_api_is_refused(host, document, links, told):
    """It would be an empty collection, or the first page for all there is."""
    host.on("/stac", answer({**document, "links": linked(**links)}))
    with pytest.raises(ConfigError, match=told):
        opened(host)


@pytest.mark.parametrize(
    ("document", "links"),
    [
        (stac_collection("c"), {"items": "items.geojson", "item": "a.json"}),
        (stac_collection("c"), {"items": "items.geojson", "child": "d/catalog.json"}),
        (ITEMS, {"root": "catalog.json"}),
    ],
)
def test_what_has_all_that_it_tells_of_is_no_part(host, document, links):
    """Static catalogs have some of these links as well."""
    host.on("/stac", answer({**document, "links": linked(**links)}))
    assert isinstance(opened(host), StaticCatalog)


@pytest.mark.parametrize("reply", [Reply(404), Reply(401), Reply(400), answer(b"hello")])
def test_a_root_without_a_landing_page_is_taken_for_an_api(host, reply):
    """Its collections will tell."""
    host.on("/stac", reply)
    assert isinstance(opened(host), Api)


@pytest.mark.parametrize(
    ("path", "data", "root"),
    [
        ("", "/stac/collections", "/stac"),
        ("", "./stac/collections/", "/stac"),
        ("/stac", "/stac/collections", "/stac"),
        ("/stac", "http://internal:8080/stac/collections", "/stac"),
        ("/proxy/stac", "/stac/collections", "/proxy/stac"),
        ("/stac/index.json", "/stac/collections", "/stac"),
        ("", "/mlhub/v1", "/mlhub/v1"),
        ("/stac", None, "/stac"),
        ("/stac", "http://[oops", "/stac"),
    ],
)
def test_the_data_link_is_believed_where_it_leads_further_down(host, path, data, root):
    """Servers name a host, or forget a prefix, that is not what we reach them by."""
    links = [{"rel": "data", "href": data}]
    host.on(path or "/", answer({**CATALOG, "conformsTo": [CORE], "links": links}))
    assert opened(host, path).root == f"{host.url}{root}"


@pytest.mark.parametrize("reply", [Reply(404), answer(b"hello"), answer(b"\x1f\x8b\x08")])
def test_what_is_called_json_and_is_none_is_refused(host, reply):
    """Nobody means an API by that."""
    host.on("/catalog.json", reply)
    with pytest.raises((NotFound, BadAnswer), match=r"/catalog\.json"):
        opened(host, "/catalog.json").collections()


def test_a_server_that_is_down_is_said(host):
    """Instead of being guessed about."""
    host.on("/stac", Reply(503))
    with pytest.raises(Unavailable):
        opened(host)


@pytest.mark.parametrize(
    ("document", "kind"), [(CATALOG, StaticCatalog), ({**CATALOG, "conformsTo": [CORE]}, Api)]
)
def test_offline_a_source_is_what_it_was(host, tmp_path, document, kind):
    """The index keeps it."""
    host.on("/stac", answer(document))
    for is_offline in (False, True):
        index = Index(tmp_path / "index.sqlite", root=host.url, strip=bytes)
        assert isinstance(opened(host, stored=Stored(index), is_offline=is_offline), kind)
        index.close()
    assert len(host.requests) == 1


def test_offline_and_unknown_is_an_api_that_knows_nothing(host):
    """Which says what is to be done."""
    source = opened(host, is_offline=True)
    with pytest.raises(Offline):
        source.collections()
