"""The local server over real HTTP: MLHub's API, its storage, and what it makes of folders."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import posixpath
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import requests

from mlhubfs.errors import ConfigError
from mlhubfs.server import unpack as unpacking
from mlhubfs.server.collection import Names
from mlhubfs.server.run import LocalServer
from mlhubfs.server.tokens import Tokens
from mlhubfs.tree.names import encode
from mlhubfs.tree.surroundings import RESERVED_IN_COLLECTION

REAL = Path(__file__).parents[2] / "shared" / "real"
KENYA = REAL / "archive_ref_african_crops_kenya_02_labels.tar.gz"
SECONDS = 30  # before a test that hangs is a test that fails
BYTES = bytes(range(256)) * 20
KEY = "right-key"


def get(url, *, method="GET", **options):
    """One request, redirects not followed unless asked for."""
    options.setdefault("allow_redirects", False)
    return requests.request(method, url, timeout=SECONDS, **options)


def get_json(url, **options):
    answer = get(url, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def item(name, when="2018-01-01T00:00:00Z", west=0.0, assets=None, links=(), **fields):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "bbox": [west, 0, west + 1, 1],
        "geometry": None,
        "properties": {"datetime": when},
        "assets": {"B02": {"href": "./B02.tif", "type": "image/tiff"}}
        if assets is None
        else assets,
        "links": [{"rel": "collection", "href": "../collection.json"}, *links],
        **fields,
    }


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def make_collection(folder, items, *, files=None, **fields):
    """Write a collection folder; `items` by folder name, `files` by path in the collection."""
    document = {"type": "Collection", "stac_version": "1.0.0", "id": folder.name, "license": "MIT"}
    write(folder / "collection.json", {**document, "description": "Trees", "links": [], **fields})
    for name, each in items.items():
        write(folder / name / "stac.json", each)
    for path, content in (files or {}).items():
        write(folder / path, content)
    return folder


def make_forest(root):
    """A dataset of 25 items of imagery and one of labels that was made from three of them."""
    dataset = {
        "id": "forest_v1",
        "title": "Forest of Trees",
        "doi": "10.5072/mlhubfs.Forest",
        "tags": ["land cover", "sentinel-2"],
        "collections": [
            {"id": "forest_v1_source", "types": ["source_imagery"], "license": "MIT"},
            {"id": "forest_v1_labels", "types": ["labels"], "license": "MIT"},
            {"id": "forest_v1_elsewhere", "types": ["labels"]},
        ],
    }
    write(root / "forest_v1/dataset.json", dataset)
    names = [f"s_{number:02}" for number in range(25)]
    make_collection(
        root / "forest_v1/forest_v1_source",
        {n: item(n, f"2018-01-{i + 1:02}T12:00:00Z", float(i)) for i, n in enumerate(names)},
        files={f"{name}/B02.tif": BYTES + name.encode() for name in names}
        | {"_common/legend.csv": b"a,b", "_common/legend.txt": b"x", "_common/named.pdf": b"pdf"}
        | {"_common/.DS_Store": b"junk", "_common/._legend.csv": b"junk", ".DS_Store": b"junk"},
        assets={"paper": {"href": "./_common/named.pdf"}},
    )
    sources = [
        "../../forest_v1_source/s_03/stac.json",
        "../../forest_v1_source/gone/stac.json",
        "../../never_there/s_01/stac.json",
        "https://example.org/elsewhere.json",
    ]
    labels = {"labels": {"href": "labels.geojson"}, "missing": {"href": "missing.tif"}}
    links = [{"rel": "source", "href": href} for href in sources]
    make_collection(
        root / "forest_v1/forest_v1_labels",
        {"l_03": item("l_03", assets=labels, links=links, extra=None)},
        files={"l_03/labels.geojson": b"{}"},
    )


@contextlib.contextmanager
def serving(*paths, cache, **options):
    with LocalServer(paths, cache_dir=cache, record=True, **options) as server:
        yield server


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    """A server on the forest, without a key."""
    root = tmp_path_factory.mktemp("forest")
    make_forest(root)
    make_collection(root / "lonely_source", {"one": item("one")}, title="Lonely")
    with serving(root, cache=tmp_path_factory.mktemp("cache")) as server:
        yield server


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A server on the forest that asks for a key."""
    root = tmp_path_factory.mktemp("locked")
    make_forest(root)
    with serving(root, cache=tmp_path_factory.mktemp("cache"), api_key=KEY) as server:
        yield server


@pytest.fixture
def one(tmp_path):
    """`one(items, files=...)` serves a single collection and gives the server."""
    with contextlib.ExitStack() as ending:

        def start(items, *, name="some_source", files=None, **options):
            folder = make_collection(tmp_path / "data" / name, items, files=files)
            return ending.enter_context(serving(folder, cache=tmp_path / "cache", **options))

        yield start


def items_url(server, collection="forest_v1_source"):
    return f"{server.root_url}/collections/{collection}/items"


def asset_url(server, name="s_00", asset="B02", collection="forest_v1_source"):
    return get_json(f"{items_url(server, collection)}/{name}")["assets"][asset]["href"]


def storage_of(server, name="s_00", asset="B02", collection="forest_v1_source"):
    answer = get(asset_url(server, name, asset, collection))
    assert answer.status_code == 302
    return answer.headers["location"]


def walk(server, collection="forest_v1_source", **query):
    """All pages of a listing, as a client follows them: the limit sent again each time."""
    url, pages = items_url(server, collection), []
    while url:
        pages.append(get_json(url, params=query))
        links = {link["rel"]: link["href"] for link in pages[-1]["links"]}
        query = {"limit": query["limit"]} if "limit" in query else {}
        url = links.get("next")
    return pages


# --- what there is


def test_the_landing_page_leads_to_everything(forest):
    """The root, with or without a slash, names itself, the collections, and how to reach them."""
    for url in (forest.root_url, forest.root_url + "/"):
        landing = get_json(url)
        links = [(link["rel"], link["href"]) for link in landing["links"]]
        assert landing["conformsTo"]
        assert ("self", forest.root_url) in links
        assert ("data", f"{forest.root_url}/collections") in links
        children = [href for rel, href in links if rel == "child"]
        assert len(children) == 3
        assert all(get(href).status_code == 200 for href in children)


