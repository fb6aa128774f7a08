"""A collection's mirror: its items out of one file, where that is what the server has."""

import json
import logging

import pytest
from faulty import FaultyServer, Reply
from rooms import Rooms, answer, asked, features, mlhub, stac_collection, stac_item

from mlhubfs.catalog import mirror
from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.index import Index
from mlhubfs.catalog.mirror import Mirror
from mlhubfs.catalog.models import parse_collection
from mlhubfs.catalog.node import TOP
from mlhubfs.catalog.static import StaticCatalog
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers

COLLECTION = "/v1/collections/c"
ITEMS = f"{COLLECTION}/items"
FILE = "/store/items.parquet"


def mirrored(href=FILE, **more):
    """Return a collection's assets, of which one is its mirror."""
    found = {"type": "application/vnd.apache.parquet", "roles": ["collection-mirror"], **more}
    return {"thumbnail": {"href": "t.png"}, "items": {"href": href, **found}}


def item(identifier, href="https://h/{}.tif"):
    """Return an item with all that a table can carry."""
    asset = {"href": href.format(identifier), "type": "image/tiff", "title": "Band", "file:size": 9}
    return stac_item(identifier, {"B02": asset}, **{"eo:cloud_cover": 12.5, "tags": ["x"]}) | {
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "collection": "c",
        "geometry": {"type": "Point", "coordinates": [9.5, 47.25]},
        "bbox": [9.5, 47.25, 9.5, 47.25],
    }


@pytest.fixture
def parquet(tmp_path):
    """Return a function that makes stac-geoparquet of items."""
    rustac = pytest.importorskip("rustac")

    def make(items):
        path = tmp_path / "made.parquet"
        rustac.write_sync(str(path), items)
        return path.read_bytes()

    return make


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(mirror, "_FEW", 4)
    with FaultyServer() as host:
        yield host


@pytest.fixture
def serve(host, parquet):
    """Return a function that has `host` serve items, a mirror of some, and the answer for it."""

    def serve(ids, in_mirror=None, *, assets=None, reply=None, href="https://h/{}.tif"):
        document = stac_collection("c", assets or mirrored(host.url + FILE))
        mlhub(host, {}, {"c": [item(one) for one in ids]}, {"c": document})
        if in_mirror is not None:
            host.on(FILE, reply or Reply(200, {}, parquet([item(one, href) for one in in_mirror])))

    return serve


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def rooms(host, folder):
    with Rooms(host, page_size=2, index=folder / "s.sqlite") as rooms:
        yield rooms


def names(catalog, collection="c"):
    return [one for one, _ in catalog.listing(collection).iterate()]


def read_pages(host):
    """Return how many pages were asked for, and forget all requests."""
    return asked(host).count(ITEMS)


class TestMirror:
    @pytest.mark.promise(
        "With the extra `parquet`, the items of a collection of more than 1000 come from its "
        "mirror (an asset with the role `collection-mirror`, in stac-geoparquet) instead of its "
        "pages."
    )
    def test_a_large_collection_comes_from_its_mirror(self, host, rooms, serve, folder):
        """Behind the first page, in one download; one item is compared. Nothing stays of it."""
        serve("abcdefgh", "hgfedcba")
        assert names(rooms.catalog) == list("abhgfedc")
        assert asked(host) == [ITEMS, COLLECTION, FILE, f"{ITEMS}/h"]
        assert rooms.catalog.problems() == []
        assert not list(folder.glob("tmp*"))

    def test_its_items_are_those_of_the_pages(self, host, rooms, serve, tmp_path):
        """The same stac.json, byte for byte, and without a request."""
        serve("abcdefgh", "abcdefgh")
        assert len(names(rooms.catalog)) == 8
        with Rooms(host, page_size=2, index=tmp_path / "paged.sqlite") as paged:
            serve("abcdefgh", assets={"thumbnail": {"href": "t.png"}})
            assert len(names(paged.catalog)) == 8
            paged.catalog.datasets(), rooms.catalog.datasets()
            asked(host)
            for one in ("b", "h"):
                shown = json.loads(rooms.read(f"/c/{one}/stac.json"))
                assert shown == json.loads(paged.read(f"/c/{one}/stac.json"))
        assert asked(host) == []

    def test_the_first_names_do_not_wait_for_it(self, host, rooms, serve, parquet):
        """Whether there is one is seen behind them."""
        go = host.hold()
        body = parquet([item(one) for one in "abcdefgh"])
        serve("abcdefgh", "abcdefgh", reply=Reply(200, {}, body, hold=go))
        found = rooms.catalog.listing("c").iterate()
        assert next(found)[0] == "a"
        host.wait_for(FILE)
        go.set()
        assert "a" + "".join(one for one, _ in found) == "abcdefgh"

    def test_a_small_collection_comes_by_pages(self, host, rooms, serve):
        """They bring it sooner."""
        serve("abcd", "abcd")
        assert names(rooms.catalog) == list("abcd")
        assert not host.to(FILE)

    @pytest.mark.parametrize(
        "other",
        [{"roles": ["data"]}, {"roles": None}, {"type": "application/json"}, {"href": None},
         {"type": None}, {"type": 5}],
    )  # fmt: skip
    def test_another_asset_is_no_mirror(self, other):
        """It takes the role and the type."""
        document = json.dumps(stac_collection("c", mirrored(**other))).encode()
        assert mirror.mirror_of(parse_collection(document, 0.0)) is None

    def test_the_other_assets_may_be_anything(self):
        """They are no matter of it."""
        document = {**stac_collection("c"), "assets": {"odd": ["x"], **mirrored()}}
        found = mirror.mirror_of(parse_collection(json.dumps(document).encode(), 0.0))
        assert found
        assert found.key == "items"

    def test_its_href_may_be_relative(self, host, rooms, serve):
        """To the collection, as those of its other assets."""
        serve("abcdefgh", "abcdefgh", assets=mirrored("../../store/items.parquet"))
        assert names(rooms.catalog) == list("abcdefgh")
        assert host.to(FILE)

    def test_its_items_may_have_relative_hrefs(self, host, rooms, serve):
        """To the items of the API, as those of its pages."""
        serve("abcdefgh", "abcdefgh", href="../{}.tif")
        mlhub(host, {}, {"c": [item(one, "../{}.tif") for one in "abcdefgh"]},
              {"c": stac_collection("c", mirrored(host.url + FILE))})  # fmt: skip
        assert len(names(rooms.catalog)) == 8
        assert host.to(FILE)
        assert rooms.catalog.problems() == []
        (asset,) = rooms.catalog.item("c", "h").assets
        assert asset.href == f"{host.url}{COLLECTION}/h.tif"

    def test_without_the_library_pages_bring_the_items(
        self, host, rooms, serve, monkeypatch, caplog
    ):
        """And the log says once what is missing."""
        caplog.set_level(logging.INFO, "mlhubfs.catalog")
        monkeypatch.setattr(mirror, "is_readable", lambda: False)
        serve("abcdefgh", "abcdefgh")
        assert names(rooms.catalog) == list("abcdefgh")
        assert [one.levelname for one in caplog.records] == ["INFO"]
        assert "pip install 'mlhubfs[parquet]'" in caplog.text


