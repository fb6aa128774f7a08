"""The documents of the tree: relative links as in MLHub's archives, and nothing secret."""

import json
import posixpath
import tarfile

import pytest
from rooms import real, stac_collection, stac_item

from mlhubfs.catalog.models import (
    Asset,
    parse_collection,
    parse_dataset,
    parse_datasets,
    parse_item,
    parse_page,
)
from mlhubfs.errors import BadAnswer
from mlhubfs.tree import documents
from mlhubfs.tree.documents import scrubber
from mlhubfs.tree.hrefs import Hrefs
from mlhubfs.tree.item import file_names

ROOT = "https://api.example.org/v1"
TOKEN = "gAAAAABh" + "x" * 320
SCRUB = scrubber(ROOT)
RESERVED = frozenset({"stac.json"})
ABOVE = ("catalog.json", "collection.json")  # in a dataset


def written_item(value, path="/d/c/a", find=lambda collection, item: f"/d/{collection}/{item}"):
    item = parse_item(json.dumps(value).encode(), 0.0)
    files = file_names(item.assets, RESERVED, Hrefs())
    text = documents.item_json(
        item, path=path, above=ABOVE[3 - path.count("/") :], files=files, find_item=find,
        scrub=SCRUB,
    )  # fmt: skip
    return json.loads(text)


def written_collection(value, names=(), *, above=ABOVE, children=()):
    collection = parse_collection(json.dumps(value).encode(), 0.0)
    files = file_names(collection.assets, frozenset(), Hrefs())
    text = documents.collection_json(
        collection, above=above, files=files, child_names=children, item_names=names, scrub=SCRUB
    )
    return json.loads(text)


def links(document, *rels):
    return [(one["rel"], one["href"]) for one in document["links"] if one["rel"] in rels]


# --- links


@pytest.mark.parametrize(
    ("path", "root"), [("/d/c/a", "/d/catalog.json"), ("/c/a", "/c/collection.json")]
)
def test_the_structure_of_an_item_is_relative_and_leads_to_what_is_there(path, root):
    """In a dataset the root is its catalog.json, else the collection; there is no self link."""
    value = stac_item("a", links=[
        {"rel": rel, "href": f"{ROOT}/collections/c"}
        for rel in ("self", "root", "parent", "collection", "next", "prev", "previous", "items")
    ])  # fmt: skip
    found = links(written_item(value, path), *documents._STRUCTURE)
    above = posixpath.dirname(path)
    resolved = [(rel, posixpath.normpath(posixpath.join(path, href))) for rel, href in found]
    assert resolved == [
        ("root", root),
        ("collection", f"{above}/collection.json"),
        ("parent", f"{above}/collection.json"),
    ]
    assert all(href.startswith(".") for _, href in found)


@pytest.mark.parametrize(
    ("above", "expected"),
    [(ABOVE, [("root", "../catalog.json"), ("parent", "../catalog.json")]),
     (ABOVE[1:], [("root", "./collection.json")])],
)  # fmt: skip
def test_the_structure_of_a_collection_is_relative(above, expected):
    """With its items, by the names of their directories, and no self link."""
    value = stac_collection("c", links=[{"rel": "self", "href": "x"}, {"rel": "item", "href": "y"}])
    document = written_collection(value, ["a", "%2Ehidden"], above=above)
    assert links(document, *documents._STRUCTURE) == [
        *expected, ("item", "./a/stac.json"), ("item", "./%2Ehidden/stac.json")
    ]  # fmt: skip