def test_a_client_that_loses_the_last_segment_of_the_root_is_answered(forest):
    """MLHub's own does, if the root that it is told has no slash at its end."""
    above = forest.root_url.removesuffix("/v1")
    assert get_json(above + "/datasets") == get_json(forest.root_url + "/datasets")
    assert get(above + "/collections/forest_v1_source/items").status_code == 200
    assert get(above + "/archive/forest_v1_source/info").status_code == 200


def test_the_host_says_where_the_api_is(forest):
    """`/` of the host points to the API's root."""
    origin = forest.root_url.removesuffix("/mlhub/v1")
    assert get_json(origin + "/")["links"][0]["href"] == forest.root_url


def test_the_root_path_can_be_chosen(tmp_path):
    """The API stands below the root path given, and in its links too; also at the top."""
    folder = make_collection(tmp_path / "a_source", {"x": item("x")})
    for path in ("/other/api", ""):
        with serving(folder, cache=tmp_path / "cache", root_path=path) as server:
            assert urlsplit(server.root_url).path == path
            link = get_json(items_url(server, "a_source"))["features"][0]["links"][0]["href"]
            assert link == f"{server.root_url}/collections/a_source/items/x"


def test_datasets_are_a_bare_array(forest):
    """They come as an array, as they were written, less the collections that are not here."""
    found = {each["id"]: each for each in get_json(forest.root_url + "/datasets")}
    assert set(found) == {"forest_v1", "lonely"}
    names = [each["id"] for each in found["forest_v1"]["collections"]]
    assert names == ["forest_v1_source", "forest_v1_labels"]
    assert get_json(forest.root_url + "/datasets/forest_v1") == found["forest_v1"]


def test_a_dataset_is_made_from_collections_that_have_none(forest):
    """A collection without a dataset gets one, named by its id without the suffix."""
    lonely = get_json(forest.root_url + "/datasets/lonely")
    assert lonely["title"] == "Lonely"
    types = ["source_imagery"]
    assert lonely["collections"] == [{"id": "lonely_source", "types": types, "license": "MIT"}]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"tags": "land cover"}, ["forest_v1"]),
        ({"tags": ["land cover", "sentinel-2"]}, ["forest_v1"]),
        ({"tags": ["land cover", "sar"]}, []),
        ({"tags": "land"}, []),
        ({"text": "FOREST OF"}, ["forest_v1"]),
        ({"text": "forest trees"}, []),
        ({"text": ["forest", "mlhubfs"]}, ["forest_v1"]),
        ({"text": ["forest", "lonely"]}, []),
        ({"text": "e"}, ["forest_v1", "lonely"]),
    ],
)
def test_datasets_are_found_by_tags_and_text(forest, query, found):
    """All tags must be there exactly; each text is a phrase, in any case, and all must be there."""
    answer = get_json(forest.root_url + "/datasets", params=query)
    assert [each["id"] for each in answer] == found


def test_a_dataset_is_found_by_its_doi(forest):
    """The DOI's slash is not escaped; escaped, or in another case, it is the same DOI."""
    for doi in ("10.5072/mlhubfs.Forest", "10.5072%2Fmlhubfs.forest"):
        assert get_json(f"{forest.root_url}/datasets/doi/{doi}")["id"] == "forest_v1"


def test_a_collection_shows_its_own_assets_and_those_in_common(forest):
    """Files in `_common` that no asset names become assets; junk does not."""
    collection = get_json(f"{forest.root_url}/collections/forest_v1_source")
    assert set(collection["assets"]) == {"paper", "legend", "legend.txt"}
    assert collection["assets"]["legend"]["type"] == "text/csv"
    contents = {
        key: get(asset["href"], allow_redirects=True).content
        for key, asset in collection["assets"].items()
    }
    assert contents == {"paper": b"pdf", "legend": b"a,b", "legend.txt": b"x"}
    links = {link["rel"]: link["href"] for link in collection["links"]}
    assert links["self"] == f"{forest.root_url}/collections/forest_v1_source"
    assert links["items"] == links["self"] + "/items"
    listed = get_json(forest.root_url + "/collections")["collections"]
    assert [each["id"] for each in listed] == [
        "forest_v1_labels",
        "forest_v1_source",
        "lonely_source",
    ]


def test_models_are_an_empty_list(forest):
    """There are no models."""
    assert get_json(forest.root_url + "/models") == []


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/datasets/nope", 404, "Dataset with id 'nope' not found"),
        ("/datasets/doi/10.1/nope", 404, "Dataset with doi '10.1/nope' not found"),
        ("/collections/nope", 404, "Collection nope does not exist."),
        ("/collections/nope/items", 404, "Collection nope does not exist."),
        (
            "/collections/lonely_source/items/a%2Fb",
            404,
            "Item a/b in Collection lonely_source does not exist.",
        ),
        ("/archive/nope", 404, "Archive for collection nope does not exist."),
        ("/archive/nope/info", 404, "Archive for collection nope does not exist."),
        ("/catalog/nope", 404, "Dataset with id 'nope' not found"),
        ("/models/nope", 404, "Model nope does not exist."),
        ("/nope", 404, "Not Found"),
        ("/collections/lonely_source/items?limit=many", 400, "limit=many is not a whole number"),
        ("/collections/lonely_source/items?token=x", 400, "token=x is none that this server gave"),
        ("/download/nope", 403, "Download link is not valid."),
    ],
)
def test_errors_are_json_with_a_detail(forest, path, status, detail):
    """What is not there, or cannot be read, is said in JSON, in the recorded words where known."""
    answer = get(forest.root_url + path)
    assert answer.status_code == status
    assert answer.json() == {"detail": detail}


def test_a_wrong_method_is_refused_in_json(forest):
    """405 is JSON too."""
    answer = get(forest.root_url + "/datasets", method="POST")
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


