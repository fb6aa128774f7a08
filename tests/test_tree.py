"""The directories: every kind of node, what each costs, and what is refused for nothing."""

import json
import posixpath

import pytest
from faulty import Asset, FaultyServer, Reply
from rooms import Rooms, answer, asked, features, mlhub, stac_collection, stac_item, together

from mlhubfs.errors import BadAnswer, Denied, IsADirectory, NotADirectory, NotFound, Unavailable
from mlhubfs.tree.collection import LINKED_ITEMS, CollectionDirectory, CommonDirectory
from mlhubfs.tree.dataset import DatasetDirectory
from mlhubfs.tree.item import AssetFile, ItemDirectory
from mlhubfs.tree.names import encode
from mlhubfs.tree.nodes import Attributes, Document, Entry
from mlhubfs.tree.root import Root

ITEMS = "/v1/collections/c/items"
ITEM = f"{ITEMS}/a"
TAKEN = 1498904430.0  # stac_item's datetime, and faulty.MODIFIED
CHIP = b"chip" * 1000
BANDS = [f"B{n:02d}" for n in range(1, 13)]
HOSTILE = ["", ".", "..", "../x", "a/b", "\0", "a\nb", "x" * 300, "%2F", "@where", "Aa", "aA", "🔥",
           "collection.json", "_common", ".hidden"]  # fmt: skip


@pytest.fixture
def host():
    with FaultyServer() as host:
        for band in BANDS:
            host.on(f"/store/{band}.tif", Asset(CHIP))
            host.on(f"/v1/download/{band}", Reply(302, {"Location": f"/store/{band}.tif"}))
        bands = {band: f"{host.url}/v1/download/{band}" for band in BANDS}
        item = stac_item("a", bands)
        source = [
            {"rel": "source", "href": f"https://old/collections/s/items/i-{n}"} for n in (1, 2)
        ]
        mlhub(
            host,
            {"d": {"c": [item, stac_item("b")], "l": [stac_item("x", links=source)]},
             "e": {"s": [stac_item("i-1"), stac_item("i-2")]}},
            loose={"loose": [stac_item("y")]},
            collections={"c": stac_collection("c", {
                "doc": {"href": "../files/doc.pdf", "type": "application/pdf"},
                "far": {"href": "ftp://h/x"},
            })},
        )  # fmt: skip
        host.on("/v1/files/doc.pdf", Asset(b"%PDF"))
        yield host


@pytest.fixture
def rooms(host):
    with Rooms(host, page_size=2) as rooms:
        yield rooms


@pytest.fixture
def tree(rooms):
    return rooms.tree


def document(rooms, path):
    return json.loads(rooms.read(path))


def walk(rooms, path="/"):
    """Yield every path below `path`, as `find` would."""
    for entry in rooms.tree.directory(path).children()(0):
        here = posixpath.join(path, entry.name)
        yield here
        if entry.is_directory:
            yield from walk(rooms, here)


# --- kinds


@pytest.mark.promise(
    "A dataset, a collection or an item is a directory named by its id, an asset a "
    "file named by its key and an extension."
)
@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", Root), ("/README.txt", Document), ("/d", DatasetDirectory),
     ("/d/catalog.json", Document), ("/d/dataset.json", Document), ("/d/c", CollectionDirectory),
     ("/d/c/collection.json", Document),
     ("/d/c/_common", CommonDirectory), ("/d/c/_common/doc.pdf", AssetFile),
     ("/d/c/a", ItemDirectory), ("/d/c/a/stac.json", Document), ("/d/c/a/B02.tif", AssetFile),
     ("/loose", CollectionDirectory), ("/loose/y", ItemDirectory)],
)  # fmt: skip
def test_each_path_leads_to_its_kind_of_node(tree, path, kind):
    """And what the parent's listing says of it agrees with what it is."""
    node = tree.node(path)
    assert type(node) is kind
    if path != "/":
        above, name = posixpath.split(path)
        (entry,) = [one for one in tree.directory(above).children()(0) if one.name == name]
        assert entry.is_directory == node.attributes().is_directory
        assert entry.attributes in (None, node.attributes())