class TestDoubt:
    @pytest.mark.promise(
        "A mirror is used only if it has as many items as the server counts, and its first is what "
        "the server has."
    )
    @pytest.mark.parametrize("in_mirror", ["abcdefg", "abcdefghi"])
    def test_one_with_another_count_is_not_believed(self, host, rooms, serve, in_mirror, caplog):
        """Nothing of it is stored; pages bring the items, and the log says why."""
        serve("abcdefgh", in_mirror)
        assert names(rooms.catalog) == list("abcdefgh")
        assert rooms.catalog.problems() == []
        assert read_pages(host) > 2
        (line,) = caplog.messages
        assert line == (
            f"c: its mirror has {len(in_mirror)} items, the server counts 8; it is walked by pages"
        )

    @pytest.mark.promise(
        "A mirror is used only if it has as many items as the server counts, and its first is what "
        "the server has."
    )
    def test_one_with_an_item_that_is_gone_is_not_believed(self, rooms, serve, caplog):
        """The first is looked up."""
        serve("abcdefgh", "xabcdefg")
        assert names(rooms.catalog) == list("abcdefgh")
        assert "its mirror has 'x', the server has not" in caplog.text

    @pytest.mark.promise(
        "A mirror is used only if it has as many items as the server counts, and its first is what "
        "the server has."
    )
    def test_one_with_other_links_is_not_believed(self, rooms, serve, caplog):
        """Their files would be others, or none."""
        serve("abcdefgh", "abcdefgh", href="s3://elsewhere/{}.tif")
        assert names(rooms.catalog) == list("abcdefgh")
        assert "the assets of 'a' in its mirror are not those of the server" in caplog.text

    def test_one_that_has_an_item_twice_is_filled_up_by_pages(self, rooms, serve):
        """Its rows are as many, its items are not."""
        serve("abcdefgh", "abcdefgg")
        assert sorted(names(rooms.catalog)) == list("abcdefgh")
        assert rooms.catalog.problems() == []

    @pytest.mark.promise(
        "Where the server does not count, a listing from a mirror is said to be one, and is walked "
        "by pages when it is old."
    )
    def test_one_of_a_server_that_does_not_count_is_shown_and_doubted(self, host, rooms, serve):
        """For it may be older than what it mirrors."""
        serve("abcdefgh", "abcdefghx")
        pages = {None: ("ab", "1"), "1": ("cdefg", "2"), "2": ("h", None)}

        def page(request):
            token = request.query.partition("token=")[2][:1] or None
            ids, following = pages[token]
            link = following and f"{host.url}{ITEMS}?token={following}"
            return answer(features([item(one) for one in ids], link))

        host.on(ITEMS, page)
        assert names(rooms.catalog) == list("abcdefghx")
        (problem,) = rooms.catalog.problems()
        assert problem == "c: perhaps, for it is its mirror's, and the server does not count"
        rooms.catalog.listings.refresh("c")
        assert names(rooms.catalog) == list("abcdefgh")
        assert rooms.catalog.problems() == []

    @pytest.mark.parametrize("reply", [
        Reply(404), Reply(500), Reply(200, {"Content-Type": "text/html"}, b"<html>"),
        Reply(200, {}, b"PAR1 and no more"), Reply(200, {}, bytes(5000), cut=1000),
    ])  # fmt: skip
    def test_a_file_that_cannot_be_read_is_no_trouble(self, rooms, serve, folder, caplog, reply):
        """Pages bring the items; one line says why, and nothing stays of the file."""
        serve("abcdefgh", "", reply=reply)
        assert names(rooms.catalog) == list("abcdefgh")
        assert rooms.catalog.problems() == []
        assert len(caplog.messages) == 1
        assert not list(folder.glob("tmp*"))

    def test_one_for_which_there_is_no_room_is_no_trouble(self, rooms, serve, caplog, monkeypatch):
        """As one that cannot be read."""

        def full(**_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(mirror.tempfile, "TemporaryFile", full)
        serve("abcdefgh", "abcdefgh")
        assert names(rooms.catalog) == list("abcdefgh")
        assert "its mirror cannot be kept meanwhile: [Errno 28] No space left" in caplog.text

    def test_one_that_is_too_large_is_not_fetched(self, rooms, serve, monkeypatch, caplog):
        """Its disk is not ours to fill."""
        monkeypatch.setattr(mirror, "_LIMIT", 1000)
        serve("abcdefgh", "abcdefgh")
        assert names(rooms.catalog) == list("abcdefgh")
        assert caplog.messages == [
            "c: its mirror has more than 1000 bytes; it is walked by pages"
        ]  # fmt: skip


class TestLoading:
    """What it is asked by a walk, one step at a time."""

    def mirror(self, rooms):
        made = Mirror(rooms.api, lambda: rooms.api.collection("c"), rooms.index)
        page = rooms.api.page("c", limit=2)
        assert made.is_worth(page)
        claim = rooms.index.claim("c")
        claim.append(page.items, cursor=page.next, matched=page.matched)
        return made, claim

    def test_it_goes_on_only_while_somebody_waits(self, rooms, serve, monkeypatch):
        """While it is fetched, and while it is stored; what is stored by then stays."""
        serve("abcdefgh", "abcdefgh")
        made, claim = self.mirror(rooms)
        with claim:
            assert not made.load(claim, lambda: False)
            assert claim.walk.count == 2
            monkeypatch.setattr(mirror, "_BATCH", 3)
            answers = iter([True, True, False])  # the download, the first batch, the second
            assert not made.load(claim, lambda: next(answers))
            assert claim.walk.count == 3
            assert claim.walk.cursor

    def test_the_walk_is_touched_while_it_is_fetched_and_counted(self, rooms, serve, monkeypatch):
        """So who waits does not give up: there are no names meanwhile."""
        serve("abcdefgh", "abcdefg")
        monkeypatch.setattr(mirror, "_TOUCHED_SECONDS", -1.0)
        made, claim = self.mirror(rooms)
        with claim:
            with pytest.raises(mirror.BadAnswer):
                made.load(claim, lambda: True)
            assert (claim.walk.pages, claim.walk.count) == (3, 2)
            assert claim.walk.cursor


class TestStatic:
    def test_its_items_lie_where_their_links_lead(self, host, parquet, tmp_path):
        """Hrefs in a row are relative to the item's own document, which is not fetched."""
        ids = "abcdefgh"
        links = [{"rel": "item", "href": f"items/{one}/{one}.json"} for one in ids]
        document = stac_collection("c", mirrored("./items.parquet"), links)
        host.on("/d/collection.json", answer(document))
        rows = [item(one, "./{}.tif") for one in ids]
        host.on("/d/items.parquet", Reply(200, {}, parquet(rows)))
        for one in rows:
            host.on(f"/d/items/{one['id']}/{one['id']}.json", answer(one))
        root = f"{host.url}/d/collection.json"
        transport, workers = Transport(root_url=root, timeout=20), Workers()
        index = Index(tmp_path / "i.sqlite", root=root, strip=bytes)
        source = StaticCatalog(transport, root, fetchers=workers, ttl=300.0)
        catalog = Catalog(source, workers, ttl=300.0, negative_ttl=60.0, index=index, page_size=2)
        try:
            assert names(catalog, TOP) == list(ids)
            assert len([path for path in asked(host) if "/items/" in path]) == 3
            (asset,) = catalog.item(TOP, "h").assets
            assert asset.href == f"{host.url}/d/items/h/h.tif"
            expected = source.item(TOP, "h").document
            assert json.loads(catalog.item(TOP, "h").document) == json.loads(expected)
            assert catalog.problems() == []
        finally:
            for one in (transport, workers, index):
                one.close()