def test_links_out_of_the_catalog_stay():
    """Licence, citation, thumbnails; relative ones that lead nowhere here do not."""
    value = stac_item("a", links=[
        {"rel": "license", "href": "https://creativecommons.org/x", "title": "CC"},
        {"rel": "cite-as", "href": "https://doi.org/10.1/x"},
        {"rel": "about", "href": "./local.html"},
    ])  # fmt: skip
    assert links(written_item(value), "license", "cite-as", "about") == [
        ("license", "https://creativecommons.org/x"),
        ("cite-as", "https://doi.org/10.1/x"),
    ]
    assert links(written_collection(stac_collection("c", links=value["links"])), "license")


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        (f"{ROOT}/collections/s/items/i", "../../s/i/stac.json"),
        ("http://old.root/v0/collections/s/items/i/", "../../s/i/stac.json"),
        ("/v1/collections/s/items/i?key=x#f", "../../s/i/stac.json"),
        ("../../s/i/stac.json", "../../s/i/stac.json"),
        ("../../s/i/i.json", "../../s/i/stac.json"),
        (f"{ROOT}/collections/c/items/b", "../b/stac.json"),
        (f"{ROOT}/collections/s/items/a%20b-c", "../../s/a b-c/stac.json"),
        ("https://elsewhere.org/scene.tif", None),
        ("not a link", None),
        (None, None),
        (5, None),
    ],
)
def test_source_links_lead_to_the_imagery_whatever_root_they_name(href, expected):
    """As in the archives: into the sibling directory; what is no item of a catalog is left out."""
    document = written_item(stac_item("a", links=[{"rel": "source", "href": href, "title": "t"}]))
    assert links(document, "source") == ([("source", expected)] if expected else [])
    for link in document["links"]:
        if link["rel"] == "source":
            assert (link["title"], link["type"]) == ("t", "application/geo+json")


def test_source_links_cross_datasets():
    """The path of the other item is found, not guessed."""
    value = stac_item("a", links=[{"rel": "source", "href": f"{ROOT}/collections/s/items/i"}])
    document = written_item(value, find=lambda collection, item: f"/other/{collection}/{item}")
    assert links(document, "source") == [("source", "../../../other/s/i/stac.json")]


def test_a_source_link_does_not_leave_the_mount():
    """An id of `..` is encoded like any other name by those who find the path."""
    seen = []
    value = stac_item("a", links=[{"rel": "source", "href": f"{ROOT}/collections/%2E%2E/items/.."}])
    written_item(value, find=lambda *ids: (seen.append(ids), "/d/x/y")[1])
    assert seen == [("..", "..")]


@pytest.mark.parametrize(
    "odd", [None, 5, "x", {}, [None], ["x"], [{}], [{"rel": None}], [{"rel": ["self"]}],
            [{"rel": "license"}], [{"rel": "license", "href": 5}], [{"rel": {"a": 1}, "href": "x"}]]
)  # fmt: skip
def test_links_of_any_shape_do_no_harm(odd):
    """One item with nonsense for links is still an item."""
    value = stac_item("a") | {"links": odd}
    assert len(written_item(value)["links"]) == 3
    assert len(written_collection(stac_collection("c") | {"links": odd})["links"]) == 2
    del value["links"]
    assert len(written_item(value)["links"]) == 3


@pytest.mark.parametrize("depth", [100, 300, 500, 700, 900])
def test_deep_nesting_is_shown_or_refused(depth):
    """What parses may still be too deep to be rewritten: a bad answer then, not a traceback."""
    deep = "[" * depth + "]" * depth
    item = parse_item(f'{{"id": "a", "deep": {deep}}}'.encode(), 0.0)
    try:
        text = documents.item_json(
            item, path="/d/c/a", above=ABOVE, files={}, find_item=lambda *_: "/", scrub=SCRUB
        )
    except BadAnswer:
        assert depth > 100
    else:
        assert text.count(b"[") >= depth


# --- assets


def test_asset_links_are_the_files_beside_the_document():
    """By the names that they have there, all other fields as they came."""
    download = {"href": f"{ROOT}/download/{TOKEN}", "type": "image/tiff", "roles": ["data"]}
    document = written_item(stac_item("a", {"B02": download, "a/b": download, "stac": download}))
    assert {key: one["href"] for key, one in document["assets"].items()} == {
        "B02": "./B02.tif", "a/b": "./a%2Fb.tif", "stac": "./stac.tif"
    }  # fmt: skip
    assert document["assets"]["B02"]["roles"] == ["data"]