def test_every_name_that_is_listed_is_there(rooms):
    """Walking all of it, each path's parent knows it, and its attributes are the same twice."""
    paths = list(walk(rooms))
    assert len(paths) == len(set(paths)) == 41
    for path in paths:
        node = rooms.tree.node(path)
        assert node.attributes() == node.attributes()


@pytest.mark.parametrize("path", ["/d/c/a", "/d/c", "/d", "/"])
@pytest.mark.parametrize("start", [0, 1, 2, 3, 100])
def test_a_listing_can_begin_anywhere(tree, path, start):
    """`readdir` goes on from an offset."""
    children = tree.directory(path).children()
    assert list(children(start)) == list(children(0))[start:]


def test_a_listing_stays_as_it_was_when_the_directory_was_opened(host, rooms):
    """An offset means the same name until the directory is closed."""
    children = rooms.tree.directory("/d").children()
    names = [entry.name for entry in children(0)]
    mlhub(host, {"d": {}})
    assert [entry.name for entry in children(0)] == names


@pytest.mark.parametrize(
    "path",
    ["/nobody", "/d/nobody", "/d/c/nobody", "/d/c/a/nobody", "/d/c/_common/nobody", "/d/l/_common",
     "/d/c/_common/far", "/c", "/s", "/d/s", "/loose/nobody", "/d/loose", "/catalog.json",
     "/d/README.txt", "/d/c/a/collection.json", "/d/"],
)  # fmt: skip
def test_what_is_not_there_is_not_found(tree, path):
    """Nothing has two paths: a collection that stands in a dataset does not stand at the root."""
    with pytest.raises(NotFound):
        tree.node(path)


def test_a_path_may_have_more_parts_than_pythons_stack_has_room_for(tree):
    """What is not there is not found, what is there is found, however deep."""
    with pytest.raises(NotFound, match="collections/none"):
        tree.node("/none" * 2000)
    with pytest.raises(NotADirectory, match=r"^/README.txt is a file"):
        tree.node("/README.txt" + "/x" * 2000)
    assert tree.directory("/d/c/@where" + "/gsd=10" * 2000).attributes().is_directory


def test_files_are_no_directories_and_the_other_way_round(tree):
    """Each mistake has its own error."""
    for path in ("/README.txt/x", "/d/catalog.json/x", "/d/c/a/B02.tif/x", "/d/c/a/stac.json/x/y"):
        with pytest.raises(NotADirectory):
            tree.node(path)
    for path in ("/", "/d", "/d/c", "/d/c/_common", "/d/c/a"):
        with pytest.raises(IsADirectory):
            tree.file(path)
    with pytest.raises(NotADirectory):
        tree.directory("/README.txt")


def test_a_directory_is_the_same_node_each_time(tree):
    """It remembers whether it was listed; sixteen threads that make it at once share one."""
    assert len({id(node) for node in together(16, lambda _: tree.node("/d/c/a"))}) == 1


def test_the_nodes_that_are_kept_are_bounded(tree, monkeypatch):
    """And what was dropped comes back."""
    monkeypatch.setattr("mlhubfs.tree.root._DIRECTORIES", 2)
    for path in ("/d", "/d/c", "/d/l", "/e", "/e/s", "/d/c"):
        tree.node(path)
        assert len(tree._directories) <= 2


# --- costs


def test_a_known_path_costs_one_item_look_up_and_no_listing(host, rooms):
    """Item, download redirect, one range: the first read of a chip; and nothing the second time."""
    assert rooms.read("/d/c/a/B02.tif") == CHIP
    assert asked(host) == ["/v1/datasets", ITEM, "/v1/download/B02", "/store/B02.tif"]
    assert rooms.read("/d/c/a/B02.tif") == CHIP
    assert rooms.names("/d/c/a") == ["stac.json", *(f"{band}.tif" for band in BANDS)]
    rooms.read("/d/c/a/stac.json")
    assert asked(host) == []