def test_answers_are_compressed_when_asked_and_carry_no_validators(forest):
    """Metadata is gzip for those who accept it, and cannot be revalidated, as recorded."""
    url = forest.root_url + "/collections"
    plain = get(url, headers={"Accept-Encoding": "identity"})
    packed = get(url, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert not {"etag", "last-modified"} & {name.lower() for name in packed.headers}


def test_urls_begin_with_the_host_that_was_asked(forest):
    """The Host header decides the origin of all links; one that is none is not repeated."""
    named = get_json(forest.root_url, headers={"Host": "mlhub.test:99"})
    assert named["links"][0]["href"] == "http://mlhub.test:99/mlhub/v1"
    bad = get_json(forest.root_url, headers={"Host": 'x"<y>'})
    assert bad["links"][0]["href"] == forest.root_url


# --- items


def test_an_item_is_what_is_on_disk_with_absolute_links(forest):
    """Hrefs become URLs of the API; nulls and versions stay; dead `source` links stay dead."""
    found = get_json(items_url(forest, "forest_v1_labels") + "/l_03")
    root = forest.root_url
    assert found["extra"] is None
    assert found["stac_version"] == "1.0.0"
    assert [link["href"] for link in found["links"] if link["rel"] == "source"] == [
        f"{root}/collections/forest_v1_source/items/s_03",
        f"{root}/collections/forest_v1_source/items/gone",
        f"{root}/collections/never_there/items/s_01",
        "https://example.org/elsewhere.json",
    ]
    structure = {link["rel"]: link["href"] for link in found["links"] if link["rel"] != "source"}
    assert structure == {
        "self": f"{root}/collections/forest_v1_labels/items/l_03",
        "collection": f"{root}/collections/forest_v1_labels",
        "parent": f"{root}/collections/forest_v1_labels",
        "root": root,
    }


@pytest.mark.parametrize("query", [{}, {"limit": 1}, {"limit": 7}, {"limit": 25}, {"limit": 10**9}])
def test_paging_gives_every_item_exactly_once(forest, query):
    """Following `next` gives all items in one order; only the last page has no `next`."""
    pages = walk(forest, **query)
    limit = min(query.get("limit", 10), 10_000)
    names = [each["id"] for page in pages for each in page["features"]]
    assert names == [f"s_{number:02}" for number in range(25)]
    assert len(pages) == -(-25 // limit)
    for page in pages:
        count = len(page["features"])
        assert page["context"] == {"limit": limit, "matched": 25, "returned": count}


def test_the_next_link_is_the_recorded_one(forest):
    """`token=next:<last item id>`, percent-encoded, without the limit and without the key."""
    page = get_json(items_url(forest), params={"limit": 3, "key": "k3y"})
    link = next(link for link in page["links"] if link["rel"] == "next")
    assert link["href"] == items_url(forest) + "?token=next%3As_02"
    assert link["method"] == "GET"
    assert "k3y" not in json.dumps(page)


@pytest.mark.parametrize(("limit", "count"), [("0", 1), ("-5", 1)])
def test_a_limit_below_one_is_one(forest, limit, count):
    """Limits are clamped."""
    assert len(get_json(items_url(forest), params={"limit": limit})["features"]) == count


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"bbox": "3,0,4,1"}, [2, 3, 4]),
        ({"bbox": "24.5,0.2,0,90,1,0"}, [24]),
        ({"bbox": "24.5,-90,0.5,90"}, [0, 24]),
        ({"datetime": "2018-01-05T12:00:00Z"}, [4]),
        ({"datetime": "2018-01-05T13:00:00+01:00"}, [4]),
        ({"datetime": "2018-01-05"}, [4]),
        ({"datetime": "2018-01-05T12:00:01Z"}, []),
        ({"datetime": "2018-01-02/2018-01-04T12:00:00Z"}, [1, 2, 3]),
        ({"datetime": "2018-01-24T12:00:00Z/.."}, [23, 24]),
        ({"datetime": "../2018-01-02T00:00:00Z"}, [0]),
        ({"datetime": "/2018-01-02"}, [0, 1]),
        ({"bbox": "3,0,4,1", "datetime": "2018-01-05/.."}, [4]),
    ],
)
def test_items_are_filtered_by_box_and_time(forest, query, numbers):
    """Boundaries are closed, open ends are `..` or nothing, and further pages keep the filter."""
    pages = walk(forest, limit=1, **query)
    names = [each["id"] for page in pages for each in page["features"]]
    assert names == [f"s_{number:02}" for number in numbers]
    assert pages[0]["context"]["matched"] == len(numbers)


@pytest.mark.parametrize(
    "query",
    ["bbox=1,2,3", "bbox=a,b,c,d", "bbox=nan,0,1,1", "datetime=soon", "datetime=../..",
     "datetime=2019-01-01/2018-01-01"],
)  # fmt: skip
def test_a_filter_that_means_nothing_is_refused(forest, query):
    """400, in JSON, not all items."""
    answer = get(f"{items_url(forest)}?{query}")
    assert answer.status_code == 400
    assert "cannot be used" in answer.json()["detail"]


def test_broken_items_are_left_out_and_named_in_the_log(one):
    """A file that is no item costs that item, is logged once with its path, and nothing else."""
    lines = []
    server = one(
        {"a": item("a"), "z": item("z")},
        files={
            "b/stac.json": b"{",
            "c/stac.json": b"[]",
            "d/stac.json": b'{"id": 5}',
            "e/stac.json": b'{"id": "e", "bbox": [NaN]}',
            "f/other.txt": b"no stac.json here",
            "g/stac.json": b"[" * 100_000,
        },
        log=lines.append,
    )
    for _again in range(2):
        names = [
            each["id"] for page in walk(server, "some_source", limit=1) for each in page["features"]
        ]
        assert names == ["a", "z"]
    assert get(items_url(server, "some_source") + "/b").status_code == 404
    left_out = [line for line in lines if line.startswith("item left out")]
    assert [Path(line.split(": ")[1]).parent.name for line in left_out] == list("bcdefg")


HOSTILE = ["a/b", "..", "../../x", "%2F", "@where", ".hidden", "new\nline", "ü🌲", "100%",
           "a b?c#d&e+f", "_common", "collection.json", "stac.json", "\x85", "x" * 300,
           "x" * 300 + "y", "🌲" * 90, "~0123456789abcdef", "Case", "case"]  # fmt: skip


def test_hostile_ids_page_and_resolve(one):
    """Folders named as the mount names them are listed once, found by id, have their own bytes."""
    names = {name: encode(name, RESERVED_IN_COLLECTION) for name in HOSTILE}
    folders = {folder: item(name) for name, folder in names.items()}
    files = {f"{folder}/B02.tif": folder.encode() for folder in folders}
    server = one(folders, files=files)
    pages = walk(server, "some_source", limit=1)
    assert sorted(each["id"] for page in pages for each in page["features"]) == sorted(HOSTILE)
    for name in HOSTILE:
        path = quote(name, safe="").replace(".", "%2E")
        # urllib3 would fold `..`: ask as a socket does.
        found = raw_get(server, f"/mlhub/v1/collections/some_source/items/{path}")
        assert found["id"] == name
        content = get(found["assets"]["B02"]["href"], allow_redirects=True).content
        assert content == names[name].encode()


