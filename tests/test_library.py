"""The Python API: `import mlhubfs`, a Catalog, and the values that come out of it."""

import gc
import itertools
import json
import os
import posixpath
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import pytest
import rasterio
from faulty import Asset, FaultyServer, Reply
from rooms import KEY, answer, asked, mlhub, real, stac_collection, stac_item

import mlhubfs
from mlhubfs.catalog.where import Where
from mlhubfs.download.downloader import CONNECTIONS
from mlhubfs.errors import (
    BadCondition,
    Changed,
    ConfigError,
    Denied,
    MlhubfsError,
    NotFound,
    Unavailable,
)
from mlhubfs.library.conditions import of_datasets, of_items
from mlhubfs.server.run import LocalServer

TOKEN = "t0ken" * 70
CHIP = bytes(range(256)) * 40
LABELS = "bigearthnet_v1_labels"
SOURCE = "bigearthnet_v1_source"


def open_catalog(source, folder, **settings):
    settings = {"profile": "__anonymous__", "cache_dir": folder / "cache"} | settings
    return mlhubfs.Catalog(source, **settings)


@pytest.fixture
def host():
    with FaultyServer() as host:
        host.on("/store/B02.tif", Asset(CHIP))
        host.on(f"/v1/download/{TOKEN}", Reply(302, {"Location": "/store/B02.tif"}))
        yield host


