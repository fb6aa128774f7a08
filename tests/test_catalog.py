"""The catalog: one request for a known name, and every name reachable, over real HTTP."""

import time

import pytest
from faulty import FaultyServer, Reply
from rooms import Rooms, answer, asked, features, mlhub, stac_collection, stac_item, together

from mlhubfs.catalog import catalog as catalog_module
from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.models import Item, Listed, Page
from mlhubfs.catalog.where import Where
from mlhubfs.errors import BadAnswer, NotFound, Unavailable
from mlhubfs.transport.workers import Workers
from mlhubfs.tree.names import encode

ITEMS = "/v1/collections/c/items"
HOSTILE = ["", ".", "..", "../x", "a/b", "\0", "a\nb", "x" * 300, "%2F", "@where", "Aa", "aA", "🔥"]


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.fixture
def catalog(host):
    with Rooms(host, page_size=2) as rooms:
        yield rooms.catalog


def listed(catalog, collection="c"):
    return [identifier for identifier, _ in catalog.listing(collection).iterate()]


def test_a_known_item_is_one_request_and_no_listing(host, catalog):
    """Tenet 3; and none the second time."""
    mlhub(host, {"d": {"c": [stac_item("a"), stac_item("b")]}})
    assert catalog.item("c", "b").id == "b"
    assert asked(host) == [f"{ITEMS}/b"]
    assert catalog.item("c", "b").id == "b"
    assert asked(host) == []


def test_sixteen_look_ups_at_once_are_one_request(host, catalog):
    """Of items, collections and datasets alike."""
    mlhub(host, {"d": {"c": [stac_item("a")]}})
    assert len({id(one) for one in together(16, lambda _: catalog.item("c", "a"))}) == 1
    assert len({id(one) for one in together(16, lambda _: catalog.collection("c"))}) == 1
    assert len({id(one) for one in together(16, lambda _: catalog.datasets())}) == 1
    assert asked(host) == [f"{ITEMS}/a", "/v1/collections/c", "/v1/datasets"]


def test_an_item_that_a_page_brought_is_not_asked_for(host, catalog):
    """A listing teaches its items, and their times without even a look at them."""
    mlhub(host, {"d": {"c": [stac_item(one) for one in "abc"]}})
    assert catalog.listed("c", "a") is None
    assert listed(catalog) == ["a", "b", "c"]
    asked(host)
    assert catalog.item("c", "c").id == "c"
    assert catalog.listed("c", "c") == 1498904430
    assert catalog.listed("c", "nobody") is None
    assert asked(host) == []


@pytest.mark.parametrize("between", ["", "bc"])
def test_of_items_with_the_same_id_the_first_is_the_one(host, tmp_path, between):
    """Of one page, and of two; for who lists, looks up, and searches."""
    twins = [stac_item("a", which=which) for which in ("first", "second")]
    mlhub(host, {"d": {"c": [twins[0], *map(stac_item, between), twins[1]]}})
    with Rooms(host, page_size=2, index=tmp_path / "index") as rooms:
        assert listed(rooms.catalog) == ["a", *between]
        named = Where.parse(["which=first|second"])
        items = [rooms.catalog.item("c", "a"), *rooms.catalog.search("c", named)]
        assert [b'"first"' in bytes(one.document) for one in items] == [True, True]


def test_pages_are_asked_for_as_they_are_read(host, catalog):
    """The first names of a collection cost a page, and one that is read ahead, however large."""
    mlhub(host, {"d": {"c": [stac_item(str(n)) for n in range(1000)]}})
    names = catalog.listing("c").iterate()
    assert [next(names)[0] for _ in range(2)] == ["0", "1"]
    host.wait_for(ITEMS, 2)
    assert asked(host) == [ITEMS] * 2
    next(names)
    host.wait_for(ITEMS, 1)
    assert asked(host) == [ITEMS]


def test_a_fresh_listing_is_shared_and_an_old_one_is_not(host):
    """As long as its time to live says."""
    mlhub(host, {"d": {"c": [stac_item("a")]}})
    with Rooms(host) as rooms:
        assert rooms.catalog.listing("c") is rooms.catalog.listing("c")
    with Rooms(host, ttl=0) as rooms:
        assert rooms.catalog.listing("c") is not rooms.catalog.listing("c")


def test_a_walk_goes_on_after_the_server_came_back(host, catalog):
    """The names before the fault are not asked for again, and none is lost."""
    mlhub(host, {"d": {"c": [stac_item(one) for one in "abcde"]}})
    listing = catalog.listing("c")
    assert listing.reach(1)
    asked(host)
    host.kill()
    with pytest.raises(Unavailable):
        listing.reach(2)
    host.restart()
    assert listed(catalog) == ["a", "b", "c", "d", "e"]
    assert asked(host) == [ITEMS, ITEMS]