def raw_get(server, path):
    """The JSON that a GET of exactly this path gives."""
    host = urlsplit(server.root_url).netloc
    with socket.create_connection(host.split(":"), timeout=SECONDS) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head, answer
    return json.loads(body)


def test_folders_that_are_not_named_after_their_items_work(one):
    """The id is the one in `stac.json`: listed, found without a listing, and a place in it."""
    items = {f"dir{number}": item(f"id{9 - number}") for number in range(8)}
    server = one(items, files={"dir3/B02.tif": b"three"})
    assert get_json(items_url(server, "some_source") + "/id6")["id"] == "id6"
    names = [
        each["id"] for page in walk(server, "some_source", limit=3) for each in page["features"]
    ]
    assert names == [f"id{9 - number}" for number in range(8)]
    assert (
        get(asset_url(server, "id6", "B02", "some_source"), allow_redirects=True).content
        == b"three"
    )


def test_an_item_in_another_ones_folder_is_not_taken_for_it(one):
    """Two items whose folders are swapped are each found by their own id."""
    server = one({"x": item("y"), "y": item("x")})
    for name in ("x", "y"):
        assert get_json(f"{items_url(server, 'some_source')}/{name}")["id"] == name


def test_a_token_outlives_the_server_that_gave_it(tmp_path):
    """`next:<id>` goes on at the same place after a restart, whatever the folders are called."""
    folders = {f"dir{number}": item(f"id{9 - number}") for number in range(8)}
    folder = make_collection(tmp_path / "some_source", folders)
    with serving(folder, cache=tmp_path / "cache") as server:
        page = get_json(items_url(server, "some_source"), params={"token": "next:id7", "limit": 2})
    assert [each["id"] for each in page["features"]] == ["id6", "id5"]


def test_the_listing_follows_the_folder(one, tmp_path):
    """An item that is added is there at the next question."""
    server = one({"a": item("a")})
    assert get_json(items_url(server, "some_source"))["context"]["matched"] == 1
    folder = tmp_path / "data/some_source"
    write(folder / "b/stac.json", item("b"))
    os.utime(folder, ns=(0, 0))  # a folder whose time differs, on file systems with coarse ones too
    names = [each["id"] for each in get_json(items_url(server, "some_source"))["features"]]
    assert names == ["a", "b"]


def test_names_are_kept_sorted_in_one_block():
    """Names give back what was put in, sorted, with membership and position."""
    names = Names(["b", "ü", "a", "\udcff", "ab"])
    assert [names.name(index) for index in range(len(names))] == ["a", "ab", "b", "ü", "\udcff"]
    assert "ab" in names
    assert "abc" not in names
    assert names.after("aa") == 1


def test_types_come_from_names_or_from_items(tmp_path):
    """Where the suffix does not tell: label properties mean labels, bands mean imagery, or both."""
    label = {"properties": {"label:type": "raster"}}
    bands = {"image": {"href": "image.tif", "eo:bands": []}}
    expected = {
        "w_labels": (item("x"), ["labels"]),
        "x": (item("x"), ["source_imagery"]),
        "y": (item("x", **label), ["labels"]),
        "z": (item("x", assets=bands, **label), ["source_imagery", "labels"]),
    }
    for name, (each, _types) in expected.items():
        make_collection(tmp_path / "data" / name, {"x": each})
    with serving(tmp_path / "data", cache=tmp_path / "cache") as server:
        datasets = get_json(server.root_url + "/datasets")
    found = {each["id"]: each["types"] for dataset in datasets for each in dataset["collections"]}
    assert found == {name: types for name, (_item, types) in expected.items()}


# --- the key


KEYED = ["/collections/forest_v1_source/items", "/collections/forest_v1_source/items/s_00",
         "/archive/forest_v1_source", "/archive/forest_v1_source/info",
         "/catalog/forest_v1", "/catalog/forest_v1/info", "/collections/nope/items"]  # fmt: skip


@pytest.mark.parametrize("path", KEYED)
def test_items_and_archives_need_the_key(locked, path):
    """401 with the recorded words, without a key and with a wrong one; in with the right one."""
    url = locked.root_url + path
    without, wrong = get(url), get(url, params={"key": "wrong"})
    assert (without.status_code, wrong.status_code) == (401, 401)
    assert without.json() == {
        "detail": "Must provide API key or Bearer token to access this route."
    }
    assert wrong.json() == {
        "detail": "Could not identify user from API key or Authentication header."
    }
    assert get(url, headers={"Authorization": "Bearer wrong"}).json() == wrong.json()
    good = [get(url, params={"key": KEY}), get(url, headers={"Authorization": f"Bearer {KEY}"})]
    assert all(answer.status_code in {200, 303, 404} for answer in good)


def test_head_without_a_key_is_401_without_a_body(locked):
    """As recorded."""
    answer = get(locked.root_url + "/archive/forest_v1_source", method="HEAD")
    assert (answer.status_code, answer.content) == (401, b"")


@pytest.mark.parametrize(
    "path", ["", "/datasets", "/datasets/forest_v1", "/collections", "/models",
             "/collections/forest_v1_source"],
)  # fmt: skip
def test_what_was_public_needs_no_key(locked, path):
    """The catalog's outline is open to everyone."""
    assert get(locked.root_url + path).status_code == 200


def test_the_key_and_tokens_stay_out_of_urls_and_logs(tmp_path):
    """No answer, no redirect and no line of the log holds the key; no line holds a token."""
    make_forest(tmp_path / "data")
    lines = []
    with serving(
        tmp_path / "data", cache=tmp_path / "cache", api_key=KEY, log=lines.append
    ) as server:
        found = get(items_url(server), params={"key": KEY, "limit": 1})
        href = found.json()["features"][0]["assets"]["B02"]["href"]
        redirect = get(href, headers={"Range": "bytes=0-9"})
        content = get(redirect.headers["location"], headers={"Range": "bytes=0-9"})
    assert content.content == BYTES[:10]
    said = found.text + redirect.headers["location"] + "".join(lines)
    assert KEY not in said
    assert href.rsplit("/", 1)[1] not in "".join(lines)
    assert any("/mlhub/v1/download/... 302 bytes=0-9 " in line for line in lines)
    assert [line.path for line in server.requests][1] == "/mlhub/v1/download/..."
    assert server.requests[2].range == "bytes=0-9"