@pytest.fixture
def catalog(host, tmp_path):
    """A catalog of `host` that is opened when it is first called."""
    opened = []

    def catalog(**settings):
        opened.append(open_catalog(f"{host.url}/v1", tmp_path, **settings))
        return opened[-1]

    yield catalog
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The bundled sample."""
    folder = tmp_path_factory.mktemp("sample")
    with (
        LocalServer(cache_dir=folder / "server") as server,
        open_catalog(server.root_url, folder) as catalog,
    ):
        yield catalog


def band(host, **more):
    return {
        "href": f"{host.url}/v1/download/{TOKEN}",
        "type": "image/tiff",
        "eo:bands": [{"name": "B02", "common_name": "blue"}],
        **more,
    }


class TestImport:
    """`import mlhubfs`."""

    def test_it_loads_nothing_of_the_api(self):
        """What a program does not name costs it nothing: neither requests nor SQLite."""
        program = "import sys, mlhubfs; print(*sys.modules)"
        loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
        assert "mlhubfs.errors" in loaded
        assert not loaded & {"mlhubfs.library", "mlhubfs.session", "requests", "sqlite3", "logging"}

    def test_it_has_what_it_names(self):
        """Everything in `__all__` is there when it is asked for, and in `dir`."""
        for name in mlhubfs.__all__:
            assert getattr(mlhubfs, name)
            assert name in dir(mlhubfs)

    def test_another_name_is_an_attribute_error(self):
        """As of any module."""
        with pytest.raises(AttributeError, match="'mlhubfs' has no attribute 'Catalogue'"):
            mlhubfs.Catalogue  # noqa: B018


class TestDatasets:
    """`Catalog.datasets` and `Catalog.dataset`."""

    @pytest.fixture
    def three(self, host):
        """Three datasets; the second names a collection twice, with both types."""
        both = ["source_imagery", "labels"]
        told = [
            {"id": "crops", "title": "Crops of Mali", "tags": ["crop type", "sentinel-2"],
             "doi": "10.1/Crops", "collections": [
                 {"id": "c1", "types": ["labels"], "license": "CC-BY-4.0"},
                 {"id": "c2", "types": ["source_imagery"], "license": "CC-BY-4.0"}]},
            {"id": "net", "title": None, "citation": "A. Author: maize and rice", "doi": None,
             "tags": ["sentinel-2"], "collections": [
                 {"id": "c3", "types": both}, {"id": "c3", "types": both}]},
            {"id": "bare", "collections": [{"id": "gone"}, {"id": "c1"}], "citation": 7},
        ]  # fmt: skip
        mlhub(host, {}, loose={"c1": [], "c2": [], "c3": []})
        host.on("/v1/datasets", answer(told))
        return told

    def test_they_come_in_the_servers_order(self, three, catalog):
        """All of them, from one request."""
        assert [one.id for one in catalog().datasets()] == ["crops", "net", "bare"]

    @pytest.mark.parametrize(
        ("asked_for", "found"),
        [
            ({"tags": "sentinel-2"}, ["crops", "net"]),
            ({"tags": ["sentinel-2", "crop type"]}, ["crops"]),
            ({"tags": ["sentinel"]}, []),
            ({"tags": ["Sentinel-2"]}, []),
            ({"text": "MALI"}, ["crops"]),
            ({"text": ["maize", "rice"]}, ["net"]),
            ({"text": "maize rice"}, []),
            ({"text": ["crop"], "tags": ["sentinel-2"]}, ["crops"]),
        ],
    )
    def test_tags_are_exact_and_phrases_are_not(self, three, catalog, asked_for, found):
        """All tags, as they are written; all phrases, in any text and any case."""
        assert [one.id for one in catalog().datasets(**asked_for)] == found

    def test_an_id_or_a_doi_will_do(self, three, catalog):
        """However the DOI is written."""
        opened = catalog()
        for name in ("crops", "10.1/Crops", "doi:10.1/crops", "https://doi.org/10.1/crops"):
            assert opened.dataset(name).id == "crops"

    def test_a_doi_that_the_list_leaves_out_is_asked_for(self, host, three, catalog):
        """As with the servers of 2020."""
        host.on("/v1/datasets/doi/10.2/x", answer({"id": "net"}))
        assert catalog().dataset("10.2/x").id == "net"

    @pytest.mark.parametrize("name", ["crop", "10.1/Crop"])
    def test_one_that_is_not_there_is_named_with_what_is_near(self, three, catalog, name):
        """A typing error is seen at a glance."""
        with pytest.raises(NotFound, match=f"no dataset.*'{name}'.*near: .*rops"):
            catalog().dataset(name)

    def test_fields_of_another_type_are_as_if_missing(self, three, catalog):
        """Servers of all generations, and their slips."""
        bare = catalog().dataset("bare")
        assert (bare.title, bare.tags, bare.citation, bare.date_added) == (None, (), None, None)
        assert bare.document["citation"] == 7

    def test_licences_are_those_of_the_collections(self, three, catalog):
        """Each once."""
        assert catalog().dataset("crops").licences == ("CC-BY-4.0",)

    def test_a_collection_of_both_types_is_in_both_lists(self, three, catalog):
        """And once in the list of all."""
        net = catalog().dataset("net")
        for found in (net.collections, net.source_imagery, net.labels):
            assert [one.id for one in found] == ["c3"]

    def test_lists_by_type(self, three, catalog):
        """Imagery and labels, each for itself."""
        crops = catalog().dataset("crops")
        assert [one.id for one in crops.labels] == ["c1"]
        assert [one.id for one in crops.source_imagery] == ["c2"]

    def test_a_dead_collection_is_passed_over(self, three, catalog, caplog):
        """The log says so."""
        assert [one.id for one in catalog().dataset("bare").collections] == ["c1"]
        assert "something of bare is not there" in caplog.text

    def test_archives_are_summed(self, host, three, catalog):
        """Of those that the server has."""
        host.on("/v1/archive/c1/info", answer({"collection": "c1", "size": 71_138_210_977}))
        host.on("/v1/archive/c2/info", answer({"collection": "c2", "size": 173_029_030}))
        assert catalog().dataset("crops").total_archive_size == 71_311_240_007

    def test_no_archive_has_no_size(self, three, catalog):
        """None, as MLHub's own client said."""
        assert catalog().dataset("crops").total_archive_size is None

    def test_those_recorded_of_mlhub_are_read(self, host, catalog):
        """All 31 of 2022, with what they are found by."""
        host.on("/v1/datasets", Reply(body=real("datasets_2022.json")))
        host.on("/v1/collections", answer({"collections": []}))
        found = catalog().datasets()
        assert len(found) == 31
        assert all(one.title and one.citation and one.date_added for one in found)
        assert catalog().dataset(found[0].doi).doi == found[0].doi


