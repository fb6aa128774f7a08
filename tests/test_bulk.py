"""A dataset's catalog file: the stream of a tar, its limits, and items out of it."""

import gzip
import io
import json
import tarfile

import hypothesis.strategies as st
import pytest
from faulty import FaultyServer, Reply
from hypothesis import given, settings
from rooms import Rooms, answer, asked, mlhub, stac_item

from mlhubfs.catalog import bulk
from mlhubfs.catalog.tarball import MOST_BYTES, files
from mlhubfs.errors import BadAnswer

ITEMS = "/v1/collections/c/items"
TOKEN = "dGhpcyBpcyBhIHRva2Vu" * 16


def tar(members, *, form=tarfile.PAX_FORMAT, kinds=None):
    """Return a gzipped tar of name -> bytes, as Python writes it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.type = (kinds or {}).get(name, tarfile.REGTYPE)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def unpack(packed, is_wanted=lambda _: True, piece=1 << 20):
    stream = io.BytesIO(packed)
    return dict(files(lambda size: stream.read(min(size, piece)), is_wanted))


class TestTar:
    @settings(deadline=None, max_examples=60)
    @given(
        members=st.dictionaries(
            st.text(st.characters(codec="utf-8", exclude_characters="\0/\n"), min_size=1,
                    max_size=150).map(lambda name: f"d/c/{name}/{name[:90]}.json"),
            st.binary(max_size=2000), max_size=6),
        form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
        piece=st.sampled_from([1, 7, 511, 1 << 20]),
    )  # fmt: skip
    def test_what_pythons_tarfile_wrote_is_read(self, members, form, piece):
        """Names of any length in either format, files of any size, pieces of any size."""
        assert unpack(tar(members, form=form), piece=piece) == members

    def test_ustar_prefixes(self):
        """Recorded paths have up to 251 characters, which ustar splits in two."""
        name = "d/" + "c" * 60 + "/" + "i" * 80 + "/" + "i" * 80 + ".json"
        assert unpack(tar({name: b"x"}, form=tarfile.USTAR_FORMAT)) == {name: b"x"}

    def test_what_is_no_file_or_not_wanted_is_passed_over(self):
        """Links, folders, and members that nobody asked for."""
        packed = tar({"a": b"", "b": b"1", "c": b"2"}, kinds={"a": tarfile.DIRTYPE})
        assert unpack(packed, lambda path: path != "b") == {"c": b"2"}
        assert unpack(tar({"l": b""}, kinds={"l": tarfile.SYMTYPE})) == {}

    @pytest.mark.parametrize("harm", [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: b"not gzip at all",
        lambda packed: b"",
        lambda packed: gzip.compress(b"no tar" * 1000),
        lambda packed: gzip.compress(gzip.decompress(packed)[:1024]),
    ])  # fmt: skip
    def test_a_damaged_file_is_an_error(self, harm):
        """Cut, foreign, or neither: never taken for the end."""
        with pytest.raises(BadAnswer):
            unpack(harm(tar({"a": b"x" * 5000, "b": b"y" * 5000})))

    def test_a_damaged_header_is_an_error(self):
        """Neither taken for a file of another name, nor for the end."""
        data = bytearray(gzip.decompress(tar({"d/c/a/a.json": b"1", "d/c/b/b.json": b"2"})))
        data[data.index(b"b.json")] = ord("x")
        with pytest.raises(BadAnswer, match="damaged"):
            unpack(gzip.compress(data))

    def test_a_negative_size_is_an_error(self):
        """It would lead back to its own header, for ever."""
        header = bytearray(tarfile.TarInfo("d/c/a/a.json").tobuf())
        header[124:136] = b"-0000001000\0"
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        with pytest.raises(BadAnswer, match="damaged"):
            unpack(gzip.compress(header + bytes(1024)), lambda _: False)

    def test_a_huge_member_is_passed_over(self):
        """Whatever it is, it is no item; it is not held in memory either."""
        packed = tar({"a": bytes(MOST_BYTES + 1), "b": b"1"})
        assert unpack(packed) == {"b": b"1"}

    def test_a_bomb_is_not_read_to_its_end(self):
        """A thousandfold expansion is no catalog."""
        header = tarfile.TarInfo("a")
        header.size = 1 << 30
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb") as file:
            file.write(header.tobuf())
            for _ in range(200):
                file.write(bytes(1 << 20))
        with pytest.raises(BadAnswer, match="compressed beyond belief"):
            unpack(packed.getvalue())


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(bulk, "_FEW", 4)
    with FaultyServer() as host:
        yield host


def link(host):
    return f"{host.url}/v1/download/{TOKEN}"


def archived(identifier):
    """Return an item as the catalog file has it."""
    item = stac_item(identifier, {"B02": "https://storage.invalid/B02.tiff"})
    item["links"] = [{"rel": "license", "href": "https://licence.example/by"}]
    return item


def serve(host, ids, in_file=None, *, more=None, reply=None):
    """Have `host` serve a collection by pages and, if `in_file` is given, by its catalog file."""
    mlhub(host, {"d": {"c": [stac_item(one, {"B02": link(host)}) for one in ids], "e": []}})
    if in_file is not None:
        members = {f"d/c/{one}/{one}.json": json.dumps(archived(one)).encode() for one in in_file}
        junk = {"d/catalog.json": b"{}", "d/c/collection.json": b"{}", "d/c/a/._a.json": b"junk",
                "d/c/a/B02.tif": b"II*", "d/c/.DS_Store": b"x", "d/x/a/a.json": b"{}"}  # fmt: skip
        host.on("/v1/catalog/d/info", answer({"dataset": "d"}))
        host.on("/v1/catalog/d", Reply(302, {"Location": "/catalogs/d.tar.gz"}))
        body = tar(junk | members | (more or {}))
        host.on("/catalogs/d.tar.gz", reply or Reply(200, {}, body))


def names(rooms, collection="c"):
    rooms.catalog.datasets()
    return [one for one, _ in rooms.catalog.listing(collection).iterate()]


@pytest.fixture
def rooms(host, tmp_path):
    with Rooms(host, page_size=2, index=tmp_path / "i" / "s.sqlite") as rooms:
        yield rooms


class TestCatalogFile:
    def test_a_large_collection_comes_from_the_file(self, host, rooms):
        """Behind the first page everything comes in one download; junk members are skipped."""
        serve(host, "abcdefgh", "abcdefgh")
        assert names(rooms) == list("abcdefgh")
        assert asked(host)[1:] == [
            ITEMS,
            "/v1/catalog/d/info",
            "/v1/catalog/d",
            "/catalogs/d.tar.gz",
        ]
        assert rooms.catalog.problems() == []

    def test_the_first_names_do_not_wait_for_the_file(self, host, rooms):
        """Whether there is one is asked behind them."""
        serve(host, "abcdefgh", "abcdefgh")
        go = host.hold()
        host.on("/v1/catalog/d/info", answer({"dataset": "d"}, hold=go))
        rooms.catalog.datasets()
        found = rooms.catalog.listing("c").iterate()
        assert next(found)[0] == "a"
        host.wait_for("/v1/catalog/d/info")
        go.set()
        assert "a" + "".join(one for one, _ in found) == "abcdefgh"

    def test_a_small_collection_comes_by_pages(self, host, rooms):
        """The file has all of the dataset: it is not worth it for some pages."""
        serve(host, "abcd", "abcd")
        assert names(rooms) == list("abcd")
        assert not host.to("/v1/catalog/d/info")

    def test_a_source_without_the_file(self, host, rooms):
        """One request tells, and pages bring the rest."""
        serve(host, "abcdefgh")
        assert names(rooms) == list("abcdefgh")
        assert asked(host)[1:] == [ITEMS, "/v1/catalog/d/info", ITEMS, ITEMS, ITEMS]

    def test_an_item_from_the_file_has_the_names_of_the_api(self, host, rooms):
        """Its asset links are cut: they are of no use without a permission, and end otherwise.

        Other links stay; the bytes cost one request for the item, with its download link.
        """
        serve(host, "abcdefgh", "abcdefgh")
        host.on("/v1/download/" + TOKEN, Reply(200, {}, b"tiff"))
        assert names(rooms) == list("abcdefgh")
        asked(host)
        directory = rooms.tree.directory("/d/c/h")
        assert [one.name for one in directory.children()(0)] == ["stac.json", "B02.tif"]
        document = json.loads(rooms.read("/d/c/h/stac.json"))
        assert document["links"][-1]["href"] == "https://licence.example/by"
        assert asked(host) == []
        assert rooms.read("/d/c/h/B02.tif") == b"tiff"
        assert asked(host) == [f"{ITEMS}/h", f"/v1/download/{TOKEN}"]

    def test_what_the_file_lacks_comes_by_pages(self, host, rooms):
        """It may be older than the collection."""
        serve(host, "abcdefgh", "abcde")
        assert sorted(names(rooms)) == list("abcdefgh")
        assert rooms.catalog.problems() == []

    def test_what_the_file_has_too_much_is_a_problem(self, host, rooms, caplog):
        """Items that the API no longer lists are told of; the next walk is by pages, and exact."""
        serve(host, "abcdefgh", "abcdefghxy")
        assert sorted(names(rooms)) == list("abcdefghxy")
        assert "and 2 more before" in rooms.catalog.problems()[0]
        rooms.catalog.listings.refresh("c")
        assert names(rooms) == list("abcdefgh")
        assert rooms.catalog.problems() == []

    @pytest.mark.parametrize("reply", [
        Reply(404), Reply(500), Reply(200, {"Content-Type": "text/html"}, b"<html>"),
        Reply(200, {}, b"no gzip"), Reply(200, {}, tar({"d/c/a/a.json": b"{}"})[:60]),
        Reply(200, {}, bytes(5000), cut=1000),
    ])  # fmt: skip
    def test_a_file_that_cannot_be_read_is_no_trouble(self, host, rooms, reply):
        """Pages bring what it did not."""
        serve(host, "abcdefgh", "", reply=reply)
        assert names(rooms) == list("abcdefgh")
        assert rooms.catalog.problems() == []

    def test_the_other_collections_of_the_dataset_come_along(self, host, rooms):
        """Their listing needs no request then."""
        others = {f"d/e/{one}/{one}.json": json.dumps(archived(one)).encode() for one in "xyz"}
        serve(host, "abcdefgh", "abcdefgh", more=others)
        assert names(rooms) == list("abcdefgh")
        asked(host)
        rooms.network.once("settle", lambda: None)
        listing = rooms.catalog.listing("e")
        assert listing.reach(2)
        assert names(rooms, "e") == list("xyz")
        assert asked(host) == []

    def test_links_that_are_no_download_links_keep_the_file_away(self, host, rooms):
        """Then names and links of the file would be others than those of the API."""
        serve(host, "abcdefgh", "abcdefgh")
        mlhub(host, {"d": {"c": [stac_item(one, {"B02": f"/{one}.tif"}) for one in "abcdefgh"]}})
        assert names(rooms) == list("abcdefgh")
        assert not host.to("/v1/catalog/d/info")