def test_storage_paths_cannot_be_guessed_where_there_is_a_key(locked, forest):
    """With a key, the storage's URLs hold a word that only a redirect tells."""
    href = get_json(items_url(locked) + "/s_00", params={"key": KEY})["assets"]["B02"]["href"]
    location = get(href).headers["location"]
    assert get(location).content.startswith(BYTES)
    guessed = urlsplit(storage_of(forest)).path
    assert get(locked.storage_url + guessed).status_code == 404


# --- download links


def test_every_answer_gives_new_links(forest):
    """Two answers about one asset share no token; both tokens work, and neither asks for a key."""
    hrefs = {asset_url(forest) for _again in range(3)}
    assert len(hrefs) == 3
    for href in hrefs:
        token = href.rsplit("/", 1)[1]
        assert 300 <= len(token) <= 360
        location = get(href).headers["location"]
        assert location.startswith(forest.storage_url)
        assert token not in location


def test_a_link_expires(tmp_path):
    """After its time the link is refused with 403, in JSON."""
    folder = make_collection(tmp_path / "a_source", {"x": item("x")})
    with serving(folder, cache=tmp_path / "cache", token_seconds=0) as server:
        answer = get(asset_url(server, "x", "B02", "a_source"))
    assert answer.status_code == 403
    assert answer.json() == {"detail": "Download link has expired."}


def test_a_token_cannot_be_forged():
    """Tokens differ at the same instant; one character changed, cut or added makes it invalid."""
    now = [0.0]
    tokens = Tokens(60, clock=lambda: now[0])
    token = tokens.issue("collection", "item", "asset.tif")
    assert tokens.read(token) == ("collection", "item", "asset.tif")
    assert tokens.issue("collection", "item", "asset.tif") != token
    changed = [
        token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        for at in range(len(token))
    ]
    changed += [token[:-1], token[:-4], token + "AAAA", token + "\n", "!" + token, "", "ü"]
    for forged in [*changed, Tokens(60).issue("a")]:
        with pytest.raises(Exception, match="not valid"):
            tokens.read(forged)
    now[0] = 60.0
    with pytest.raises(Exception, match="expired"):
        tokens.read(token)


def test_long_names_make_longer_tokens():
    """Names of any length fit into a token, and come back."""
    names = ("c" * 250, "🌲" * 60, "a" * 250)
    tokens = Tokens(60)
    assert tokens.read(tokens.issue(*names)) == names


def test_missing_files_are_advertised_and_missing_in_storage(forest):
    """As at MLHub: the asset has a link, the link leads to storage, storage has nothing."""
    location = storage_of(forest, "l_03", "missing", "forest_v1_labels")
    assert get(location).status_code == 404


@pytest.mark.parametrize(
    ("href", "content"),
    [
        ("./a%20b.tif", b"space"),
        ("a b.tif", b"space"),
        ("./50%25.tif", b"percent"),
        ("50%.tif", b"percent"),
        ("../_common/x.csv", b"common"),
        ("deep/er/x.tif", b"deep"),
        ("lit%41.tif", b"literal"),
    ],
)
def test_hrefs_may_be_uris_or_file_names(one, href, content):
    """An asset is found whether its href was percent-encoded or not."""
    server = one(
        {"i": item("i", assets={"x": {"href": href}})},
        files={"i/a b.tif": b"space", "i/50%.tif": b"percent", "_common/x.csv": b"common",
               "i/deep/er/x.tif": b"deep", "i/lit%41.tif": b"literal"},
    )  # fmt: skip
    assert get(asset_url(server, "i", "x", "some_source"), allow_redirects=True).content == content


@pytest.mark.parametrize(
    "href", ["../../../secret", "/etc/passwd", "..%2f..%2f..%2fsecret", "../..", "."]
)
def test_an_href_cannot_leave_its_collection(one, tmp_path, href):
    """An asset that points out of the collection has no bytes."""
    write(tmp_path / "secret", b"secret")
    server = one({"i": item("i", assets={"x": {"href": href}})})
    url = asset_url(server, "i", "x", "some_source")
    # The item's folder, and a name that only looks like a way out, are left to storage to refuse.
    assert get(url).status_code == (302 if href == "." or "%2f" in href else 404)
    assert get(url, allow_redirects=True).status_code == 404


def test_absolute_hrefs_stay(one):
    """An asset that is elsewhere already is left where it is."""
    server = one({"i": item("i", assets={"x": {"href": "https://example.org/x.tif"}})})
    assert asset_url(server, "i", "x", "some_source") == "https://example.org/x.tif"


# --- storage


@pytest.fixture(scope="module")
def blob(forest):
    """The URL of a file in storage, and its bytes."""
    return storage_of(forest), BYTES + b"s_00"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("0-0", 0, 1), ("10-19", 10, 20), ("5000-9999999", 5000, 5124), ("5123-", 5123, 5124),
     ("-4", 5120, 5124), ("-999999", 0, 5124), ("0-", 0, 5124)],
)  # fmt: skip
def test_storage_gives_one_range(blob, asked, start, stop):
    """206 with those bytes, Content-Range and Content-Length; past the end it is clamped."""
    url, content = blob
    answer = get(url, headers={"Range": f"bytes={asked}"})
    assert (answer.status_code, answer.content) == (206, content[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(content)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["5124-", "5124-5130", "9999-99999", "-0"])
def test_a_range_beyond_the_end_is_416(blob, asked):
    """416 says the size."""
    answer = get(blob[0], headers={"Range": f"bytes={asked}"})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == "bytes */5124"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,4-5", "bytes=9-2", "bytes=-", "bytes=x-y", "lines=0-1"]
)
def test_other_ranges_give_the_whole_file(blob, asked):
    """Several ranges, and what is no range, are answered as if nothing had been asked."""
    url, content = blob
    answer = get(url, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, content)


def test_head_tells_all_but_the_bytes(blob):
    """HEAD has GET's headers: size, validators, type."""
    url, content = blob
    head, whole = get(url, method="HEAD"), get(url)
    assert (head.status_code, head.content) == (200, b"")
    assert whole.content == content
    for name in ("content-length", "etag", "last-modified", "content-type", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]
    assert head.headers["content-type"] == "application/octet-stream"
    assert head.headers["etag"].startswith('"')
    assert head.headers["etag"].endswith('"')
    ranged = get(url, method="HEAD", headers={"Range": "bytes=1-3"})
    assert (ranged.status_code, ranged.headers["content-length"]) == (206, "3")