class TestCollections:
    """`Catalog.collections`, `Catalog.collection` and what a Collection tells."""

    @pytest.fixture
    def told(self, host):
        documents = {
            "one": {
                **stac_collection("one", {"doc": {"href": "doc.pdf", "title": "Read me"}}),
                "title": "First",
                "sci:citation": "A. Author: One",
                "keywords": ["maize"],
                "stac_extensions": ["label"],
                "providers": [{"url": f"https://h/mlhub/v1/download/{TOKEN}?key={KEY}"}],
            },
            "two": {"id": "two", "title": None},
        }
        mlhub(host, {"d": {"one": []}}, loose={"two": []}, collections=documents)
        return documents

    def test_what_it_says(self, told, catalog):
        """Field by field."""
        one, two = catalog().collections()
        assert (one.id, one.title, one.license) == ("one", "First", "CC-BY-4.0")
        assert (one.citation, one.keywords) == ("A. Author: One", ("maize",))
        assert (one.extensions, one.types) == (("label",), ("labels",))
        assert (two.id, two.title, two.license, two.types) == ("two", None, None, ())
        assert (one.path, two.path) == ("/d/one", "/two")

    @pytest.mark.parametrize(
        ("word", "found"),
        [("", ["one", "two"]), ("AUTHOR", ["one"]), ("label", ["one"]), ("tw", ["two"])],
    )
    def test_a_word_filters_them(self, told, catalog, word, found):
        """In any of their texts, in any case."""
        assert [one.id for one in catalog().collections(match=word)] == found

    def test_one_costs_a_request(self, host, told, catalog):
        """It is looked up, not listed."""
        opened = catalog()
        asked(host)
        assert opened.collection("one").title == "First"
        assert asked(host) == ["/v1/collections/one"]

    def test_one_that_is_not_there_is_named_with_what_is_near(self, told, catalog):
        """A typing error is seen at a glance."""
        with pytest.raises(NotFound, match=r"no collection 'too' .*near: two"):
            catalog().collection("too")

    def test_its_document_keeps_secrets(self, told, catalog):
        """It is the mount's collection.json: neither key nor token."""
        document = catalog().collection("one").document
        assert document["assets"]["doc"]["href"] == "./_common/doc.pdf"
        assert TOKEN not in str(document)
        assert KEY not in str(document)

    def test_its_own_files_are_assets(self, host, told, catalog):
        """They can be read like an item's."""
        host.on("/v1/collections/doc.pdf", Asset(b"%PDF"))
        with catalog().collection("one").assets["doc"].open() as file:
            assert file.read() == b"%PDF"


