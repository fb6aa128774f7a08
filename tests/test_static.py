"""Static catalogs: documents that link to each other, behind a server that only has files."""

import json

import pytest
from faulty import FaultyServer, Reply
from rooms import answer, asked, stac_collection, stac_item

from mlhubfs.catalog import static as static_module
from mlhubfs.catalog.node import TOP, key_above, key_below, likely, settle
from mlhubfs.catalog.static import StaticCatalog
from mlhubfs.errors import BadAnswer, NotFound, Rejected, Unavailable
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers


def catalog(identifier, **links):
    """Return a STAC Catalog; `links` is rel -> hrefs."""
    return {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": identifier,
        "description": identifier,
        "links": [{"rel": rel, "href": href} for rel, hrefs in links.items() for href in hrefs],
    }


def collection(identifier, **links):
    return {**stac_collection(identifier), "links": catalog("", **links)["links"]}


def shelve(host, documents):
    """Have `host` answer with documents, path -> JSON."""
    for path, document in documents.items():
        host.on(path, answer(document))


NESTED = {
    "/catalog.json": catalog("root", child=["a/catalog.json", "./b/collection.json"]),
    "/a/catalog.json": catalog("a", child=["2020/catalog.json"], item=["x/x.json"]),
    "/a/x/x.json": stac_item("x", {"data": "./x.tif"}),
    "/a/2020/catalog.json": catalog("2020", child=["deep/collection.json"]),
    "/a/2020/deep/collection.json": collection("deep", item=["d1.json", "d2.json"]),
    "/a/2020/deep/d1.json": stac_item("d1", {"data": "../d1.tif"}),
    "/a/2020/deep/d2.json": stac_item("d2", {"data": "https://h/d2.tif"}),
    "/b/collection.json": collection("b", item=["b1/b1.json"], parent=["../catalog.json"]),
    "/b/b1/b1.json": stac_item("b1"),
}


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.fixture
def static(host):
    """Return a function that opens the static catalog at a path of `host`."""
    fetchers = Workers(limit=8)
    made = []

    def make(path="/catalog.json", ttl=300.0):
        transport = Transport(root_url=host.url, backoff=0.001, timeout=20)
        made.append(transport)
        return StaticCatalog(transport, host.url + path, fetchers=fetchers, ttl=ttl)

    yield make
    fetchers.close()
    for transport in made:
        transport.close()


def ids(source, key):
    """Return the ids of all pages of a catalog or collection."""
    found, cursor = [], None
    while True:
        page = source.page(key, cursor)
        found += [item.id for item in page.items]
        cursor = page.next
        if cursor is None:
            return found


