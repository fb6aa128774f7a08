"""Names that an API can send and a path cannot hold: nothing leaves the mount, nothing is lost."""

import errno
import json
import os
import subprocess
from pathlib import Path

import mounted as mounts
import pytest
from synthetic import SyntheticServer, item

LONG = "long-" + "ü" * 150
HOSTILE = [
    "../x", "a/b", "", "nul\0byte", "new\nline", LONG + "1", LONG + "2", "%2F", "a%2Fb", "@where",
    "Same", "same", "SAME", "emoji-🛰️", "collection.json", "_common", ".", "..", "...", ".hidden",
    "/", "//", "/etc/passwd", "../../../../etc/passwd", "stac.json", " ", " a ", "a b", "tab\there",
    "-rf", "--help", "*", "?", "a;b", "$(touch x)", "`id`", "'", '"', "\\", "\\..\\x", "é",
    "e\u0301",
    "x" * 255, "x" * 256, "x" * 300, "%", "%%", "%41", "A", "~", "a~0123456789abcdef", "a#b", "a?b",
    "a&b=c", "\x7f", "\x1b[31mred", "\u202ertl", "\u2028", "a:b", "con", "a.", "README.txt",
]  # fmt: skip
"""Each an id of its own; the three with 256 and more bytes are the only ones that are cut."""

UNWRITABLE = {"", ".", ".."}
"""No URL can have these as a segment of its path: clients and servers take them for directions."""

COLLECTIONS = [*HOSTILE, "dataset.json", "catalog.json"]
KEYS = [key for key in HOSTILE if key != "stac.json"] + ["B02", "B02.tif", "data.tar.gz"]


@pytest.fixture(scope="module", params=[True, False], ids=["slashes routed", "not routed"])
def server(request):
    """One collection of items with these ids, one item with assets of these keys."""
    everything = {
        "ids": [item(one, {"who": one.encode()}) for one in HOSTILE],
        "keys": [item("one", {key: key.encode() for key in KEYS})],
    }
    collections = {one: [item("inside", {"who": one.encode()})] for one in COLLECTIONS}
    datasets = {"odd": everything, "collections": collections}
    datasets |= {f"d{one}": [] for one in HOSTILE} | {one: [] for one in ("..", ".", "", "@where")}
    with SyntheticServer(
        everything | collections, datasets=datasets, routes_slashes=request.param
    ) as running:
        yield running