class TestItems:
    """`Collection.items`, `Collection.item`, `Item.sources`."""

    def test_conditions_may_be_written_or_told(self, sample):
        """A text, a list of texts, or a dict: the same items."""
        labels = sample.collection(LABELS)
        told = {"labels": ["Coniferous forest", "Rice fields"], "cloud_and_shadow": False}
        texts = ["labels=Coniferous forest|Rice fields", "cloud_and_shadow=false"]
        found = [one.id for one in labels.items(told)]
        assert found == [one.id for one in labels.items(texts)]
        assert 0 < len(found) < len(list(labels.items(texts[0]))) < 24

    def test_place_and_time_are_conditions_too(self, sample):
        """A box, a range with two ends or one."""
        labels = sample.collection(LABELS)
        july = list(labels.items(datetime=(date(2017, 7, 1), date(2017, 7, 31))))
        assert {one.datetime.month for one in july} == {7}
        late = list(labels.items(datetime=(datetime(2018, 1, 1, tzinfo=UTC), None)))
        assert {one.datetime.year for one in late} == {2018}
        there = list(labels.items(bbox=(9, 47, 10, 48), datetime="2017-07-01/2017-07-31"))
        assert 0 < len(there) < len(july)
        assert all(9 <= one.bbox[0] <= 10 for one in there)

    def test_a_limit_ends_the_walk(self, host, catalog):
        """The second page is not asked for."""
        mlhub(host, {"d": {"c": [stac_item(f"i{n}") for n in range(500)]}})
        opened = catalog(page_size=10)
        collection = opened.collection("c")
        asked(host)
        assert [one.id for one in collection.items(limit=3)] == ["i0", "i1", "i2"]
        with pytest.raises(BadCondition, match="limit -1: give a whole number"):
            collection.items(limit=-1)
        assert asked(host).count("/v1/collections/c/items") <= 2  # one may be read ahead

    @pytest.mark.parametrize("limit", [-1, 10**23])
    def test_an_impossible_limit_is_refused(self, sample, limit):
        """With its value and what would do, before anything is asked."""
        collection = sample.collections()[0]
        with pytest.raises(BadCondition, match=f"limit {limit}: give a whole number"):
            collection.items(limit=limit)

    def test_a_bad_condition_is_refused_at_once(self, sample):
        """Not when the first item is taken."""
        with pytest.raises(BadCondition, match="nonsense"):
            sample.collection(LABELS).items("nonsense")

    def test_one_by_its_id_costs_a_request(self, host, catalog):
        """It is looked up, not listed."""
        mlhub(host, {"d": {"c": [stac_item("a"), stac_item("b")]}})
        collection = catalog().collection("c")
        asked(host)
        assert collection.item("b").datetime == datetime(2017, 7, 1, 10, 20, 30, tzinfo=UTC)
        assert asked(host) == ["/v1/collections/c/items/b"]
        with pytest.raises(NotFound):
            collection.item("c")

    def test_what_it_says(self, host, catalog):
        """Properties as they came, bands by both names, links; but no way to the bytes."""
        link = {"rel": "license", "href": "https://h/licence", "title": "Terms"}
        item = stac_item("a", {"B02": band(host, title="Blue", roles=["data"])}, links=[link])
        item["properties"]["platform"] = "Sentinel-2"
        item["bbox"] = [9, 47, 10, 48]
        mlhub(host, {"d": {"c": [item]}})
        found = catalog().collection("c").item("a")
        asset = found.assets["B02"]
        assert (found.collection_id, found.bbox) == ("c", (9, 47, 10, 48))
        assert found.properties["platform"] == "Sentinel-2"
        assert found.links == (mlhubfs.Link("license", "https://h/licence", "Terms"),)
        assert (asset.key, asset.title, asset.media_type) == ("B02", "Blue", "image/tiff")
        assert (asset.roles, asset.bands) == (("data",), (mlhubfs.Band("B02", "blue"),))
        assert asset.path == "/d/c/a/B02.tif"
        for shown in (found, asset, found.document, asset.document, dict(found.assets)):
            assert TOKEN not in repr(shown)

    def test_bands_of_stac_1_1(self, host, catalog):
        """They are called `bands` there, their common name `eo:common_name`."""
        bands = [{"name": "B02", "eo:common_name": "blue"}, {"description": "?"}]
        asset = {"href": "B02.tif", "bands": bands}
        mlhub(host, {"d": {"c": [stac_item("a", {"B02": asset})]}})
        found = catalog().collection("c").item("a").assets["B02"].bands
        assert found == (mlhubfs.Band("B02", "blue"), mlhubfs.Band(None, None))

    def test_its_document_is_the_mounts(self, sample):
        """`stac.json`, byte for byte once it is written so."""
        item = next(sample.collection(LABELS).items())
        tree = sample._access.session.tree
        written = tree.file(f"{item.path}/stac.json").open().read(0, 1 << 20)
        assert json.loads(bytes(written)) == item.document

    def test_values_are_equal_where_they_say_the_same(self, sample):
        """Whenever they were asked for."""
        labels = sample.collection(LABELS)
        first = next(labels.items())
        assert first == labels.item(first.id)
        assert len({first, labels.item(first.id)}) == 1

    def test_sources_are_the_imagery(self, sample):
        """Of the same place and time."""
        item = next(sample.collection(LABELS).items())
        (source,) = item.sources()
        assert source.collection_id == SOURCE
        assert (source.datetime, source.bbox) == (item.datetime, item.bbox)

    def test_a_dead_source_is_passed_over(self, host, catalog, caplog):
        """The log says so; whatever root a link has, its item is looked for here."""
        links = [
            {"rel": "source", "href": f"https://old/v1/collections/s/items/{name}"}
            for name in ("gone", "i-1")
        ]
        mlhub(host, {"d": {"l": [stac_item("x", links=links)], "s": [stac_item("i-1")]}})
        found = catalog().collection("l").item("x").sources()
        assert [one.id for one in found] == ["i-1"]
        assert "something of x is not there" in caplog.text