class TestLevels:
    """Catalogs below catalogs, to any depth."""

    def test_each_is_found_by_the_ids_on_the_way(self, host, static):
        """A key joins them, so that the same id may stand in two places."""
        shelve(host, NESTED)
        source = static()
        assert [one.id for one in source.children(TOP)] == ["a", "b"]
        assert [one.id for one in source.children("a")] == ["a/2020"]
        assert [one.id for one in source.children("a/2020")] == ["a/2020/deep"]
        assert source.collection("a/2020/deep").is_catalog is False
        assert source.collection("a/2020").is_catalog is True
        assert ids(source, "a/2020/deep") == ["d1", "d2"]
        assert ids(source, "a") == ["x"]

    def test_a_path_is_gone_without_listing(self, host, static):
        """Each step asks for one document: the one whose link has the id in it."""
        shelve(host, NESTED)
        assert static().item("a/2020/deep", "d2").id == "d2"
        assert asked(host) == [
            "/catalog.json",
            "/a/catalog.json",
            "/a/2020/catalog.json",
            "/a/2020/deep/collection.json",
            "/a/2020/deep/d2.json",
        ]

    def test_a_first_document_that_is_gone_for_a_moment(self, host, static):
        """It cannot be reached then; where it never was there, there is none."""
        with pytest.raises(NotFound):
            static().collection(TOP)
        shelve(host, NESTED)
        source = static(ttl=0.0)
        before = source.collection(TOP).document
        host.on("/catalog.json", Reply(404))
        with pytest.raises(Unavailable, match="what is mounted is gone"):
            source.collection(TOP)
        shelve(host, NESTED)
        assert source.collection(TOP).document == before

    def test_a_link_that_leads_back_up_is_left_out(self, host, static):
        """Else the directories would have no end."""
        shelve(host, {
            "/catalog.json": catalog("root", child=["a.json", "catalog.json"]),
            "/a.json": catalog("a", child=["catalog.json", "a.json", "b.json"]),
            "/b.json": catalog("b", child=["./a.json#x", "./a.json"]),
        })  # fmt: skip
        source = static()
        assert [one.id for one in source.children(TOP)] == ["a"]
        assert [one.id for one in source.children("a")] == ["a/b"]
        assert source.children("a/b") == []

    def test_children_whose_links_tell_no_id_are_looked_at(self, host, static):
        """All of them, once."""
        shelve(host, {
            "/catalog.json": catalog("root", child=["1.json", "2.json"]),
            "/1.json": collection("one"),
            "/2.json": collection("two"),
        })  # fmt: skip
        source = static()
        assert source.collection("two").id == "two"
        with pytest.raises(NotFound):
            source.collection("three")
        asked(host)
        with pytest.raises(NotFound):
            source.collection("four")
        assert asked(host) == []

    def test_the_second_of_two_with_one_id_is_left_out(self, host, static, caplog):
        """And the log says so."""
        shelve(host, {
            "/catalog.json": catalog("root", child=["1.json", "2.json"]),
            "/1.json": collection("same", item=["i.json"]),
            "/2.json": collection("same"),
        })  # fmt: skip
        assert len(static().children(TOP)) == 1
        assert "has the id of another" in caplog.text

    def test_a_child_that_is_not_there_is_passed_over(self, host, static, caplog):
        """One dead link must not take the others away."""
        shelve(host, {
            "/catalog.json": catalog("root", child=["dead.json", "b.json"]),
            "/b.json": collection("b"),
        })  # fmt: skip
        assert [one.id for one in static().children(TOP)] == ["b"]
        assert "/dead.json" in caplog.text

    @pytest.mark.parametrize("status", [403, 404, 503])
    def test_dead_children_leave_what_is_beside_them(self, host, static, status):
        """Also where all are dead; and one whose server fails, for that may have gone for good."""
        shelve(host, {
            "/catalog.json": catalog("root", child=["a.json", "d.json"]),
            "/a.json": catalog("a", child=["d1.json", "d2.json"], item=["i.json"]),
            "/i.json": stac_item("i"),
        })  # fmt: skip
        for name in ("d", "d1", "d2"):
            host.on(f"/{name}.json", Reply(status))
        source = static()
        assert [one.id for one in source.children(TOP)] == ["a"]
        assert source.children("a") == []
        assert ids(source, "a") == ["i"]

    def test_children_none_of_which_can_be_asked_for_are_an_error(self, host, static):
        """They may be there."""
        shelve(host, {"/catalog.json": catalog("root", child=["a.json"])})
        host.on("/a.json", Reply(503))
        with pytest.raises(Unavailable):
            static().children(TOP)

    @pytest.mark.parametrize("identifier", ["a", "a/b", "%", "..", ".", "a%2Fb", "é b", "~", ""])
    @pytest.mark.parametrize("above", [TOP, "up", "up/%2E%2E"])
    def test_a_key_gives_the_id_back(self, above, identifier):
        """Whatever it holds, and no key is another's."""
        key = key_below(above, identifier)
        assert key != TOP
        if identifier:
            assert key_above(key) == (above, identifier)


