"""The views: links to what fulfils conditions, to a label's imagery, and archives."""

import json
import logging
import math
import posixpath
import threading
from urllib.parse import parse_qs

import pytest
from faulty import Asset, FaultyServer, Reply
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rooms import Rooms, answer, asked, features, mlhub, real, stac_collection, stac_item

from mlhubfs.errors import BadCondition, NotADirectory, NotFound, Offline, TimedOut
from mlhubfs.tree.nodes import Symlink
from mlhubfs.tree.where import WhereDirectory

ITEMS = "/v1/collections/c/items"
SLASH = "Transitional woodland/shrub"
TAKEN = 1498904430.0


def dataset(identifier, **fields):
    collections = {one: {"id": one, "types": types} for one, types in fields.pop("of").items()}
    return {"id": identifier, "collections": list(collections.values()), **fields}


def label(identifier, *sources, **properties):
    links = [{"rel": "source", "href": href} for href in sources]
    return stac_item(identifier, links=links, **properties)


@pytest.fixture
def host():
    with FaultyServer() as host:
        gone = "https://old/v0/collections/s/items"
        items = [
            label("a", f"{gone}/i-1", f"{gone}/gone", "https://old/collections/no/items/x",
                  labels=["Pastures", SLASH], cloud_and_shadow="true"),
            label("b", labels=["Pastures"], gsd=10),
            {**label("c=1", labels=[SLASH], gsd=20), "bbox": [9, 47, 10, 48]},
        ]  # fmt: skip
        summaries = {
            "platform": ["sentinel-2a"],
            "labels": ["Pastures", "Rice fields"],
            "eo:cloud_cover": {"minimum": 0, "maximum": 99.5},
            "view:azimuth": {"type": "number"},
        }
        mlhub(
            host,
            {"d": {"c": items, "both": []}, "e": {"s": [stac_item("i-1")]}},
            collections={"c": {**stac_collection("c"), "summaries": summaries}},
        )
        host.on("/v1/datasets", answer([
            dataset("d", of={"c": ["labels"], "both": ["labels", "source_imagery"]},
                    tags=["agriculture", "land cover"], doi="10.34911/rdnt.d2ce8i",
                    title="Land Cover of Kenya"),
            dataset("e", of={"s": ["source_imagery"]}, tags=["agriculture", "sentinel-2"],
                    doi=None, title="Imagery"),
        ]))  # fmt: skip
        yield host


@pytest.fixture
def rooms(host, tmp_path):
    with Rooms(host, index=tmp_path / "i" / "s.sqlite", page_size=2) as rooms:
        yield rooms


def links(rooms, path):
    """Return name -> absolute path of where it leads, of the links in a directory."""
    found = {}
    for entry in rooms.tree.directory(path).children()(0):
        node = rooms.tree.node(posixpath.join(path, entry.name))
        assert isinstance(node, Symlink)
        assert entry.attributes == node.attributes()
        assert not node.target.startswith("/")
        found[entry.name] = posixpath.normpath(posixpath.join(path, node.target))
    return found


# --- datasets and collections


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/@where/tags=agriculture", ["d", "e"]),
        ("/@where/tags=agriculture/tags=sentinel-2", ["e"]),
        ("/@where/tags=sentinel-2|land cover", ["d", "e"]),
        ("/@where/tags=agri", []),
        ("/@where/text=land cover", ["d"]),
        ("/@where/text=kenya/text=LAND", ["d"]),
        ("/@where/doi=10.34911%2Frdnt.d2ce8i", ["d"]),
        ("/@where/doi=10.34911%2FRDNT.D2CE8I", ["d"]),
        ("/@where/tags!=sentinel-2", ["d"]),
    ],
)
def test_datasets_are_chosen_by_tags_texts_and_doi(rooms, path, names):
    """Conditions one below the other must all hold; the members lead to the datasets."""
    assert links(rooms, path) == {name: f"/{name}" for name in names}