class TestAssets:
    """`Asset.open`, `Asset.size`, `Asset.download`."""

    @pytest.fixture
    def asset(self, host, catalog):
        mlhub(host, {"d": {"c": [stac_item("a", {"B02": band(host), "far": "hdfs://b/x.tif"})]}})
        return catalog().collection("c").item("a").assets["B02"]

    def test_it_is_a_seekable_file(self, asset):
        """Read, seek from all three places, tell, read on at the end."""
        with asset.open() as file:
            assert file.readable()
            assert file.seekable()
            assert not file.writable()
            assert file.read(10) == CHIP[:10]
            assert file.seek(-20, os.SEEK_END) == len(CHIP) - 20
            assert file.read() == CHIP[-20:]
            assert file.read(1) == b""
            file.seek(5)
            file.seek(2, os.SEEK_CUR)
            assert (file.tell(), file.read(3)) == (7, CHIP[7:10])
            file.seek(0)
            assert file.read() == CHIP

    def test_a_closed_file_is_refused(self, asset):
        """As of any file."""
        file = asset.open()
        file.close()
        with pytest.raises(ValueError, match="closed"):
            file.read()

    def test_a_position_before_the_file_is_refused(self, asset):
        """As of any file."""
        with asset.open() as file, pytest.raises(ValueError, match="before the file"):
            file.seek(-1)

    def test_what_was_read_is_not_asked_for_again(self, host, asset):
        """The second open comes from the cache, and so does the size."""
        asset.open().read()
        host.requests.clear()
        assert asset.open().read() == CHIP
        assert asset.size == len(CHIP)
        assert asked(host) == []

    def test_rasterio_opens_it(self, sample):
        """As a file object, without a mount."""
        item = next(sample.collection(SOURCE).items())
        with item.assets["B04"].open() as file, rasterio.open(file) as raster:
            assert raster.shape == (120, 120)
            assert raster.read(1).any()

    def test_a_replaced_file_is_noticed(self, host, asset):
        """Right bytes of one version, or an error."""
        big = CHIP * 1000
        host.on("/store/B02.tif", Asset(big), Asset(big[::-1], etag='"v2"'))
        with asset.open() as file:
            file.seek(len(big) // 2)
            with pytest.raises(Changed):
                file.read(10)

    def test_one_of_an_unknown_scheme_is_listed_and_cannot_be_opened(self, asset, catalog):
        """It is in the item, but nothing here can read it."""
        far = catalog().collection("c").item("a").assets["far"]
        assert far.path is None
        for act in (far.open, far.download, lambda: far.size):
            with pytest.raises(NotFound, match="'far'"):
                act()

    def test_a_download_goes_into_a_folder_or_a_file(self, asset, tmp_path):
        """Folders are made; a name that ends in a slash is one."""
        there = tmp_path / "there"
        there.mkdir()
        assert asset.download(there) == there / "B02.tif"
        assert asset.download(f"{tmp_path}/new/") == tmp_path / "new" / "B02.tif"
        assert asset.download(tmp_path / "blue.tif") == tmp_path / "blue.tif"
        for path in (there / "B02.tif", tmp_path / "new" / "B02.tif", tmp_path / "blue.tif"):
            assert path.read_bytes() == CHIP

    def test_downloads_share_their_connections(self, host, asset, tmp_path):
        """As many threads as there are leave none to others."""
        hold = host.hold()
        host.on("/store/B02.tif", Asset(CHIP, hold=hold))
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            done = [pool.submit(asset.download, tmp_path / str(n)) for n in range(CONNECTIONS)]
            host.wait_for("/store/B02.tif", CONNECTIONS)
            is_one_left = asset._access.session.downloader._slots.acquire(blocking=False)
            hold.set()
        assert not is_one_left
        assert all(one.result().read_bytes() == CHIP for one in done)

    def test_a_download_that_fails_leaves_what_was_there(self, host, asset, tmp_path):
        """Whole, or as before: no half of a file under its name."""
        target = tmp_path / "out" / "B02.tif"
        target.parent.mkdir()
        target.write_bytes(b"before")
        host.on("/store/B02.tif", Reply(410))
        with pytest.raises(NotFound):
            asset.download(target, if_exists="overwrite")
        assert target.read_bytes() == b"before"
        assert asset.download(target, if_exists="skip").read_bytes() == b"before"
        with pytest.raises(ValueError, match="'x': give one of resume, skip, overwrite"):
            asset.download(target, if_exists="x")
        host.on("/store/B02.tif", Asset(CHIP))
        assert asset.download(target, if_exists="overwrite").read_bytes() == CHIP


class TestNames:
    """`Catalog.at` and `Catalog.find`."""

    ITEM = f"bigearthnet_v1/{LABELS}/{LABELS}_S2A_MSIL2A_20170701T093031_65_62"

    @pytest.mark.parametrize(
        ("path", "kind", "identity"),
        [
            ("/bigearthnet_v1", mlhubfs.Dataset, "bigearthnet_v1"),
            ("//bigearthnet_v1/./dataset.json", mlhubfs.Dataset, "bigearthnet_v1"),
            (f"bigearthnet_v1/{LABELS}/", mlhubfs.Collection, LABELS),
            (f"/bigearthnet_v1/{LABELS}/collection.json", mlhubfs.Collection, LABELS),
            (ITEM, mlhubfs.Item, ITEM.rpartition("/")[2]),
            (f"{ITEM}/stac.json", mlhubfs.Item, ITEM.rpartition("/")[2]),
        ],
    )
    def test_a_path_of_the_mount_names_a_thing(self, sample, path, kind, identity):
        """A directory, or the document that describes it."""
        found = sample.at(path)
        assert (type(found), found.id) == (kind, identity)

    def test_a_path_of_a_file_names_an_asset(self, sample):
        """The one with those bytes."""
        found = sample.at(f"{self.ITEM}/labels.geojson")
        assert isinstance(found, mlhubfs.Asset)
        assert json.loads(found.open().read())["type"] == "FeatureCollection"

    def test_a_file_of_a_view_is_the_asset_where_it_stands(self, sample):
        """A view's path is not its own."""
        folder, item = posixpath.split(self.ITEM)
        found = sample.at(f"{folder}/@where/datetime>=2000-01-01/{item}/labels.geojson")
        assert found == sample.at(f"{self.ITEM}/labels.geojson")

    @pytest.mark.parametrize("path", ["/", "", "/README.txt", "/nope", f"{ITEM}/nope.tif"])
    def test_other_paths_are_refused(self, sample, path):
        """The root, and what is not there."""
        with pytest.raises(NotFound):
            sample.at(path)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("bigearthnet_v1", mlhubfs.Dataset),
            ("10.5072/mlhubfs.sample-bigearthnet", mlhubfs.Dataset),
            (LABELS, mlhubfs.Collection),
            (ITEM, mlhubfs.Item),
        ],
    )
    def test_a_name_is_an_id_a_doi_or_a_path(self, sample, name, kind):
        """Whichever it is."""
        assert isinstance(sample.find(name), kind)

    def test_an_unknown_name_is_told_with_what_is_near(self, sample):
        """Datasets and collections alike."""
        with pytest.raises(NotFound, match=f"near: bigearthnet_v1, .*{LABELS}"):
            sample.find("bigearthnet_v1_")