class TestItems:
    """Items are documents of their own, fetched when they are asked for."""

    def many(self, host, count, name="{0}/{0}.json"):
        names = [f"i{number:03}" for number in range(count)]
        links = [name.format(one, number) for number, one in enumerate(names)]
        shelve(host, {"/collection.json": collection("c", item=links)})
        for one, link in zip(names, links, strict=True):
            host.on(f"/{link}", answer(stac_item(one)))
        return names

    def test_pages_come_in_the_order_of_the_links(self, host, static):
        """A hundred at a time, with the number of all, whatever the order of the answers."""
        names = self.many(host, 250)
        source = static("/collection.json")
        page = source.page(TOP, limit=10_000)
        assert ([item.id for item in page.items], page.matched) == (names[:100], 250)
        assert ids(source, TOP) == names

    def test_a_page_is_fetched_side_by_side(self, host, static):
        """All wait at the same time for a server that answers none before eight have asked."""
        self.many(host, 8)
        gate = host.hold()

        def last(request):
            gate.set()
            return answer(stac_item("i007"))

        for number in range(7):
            name = f"i{number:03}"
            host.on(f"/{name}/{name}.json", answer(stac_item(name), hold=gate))
        host.on("/i007/i007.json", last)
        assert len(static("/collection.json").page(TOP).items) == 8

    def test_a_known_id_costs_its_document(self, host, static):
        """Where the link is made of it."""
        self.many(host, 50)
        assert static("/collection.json").item(TOP, "i042").id == "i042"
        assert asked(host) == ["/collection.json", "/i042/i042.json"]

    def test_an_id_that_no_link_has_costs_one_look(self, host, static):
        """The first item tells that links are made of ids here; then there is no such item."""
        self.many(host, 50)
        source = static("/collection.json")
        for unknown in ("nope", "nope.aux.xml"):
            with pytest.raises(NotFound):
                source.item(TOP, unknown)
        assert asked(host) == ["/collection.json", "/i000/i000.json"]

    @pytest.mark.promise(
        "A catalog, a collection or an item below a static catalog is found by its id, whatever "
        "its file is called; where only some files are called by ids, the others once they have "
        "been listed."
    )
    def test_links_that_tell_no_id_are_looked_through(self, host, static):
        """An item that is there is found, at whatever cost."""
        self.many(host, 150, name="items/{1}")
        assert static("/collection.json").item(TOP, "i123").id == "i123"

    def test_a_dead_link_tells_nothing_of_the_others(self, host, static):
        """Nor keeps it them from being found."""
        self.many(host, 5, name="items/{1}")
        host.on("/items/0", Reply(404))
        assert static("/collection.json").item(TOP, "i003").id == "i003"

    def test_a_link_that_has_the_id_of_another_is_not_believed(self, host, static):
        """The id is what the document says."""
        shelve(host, {
            "/collection.json": collection("c", item=["a.json", "b.json"]),
            "/a.json": stac_item("b"),
            "/b.json": stac_item("a"),
        })  # fmt: skip
        source = static("/collection.json")
        assert source.item(TOP, "a").id == "a"
        assert source.item(TOP, "b").id == "b"

    def test_an_item_that_is_not_there_is_passed_over_and_counted(self, host, static, caplog):
        """The page says how many there should be, so that the listing is known to be short."""
        self.many(host, 3)
        host.on("/i001/i001.json", Reply(404))
        page = static("/collection.json").page(TOP)
        assert [item.id for item in page.items] == ["i000", "i002"]
        assert page.matched == 3
        assert "i001/i001.json" in caplog.text

    def test_links_that_are_no_urls_are_passed_over(self, host, static):
        """They keep nothing else from being found."""
        shelve(host, {
            "/c.json": collection("c", item=["http://[x", "i.json"], child=["http://[x", "d.json"]),
            "/i.json": stac_item("i", links=[{"rel": "source", "href": "http://[x"}]),
            "/d.json": catalog("d"),
        })  # fmt: skip
        source = static("/c.json")
        assert source.item(TOP, "i").id == "i"
        assert [item.id for item in source.page(TOP).items] == ["i"]
        assert source.collection("d").id == "d"

    @pytest.mark.parametrize(
        "reply",
        [Reply(404), Reply(403), answer(b"<html>"), answer([1]), answer({"id": "\ud800"})],
    )
    def test_a_page_of_which_nothing_is_good_does_not_keep_from_the_next(self, host, static, reply):
        """It is empty, and counted: the listing goes on, and is known to be short."""
        names = self.many(host, 101)
        for name in names[:100]:
            host.on(f"/{name}/{name}.json", reply)
        source = static("/collection.json")
        page = source.page(TOP)
        assert (page.items, page.matched) == ((), 101)
        assert [item.id for item in source.page(TOP, page.next).items] == ["i100"]

    def test_what_pythons_json_writes_and_reads_is_read(self, host, static):
        """NaN and Infinity become null; a byte order mark is no matter."""
        odd = {"a": float("nan"), "b": [float("-inf")], "c": 1.5}
        item = stac_item("i")
        item["properties"] |= odd
        mark = b"\xef\xbb\xbf"
        host.on("/c.json", answer(mark + json.dumps(collection("c", item=["i.json"])).encode()))
        host.on("/i.json", answer(mark + json.dumps(item).encode()))
        page = static("/c.json").page(TOP)
        properties = json.loads(bytes(page.items[0].document))["properties"]
        assert {key: properties[key] for key in odd} == {"a": None, "b": [None], "c": 1.5}

    def test_a_server_that_fails_is_an_error(self, host, static):
        """What could not be asked for may be there."""
        self.many(host, 3)
        host.on("/i001/i001.json", Reply(503))
        with pytest.raises(Unavailable):
            static("/collection.json").page(TOP)

    def test_a_catalog_that_changes_refuses_the_cursor(self, host, static):
        """The walk begins again, instead of passing over what moved."""
        names = self.many(host, 120)
        source = static("/collection.json", ttl=0.0)
        cursor = source.page(TOP).next
        links = [f"{one}/{one}.json" for one in names[1:]]
        host.on("/collection.json", answer(collection("c", item=links)))
        with pytest.raises(Rejected):
            source.page(TOP, cursor)

    def test_a_catalog_with_more_links_than_are_kept_is_kept_alone(self, host, static, monkeypatch):
        """Or each page would ask for it anew."""
        monkeypatch.setattr(static_module, "_LINKS", 50)
        names = self.many(host, 120)
        assert ids(static("/collection.json"), TOP) == names
        assert asked(host).count("/collection.json") == 1

    def test_another_process_knows_the_cursor(self, host, static):
        """It is kept in the index."""
        names = self.many(host, 120)
        cursor = static("/collection.json").page(TOP).next
        again = static("/collection.json").page(TOP, cursor)
        assert [item.id for item in again.items] == names[100:]