SIDECARS = [
    *(f"B02.{end}" for end in ("tif.aux.xml", "aux", "tif.ovr", "tif.msk", "TIF.AUX.XML", "TIF.OVR",
                               "IMD", "RPB", "PVL", "tif.vat.dbf", "qml", "tfw", "wld", "prj")),
    "B02.xml",
    "B02_rpc.txt", "B02_MTL.txt", "B02", "b02.tif", "B02.tiff", "B99.tif",
    ".hidden", ".Trash", ".Trash-1000", ".directory", ".sh_thumbnails", ".DS_Store", "._B02.tif",
    "autorun", "autorun.sh", "autorun.inf", "desktop.ini", "Thumbs.db", "metadata.xml", "@where",
    "@source", "a~0123456789abcdef", "x" * 255, "%2f", "STAC.JSON",
]  # fmt: skip


def test_names_that_the_item_does_not_hold_are_refused_without_a_request(host, tree):
    """The item's JSON is the directory: side-cars and what file managers look for cost nothing."""
    tree.directory("/d/c/a").children()
    asked(host)
    assert len(SIDECARS) >= 40
    for name in SIDECARS:
        with pytest.raises(NotFound):
            tree.node(f"/d/c/a/{name}")
    assert asked(host) == []


@pytest.mark.parametrize("above", ["/", "/d", "/d/c", "/d/c/a", "/d/c/_common", "/loose"])
@pytest.mark.parametrize(
    "name", [".hidden", ".Trash-1000", ".DS_Store", "._x", "@nowhere", "%2e", "a%"]
)
def test_a_name_that_no_id_can_have_is_refused_at_once(host, tree, above, name):
    """Anywhere: it is no encoding of an id, so nobody needs to be asked."""
    tree.node(above)
    asked(host)
    with pytest.raises(NotFound):
        tree.node(posixpath.join(above, name)).attributes()
    assert not [path for path in asked(host) if name in path or path.endswith("/items")]


def test_a_missing_item_is_asked_for_once_a_minute(host, tree):
    """One look-up, no listing, and then nothing."""
    for _ in range(3):
        with pytest.raises(NotFound):
            tree.node("/d/c/nobody")
    assert asked(host) == ["/v1/datasets", f"{ITEMS}/nobody"]


def test_reading_an_item_directory_asks_storage_for_nothing(host, tree):
    """QGIS opens every one of 2,000 to look into it."""
    entries = list(tree.directory("/d/c/a").children()(0))
    assert len(entries) == 13
    assert asked(host) == ["/v1/datasets", ITEM]


def test_the_items_of_a_listing_cost_nothing_more(host, tree):
    """`ls -l` of a collection: pages only; and the item directories of those pages are at hand."""
    entries = list(tree.directory("/d/c").children()(0))
    asked(host)
    assert entries[2:] == [
        Entry(name, is_directory=True, attributes=Attributes(True, 0, TAKEN)) for name in "ab"
    ]
    for name in "ab":
        assert tree.node(f"/d/c/{name}").attributes() == Attributes(True, 0, TAKEN)
        list(tree.directory(f"/d/c/{name}").children()(0))
    assert asked(host) == []


def test_the_first_names_come_after_the_first_page(host, rooms):
    """However many items there are, and whatever the collection's size."""
    mlhub(host, {"d": {"c": [stac_item(str(n)) for n in range(20_000)]}})
    names = rooms.tree.directory("/d/c").children()(0)
    assert [next(names).name for _ in range(3)] == ["collection.json", "0", "1"]
    assert asked(host) == ["/v1/datasets", "/v1/collections/c", ITEMS]


def test_what_is_known_of_a_listing_is_told_without_waiting(host, rooms):
    """`is_known` says whether a name needs the network; the end is known when it was reached."""
    children = rooms.tree.directory("/e/s").children()
    assert [children.is_known(number) for number in range(3)] == [True, False, False]
    names = children(0)
    for _ in range(2):
        next(names)
    assert [children.is_known(number) for number in range(4)] == [True, True, True, True]


# --- siblings


def probed(host):
    """Return which files of storage were asked for."""
    return {path for path in asked(host) if path.startswith("/store/")}