def test_no_such_item_is_remembered(host):
    """A program that probes for a name asks the server once a minute."""
    mlhub(host, {"d": {"c": []}})
    with Rooms(host) as rooms:
        for _ in range(3):
            with pytest.raises(NotFound):
                rooms.catalog.item("c", "nobody")
        assert asked(host) == [f"{ITEMS}/nobody"]
    with Rooms(host, negative_ttl=0) as rooms:
        for _ in range(2):
            with pytest.raises(NotFound):
                rooms.catalog.item("c", "nobody")
        assert asked(host) == [f"{ITEMS}/nobody"] * 2


def test_a_server_that_is_down_does_not_hide_what_was_known(host):
    """The item's JSON serves on past its time."""
    mlhub(host, {"d": {"c": [stac_item("a")]}})
    with Rooms(host, ttl=0) as rooms:
        assert rooms.catalog.item("c", "a").id == "a"
        host.on(f"{ITEMS}/a", Reply(503))
        assert rooms.catalog.item("c", "a").id == "a"
        host.on(f"{ITEMS}/b", Reply(503))
        with pytest.raises(Unavailable):
            rooms.catalog.item("c", "b")


def test_renewing_asks_for_newer_links_and_once(host, catalog):
    """Only what was asked for after the link that was refused will do."""
    mlhub(host, {"d": {"c": [stac_item("a", {"x": "/1"})]}})
    old = catalog.item("c", "a")
    asked(host)
    assert catalog.renewed_item("c", "a", old.fetched - 1) is old
    host.on(f"{ITEMS}/a", answer(stac_item("a", {"x": "/2"})))
    new = together(16, lambda _: catalog.renewed_item("c", "a", old.fetched))
    assert {item.assets[0].href for item in new} == {f"{host.url}/2"}
    assert asked(host) == [f"{ITEMS}/a"]
    assert catalog.item("c", "a") is new[0]


def test_collections_are_renewed_likewise(host, catalog):
    """They have assets of their own."""
    mlhub(host, {"d": {"c": []}})
    old = catalog.collection("c")
    assert catalog.renewed_collection("c", old.fetched).fetched > old.fetched
    assert asked(host) == ["/v1/collections/c"] * 2


def test_loose_collections_are_those_that_no_dataset_names(host, catalog):
    """All of them where the source has no datasets; a dataset may name one that is not there."""
    mlhub(host, {"d": {"c": []}}, loose={"x": [], "y": []})
    assert list(catalog.loose_collections()) == ["x", "y"]
    assert asked(host) == ["/v1/datasets", "/v1/collections"]
    assert catalog.collection("x").id == "x"  # the list brought it
    assert asked(host) == []


def test_a_stac_api_has_collections_and_no_datasets(host, catalog):
    """`/datasets` is not found there."""
    host.on("/v1/collections", answer({"collections": [stac_collection("c")]}))
    assert catalog.datasets() == {}
    assert list(catalog.loose_collections()) == ["c"]


@pytest.mark.parametrize("reply", [Reply(404), Reply(200, {"Content-Type": "text/html"}, b"<html>"),
                                   answer({"detail": "x"})])  # fmt: skip
def test_datasets_do_not_vanish_because_of_a_bad_answer(host, reply):
    """A portal's page in place of the list is an error, not an empty mount, and it passes."""
    mlhub(host, {"d": {"c": []}})
    with Rooms(host, ttl=0) as rooms:
        assert list(rooms.catalog.datasets()) == ["d"]
        host.on("/v1/datasets", reply)
        with pytest.raises(BadAnswer, match="no longer answers with its datasets"):
            rooms.catalog.datasets()
        mlhub(host, {"d": {"c": []}, "e": {}})
        assert list(rooms.catalog.datasets()) == ["d", "e"]


# --- ids that cannot simply be asked for


@pytest.mark.parametrize("identifier", HOSTILE)
def test_every_listed_item_is_reachable_by_its_id(host, catalog, identifier):
    """Also where the id cannot be written into a path, or is not routed by the server."""
    mlhub(host, {"d": {"c": [stac_item("plain"), *map(stac_item, HOSTILE)]}})
    assert catalog.item("c", identifier).id == identifier
    assert listed(catalog) == ["plain", *HOSTILE]
    assert not [path for path in asked(host) if path != "/v1" and not path.startswith(ITEMS)]


@pytest.mark.parametrize("identifier", ["", ".", ".."])
def test_an_id_that_no_path_can_hold_is_looked_for_in_the_pages(host, catalog, identifier):
    """As far as it has to be; that there is none is remembered."""
    mlhub(host, {"d": {"c": [stac_item(one) for one in ["a", "b", identifier, "c", "d"]]}})
    assert catalog.item("c", identifier).id == identifier
    landing = ["/v1"] if identifier else []  # whether the server searches by id
    assert asked(host) == [*landing, ITEMS, ITEMS]
    mlhub(host, {"d": {"e": [stac_item("a")]}})
    for _ in range(2):
        with pytest.raises(NotFound):
            catalog.item("e", identifier)
    assert asked(host) == ["/v1/collections/e/items"]