def test_the_assets_of_a_collection_are_in_common():
    """As in the archives."""
    value = stac_collection(
        "c", {"labels": {"href": f"{ROOT}/download/{TOKEN}", "type": "text/csv"}}
    )
    assert written_collection(value)["assets"]["labels"]["href"] == "./_common/labels.csv"


def test_an_asset_that_is_no_file_here_keeps_its_link():
    """`ftp:`, say; one without any link stays as it is."""
    assets = {"far": {"href": "ftp://h/a"}, "none": {"title": "x"}}
    document = written_item(stac_item("a", assets))
    assert document["assets"] == assets


def test_an_asset_with_a_link_that_is_no_url_does_no_harm():
    """The rest of the directory is there."""
    document = written_item(
        stac_item("a", {"bad": {"href": "http://[oops/"}, "good": f"{ROOT}/g.tif"})
    )
    assert document["assets"]["good"]["href"] == "./good.tif"
    assert document["assets"]["bad"]["href"] == "http://[oops/"


# --- secrets


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"{ROOT}/download/short", f"{ROOT}/download/..."),
        (f"{ROOT}/download/short?x=1", f"{ROOT}/download/..."),
        ("https://api.radiant.earth/mlhub/v1/download/token-b3a33a46ee5b5787",
         "https://api.radiant.earth/mlhub/v1/download/..."),
        (f"https://elsewhere.org/download/{TOKEN}/x", "https://elsewhere.org/download/.../x"),
        (f"<a href='{ROOT}/download/abc'>x</a>", f"<a href='{ROOT}/download/...'>x</a>"),
        (f"{ROOT}/x?token=prev:a&key=SECRET", f"{ROOT}/x?token=prev:a&key=..."),
        (f"{ROOT}/x?key=SECRET&limit=1", f"{ROOT}/x?key=...&limit=1"),
        ("/v1/collections?key=SECRET", "/v1/collections?key=..."),
        (f"/mlhub/v1/download/{TOKEN}", "/mlhub/v1/download/..."),
        ("https://h.org/download/manual.pdf", "https://h.org/download/manual.pdf"),
        ("https://h.org/?monkey=1", "https://h.org/?monkey=1"),
        ("no link at all", "no link at all"),
    ],
)  # fmt: skip
def test_keys_and_tokens_are_cut_out_of_every_string(text, clean):
    """Wherever in a document they stand; what is no secret stays."""
    assert SCRUB(text) == clean
    value = {"a": [{"b": text}, 1, None, True], "c": text}
    assert SCRUB(value) == {"a": [{"b": clean}, 1, None, True], "c": clean}


def test_no_document_holds_a_secret():
    """Providers, descriptions, properties, links of any kind: each document is looked through."""
    secret = f"{ROOT}/download/{TOKEN}?key=SECRET"
    odd = {"providers": [{"url": secret}], "novelty": {"x": [secret]}, "description": secret}
    out = [{"rel": "license", "href": secret}, {"rel": "previous", "href": secret}]
    dataset = parse_dataset(
        json.dumps({"id": "d", "title": secret, "citation": secret} | odd).encode()
    )
    texts = [
        json.dumps(written_item(stac_item("a", {"ftp": {"href": f"ftp://h/download/{TOKEN}"}}, out)
                                | odd)),
        json.dumps(written_collection(stac_collection("c", links=out) | odd)),
        documents.dataset_json(dataset, SCRUB).decode(),
        documents.dataset_catalog(dataset, ["c"], SCRUB).decode(),
    ]  # fmt: skip
    for text in texts:
        assert TOKEN not in text
        assert "SECRET" not in text
        assert "..." in text


# --- whole documents