class TestFiles:
    """Files that hold items."""

    def test_an_item_collection_has_its_items(self, host, static):
        """Without another request; in the file's order, each id once."""
        items = [stac_item("b", {"x": "x.tif"}), stac_item("a"), stac_item("b"), {"no": "id"}]
        host.on("/d/items.geojson", answer({"type": "FeatureCollection", "features": items}))
        source = static("/d/items.geojson")
        assert ids(source, TOP) == ["b", "a"]
        assert source.item(TOP, "b").assets[0].href == f"{host.url}/d/x.tif"
        assert source.collection(TOP).is_catalog
        assert asked(host) == ["/d/items.geojson"]

    def test_a_single_item_is_a_catalog_of_one(self, host, static):
        """Named by the file."""
        host.on("/scene.json", answer(stac_item("a")))
        source = static("/scene.json")
        assert ids(source, TOP) == ["a"]
        assert json.loads(source.collection(TOP).document)["id"] == "scene"

    def test_a_geoparquet_has_the_items_of_its_rows(self, host, static, tmp_path):
        """As rustac, which wrote it, reads it."""
        rustac = pytest.importorskip("rustac")
        items = [stac_item(one, {"x": "./x.tif"}) for one in ("b", "a")]
        for one in items:
            one |= {"geometry": {"type": "Point", "coordinates": [9, 47]}, "bbox": [9, 47, 9, 47]}
        rustac.write_sync(str(tmp_path / "items.parquet"), items)
        body = (tmp_path / "items.parquet").read_bytes()
        host.on("/d/items.parquet", Reply(200, {"Content-Type": "application/octet-stream"}, body))
        source = static("/d/items.parquet")
        assert ids(source, TOP) == ["b", "a"]
        assert source.item(TOP, "a").assets[0].href == f"{host.url}/d/x.tif"
        assert source.item(TOP, "a").modified == source.item(TOP, "b").modified > 0

    @pytest.mark.parametrize(
        "body",
        [b"PAR1", b"", b"<html>", b"[]", b"5", b'{"id":"x"}', b'{"links":[]}',
         b'{"id":5,"links":[]}', b'{"features":5}'],
    )  # fmt: skip
    def test_what_is_no_stac_is_a_bad_answer(self, host, static, body):
        """That names the document."""
        host.on("/x.json", answer(body))
        with pytest.raises(BadAnswer, match=r"/x\.json"):
            static("/x.json").collection(TOP)