@pytest.mark.parametrize(
    ("types", "names"),
    [("labels", ["c", "both"]), ("source_imagery", ["both"]), ("labels/types=source_imagery",
                                                               ["both"])],
)  # fmt: skip
def test_collections_are_chosen_by_their_types(rooms, types, names):
    """One of both types stands in both."""
    assert links(rooms, f"/d/@where/types={types}") == {name: f"/d/{name}" for name in names}


def test_a_source_without_datasets_has_collections_to_choose_from(host):
    """By text, by their keywords as tags, and by `sci:doi`."""
    documents = {
        "c": {**stac_collection("c"), "keywords": ["crops"], "sci:doi": "10.1/x"},
        "s": stac_collection("s"),
    }
    mlhub(host, {}, loose={"c": [], "s": []}, collections=documents)
    host.on("/v1/datasets", Reply(404))
    with Rooms(host) as rooms:
        for path in ("tags=crops", "doi=10.1%2Fx", "text=CROPS"):
            assert links(rooms, f"/@where/{path}") == {"c": "/c"}


def test_the_datasets_of_the_real_service_are_chosen(host, rooms):
    """As recorded: each tag leads to those that have it; 13 collections are of both types."""
    body = real("datasets_2022.json")
    host.on("/v1/datasets", answer(body))
    tags = {one["id"]: set(one["tags"]) for one in json.loads(body)}
    suggested = [name for name in rooms.names("/@where") if name.startswith("tags=")]
    assert len(suggested) == len(set().union(*tags.values()))
    for name in suggested:
        expected = [one for one, has in tags.items() if name.removeprefix("tags=") in has]
        assert list(links(rooms, f"/@where/{name}")) == expected
    both = [links(rooms, f"/{one}/@where/types=labels/types=source_imagery") for one in tags]
    assert sum(map(len, both)) == 13


# --- items


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("labels=Pastures", ["a", "b"]),
        ("labels=Pastures/cloud_and_shadow=false", ["b"]),
        ("labels=Transitional woodland%2Fshrub", ["a", "c=1"]),
        ("labels=Rice fields|Pastures/labels=Transitional woodland%2Fshrub", ["a"]),
        ("gsd<=10", ["b"]),
        ("gsd>10", ["c=1"]),
        ("bbox=9.5,47,11,48", ["c=1"]),
        ("datetime=2017-07-01..2017-07-31/gsd=10", ["b"]),
        ("datetime=2018-01-01..", []),
        ("labels=Rice fields", []),
    ],
)
def test_items_are_chosen_by_any_property(rooms, path, ids):
    """In the server's order, before the collection is indexed and after."""
    for _ in range(2):
        assert list(links(rooms, f"/d/c/@where/{path}").values()) == [f"/d/c/{one}" for one in ids]


def test_a_name_that_looks_like_a_condition_is_encoded_in_a_view(rooms):
    """The link to `c=1` is `c%3D1`, and is found by that name."""
    path = "/d/c/@where/gsd=20"
    assert rooms.names(path) == ["c%3D1"]
    assert rooms.tree.node(f"{path}/c%3D1").target == "../../c=1"


def test_a_known_path_costs_one_look_up(host, rooms):
    """Of the item: neither a listing nor the collection."""
    link = rooms.tree.node("/d/c/@where/labels=Pastures/b")
    assert link.target == "../../b"
    assert link.attributes().modified == TAKEN
    assert asked(host) == ["/v1/datasets", f"{ITEMS}/b"]


@pytest.mark.parametrize("name", ["b", "nobody", "@x", "%zz"])
def test_what_does_not_fulfil_the_conditions_is_not_there(rooms, name):
    """An item that is there without them, too."""
    with pytest.raises(NotFound):
        rooms.tree.node(f"/d/c/@where/cloud_and_shadow=true/{name}")