def test_after_a_listing_the_first_stat_probes_all_siblings(host, rooms):
    """`ls -l` of an item: a round trip side by side instead of twelve in a row."""
    list(rooms.tree.directory("/d/c/a").children()(0))
    assert rooms.tree.node("/d/c/a/B01.tif").attributes() == Attributes(False, len(CHIP), TAKEN)
    for band in BANDS:
        host.wait_for(f"/store/{band}.tif")
    sizes = [rooms.tree.node(f"/d/c/a/{band}.tif").attributes().size for band in BANDS]
    assert sizes == [len(CHIP)] * 12
    assert len([path for path in asked(host) if path.startswith("/store/")]) == 12
    (known, *_) = list(rooms.tree.directory("/d/c/a").children()(1))
    assert known.attributes == Attributes(False, len(CHIP), TAKEN)


def test_without_a_listing_a_stat_probes_its_own_file_only(host, tree):
    """A program that knows its path does not pay for the other bands."""
    tree.node("/d/c/a/B01.tif").attributes()
    tree.node("/d/c/a/B02.tif").attributes()
    tree.node("/d/c/a/B03.tif").open()
    assert probed(host) == {"/store/B01.tif", "/store/B02.tif", "/store/B03.tif"}


def test_a_listing_after_an_open_probes_nobody(host, tree):
    """GDAL opens one file and then lists the directory, for side-cars."""
    tree.file("/d/c/a/B01.tif").open()
    list(tree.directory("/d/c/a").children()(0))
    tree.node("/d/c/a/B02.tif").attributes()
    assert probed(host) == {"/store/B01.tif", "/store/B02.tif"}


@pytest.mark.promise(
    "Where the catalog tells a size (`file:size`), that is shown until the file is opened."
)
def test_a_size_that_the_catalog_tells_is_believed_until_storage_tells_another(host, rooms):
    """`file:size` saves the question; what was opened is what counts."""
    for name, size in (("true", len(CHIP)), ("false", 5)):
        asset = {"href": f"{host.url}/store/B01.tif", "type": "image/tiff", "file:size": size}
        host.on(f"{ITEMS}/{name}", answer(stac_item(name, {"B01": asset})))
    for name, size in (("true", len(CHIP)), ("false", 5)):
        file = rooms.tree.file(f"/d/c/{name}/B01.tif")
        assert file.attributes() == Attributes(False, size, TAKEN)
        assert probed(host) == set()
        assert file.open().read(0, 1 << 20) == CHIP
        assert file.attributes().size == len(CHIP)
        asked(host)


@pytest.mark.promise(
    "The mtime of an item's directory is the item's datetime, that of a file its "
    "`Last-Modified`, else the item's datetime; it is the same at every call, and "
    "1970 where nothing is known."
)
def test_the_time_of_a_file_is_its_storages_else_its_items(host, tree):
    """The same at every call, never now."""
    host.on("/store/B01.tif", Asset(CHIP, modified="Fri, 01 Jan 2021 00:00:00 GMT"))
    host.on("/store/B02.tif", Asset(CHIP, modified=None))
    assert tree.node("/d/c/a/B01.tif").attributes().modified == 1609459200
    assert tree.node("/d/c/a/B02.tif").attributes().modified == TAKEN
    assert tree.node("/d/c/a").attributes().modified == TAKEN
    assert tree.node("/d/c/a/stac.json").attributes().modified == TAKEN
    assert tree.node("/d").attributes().modified == 1637064077
    assert tree.node("/").attributes().modified == 1637064077
    assert tree.node("/loose").attributes().modified == 1527594841


# --- documents in their place


def test_every_link_of_every_document_leads_to_a_document(rooms):
    """The mount is a self-contained catalog: each relative link is a path that is there."""
    checked = 0
    for path in walk(rooms):
        if path.endswith(".json"):
            for link in document(rooms, path).get("links", []):
                assert link["rel"] != "self"
                target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link["href"]))
                assert isinstance(document(rooms, target), dict), (path, link)
                checked += 1
    assert checked == 38