def test_a_dataset_is_a_catalog_of_its_collections():
    """Under the names that their directories have."""
    dataset = parse_dataset(b'{"id": "d", "description": "about"}')
    catalog = json.loads(documents.dataset_catalog(dataset, ["a", "%63atalog.json"], SCRUB))
    assert (catalog["type"], catalog["id"], catalog["title"]) == ("Catalog", "d", "d")
    assert links(catalog, "root", "child", "self") == [
        ("root", "./catalog.json"),
        ("child", "./a/collection.json"),
        ("child", "./%63atalog.json/collection.json"),
    ]


def test_the_datasets_own_object_is_shown_whole():
    """As the API has it: citation, DOI, tags, whatever more."""
    for one in parse_datasets(real("datasets_2022.json")):
        shown = json.loads(documents.dataset_json(one, SCRUB))
        assert shown == SCRUB(json.loads(one.document))
        assert set(shown) == set(json.loads(one.document))


def test_documents_are_the_same_at_every_call():
    """A program looks at the size first; a time of day inside would make it read a torn file."""
    item = parse_item(json.dumps(stac_item("a", {"x": "./x.tif"})).encode(), 0.0)

    def write():
        return documents.item_json(
            item, path="/d/c/a", above=ABOVE, files={"x.tif": Asset("x", "./x.tif")},
            find_item=lambda *_: "/", scrub=SCRUB,
        )  # fmt: skip

    assert write() == write()
    assert write().endswith(b"}\n")
    assert b"\n  " in write()  # for people


def test_text_that_is_not_ascii_is_written_as_it_is():
    """In UTF-8, readable."""
    item = stac_item("a", title="Kenia, Maïs 🌽")
    assert written_item(item)["properties"]["title"] == "Kenia, Maïs 🌽"


def test_the_readme_is_a_screenful_and_tells_what_is_incomplete():
    """What is mounted, how it is laid out, how it ends."""
    text = documents.readme(ROOT, 2, []).decode()
    assert ROOT in text
    assert "2 datasets" in text
    assert "Incomplete" not in text
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 100
    broken = documents.readme(ROOT, 0, ["c: the server lists 1 of 3"]).decode()
    assert "Incomplete listings:\n  c: the server lists 1 of 3\n" in broken
    assert "no datasets" in broken


def test_the_readme_of_a_static_catalog_tells_of_what_it_has():
    """It has no datasets, types or archives."""
    text = documents.readme(ROOT, 0, [], is_static=True).decode()
    assert "<catalog>/@where/" in text
    for one in ("<dataset>", "types=", "doi=", "@archive"):
        assert one not in text


def test_recorded_items_are_written_as_the_real_archive_has_its_own(tmp_path):
    """The same relative links to collection and assets as in a collection archive of MLHub's."""
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(real("archive_ref_african_crops_kenya_02_labels.tar.gz"))
    with tarfile.open(path) as archive:
        (member, *_) = [one for one in archive.getmembers() if one.name.endswith("/stac.json")]
        theirs = json.load(archive.extractfile(member))
        names = archive.getnames()
    here = posixpath.dirname(member.name)
    ours = written_item(theirs, f"/d/{here}")
    for key, asset in ours["assets"].items():
        if "_common" not in theirs["assets"][key]["href"]:
            assert posixpath.normpath(posixpath.join(here, asset["href"])) in names
    hrefs = {one["rel"]: one["href"] for one in theirs["links"]}
    for rel in ("parent", "collection"):
        assert dict(links(ours, rel)).get(rel) == hrefs.get(rel, "../collection.json")
    assert dict(links(ours, "source")).get("source", "").endswith("/stac.json")


@pytest.mark.parametrize("name", ["2021_kenya_02_page1", "2022_kenya_02_page2"])
def test_recorded_items_lose_nothing_but_their_links(name):
    """Geometry, properties, bands: as the server had them."""
    page = parse_page(real(f"items_{name}.json"), 0.0)
    for item in page.items:
        theirs = json.loads(bytes(item.document))
        ours = written_item(json.loads(bytes(item.document)))
        for document in (theirs, ours):
            del document["links"]
            for asset in document["assets"].values():
                del asset["href"]
        assert ours == theirs