def test_if_range_guards_a_range(blob):
    """The range holds for the file with that ETag or time; for another the whole file comes."""
    url, content = blob
    known = get(url, method="HEAD").headers
    for validator, status in [
        (known["etag"], 206),
        (known["last-modified"], 206),
        ('"other"', 200),
        ("W/" + known["etag"], 200),
    ]:
        answer = get(url, headers={"Range": "bytes=0-9", "If-Range": validator})
        assert answer.status_code == status
        assert answer.content == (content[:10] if status == 206 else content)


def test_who_has_the_file_is_told_that_it_has_not_changed(blob):
    """304 to its ETag, weak or not and among others; to another one the range comes."""
    url, content = blob
    etag = get(url).headers["etag"]
    for known, status in [(etag, 304), (f'"a", W/{etag}', 304), ('"a"', 206)]:
        answer = get(url, headers={"Range": "bytes=0-9", "If-None-Match": known})
        assert answer.status_code == status
        assert answer.content == (content[:10] if status == 206 else b"")


def test_the_etag_tells_files_apart_that_look_alike(one, tmp_path):
    """A file replaced by another of the same size and time has another ETag."""
    server = one({"i": item("i")}, files={"i/B02.tif": b"old"})
    url = storage_of(server, "i", "B02", "some_source")
    before = get(url)
    path = tmp_path / "data/some_source/i/B02.tif"
    facts = path.stat()
    path.with_suffix(".new").write_bytes(b"new")
    os.utime(path.with_suffix(".new"), ns=(facts.st_atime_ns, facts.st_mtime_ns))
    path.with_suffix(".new").replace(path)
    after = get(url)
    assert (before.content, after.content) == (b"old", b"new")
    assert before.headers["last-modified"] == after.headers["last-modified"]
    assert before.headers["etag"] != after.headers["etag"]


def test_large_files_and_empty_ones_come_whole(one):
    """A file of many chunks, ranges over chunk boundaries, and a file of no bytes are right."""
    large = os.urandom(1 << 20) * 9 + b"end"
    assets = {"large": {"href": "large.bin"}, "empty": {"href": "empty.bin"}}
    server = one({"i": item("i", assets=assets)}, files={"i/large.bin": large, "i/empty.bin": b""})
    url = storage_of(server, "i", "large", "some_source")
    assert hashlib.sha256(get(url).content).digest() == hashlib.sha256(large).digest()
    start, stop = (2 << 20) - 5, (6 << 20) + 7
    ranged = get(url, headers={"Range": f"bytes={start}-{stop - 1}"})
    assert ranged.content == large[start:stop]
    empty = get(storage_of(server, "i", "empty", "some_source"))
    assert (empty.status_code, empty.content, empty.headers["content-length"]) == (200, b"", "0")


def raw_status(url, path):
    """The status that a GET of exactly this path gives, nothing folded on the way."""
    host = urlsplit(url).netloc
    with socket.create_connection(host.split(":"), timeout=SECONDS) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    return int(answer.split(b" ", 2)[1]), answer


@pytest.mark.parametrize(
    "way",
    ["../../secret", "%2e%2e/%2e%2e/secret", "..%2f..%2fsecret", "i/../../../secret", "i/link.tif",
     "linked/secret", "i/pipe", "i", "i/", "", ".", "/etc/passwd", "i%00",
     "i//B02.tif", "i%2FB02.tif"],
)  # fmt: skip
def test_storage_serves_nothing_outside_of_its_folders(one, tmp_path, way):
    """Dots, encoded ones, links, pipes, folders: all are 404, and none lists anything."""
    write(tmp_path / "secret", b"secret")
    server = one({"i": item("i")}, files={"i/B02.tif": b"fine"})
    folder = tmp_path / "data/some_source"
    (folder / "i/link.tif").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "i/pipe")
    good = urlsplit(storage_of(server, "i", "B02", "some_source")).path
    assert raw_status(server.storage_url, good)[0] == 200
    status, answer = raw_status(server.storage_url, good.removesuffix("i/B02.tif") + way)
    assert status == 404
    assert b"secret" not in answer


def test_a_link_inside_the_collection_is_followed(one, tmp_path):
    """Only what leads out is refused."""
    server = one({"i": item("i")}, files={"i/real.tif": b"fine"})
    (tmp_path / "data/some_source/i/B02.tif").symlink_to("real.tif")
    assert get(storage_of(server, "i", "B02", "some_source")).content == b"fine"


# --- archives and catalogs


def members(content):
    """The files of a gzipped tar, by name."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        return {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}


def test_an_archive_holds_the_collection_as_it_is(forest):
    """HEAD and GET redirect with 303 to a tar.gz of the folder, without junk, as `/info` says."""
    url = forest.root_url + "/archive/forest_v1_source"
    assert get(url, method="HEAD").status_code == 303
    redirect = get(url)
    assert redirect.status_code == 303
    assert redirect.headers["location"].endswith("/archives/forest_v1_source.tar.gz")
    content = get(redirect.headers["location"]).content
    assert get_json(url + "/info") == {
        "collection": "forest_v1_source",
        "dataset": "forest_v1",
        "size": len(content),
        "types": ["source_imagery"],
    }
    found = members(content)
    assert found["forest_v1_source/s_07/B02.tif"] == BYTES + b"s_07"
    assert found["forest_v1_source/_common/legend.csv"] == b"a,b"
    assert len(found) == 1 + 3 + 2 * 25


def test_an_archive_is_the_same_wherever_it_is_built(tmp_path):
    """The same tree gives the same bytes, in one server after another; a changed tree, others."""
    folder = make_collection(tmp_path / "a_source", {"x": item("x")}, files={"x/B02.tif": b"1"})
    built = []
    for cache in ("one", "two", "two"):
        with serving(folder, cache=tmp_path / cache) as server:
            built.append(get(server.root_url + "/archive/a_source", allow_redirects=True).content)
    assert built[0] == built[1] == built[2]
    assert built[0][4:8] == bytes(4)  # gzip's own time, which would differ from second to second
    write(folder / "x/B02.tif", b"22")
    with serving(folder, cache=tmp_path / "two") as server:
        changed = get(server.root_url + "/archive/a_source", allow_redirects=True).content
        assert members(changed)["a_source/x/B02.tif"] == b"22"
    assert len(list((tmp_path / "two/packed").iterdir())) == 1


def test_a_catalog_holds_the_datasets_metadata(forest):
    """The catalog's links are relative and lead to its files; its asset hrefs are unsigned URLs."""
    url = forest.root_url + "/catalog/forest_v1"
    redirect = get(url)
    assert redirect.status_code == 303
    assert redirect.headers["location"].endswith("/catalogs/forest_v1.tar.gz")
    content = get(redirect.headers["location"]).content
    info = get_json(url + "/info")
    assert (info["dataset"], info["stac_catalog_size"]) == ("forest_v1", len(content))
    assert info["estimated_dataset_size"] > 25 * len(BYTES)
    found = {name: json.loads(text) for name, text in members(content).items()}
    assert len(found) == 1 + 2 + 26
    for name, document in found.items():
        for link in document["links"]:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link["href"]))
            dead = "gone" in target or "never_there" in target or "example.org" in link["href"]
            assert dead or target in found, (name, link)
    label = found["forest_v1/forest_v1_labels/l_03/l_03.json"]
    assert label["links"][3]["href"] == "../../forest_v1_source/s_03/s_03.json"
    source = found["forest_v1/forest_v1_source/s_03/s_03.json"]
    assert get(source["assets"]["B02"]["href"]).content == BYTES + b"s_03"
    assert set(found["forest_v1/forest_v1_source/collection.json"]["assets"]) > {"paper", "legend"}