def test_every_asset_of_every_document_leads_to_its_file(rooms):
    """In items and in collections."""
    item = document(rooms, "/d/c/a/stac.json")
    for key, asset in item["assets"].items():
        assert asset["href"] == f"./{key}.tif"
        assert rooms.read(posixpath.join("/d/c/a", asset["href"][2:])) == CHIP
    collection = document(rooms, "/d/c/collection.json")
    assert collection["assets"]["doc"]["href"] == "./_common/doc.pdf"
    assert rooms.read("/d/c/_common/doc.pdf") == b"%PDF"


def test_source_links_lead_into_the_other_dataset(rooms):
    """Two of the label item's, to imagery that stands in dataset e."""
    hrefs = [one["href"] for one in document(rooms, "/d/l/x/stac.json")["links"]
             if one["rel"] == "source"]  # fmt: skip
    assert hrefs == ["../../../e/s/i-1/stac.json", "../../../e/s/i-2/stac.json"]
    assert document(rooms, "/e/s/i-1/stac.json")["id"] == "i-1"


def test_a_document_is_as_long_as_its_size_says(rooms):
    """Each, read to its end and at an offset."""
    for path in walk(rooms):
        if path.endswith((".json", ".txt")):
            file = rooms.tree.file(path)
            whole = file.open().read(0, 1 << 20)
            assert len(whole) == file.attributes().size
            assert file.open().read(7, 5) == whole[7:12]
            assert file.open().read(len(whole), 5) == b""


@pytest.mark.promise("A collection.json links to its items where they are at most 1000.")
@pytest.mark.parametrize("count", [LINKED_ITEMS, LINKED_ITEMS + 1])
@pytest.mark.parametrize("counted", [True, False])
def test_a_collection_links_its_items_up_to_a_thousand(host, count, counted):
    """Beyond that its size would cost a walk: no links, and at most the pages up to there."""
    mlhub(host, {"d": {"c": [stac_item(str(n)) for n in range(count)]}})
    if not counted:
        pages = host._scripts[ITEMS][0]
        host.on(ITEMS, lambda request: _without_counts(pages(request)))
    with Rooms(host, page_size=100) as rooms:
        found = [one["href"] for one in document(rooms, "/d/c/collection.json")["links"]
                 if one["rel"] == "item"]  # fmt: skip
        pages = asked(host).count(ITEMS)
    if count > LINKED_ITEMS:
        assert found == []
        assert pages == (1 if counted else 11)
    else:
        assert found == [f"./{n}/stac.json" for n in range(count)]
        # A server that does not count is asked whether its full last page is the last.
        assert pages == (10 if counted else 11)


def _without_counts(reply):
    value = json.loads(reply.body)
    del value["context"]
    return answer(value)


def test_a_collection_whose_items_need_a_key_is_shown_without_them(host, rooms):
    """The collection itself is public."""
    host.on(ITEMS, Reply(401))
    assert document(rooms, "/d/c/collection.json")["id"] == "c"
    with pytest.raises(Denied):
        list(rooms.tree.directory("/d/c").children()(0))


def test_a_listing_that_fails_in_the_middle_is_an_error_there(host, rooms):
    """Never a short directory; what came before it is shown."""
    mlhub(host, {"d": {"c": [stac_item(one) for one in "abcd"]}})
    names = rooms.tree.directory("/d/c").children()(0)
    assert [next(names).name for _ in range(3)] == ["collection.json", "a", "b"]
    pages = host._scripts[ITEMS][0]
    host.on(ITEMS, Reply(503))
    with pytest.raises(Unavailable):
        next(names)
    host.on(ITEMS, pages)
    assert rooms.names("/d/c") == ["collection.json", *"abcd"]


@pytest.mark.promise(
    "A listing that ends early is said to be incomplete in the log, in README.txt and by "
    "`mlhubfs status`, and is walked anew when it is old."
)
def test_an_incomplete_listing_is_told_in_the_readme(host, rooms):
    """Not only in the log."""
    host.on(ITEMS, answer(features([stac_item("a")], context={"matched": 7})))
    assert b"Incomplete" not in rooms.read("/README.txt")
    rooms.names("/d/c")
    assert b"c: the server lists 1 of the 7 items it counts" in rooms.read("/README.txt")