class TestLinks:
    """Hrefs mean what they meant where they were written."""

    @pytest.mark.promise(
        "Relative links are followed from where a document came from, after redirects."
    )
    def test_a_document_is_settled_at_its_url_after_redirects(self, host, static):
        """Relative links are relative to where the document came from."""
        host.on("/latest", Reply(302, {"Location": "/v7/catalog.json"}))
        shelve(host, {
            "/v7/catalog.json": catalog("root", item=["a/a.json"]),
            "/v7/a/a.json": stac_item("a", {"x": "./x.tif", "y": "/y.tif", "z": "https://h/z.tif"}),
        })  # fmt: skip
        item = static("/latest").item(TOP, "a")
        assert [asset.href for asset in item.assets] == [
            f"{host.url}/v7/a/x.tif", f"{host.url}/y.tif", "https://h/z.tif"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("rel", "href", "expected"),
        [
            ("source", "https://h/cat/s/i/i.json", "../../s/i/i.json"),
            ("source", "../../s/i/i.json", "../../s/i/i.json"),
            ("derived_from", "https://other/s/i.json", "https://other/s/i.json"),
            ("license", "../LICENSE", "https://h/cat/c/LICENSE"),
            ("item", "./a.json", "./a.json"),
            ("license", "http://[oops", "http://[oops"),
        ],
    )
    def test_links_are_settled_by_what_they_lead_to(self, rel, href, expected):
        """To the catalog's own items they are relative, out of it absolute."""
        body = json.dumps(stac_item("a", links=[{"rel": rel, "href": href}])).encode()
        (link,) = json.loads(settle(body, "https://h/cat/c/a/a.json"))["links"]
        assert link["href"] == expected

    @pytest.mark.parametrize(
        "odd",
        [{"links": None}, {"links": 5}, {"links": [5, None, {"rel": 5}, {"href": 5}]},
         {"assets": None}, {"assets": {"a": None, "b": {"href": None}, "c": {"href": 5}, "d": {}}}],
    )  # fmt: skip
    def test_odd_documents_are_settled_as_far_as_they_make_sense(self, odd):
        """What is left over is the reader's to judge."""
        assert json.loads(settle(json.dumps({"id": "a", **odd}).encode(), "https://h/a.json"))

    @pytest.mark.parametrize(
        ("url", "identifier"),
        [
            ("https://h/c/a/a.json", "a"),
            ("https://h/c/a.json?sig=x", "a"),
            ("https://h/c/a/catalog.json", "a"),
            ("https://h/c/a%20b.json", "a b"),
            ("https://h/c/items/a", "a"),
            ("https://h/c/a.b.json", "a.b"),
        ],
    )
    def test_a_link_is_likely_to_have_an_id(self, url, identifier):
        """In the layouts that are in use."""
        assert list(likely(["https://h/other.json", url], identifier)) == [url]


def test_old_documents_tell_their_type_by_what_they_hold(host, static):
    """Before STAC 1.0 there was no `type`."""
    old = collection("old", item=["i.json"])
    del old["type"]
    bare = catalog("bare", child=["old.json"])
    del bare["type"]
    shelve(host, {"/catalog.json": bare, "/old.json": old})
    source = static()
    assert source.collection(TOP).is_catalog
    assert not source.collection("old").is_catalog


def test_documents_are_asked_for_again_after_the_time_to_live(host, static):
    """And not before."""
    shelve(host, NESTED)
    fresh, stale = static(), static(ttl=0.0)
    for _ in range(2):
        fresh.collection(TOP)
    assert asked(host) == ["/catalog.json"]
    for _ in range(2):
        stale.collection(TOP)
    assert asked(host) == ["/catalog.json"] * 2