@pytest.fixture(scope="module")
def kenya(tmp_path_factory):
    """A server on a real archive of MLHub's, and that archive's files."""
    if not KENYA.is_file():
        pytest.skip(
            f"{KENYA} is not on this machine: it is a recorded archive, not part of mlhubfs"
        )
    with tarfile.open(KENYA) as tar:
        content = {
            each.name: hashlib.sha256(tar.extractfile(each).read()).hexdigest()
            for each in tar
            if each.isfile()
        }
    with serving(KENYA, cache=tmp_path_factory.mktemp("kenya")) as server:
        yield server, content


def test_a_real_archive_is_served_whole(kenya):
    """Every asset of the archive has its member's bytes, and every member but JSON is an asset."""
    server, content = kenya
    name = "ref_african_crops_kenya_02_labels"
    seen = {}
    documents = [get_json(f"{server.root_url}/collections/{name}")]
    documents += [each for page in walk(server, name) for each in page["features"]]
    assert len(documents) == 5
    for asset in (asset for each in documents for asset in each["assets"].values()):
        answer = get(asset["href"], allow_redirects=True)
        path = urlsplit(answer.url).path.split("/assets/")[1]
        seen[path] = hashlib.sha256(answer.content).hexdigest()
    assert seen == {path: digest for path, digest in content.items() if not path.endswith(".json")}
    sources = [link["href"] for link in documents[1]["links"] if link["rel"] == "source"]
    assert len(sources) == 13
    assert sources[0].startswith(
        f"{server.root_url}/collections/ref_african_crops_kenya_02_source/"
    )


def test_a_given_archive_is_served_as_it_is(kenya):
    """`/archive` of a collection that came as an archive is that very file, with its true size."""
    server, _content = kenya
    url = server.root_url + "/archive/ref_african_crops_kenya_02_labels"
    assert get_json(url + "/info")["size"] == KENYA.stat().st_size
    assert get(url, allow_redirects=True).content == KENYA.read_bytes()


# --- unpacking


def make_tar(path, *entries):
    """A gzipped tar; an entry is a name and bytes, or a TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                header = tarfile.TarInfo(entry[0])
                header.size = len(entry[1])
                tar.addfile(header, io.BytesIO(entry[1]))
    return path


def special(name, kind, target=""):
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


@pytest.mark.parametrize(
    "entry",
    [
        ("/tmp/evil", b"x"),
        ("../evil", b"x"),
        ("a/../../evil", b"x"),
        special("a/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("a/link", tarfile.SYMTYPE, "../../evil"),
        special("a/link", tarfile.SYMTYPE, "link"),
        special("a/link", tarfile.LNKTYPE, "../../evil"),
        special("a/dev", tarfile.CHRTYPE),
        special("a/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda entry: entry[0] if isinstance(entry, tuple) else f"{entry.name}-{entry.linkname}",
)
def test_a_hostile_archive_is_refused(tmp_path, entry):
    """A member that leaves the folder, or is no file, is named; nothing of the archive remains."""
    archive = make_tar(tmp_path / "evil.tar.gz", ("a/collection.json", b'{"id": "a"}'), entry)
    with pytest.raises(ConfigError, match="is refused: its member"):
        LocalServer([archive], cache_dir=tmp_path / "cache")
    assert [each.suffix for each in (tmp_path / "cache/unpacked").iterdir()] == [".lock"]
    assert not (tmp_path / "evil").exists()


def test_a_bomb_is_refused(tmp_path):
    """An archive that would expand beyond the limit is refused before it has, and removed."""
    archive = make_tar(tmp_path / "bomb.tar.gz", ("a/1", bytes(600)), ("a/2", bytes(600)))
    with pytest.raises(ConfigError, match="expands to more than 1000 bytes, the limit"):
        unpacking.unpack(archive, tmp_path / "cache", limit=1000)
    assert [each.suffix for each in (tmp_path / "cache/unpacked").iterdir()] == [".lock"]
    assert unpacking.unpack(archive, tmp_path / "cache", limit=1200).is_dir()


def test_an_archive_that_is_none_is_refused(tmp_path):
    """Not a tar, cut short, or damaged: one error that says which file and what to give."""
    (tmp_path / "no.tar.gz").write_bytes(b"<html>")
    whole = make_tar(tmp_path / "whole.tar.gz", ("a/1", os.urandom(5000))).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[:3000])
    harmed = make_tar(tmp_path / "two.tar.gz", ("a/1", b"1"), ("a/2", b"2")).read_bytes()
    harmed = gzip.decompress(harmed).replace(b"a/2", b"b/2")
    (tmp_path / "harmed.tar.gz").write_bytes(gzip.compress(harmed))
    for name in ("no.tar.gz", "cut.tar.gz", "harmed.tar.gz"):
        with pytest.raises(ConfigError, match=rf"{name} cannot be unpacked .*give a \.tar\.gz"):
            LocalServer([tmp_path / name], cache_dir=tmp_path / "cache")


def test_an_archive_is_unpacked_once(tmp_path):
    """The second start reuses what the first unpacked; what a killed one left is not taken."""
    archive = make_tar(
        tmp_path / "a.tar.gz",
        ("a_source/collection.json", b'{"id": "a_source"}'),
        ("a_source/x/stac.json", json.dumps(item("x")).encode()),
        ("a_source/x/real.tif", b"content"),
        special("a_source/x/B02.tif", tarfile.SYMTYPE, "real.tif"),
    )
    folder = unpacking.unpack(archive, tmp_path / "cache")
    folder.rename(folder.with_suffix(".partial"))  # as if it had been killed before the last step
    (folder.with_suffix(".partial") / "a_source/x/stac.json").unlink()
    lines = []
    for _start in range(2):
        with serving(archive, cache=tmp_path / "cache", log=lines.append) as server:
            content = get(storage_of(server, "x", "B02", "a_source")).content
        assert content == b"content"
    assert len([line for line in lines if line.startswith("unpacking")]) == 1
    assert not any(path.is_symlink() for path in folder.rglob("*"))


# --- the server


def test_without_paths_the_sample_is_served(tmp_path):
    """No paths: the bundled sample, every collection of it with items whose assets are there."""
    with serving(cache=tmp_path) as server:
        collections = get_json(server.root_url + "/collections")["collections"]
        assert "bigearthnet_v1_source" in {each["id"] for each in collections}
        for collection in collections:
            first = get_json(items_url(server, collection["id"]))["features"][0]
            for asset in first["assets"].values():
                answer = get(asset["href"], allow_redirects=True, headers={"Range": "bytes=0-15"})
                assert answer.status_code == 206


def test_all_layouts_are_the_same_collection(tmp_path):
    """A collection's folder, its dataset's, and a folder of datasets all serve it."""
    make_forest(tmp_path / "all")
    for path in ("all", "all/forest_v1", "all/forest_v1/forest_v1_source"):
        with serving(tmp_path / path, cache=tmp_path / "cache") as server:
            assert get_json(f"{items_url(server)}/s_00")["id"] == "s_00"
            assert get_json(server.root_url + "/datasets/forest_v1")["id"] == "forest_v1"


@pytest.mark.parametrize(("name", "says"), [("nope", "does not exist"), ("empty", "no collection")])
def test_a_path_without_a_collection_is_refused(tmp_path, name, says):
    """The error names the path and what to give instead."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=rf"{name} .*{says}.*: give a folder"):
        LocalServer([tmp_path / name], cache_dir=tmp_path / "cache")