@pytest.fixture(scope="module")
def root(server, binding, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    with mounts.mounted(server.root_url, folder, "page_size=7", binding=binding) as mount:
        yield mount.path


def assert_plain(names):
    """What every name of the tree is: one that a path, a terminal and a shell's `*` can hold."""
    assert len(set(names)) == len(names)
    for name in names:
        assert name not in {"", ".", ".."}
        assert name[0] not in ".@"
        assert not set(name) & {"/", "\0", "\n", "\t", "\x1b", "\x7f"}
        assert len(os.fsencode(name)) <= 255


def test_every_item_is_listed_once_and_reached_by_its_name(root):
    """Each id has one name, whose stac.json has the id as it was, and whose asset the bytes."""
    folder = root / "odd/ids"
    names = mounts.names(folder)
    names.remove("collection.json")
    assert_plain(names)
    found = [json.loads((folder / name / "stac.json").read_text("utf-8"))["id"] for name in names]
    assert found == HOSTILE
    for name, identifier in zip(names, HOSTILE, strict=True):
        assert (folder / name / "who").read_bytes() == identifier.encode()


def test_names_lead_to_items_without_a_listing(server, mounted, binding, root):
    """In a new mount, a name that was not listed there is looked up, and leads to the same item."""
    names = [name for name in mounts.names(root / "odd/ids") if name != "collection.json"]
    with mounted(server.root_url, binding=binding) as mount:
        for name, identifier in zip(names, HOSTILE, strict=True):
            path = mount.path / "odd/ids" / name
            assert json.loads((path / "stac.json").read_text("utf-8"))["id"] == identifier
            assert (path / "who").read_bytes() == identifier.encode()


def test_links_of_the_collection_lead_to_all_items(root):
    """collection.json's `item` links, read as URIs are, lead to each item's stac.json."""
    folder = root / "odd/ids"
    links = json.loads((folder / "collection.json").read_text("utf-8"))["links"]
    found = []
    for link in links:
        if link["rel"] == "item":
            path = folder / link["href"]
            assert path.resolve().is_relative_to(folder)
            found.append(json.loads(path.read_text("utf-8"))["id"])
    assert found == HOSTILE


def test_every_asset_is_listed_once_and_has_its_bytes(root):
    """Each asset key has one file, with that asset's bytes, and stac.json's href leads to it."""
    folder = root / "odd/keys/one"
    names = mounts.names(folder)
    assert_plain(names)
    assert len(names) == len(KEYS) + 1
    document = json.loads((folder / "stac.json").read_text("utf-8"))
    assert set(document["assets"]) == set(KEYS)
    for key, asset in document["assets"].items():
        path = folder / asset["href"]
        assert path.parent == folder
        assert path.name in names
        assert path.read_bytes() == key.encode(), key
    assert {(folder / name).read_bytes() for name in names if name != "stac.json"} == {
        key.encode() for key in KEYS
    }


def test_collections_and_datasets_have_plain_names(root):
    """Ids of collections and datasets become names by the same rules."""
    assert_plain(mounts.names(root))
    names = mounts.names(root / "collections")
    assert_plain(names)
    assert names[:2] == ["catalog.json", "dataset.json"]
    assert len(names) == len(COLLECTIONS) + 2


def test_every_collection_is_reached_by_its_name(root):
    """Its collection.json has the id as it was, and its item the bytes.

    All but the ids that no URL can name: those are listed, and cannot be read.
    """
    folder = root / "collections"
    names = mounts.names(folder)[2:]
    for name, identifier in zip(names, COLLECTIONS, strict=True):
        if identifier in UNWRITABLE:
            with mounts.fails(errno.ENOENT, errno.EIO):
                mounts.names(folder / name)
        else:
            shown = json.loads((folder / name / "collection.json").read_text("utf-8"))
            assert shown["id"] == identifier
            assert mounts.names(folder / name) == ["collection.json", "inside"]
            assert (folder / name / "inside/who").read_bytes() == identifier.encode()


@pytest.mark.parametrize("identifier", ["..", ".", "", "@where"])
def test_a_dataset_with_such_an_id_is_a_directory_like_others(root, identifier):
    """Its catalog.json has the id as it was, and the directory is inside of the mount."""
    found = {}
    for name in mounts.names(root):
        path = root / name / "catalog.json"
        if path.exists():
            found[json.loads(path.read_text("utf-8"))["id"]] = name
    assert identifier in found
    assert (root / found[identifier]).resolve().parent == root


def test_nothing_leads_out_of_the_mount(root):
    """No name is a link, and every path that a walk finds is below the mount and on its device."""
    device = root.stat().st_dev
    seen = 0
    for folder, folders, names in os.walk(root / "odd"):
        for name in [*folders, *names]:
            path = Path(folder, name)
            assert not path.is_symlink()
            assert path.resolve() == path
            assert path.lstat().st_dev == device
            seen += 1
    assert seen > 2 * len(HOSTILE)


@pytest.mark.parametrize("spelling", ["%2e%2e", "%2E%2e", "a%2fb", "%61", "%00", "@nowhere", "%"])
def test_an_item_has_no_second_name(root, spelling):
    """Another spelling of an id names nothing, so that no item is in two places."""
    names = mounts.names(root / "odd/ids")
    assert os.path.lexists(root / "odd/ids" / spelling) == (spelling in names)


def test_names_that_no_id_has_are_refused(root):
    """Names that are not UTF-8, or too long, fail with ENOENT; the mount lives."""
    folder = root / "odd/ids"
    for name in (b"\xff\xfe", b"%FF", b"%C3%28", b"%ED%A0%80x", b"x" * 256, b"y" * 1000):
        # Above 255 bytes it may be the kernel that refuses, in its own word.
        with mounts.fails(errno.ENOENT, errno.ENAMETOOLONG):
            (folder / os.fsdecode(name)).stat()
    assert mounts.names(folder)


def test_programs_cope(root, tmp_path):
    """`find`, `cp -r` and `du` walk these names without a complaint, and touch nothing else."""
    for command in (
        ["find", root / "odd", "-type", "f"],
        ["du", "-a", root / "odd"],
        ["cp", "-r", root / "odd", tmp_path / "copy"],
    ):
        done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
    assert mounts.names(tmp_path) == ["copy"]
    assert len(mounts.names(tmp_path / "copy/ids")) == len(HOSTILE) + 1
