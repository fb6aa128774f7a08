"""Static catalogs and STAC APIs that others wrote, mounted: the same items, names and bytes."""

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import tarfile
from dataclasses import replace
from pathlib import Path

import pystac
import pytest
from mounted import fails, names
from rooms import real, stac_collection, stac_item
from servers import http_server, rustac, starlette

from mlhubfs.config import Config
from mlhubfs.session import open_session

WHEN = "2017-07-01T10:20:30Z"


def published(folder, url=None):
    """Write a catalog with pystac, three levels deep, and return its items: path -> asset -> bytes.

    The paths are those of a mount. With a `url`, the links are absolute, and below it.
    """
    root = pystac.Catalog("root", "Three levels", title="Root")
    years = pystac.Catalog("2020", "A year")
    root.add_child(years)
    expected = {}
    for parent, identifier, above in ((root, "top", ""), (years, "deep c%", "2020/")):
        collection = pystac.Collection.from_dict(stac_collection(identifier))
        parent.add_child(collection)
        for number in range(3):
            item = pystac.Item.from_dict(stac_item(f"{identifier[0]}-{number}"))
            collection.add_item(item)
            data = f"bytes of {item.id}\n".encode() * 1000
            name = identifier.replace("%", "%25")
            expected[f"{above}{name}/{item.id}"] = {"data.tif": data}
    base = url or str(folder)
    root.normalize_hrefs(base)
    for item in root.get_items(recursive=True):
        path = Path(item.get_self_href().replace(base, str(folder))).with_name("scene.tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"bytes of {item.id}\n".encode() * 1000)
        item.add_asset("data", pystac.Asset("./scene.tif", media_type="image/tiff"))
    kinds = pystac.CatalogType
    root.save(kinds.ABSOLUTE_PUBLISHED if url else kinds.SELF_CONTAINED, dest_href=str(folder))
    return expected


@pytest.fixture
def folder(tmp_path):
    """An empty folder for a catalog."""
    (tmp_path / "published").mkdir()
    return tmp_path / "published"


def shown(path):
    """Return the items below a mount: path -> file -> bytes, without the documents."""
    return {
        os.path.relpath(folder, path): {
            file: Path(folder, file).read_bytes() for file in files if file != "stac.json"
        }
        for folder, _, files in os.walk(path)
        if "stac.json" in files
    }


@pytest.mark.parametrize("kind", ["folder", "document", "tar.gz", "http.server", "starlette"])
def test_a_published_catalog_is_shown_as_it_is(mounted, folder, kind):
    """Its items, names and bytes, from wherever it is; and again offline."""
    expected = published(folder)
    if kind in {"http.server", "starlette"}:
        serve = http_server if kind == "http.server" else starlette
        with serve(folder) as url, mounted(f"{url}/catalog.json") as mount:
            assert shown(mount.path) == expected
        return
    source = {"folder": folder, "document": folder / "catalog.json"}.get(kind)
    if source is None:
        source = folder.with_name("x.tar.gz")
        with tarfile.open(source, "w:gz") as archive:
            archive.add(folder, "anything")
    with mounted(str(source)) as mount:
        assert shown(mount.path) == expected


def test_links_may_be_absolute(mounted, folder):
    """A published catalog names its own URLs."""
    with http_server(folder) as url:
        expected = published(folder, url)
        assert f"{url}/2020/catalog.json" in (folder / "catalog.json").read_text()
        with mounted(f"{url}/catalog.json") as mount:
            assert shown(mount.path) == expected


def test_it_is_shown_on_each_libfuse(mounted, binding, folder):
    """The levels, in the order of the links."""
    published(folder)
    with mounted(str(folder), binding=binding) as mount:
        assert names(mount.path) == ["README.txt", "catalog.json", "2020", "top"]
        assert names(mount.path / "2020") == ["catalog.json", "deep c%25"]
        assert names(mount.path / "2020" / "deep c%25") == ["collection.json", "d-0", "d-1", "d-2"]
        assert names(mount.path / "2020" / "deep c%25" / "d-0") == ["stac.json", "data.tif"]
        assert "static catalog" in (mount.path / "README.txt").read_text()
        with fails(errno.ENOENT):
            (mount.path / "2020" / "nope").stat()


def test_the_mount_is_a_self_contained_catalog(mounted, folder):
    """pystac walks it by its links, from the root to the bytes, and they are valid."""
    expected = published(folder)
    with mounted(str(folder)) as mount:
        root = pystac.Catalog.from_file(str(mount.path / "catalog.json"))
        items = list(root.get_items(recursive=True))
        assert len(items) == len(expected)
        for item in items:
            assert item.get_root().id == "root"
            assert item.get_collection().id in {"top", "deep c%"}
            data = Path(item.assets["data"].get_absolute_href()).read_bytes()
            assert data == f"bytes of {item.id}\n".encode() * 1000
        for path in mount.path.rglob("*.json"):
            for link in json.loads(path.read_bytes())["links"]:
                assert (path.parent / link["href"]).exists(), (path, link)


@pytest.mark.promise("A static catalog that was listed is there offline.")
def test_what_was_listed_is_there_offline(mounted, folder):
    """From the index and the cache, without the server."""
    expected = published(folder)
    with http_server(folder) as url, mounted(f"{url}/catalog.json") as mount:
        assert shown(mount.path) == expected
        mount.unmount()
        shutil.rmtree(folder)
        mount.mount("offline")
        assert shown(mount.path) == expected


@pytest.mark.promise("Nothing outside of a local catalog's folder is read, symbolic links or not.")
def test_a_local_catalog_does_not_show_the_rest_of_the_disk(mounted, folder):
    """Neither by `..` nor by a link; the file is named, and refused."""
    secret = folder.with_name("secret.tif")
    secret.write_bytes(b"secret")
    (folder / "link.tif").symlink_to(secret)
    (folder / "mine.tif").write_bytes(b"mine")
    hrefs = {"up": "../secret.tif", "link": "./link.tif", "mine": "mine.tif",
             "absolute": secret.as_uri(), "passwd": "/etc/passwd"}  # fmt: skip
    (folder / "x.json").write_text(json.dumps(stac_item("a", hrefs)))
    with mounted(str(folder / "x.json")) as mount:
        assert (mount.path / "a" / "mine.tif").read_bytes() == b"mine"
        for name in ("up.tif", "link.tif", "absolute.tif"):
            with fails(errno.EACCES):
                (mount.path / "a" / name).read_bytes()


@pytest.mark.promise("A catalog on a server never names a file of this machine.")
def test_a_remote_catalog_shows_no_local_file(mounted, folder):
    """Its `file:` asset stays in stac.json, and is no file."""
    secret = folder.with_name("secret.tif")
    secret.write_bytes(b"secret")
    (folder / "x.json").write_text(json.dumps(stac_item("a", {"s": secret.as_uri()})))
    with http_server(folder) as url, mounted(f"{url}/x.json") as mount:
        assert names(mount.path / "a") == ["stac.json"]
        document = json.loads((mount.path / "a" / "stac.json").read_bytes())
        assert document["assets"]["s"]["href"] == secret.as_uri()


def test_a_local_name_may_hold_what_a_url_may_not(tmp_path, folder):
    """Links to items and assets whose names have `#` and `?`, unescaped or escaped."""
    items = {"a#1.json": "x?y#z.tif", "b?.json": "%23.tif"}
    names_on_disk = {"a": "x?y#z.tif", "b": "#.tif"}
    links = [{"rel": "item", "href": f"./{name}"} for name in items]
    (folder / "catalog.json").write_text(
        json.dumps({"type": "Catalog", "id": "c", "description": "c", "links": links})
    )
    for name, href in items.items():
        (folder / name).write_text(json.dumps(stac_item(name[0], {"data": f"./{href}"})))
        (folder / names_on_disk[name[0]]).write_bytes(name.encode())
    with open_session(Config(source=folder.as_uri(), cache_dir=tmp_path / "cache")) as session:
        for name in items:
            file = session.tree.file(f"/{name[0]}/data.tif")
            assert file.open().read(0, 100) == name.encode()


@pytest.mark.promise(
    "The files of a local catalog are read where they are, and not copied into the cache."
)
def test_a_local_file_is_read_where_it_is(mounted, folder):
    """The cache is empty when all of it was read; what replaces a file is what is read next."""
    expected = published(folder)
    with mounted(str(folder)) as mount:
        assert shown(mount.path) == expected
        scene = next(folder.rglob("scene.tif"))
        name = Path(mount.path, "top", scene.parent.name, "data.tif")
        scene.with_name("new").write_bytes(b"another")
        scene.with_name("new").replace(scene)
        with name.open("rb", buffering=0) as file:
            assert file.read(7) == b"another"
        mount.unmount()
        with contextlib.closing(sqlite3.connect(mount.cache / "blocks" / "cache.db")) as database:
            assert list(database.execute("SELECT key FROM Cache")) == []


def test_collections_at_any_level_are_found_by_what_they_tell(tmp_path, folder):
    """From each catalog above them, by keyword and phrase; the names of links are unique."""
    root, links = pystac.Catalog("root", "Years"), {}
    for year in ("2019", "2020"):
        above = pystac.Catalog(year, "A year")
        root.add_child(above)
        for sensor in ("radar", "optical"):
            document = {**stac_collection(sensor), "keywords": [sensor, f"of {year}"]}
            collection = pystac.Collection.from_dict(document)
            collection.add_item(pystac.Item.from_dict(stac_item("a", platform=sensor)))
            above.add_child(collection)
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    with open_session(Config(source=folder.as_uri(), cache_dir=tmp_path / "cache")) as session:
        for path in (
            "/@where/tags=radar",
            "/@where/text=RADAR/tags=of 2020",
            "/2019/@where/tags=radar",
            "/2019/radar/@where/platform=radar",
            "/2019/radar/@where/platform=optical",
            "/@where",
        ):
            entries = list(session.tree.directory(path).children()(0))
            links[path] = [entry.name for entry in entries]
            for entry in entries:
                node = session.tree.directory(f"{path}/{entry.name}")  # it leads somewhere
                assert node.children()
    assert links == {
        "/@where/tags=radar": ["2019%2Fradar", "2020%2Fradar"],
        "/@where/text=RADAR/tags=of 2020": ["2020%2Fradar"],
        "/2019/@where/tags=radar": ["radar"],
        "/2019/radar/@where/platform=radar": ["a"],
        "/2019/radar/@where/platform=optical": [],
        "/@where": ["tags=of 2019", "tags=of 2020", "tags=optical", "tags=radar"],
    }


def test_an_archive_of_mlhub_is_a_catalog(mounted, tmp_path):
    """Its collection archives are self-contained, with the bytes: nothing has to be served."""
    archive = tmp_path / "archive_ref_african_crops_kenya_02_labels.tar.gz"
    archive.write_bytes(real(archive.name))
    with tarfile.open(archive) as opened:
        labels = {
            Path(one.name).parent.name: opened.extractfile(one).read()
            for one in opened
            if one.name.endswith("/labels.tif")
        }
    assert len(labels) == 4
    with mounted(str(archive)) as mount:
        for name, data in labels.items():
            assert (mount.path / name / "labels.tif").read_bytes() == data


def test_the_marine_debris_tarball(mounted, tmp_path):
    """MLHub's own catalog tarball: 1,412 items, with the names that the tarball has."""
    tarball = tmp_path / "catalog_nasa_marine_debris.tar.gz"
    tarball.write_bytes(real(tarball.name))
    with tarfile.open(tarball) as archive:
        members = [Path(one.name) for one in archive if one.isfile()]
    expected = {str(one.parent.relative_to(one.parts[0])) for one in members if len(one.parts) == 4}
    assert len(expected) == 1412
    with mounted(str(tarball)) as mount:
        found = {
            f"{collection.name}/{item.name}"
            for collection in mount.path.iterdir()
            if collection.is_dir()
            for item in collection.iterdir()
            if item.is_dir()
        }
        assert found == expected
        labels = sorted((mount.path / "nasa_marine_debris_labels").glob("*/stac.json"))
        for path in labels[:20]:
            document = json.loads(path.read_bytes())
            (source,) = [one for one in document["links"] if one["rel"] == "source"]
            assert (path.parent / source["href"]).is_file()


@pytest.mark.promise("A static catalog that was listed is there offline.")
def test_what_was_indexed_is_there_offline(tmp_path, folder):
    """All that has items is walked, at any level, and its names need nothing else."""
    expected = published(folder)
    with http_server(folder) as url:
        config = Config(source=f"{url}/catalog.json", cache_dir=tmp_path / "cache")
        with open_session(config) as session:
            collections = session.catalog.loose_collections()
            assert list(collections) == ["2020/deep c%25", "top"]
            for one in collections:
                list(session.catalog.listing(one).iterate())
    with open_session(replace(config, offline=True)) as session:
        for path in expected:
            item = session.tree.directory(f"/{path}")
            assert [one.name for one in item.children()(0)] == ["stac.json", "data.tif"]


class TestApis:
    """STAC APIs, beside pystac-client."""

    def walked(self, url, collection):
        """Return the ids of a collection's items as pystac-client walks them."""
        search = pytest.importorskip("pystac_client").ItemSearch
        pages = search(f"{url}/collections/{collection}/items", method="GET", limit=7)
        return [item["id"] for item in pages.items_as_dicts()]

    def listed(self, url, collection, tmp_path):
        """Return the ids as we list them."""
        with open_session(Config(source=url, cache_dir=tmp_path / "cache")) as session:
            listing = session.catalog.listing(collection)
            found = [item_id for item_id, _ in listing.iterate()]
            assert listing.problem is None
            return found

    def test_rustac(self, mounted, tmp_path):
        """Skip paging: the same items in the same order, and a mount of it."""
        items = [{**stac_item(f"i{number:04}"), "collection": "c"} for number in range(250)]
        for one in items:
            one["geometry"] = {"type": "Point", "coordinates": [9.5, 47.5]}
            one["bbox"] = [9.5, 47.5, 9.5, 47.5]
        (tmp_path / "c.json").write_text(json.dumps(stac_collection("c")))
        (tmp_path / "items.ndjson").write_text("".join(json.dumps(one) + "\n" for one in items))
        with rustac(tmp_path / "c.json", tmp_path / "items.ndjson") as url:
            expected = self.walked(url, "c")
            assert len(expected) == 250
            assert self.listed(url, "c", tmp_path) == expected
            with mounted(url) as mount:
                assert names(mount.path) == ["README.txt", "c"]
                assert names(mount.path / "c") == ["collection.json", *expected]

    def test_the_local_server(self, server, tmp_path):
        """Our own server, as a plain STAC API."""
        collection = "bigearthnet_v1_source"
        expected = self.walked(server.root_url, collection)
        assert len(expected) == 24
        assert self.listed(server.root_url, collection, tmp_path) == expected

    def test_the_host_of_a_landing_page_elsewhere(self, server, tmp_path):
        """Its `data` link leads to the API."""
        host = server.root_url.removesuffix("/mlhub/v1")
        assert len(self.listed(host, "bigearthnet_v1_source", tmp_path)) == 24