# --- hostile names


def test_every_hostile_item_is_listed_and_reachable(host, rooms):
    """The names of the issue: each is one component below the collection, and leads to its item."""
    items = [stac_item(one, {"B02": f"{host.url}/store/B02.tif"}) for one in HOSTILE]
    mlhub(host, {"d": {"c": items}})
    names = rooms.names("/d/c")[1:]
    assert len(set(names)) == len(HOSTILE)
    for identifier, name in zip(HOSTILE, names, strict=True):
        assert "/" not in name
        assert name not in {"", ".", "..", "collection.json", "_common"}
        assert document(rooms, f"/d/c/{name}/stac.json")["id"] == identifier
        assert rooms.read(f"/d/c/{name}/B02.tif") == CHIP


@pytest.mark.parametrize("identifier", HOSTILE)
def test_a_hostile_item_is_reachable_without_a_listing_before(host, rooms, identifier):
    """By its name alone."""
    mlhub(host, {"d": {"c": [stac_item(one) for one in HOSTILE]}})
    name = rooms.names("/d/c")[1 + HOSTILE.index(identifier)]
    with Rooms(host) as fresh:
        assert document(fresh, f"/d/c/{name}/stac.json")["id"] == identifier


def test_hostile_datasets_collections_and_assets_have_names_too(host, rooms):
    """None shadows a document, none leaves its directory."""
    odd = [one for one in HOSTILE if one not in {"", ".", ".."}]
    asset = f"{host.url}/store/B02.tif"
    odd_assets = stac_item("a", dict.fromkeys([*HOSTILE, "stac", "stac.json"], asset))
    mlhub(host, {
        **{one: {} for one in [*odd, "README.txt"]},
        "d": {"c": [odd_assets], **{one: [] for one in [*odd, "catalog.json", "dataset.json"]}},
    }, loose={f"{one}!": [stac_item("a")] for one in odd})  # fmt: skip
    with Rooms(host, ttl=0.0) as rooms:
        paths = list(walk(rooms))
        assert len(paths) == len(set(paths))
        for path in paths:
            assert rooms.tree.node(path).attributes().is_directory or rooms.read(path)
        assert document(rooms, "/d/%63atalog.json/collection.json")["id"] == "catalog.json"
        assert document(rooms, "/d/catalog.json")["id"] == "d"
        children = [one["href"] for one in document(rooms, "/d/catalog.json")["links"]]
        assert "./%63atalog.json/collection.json" in children
        assert len(rooms.names("/d/c/a")) == 1 + len(HOSTILE) + 2


def test_an_item_of_a_collection_with_a_slash_has_its_relative_links(host, rooms):
    """They are relative to the item's own URL, in which the ids are encoded."""
    mlhub(host, {"d": {"a/b": [stac_item("x/y", {"B02": "../../../../store/B02.tif"})]}})
    assert rooms.read("/d/a%2Fb/x%2Fy/B02.tif") == CHIP


def test_one_asset_with_a_broken_link_does_not_hide_the_others(host, rooms):
    """It is not shown; the rest is."""
    host.on(
        ITEM, answer(stac_item("a", {"bad": "http://[oops/", "B02": f"{host.url}/store/B02.tif"}))
    )
    assert rooms.names("/d/c/a") == ["stac.json", "B02.tif"]
    assert rooms.read("/d/c/a/B02.tif") == CHIP


# --- what changes


def test_an_item_that_is_gone_is_not_found_and_neither_are_its_files(host):
    """After the time to live."""
    with Rooms(host, ttl=0) as rooms:
        rooms.read("/d/c/a/B02.tif")
        host.on(ITEM, Reply(404))
        for path in ("/d/c/a", "/d/c/a/stac.json"):
            with pytest.raises(NotFound):
                rooms.tree.node(path).attributes()