class TestOtherSources:
    """A STAC API, which has collections and nothing above them; and no source at all."""

    @pytest.fixture
    def stac(self, host):
        mlhub(host, {}, loose={"c": [stac_item("a", {"B02": band(host)})]})
        host.on("/v1/datasets", Reply(404))

    def test_a_stac_api_has_collections_only(self, stac, catalog):
        """They stand at the root; asking for datasets finds none."""
        opened = catalog()
        assert opened.datasets() == []
        (collection,) = opened.collections()
        (item,) = collection.items()
        assert (item.path, item.assets["B02"].path) == ("/c/a", "/c/a/B02.tif")
        assert opened.at("/c/a/B02.tif").open().read() == CHIP
        with pytest.raises(NotFound, match="no dataset 'c'"):
            opened.dataset("c")

    def test_what_was_asked_for_once_is_there_offline(self, host, stac, catalog):
        """Collections, items and bytes, without a request."""
        opened = catalog()
        opened.collections()
        for item in opened.collection("c").items():
            item.assets["B02"].open().read()
        opened.close()
        host.requests.clear()
        offline = catalog(offline=True)
        (item,) = offline.collection("c").items("datetime=2017-07-01")
        assert item.assets["B02"].open().read() == CHIP
        assert asked(host) == []


class TestLifetime:
    """When a catalog is open, and for whom."""

    @pytest.fixture(autouse=True)
    def one(self, host):
        mlhub(host, {"d": {"c": [stac_item("a", {"B02": band(host)})]}})

    def test_a_source_that_does_not_answer_is_told_at_once(self, host, catalog):
        """Not at the first item."""
        host.on("/v1/datasets", Reply(503))
        with pytest.raises(Unavailable):
            catalog(timeout=0.5)

    def test_the_environment_is_asked_as_by_a_mount(self, host, tmp_path, monkeypatch):
        """MLHUB_ROOT_URL, MLHUB_API_KEY, MLHUBFS_CACHE_DIR."""
        monkeypatch.setenv("MLHUB_ROOT_URL", f"{host.url}/v1/")
        monkeypatch.setenv("MLHUB_API_KEY", KEY)
        monkeypatch.setenv("MLHUBFS_CACHE_DIR", str(tmp_path))
        with mlhubfs.Catalog() as catalog:
            assert catalog.source == f"{host.url}/v1"
            assert KEY not in repr(catalog)
        assert host.requests[0].headers["authorization"] == f"Bearer {KEY}"

    def test_a_key_may_be_given(self, host, catalog):
        """It comes before the environment's."""
        catalog(api_key=KEY, profile=None)
        assert host.requests[0].headers["authorization"] == f"Bearer {KEY}"

    def test_a_setting_is_the_mounts(self, host, catalog):
        """By the names of `-o`; what is none is refused."""
        with pytest.raises(ConfigError, match="neither an http"):
            mlhubfs.Catalog("ftp://h")
        with pytest.raises(ConfigError, match="unknown option 'colour'"):
            catalog(colour="blue")

    def test_what_is_no_text_names_nothing(self, catalog):
        """None, of a variable that is not set, and a number."""
        opened = catalog()
        asked = (opened.dataset, opened.collection, opened.find, opened.at)
        for ask in (*asked, opened.collection("c").item):
            for name in (None, 5):
                with pytest.raises(NotFound, match=f"{name} names nothing: give a text"):
                    ask(name)

    def test_a_refused_key_is_told_at_once(self, host, catalog):
        """With a key that is no good."""
        host.on("/v1/collections/c/items/c", Reply(401))
        with pytest.raises(Denied):
            catalog(api_key=KEY, profile=None)

    def test_a_closed_catalog_refuses(self, catalog):
        """And so do the values that came out of it, in words."""
        with catalog() as opened:
            collection = opened.collection("c")
        for act in (opened.datasets, lambda: collection.item("a"), collection.items):
            with pytest.raises(MlhubfsError, match="is closed"):
                act()
        opened.close()  # a second time does nothing

    def test_what_came_out_of_a_catalog_keeps_it_open(self, host, tmp_path):
        """Nobody has to hold on to the Catalog itself; when nothing is left, it closes."""
        asset = open_catalog(f"{host.url}/v1", tmp_path).collection("c").item("a").assets["B02"]
        gc.collect()
        assert asset.open().read() == CHIP
        closing = asset._access._closing
        del asset
        gc.collect()
        assert not closing.alive

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_reads_on(self, catalog):
        """A DataLoader's worker inherits no threads, and opens a session of its own."""
        item = catalog().collection("c").item("a")
        file = item.assets["B02"].open()
        assert file.read(10) == CHIP[:10]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                is_right = file.read() == CHIP[10:] and item.assets["B02"].open().read() == CHIP
                code = 0 if is_right else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert file.read() == CHIP[10:]