def test_two_servers_cannot_have_one_port(forest, tmp_path):
    """The error says which port, and what to try; nothing is left listening."""
    port = urlsplit(forest.root_url).port
    second = LocalServer(cache_dir=tmp_path, storage_port=port)
    with pytest.raises(ConfigError, match=rf"port {port} of 127\.0\.0\.1 .*try another"):
        second.start()
    assert second._sockets == []


def test_it_listens_on_loopback_only(forest):
    """Unless told otherwise, both origins are 127.0.0.1."""
    assert {urlsplit(url).hostname for url in (forest.root_url, forest.storage_url)} == {
        "127.0.0.1"
    }


def test_stop_leaves_nothing_listening(tmp_path):
    """After `stop`, with a download half read and an idle connection open, both ports are free."""
    folder = make_collection(
        tmp_path / "a_source", {"x": item("x")}, files={"x/B02.tif": bytes(64 << 20)}
    )
    threads = set(threading.enumerate())
    server = LocalServer([folder], cache_dir=tmp_path / "cache")
    server.start()
    ports = [urlsplit(url).port for url in (server.root_url, server.storage_url)]
    with requests.Session() as session:
        session.get(server.root_url, timeout=SECONDS)
        location = storage_of(server, "x", "B02", "a_source")
        with session.get(location, stream=True, timeout=SECONDS) as half:
            half.raw.read(10)
            server.stop()
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    assert not [t for t in set(threading.enumerate()) - threads if t.name == "local-mlhub"]
    with LocalServer([folder], cache_dir=tmp_path / "cache", port=ports[0]) as again:
        assert urlsplit(again.root_url).port == ports[0]


def test_a_fault_is_a_500_and_the_server_lives(one, tmp_path):
    """What nobody thought of is 500 in JSON, its traceback in the log, and the next answer good."""
    lines = []
    server = one({"x": item("x")}, log=lines.append)
    broken = tmp_path / "data/some_source/collection.json"
    good = broken.read_bytes()
    broken.unlink()
    answer = get(server.root_url + "/collections/some_source")
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
    broken.write_bytes(good)
    assert get(server.root_url + "/collections/some_source").status_code == 200
    assert any(line.startswith("Traceback") for line in lines)


def test_requests_are_recorded_before_they_are_answered(one):
    """Whoever has an answer finds its line, from both origins, in order."""
    server = one({"x": item("x")}, files={"x/B02.tif": b"content"})
    get(asset_url(server, "x", "B02", "some_source"), allow_redirects=True)
    assert [(line.method, line.path, line.status) for line in server.requests] == [
        ("GET", "/mlhub/v1/collections/some_source/items/x", 200),
        ("GET", "/mlhub/v1/download/...", 302),
        ("GET", "/mlhub/assets/some_source/x/B02.tif", 200),
    ]


def test_run_forever_ends_at_a_signal(tmp_path):
    """In the foreground, SIGTERM ends the server with its sockets closed and no word."""
    code = (
        "import sys; from pathlib import Path; from mlhubfs.server.run import LocalServer\n"
        "server = LocalServer(cache_dir=Path(sys.argv[1])); server.start()\n"
        "print(server.root_url, flush=True); server.run_forever(); print('ended', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        url = process.stdout.readline().strip()
        assert get(url).status_code == 200
        process.terminate()
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (0, "ended\n", "")


def test_without_the_extra_the_error_says_what_to_install(tmp_path):
    """Where Starlette is missing, making a server says which command helps."""
    code = (
        "import sys; sys.modules['starlette'] = sys.modules['starlette.applications'] = None\n"
        "from pathlib import Path; from mlhubfs.server.run import LocalServer\n"
        "LocalServer(cache_dir=Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert "ConfigError: the local server needs starlette" in done.stderr
    assert "pip install 'mlhubfs[server]'" in done.stderr