def test_a_listed_id_that_the_server_cannot_route_is_found_in_the_pages(host):
    """A slash, encoded as it must be, is 404 for many servers."""
    mlhub(host, {"d": {"c": [stac_item("a"), stac_item("a/b")]}})
    host.on(f"{ITEMS}/a%2Fb", Reply(404))
    with Rooms(host, page_size=2) as rooms:
        listed(rooms.catalog)
        old = rooms.catalog.item("c", "a/b")
        assert rooms.catalog.renewed_item("c", "a/b", old.fetched).id == "a/b"


def test_a_plain_id_that_is_not_found_costs_no_walk(host, catalog):
    """Nor does an odd one that no listing named: probing for names must stay cheap."""
    mlhub(host, {"d": {"c": [stac_item("a")]}})
    for identifier in ("nobody", "no body"):
        with pytest.raises(NotFound):
            catalog.item("c", identifier)
    assert ITEMS not in asked(host)


def test_looking_through_pages_ends_where_the_server_goes_round(host, catalog):
    """Nor does a server that sends empty pages for ever keep a look-up for ever."""
    host.on(ITEMS, lambda _: answer(features([stac_item("a")], f"{ITEMS}?token=again")))
    with pytest.raises(NotFound):
        catalog.item("c", "..")
    numbers = iter(range(1000))
    host.on(
        "/v1/collections/e/items",
        lambda _: answer(features([], f"/v1/collections/e/items?token={next(numbers)}")),
    )
    with pytest.raises(NotFound):
        catalog.item("e", "..")
    assert len(asked(host)) < 20


def test_an_item_is_found_by_its_cut_name(host, catalog):
    """The one case that needs the listing, and only as far as the item."""
    ids = ["a", "x" * 300, "x" * 301, *"bcdefgh"]
    mlhub(host, {"d": {"c": [stac_item(one) for one in ids]}})
    name = encode("x" * 301)
    assert catalog.find("c", lambda one: encode(one) == name).id == "x" * 301
    host.wait_for(ITEMS, 3)  # the page behind the item's is on its way by then
    assert asked(host) == [ITEMS] * 3
    with pytest.raises(NotFound):
        catalog.find("c", lambda _: False)


def test_ids_with_newlines_are_not_taken_for_each_other():
    """Two pairs of ids that read the same in a row are two items."""

    class Source:
        root = "http://h"

        def item(self, collection_id, item_id):
            return Item(item_id, float(len(collection_id)), (), b"{}")

    workers = Workers()
    catalog = Catalog(Source(), workers, ttl=300, negative_ttl=60)
    assert catalog.item("a", "b\nc").modified == 1
    assert catalog.item("a\nb", "c").modified == 3
    workers.close()


def test_incomplete_listings_are_told_of(host, catalog):
    """In one line each."""
    mlhub(host, {"d": {"c": [stac_item("a")]}})
    host.on(ITEMS, answer(features([stac_item("a")], context={"matched": 3})))
    assert catalog.problems() == []
    listed(catalog)
    assert catalog.problems() == ["c: the server lists 1 of the 3 items it counts"]


def test_memory_of_items_is_bounded_by_their_bytes(monkeypatch):
    """Whatever the number of items that pages bring: the pages that came last are kept."""
    monkeypatch.setattr(catalog_module, "_PAGE_BYTES", 30_000)

    class Source:
        root = "http://h"
        looked_up = 0

        def datasets(self):
            return None

        def page(self, collection_id, following=None, **_):
            first = int(following or 0)
            ids = [str(number) for number in range(first, first + 10)]
            items = tuple(Listed(one, 0.0, b'{"id":"%s"}' % one.encode()) for one in ids)
            link = str(first + 10) if first < 90 else None
            return Page(items, link, 100, time.monotonic(), 10_000)

        def item(self, collection_id, item_id):
            self.looked_up += 1
            return Item(item_id, 0.0, (), b"x" * 1000)

    workers, source = Workers(), Source()
    catalog = Catalog(source, workers, ttl=300, negative_ttl=60)
    assert len(listed(catalog)) == 100
    for number in range(100):
        catalog.item("c", str(number))
    assert source.looked_up == 70
    workers.close()


def test_an_archive_is_known_by_its_collection(host, catalog):
    """Its size and where it is, asked for once; and that there is none, too."""
    mlhub(host, {"d": {"c": []}})
    about = {"collection": "c", "dataset": "d", "size": 71138210977, "types": ["labels"]}
    host.on("/v1/archive/c/info", answer(about))
    for _ in range(2):
        archive = catalog.archive("c")
        assert (archive.size, archive.url) == (71138210977, f"{host.url}/v1/archive/c")
        with pytest.raises(NotFound):
            catalog.archive("x")
    assert asked(host) == ["/v1/datasets", "/v1/archive/c/info", "/v1/archive/x/info"]


def test_a_source_without_datasets_is_not_asked_for_archives(host, catalog):
    """A STAC API has none."""
    mlhub(host, {}, loose={"c": []})
    host.on("/v1/datasets", Reply(404))
    with pytest.raises(NotFound):
        catalog.archive("c")
    assert asked(host) == ["/v1/datasets"]