class TestConditions:
    """Python's values as conditions."""

    @pytest.mark.parametrize(
        ("asked_for", "written"),
        [
            (("a=1", None, None), ["a=1"]),
            ((["a=1", "b<2"], None, None), ["a=1", "b<2"]),
            (
                ({"a": [1, "x|y"], "b": True}, None, None),
                ["a=1|x%7Cy", "b=true"],
            ),
            (((), (9, 47.5, 10, 48), None), ["bbox=9,47.5,10,48"]),
            (((), "9,47.5,10,48", None), ["bbox=9,47.5,10,48"]),
            (((), None, "2017-07-01"), ["datetime=2017-07-01"]),
            (((), None, date(2017, 7, 1)), ["datetime=2017-07-01"]),
            (((), None, (None, date(2017, 7, 1))), ["datetime=..2017-07-01"]),
            (((), None, ("2017-07-01", None)), ["datetime=2017-07-01.."]),
        ],
    )
    def test_they_are_what_would_be_written(self, asked_for, written):
        """In a path, or on the command line."""
        assert of_items(*asked_for) == Where.parse(written)

    def test_tags_and_phrases_are_one_condition_each(self):
        """All must hold."""
        assert of_datasets(["a", "b|c"], "d e") == Where.parse(["tags=a", "tags=b%7Cc", "text=d e"])