def test_links_are_followed_where_no_kernel_does_it(rooms):
    """For `mlhubfs ls` and `cat`."""
    below = "/d/c/@where/gsd=20/c%3D1"
    assert rooms.names(below) == ["stac.json"]
    assert json.loads(rooms.read(f"{below}/stac.json"))["id"] == "c=1"
    with pytest.raises(NotADirectory):
        rooms.tree.node(f"{below}/stac.json/x")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/@where/tag=agriculture", "'tag' is no filter of datasets"),
        ("/@where/agriculture", "write name=value"),
        ("/d/@where/tags=x", "'tags' is no filter of collections"),
        ("/d/c/@where/datetime=yesterday", "no time"),
        ("/d/c/@where/gsd=10/bbox=1,2", "no box"),
    ],
)
def test_a_bad_filter_is_not_there_and_the_log_says_why(host, rooms, caplog, path, words):
    """ENOENT says nothing; the line names the path."""
    caplog.set_level(logging.INFO)
    with pytest.raises(BadCondition, match=words):
        rooms.tree.node(path)
    assert [words in line and path in line for line in caplog.messages] == [True]
    assert "/v1/collections/c/items" not in asked(host)


TEXTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1)


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["/", "/d", "/d/c"]),
    st.lists(
        st.one_of(
            TEXTS,
            st.tuples(
                st.one_of(TEXTS, st.sampled_from(["tags", "types", "datetime", "bbox", "text"])),
                st.sampled_from(["=", "!=", "<", ">", "<=", ">="]),
                TEXTS,
            ).map("".join),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_any_name_is_a_view_or_not_there(rooms, above, names):
    """Whatever bytes a program makes of it; what is a view can be listed."""
    path = posixpath.join(above, "@where", *names)
    try:
        found = rooms.tree.node(path)
    except NotFound:
        return
    if isinstance(found, WhereDirectory):
        list(found.children()(0))


def test_matches_are_listed_as_they_are_found(host, rooms):
    """The first is there when the first page is; a reader who stops ends the walk."""
    mlhub(host, {"d": {"c": [stac_item(str(n), even=n % 2 == 0) for n in range(100)]}})
    children = rooms.tree.directory("/d/c/@where/even=true").children()
    names = children(0)
    assert next(names).name == "0"
    assert [children.is_known(number) for number in (0, 49)] == [True, False]
    assert next(names).name == "2"
    assert asked(host).count(ITEMS) <= 3
    assert [entry.name for entry in children(1)][:2] == ["2", "4"]
    assert len(list(children(48))) == 2


@pytest.mark.promise(
    "Where the next name takes longer than `timeout` to be found, the listing ends with "
    "ETIMEDOUT, and goes on from there the next time."
)
def test_a_listing_that_takes_too_long_goes_on_the_next_time(host, tmp_path):
    """What was walked in vain is indexed, the page that was waited for too."""
    items = [stac_item(str(number), even=number == 5) for number in range(6)]
    mlhub(host, {"d": {"c": items}})
    late, answered = threading.Event(), threading.Event()

    def page(request):
        start = int(parse_qs(request.query).get("token", ["0"])[0])
        if start == 4:
            late.set()
            answered.wait(30)
        following = f"?token={start + 2}" if start < 4 else None
        return answer(features(items[start : start + 2], following, context={"matched": 6}))

    def gives_up():
        if late.is_set() and not answered.is_set():
            raise TimedOut("too long")
        return False

    host.on(ITEMS, page)
    with Rooms(host, index=tmp_path / "s.sqlite", page_size=2, interrupted=gives_up) as rooms:
        with pytest.raises(TimedOut):
            rooms.names("/d/c/@where/even=true")
        answered.set()
        assert rooms.names("/d/c/@where/even=true") == ["5"]
        assert asked(host).count(ITEMS) == 3


# --- what `@where` lists


def test_where_lists_the_filters_that_are_known(rooms):
    """Tags and DOIs, types; what the collection sums up, and what its first items have."""
    assert rooms.names("/@where") == [
        "tags=agriculture", "tags=land cover", "tags=sentinel-2", "doi=10.34911%2Frdnt.d2ce8i",
    ]  # fmt: skip
    assert rooms.names("/d/@where") == ["types=labels", "types=source_imagery"]
    names = rooms.names("/d/c/@where")
    next_page = ["gsd=20"]  # which may have come by then
    assert [one for one in names if one not in next_page] == [
        "eo:cloud_cover>=0", "eo:cloud_cover<=99.5",
        "cloud_and_shadow=false", "cloud_and_shadow=true", "datetime=2017-07-01..2017-07-01",
        "gsd=10", "labels=Pastures", "labels=Rice fields",
        "labels=Transitional woodland%2Fshrub", "platform=sentinel-2a",
    ]  # fmt: skip
    for name in names:
        assert isinstance(rooms.tree.node(f"/d/c/@where/{name}"), WhereDirectory)


def test_many_values_are_shown_as_their_range(host, rooms):
    """Numbers; of `label:classes`, the classes; ids and the like not at all."""
    classes = [{"name": "crop", "classes": ["Maize", "Rice"]}]
    items = [stac_item(str(n), cover=n / 2, title=f"t{n}", **{"label:classes": classes})
             for n in range(80)]  # fmt: skip
    mlhub(host, {"d": {"c": items}})
    with Rooms(host) as others:
        assert others.names("/d/c/@where") == [
            "cover>=0.0", "cover<=39.5", "datetime=2017-07-01..2017-07-01",
            "label:classes=Maize", "label:classes=Rice",
        ]  # fmt: skip
        assert len(links(others, "/d/c/@where/label:classes=Rice")) == 80


def test_filters_of_a_collection_cost_a_page_at_most(host, rooms):
    """And none when it is indexed."""
    mlhub(host, {"d": {"c": [stac_item(str(n)) for n in range(1000)]}})
    rooms.names("/d/c/@where")
    assert asked(host).count(ITEMS) <= 2


def test_filters_that_the_collection_tells_need_no_key(host, rooms):
    """Its items do, and then suggest nothing."""
    host.on(ITEMS, Reply(401))
    assert "labels=Rice fields" in rooms.names("/d/c/@where")
    assert "gsd=10" not in rooms.names("/d/c/@where")


def test_an_indexed_collection_is_searched_offline(host, tmp_path):
    """One that is not fails at once."""
    index = tmp_path / "s.sqlite"
    with Rooms(host, index=index) as rooms:
        expected = [links(rooms, "/d/c/@where/gsd>=10"), rooms.names("/d/c/@where")]
        rooms.names("/d")
    asked(host)
    with Rooms(host, index=index, offline=True) as rooms:
        assert [links(rooms, "/d/c/@where/gsd>=10"), rooms.names("/d/c/@where")] == expected
        with pytest.raises(Offline):
            rooms.names("/e/s/@where/gsd>=10")
    assert asked(host) == []


# --- @source


def test_a_label_item_leads_to_its_imagery(rooms):
    """By its own links, whatever root they name, and wherever their collection stands."""
    assert links(rooms, "/d/c/a/@source") == {
        "i-1": "/e/s/i-1", "gone": "/e/s/gone", "x": "/d/no/x",
    }  # fmt: skip
    assert rooms.names("/d/c/a/@source/i-1") == ["stac.json"]


def test_an_item_without_sources_has_none_to_show(rooms):
    """And an unknown name is not there."""
    for path in ("/d/c/b/@source", "/e/s/i-1/@source", "/d/c/a/@source/i-2"):
        with pytest.raises(NotFound):
            rooms.tree.node(path)


def test_a_path_through_two_links_leads_where_they_lead(host):
    """The second link is meant from where the first one leads, as a kernel resolves it."""
    old = "https://old/collections"
    labels = [label("x", f"{old}/c/items/y"), label("y", f"{old}/s/items/z")]
    mlhub(host, {"d": {"c": labels}, "e": {"s": [stac_item("z")]}})
    with Rooms(host) as rooms:
        assert rooms.names("/d/c/x/@source/y/@source/z") == ["stac.json"]


def test_listing_sources_asks_for_none_of_them(host, rooms):
    """There may be hundreds: only a collection that no dataset names is looked for, once."""
    links(rooms, "/d/c/a/@source")
    assert asked(host) == ["/v1/datasets", f"{ITEMS}/a", "/v1/collections/no"]


@pytest.mark.parametrize(
    ("name", "first"), [("gone", "/e/s/gone"), ("x", "/d/no")], ids=["item", "collection"]
)
def test_a_dead_link_dangles_and_the_log_says_so(rooms, caplog, name, first):
    """When somebody follows it: the kernel reads the link, and looks its target up."""
    caplog.set_level(logging.INFO)
    path = f"/d/c/a/@source/{name}"
    rooms.tree.link(path)
    for _ in range(2):
        with pytest.raises(NotFound):
            rooms.tree.node(first)
    assert [line.startswith(f"'{path}' leads to nothing") for line in caplog.messages] == [True]


def test_sources_of_one_name_in_two_collections_are_told_apart(host, rooms):
    """Ids are unique in a collection only."""
    hrefs = [f"https://x/collections/{one}/items/i" for one in ("c", "s", "c")]
    mlhub(host, {"d": {"c": [stac_item("i")], "s": [stac_item("i")], "l": [label("z", *hrefs)]}})
    assert links(rooms, "/d/l/z/@source") == {"i": "/d/c/i", "i~s": "/d/s/i"}


# --- @archive.tar.gz


def test_an_archive_is_a_file_of_its_exact_size(host, rooms):
    """Known from the server's word, read by ranges, without a request for its size."""
    data = bytes(range(256)) * 40_000
    about = {"collection": "c", "dataset": "d", "size": len(data), "types": ["labels"]}
    host.on("/v1/archive/c/info", answer(about))
    host.on("/v1/archive/c", Reply(303, {"Location": "/store/c.tar.gz"}))
    host.on("/store/c.tar.gz", Asset(data))
    file = rooms.tree.file("/d/c/@archive.tar.gz")
    assert file.attributes().size == len(data)
    assert asked(host) == ["/v1/datasets", "/v1/archive/c/info"]
    opened = file.open()
    assert bytes(opened.read(5_000_000, 1000)) == data[5_000_000:5_001_000]
    assert bytes(opened.read(0, len(data))) == data


def test_an_archive_that_was_read_is_there_offline(host, tmp_path):
    """What is told of it is kept in the index, as its bytes are in the cache."""
    host.on("/v1/archive/c/info", answer({"collection": "c", "dataset": "d", "size": 5}))
    host.on("/v1/archive/c", Asset(content=b"bytes"))
    folders = {"index": tmp_path / "s.sqlite", "cache": tmp_path / "blocks"}
    with Rooms(host, **folders) as rooms:
        assert rooms.read("/d/c/@archive.tar.gz") == b"bytes"
        rooms.flush()
    asked(host)
    with Rooms(host, **folders, offline=True, content_ttl=math.inf) as rooms:
        assert rooms.read("/d/c/@archive.tar.gz") == b"bytes"
    assert asked(host) == []


def test_a_collection_without_an_archive_has_no_such_file(rooms, caplog):
    """ENOENT, and nothing in the log."""
    with pytest.raises(NotFound):
        rooms.tree.node("/d/c/@archive.tar.gz")
    assert caplog.messages == []


# --- listed or not


def test_views_are_listed_only_if_that_is_asked_for(host, rooms):
    """`find`, `cp -r` and indexers must not fall into them."""
    host.on("/v1/archive/c/info", answer({"collection": "c", "size": 5}))
    for path in ("/", "/d", "/d/c", "/d/c/a"):
        assert not [name for name in rooms.names(path) if name.startswith("@")]
    with Rooms(host, show_views=True) as showing:
        shown = {path: [name for name in showing.names(path) if name.startswith("@")]
                 for path in ("/", "/d", "/d/c", "/e/s", "/d/c/a", "/d/c/b")}  # fmt: skip
        assert shown == {
            "/": ["@where"], "/d": ["@where"], "/d/c": ["@where", "@archive.tar.gz"],
            "/e/s": ["@where"], "/d/c/a": ["@source"], "/d/c/b": [],
        }  # fmt: skip
        for path, names in shown.items():
            for name in names:
                showing.tree.node(posixpath.join(path, name)).attributes()