def test_a_new_asset_appears_and_an_old_one_goes(host):
    """The item's JSON is the directory, whatever it was before."""
    with Rooms(host, ttl=0) as rooms:
        assert len(rooms.names("/d/c/a")) == 13
        host.on(ITEM, answer(stac_item("a", {"new": f"{host.url}/store/B01.tif"})))
        assert rooms.names("/d/c/a") == ["stac.json", "new.tif"]
        assert rooms.read("/d/c/a/new.tif") == CHIP
        with pytest.raises(NotFound):
            rooms.tree.node("/d/c/a/B02.tif")


def test_an_expired_download_link_is_renewed_through_the_item(host, rooms):
    """A new item JSON has a new token; the program that reads does not notice."""
    big = b"0123456789abcdef" * (6 << 16)
    host.on("/store/old", Asset(big), Reply(403))
    host.on("/store/new", Asset(big))
    links = [f"{host.url}/store/{one}" for one in ("old", "new")]
    host.on(
        ITEM,
        *(answer(stac_item("a", {"big": {"href": one, "type": "image/tiff"}})) for one in links),
    )
    reader = rooms.tree.file("/d/c/a/big.tif").open()
    assert reader.read(5 << 20, 100) == big[5 << 20 :][:100]
    assert asked(host) == ["/v1/datasets", ITEM, "/store/old", "/store/old", ITEM, "/store/new"]


@pytest.mark.promise(
    "While the server cannot be reached, directories that were read before stay readable."
)
def test_a_server_that_goes_down_leaves_the_names_there(host):
    """What was listed and looked up serves on; what was not is an error, not a missing file."""
    with Rooms(host, ttl=0) as rooms:
        before = rooms.names("/d/c/a")
        rooms.read("/d/c/a/B02.tif")
        for path in ("/v1/datasets", ITEM, f"{ITEMS}/b"):
            host.on(path, Reply(503))
        assert rooms.names("/d/c/a") == before
        assert rooms.read("/d/c/a/B02.tif") == CHIP
        with pytest.raises(Unavailable):
            rooms.tree.node("/d/c/b")


def test_a_page_of_html_is_an_error_and_not_an_empty_directory(host, rooms):
    """A portal in between."""
    html = Reply(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
    host.on(ITEMS, html)
    with pytest.raises(BadAnswer):
        rooms.names("/d/c")
    host.on(ITEM, html)
    with pytest.raises(BadAnswer):
        rooms.tree.node("/d/c/a")


def test_a_cut_name_of_a_dataset_or_loose_collection_is_found(host, rooms):
    """At the root too, where the listing is at hand."""
    long = "n" * 300
    mlhub(host, {long: {f"{long}c": []}}, loose={f"{long}x": [stac_item("a")]})
    assert document(rooms, f"/{encode(long)}/dataset.json")["id"] == long
    assert (
        document(rooms, f"/{encode(long)}/{encode(long + 'c')}/collection.json")["id"] == long + "c"
    )
    assert rooms.tree.node(f"/{encode(long + 'x')}/a").attributes().is_directory


@pytest.mark.parametrize(
    ("path", "identities"),
    [("/", [()]), ("/d", [("c",), ("e",)]), ("/d/c", [("c",)]), ("/d/c/a", [("c", "a")]),
     ("/d/c/a/B02.tif", [("c", "a", "B02")]), ("/d/c/_common", [("c", "")]),
     ("/d/c/_common/table.csv", [("c", "", "table.csv")]),
     ("/d/c/a/stac.json", []), ("/README.txt", [])],
)  # fmt: skip
def test_a_node_tells_with_what_its_assets_identities_begin(host, rooms, path, identities):
    """So that all that is kept of it can be found; a document takes nothing from the cache."""
    special = stac_collection("c", {"table.csv": {"href": "/store/table.csv"}})
    items = [stac_item("a", {"B02": "/store/a.tif"})]
    mlhub(host, {"d": {"c": items, "e": []}}, collections={"c": special})
    expected = [(rooms.root, *one) for one in identities]
    assert rooms.tree.node(path).identities() == expected