class TestStatic:
    """A nested static catalog, in a folder."""

    def test_what_is_nested_is_found_and_read(self, tmp_path):
        """By path and by search; its documents, its bytes, and where the links of a view lead."""
        parts = {
            "catalog.json": ({"type": "Catalog", "id": "root"}, ("child", "a/catalog.json")),
            "a/catalog.json": ({"type": "Catalog", "id": "a"}, ("child", "c/collection.json")),
            "a/c/collection.json": (stac_collection("c"), ("item", "x.json")),
            "a/c/x.json": (stac_item("x", {"B02": "./x.tif"}), None),
        }
        for path, (document, link) in parts.items():
            more = {"description": "", "stac_version": "1.0.0"}
            if link:
                more["links"] = [dict(zip(("rel", "href"), link, strict=True))]
            file = tmp_path / "folder" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({**document, **more}))
        (tmp_path / "folder/a/c/x.tif").write_bytes(CHIP)
        with open_catalog(str(tmp_path / "folder"), tmp_path) as catalog:
            (collection,) = catalog.collections()
            assert (collection.path, collection.document["id"]) == ("/a/c", "c")
            (found,) = collection.items("datetime=..2100-01-01")
            assert found == catalog.at("/a/c/x")
            assert (found.path, found.document["id"]) == ("/a/c/x", "x")
            assert found.assets["B02"].open().read() == CHIP
            assert found.assets["B02"].download(tmp_path / "copy.tif").read_bytes() == CHIP
            assert catalog.at("/a/c/@where/datetime=..2100-01-01/x") == found

    def test_it_may_be_deeper_than_pythons_stack(self, tmp_path):
        """One thousand and one catalogs, each the child of the one before."""
        (tmp_path / "folder").mkdir()
        names = ["catalog.json", *(f"{number}.json" for number in range(1, 1002))]
        for name, child in itertools.pairwise([*names, None]):
            document = {"type": "Catalog", "stac_version": "1.0.0", "id": "a", "description": ""}
            links = [{"rel": "child", "href": child}] if child else []
            (tmp_path / "folder" / name).write_text(json.dumps({**document, "links": links}))
        with open_catalog(str(tmp_path / "folder"), tmp_path) as catalog:
            (deepest,) = catalog.collections()
            assert deepest.path == "/a" * 1001
            assert catalog.at(deepest.path) == deepest
