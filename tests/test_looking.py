"""The commands that look into a catalog: datasets, collections, items, show; and their tables."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from faulty import FaultyServer
from mounted import BINDINGS
from rooms import asked, mlhub, stac_item

import mlhubfs
from mlhubfs import mountpoint
from mlhubfs.cli import cli
from mlhubfs.cli.table import counted, plain, sheet, table, written
from mlhubfs.errors import BadCondition, NotFound
from mlhubfs.server.run import LocalServer

LABELS = "bigearthnet_v1_labels"
SOURCE = "bigearthnet_v1_source"
CHIP = "S2A_MSIL2A_20170701T093031_65_62"
SAMPLE = Path(mlhubfs.__file__).parent / "sample"
ITEM = f"bigearthnet_v1/{SOURCE}/{SOURCE}_{CHIP}"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The root of a local server on the sample."""
    with LocalServer(cache_dir=tmp_path_factory.mktemp("server")) as server:
        yield server.root_url


@pytest.fixture
def run(source, tmp_path):
    """Run `mlhubfs WORDS...` in this process, raise what it raises, and return what it printed."""

    def run(*words, source=source, columns=None):
        environ = {
            "MLHUB_ROOT_URL": source,
            "MLHUB_PROFILE": "__anonymous__",
            "MLHUBFS_CACHE_DIR": str(tmp_path / "cache"),
            "COLUMNS": columns and str(columns),
        }
        done = CliRunner(env=environ).invoke(cli, words, catch_exceptions=False)
        assert (done.exit_code, done.stderr) == (0, "")
        return done.stdout

    return run


def told(sheet):
    """Return name -> value of the lines of a sheet."""
    return dict(re.findall(r"^(\S+) {2,}(.+)$", sheet, re.MULTILINE))


class TestDatasets:
    """`mlhubfs datasets`."""

    def test_a_table(self, run):
        """With id, title, DOI and tags, under a head."""
        head, *rows = run("datasets").splitlines()
        assert head.split() == ["ID", "TITLE", "DOI", "TAGS"]
        assert [row.split()[0] for row in rows] == [
            "bigearthnet_v1", "sample_aerial_scene_v1", "sample_crop_fields_v1",
        ]  # fmt: skip
        assert re.search(r"Synthetic sample of BigEarthNet +10\.5072/\S+ +land cover, ", rows[0])

    def test_it_fits_the_terminal(self, run):
        """The longest columns are cut."""
        for line in run("datasets", columns=60).splitlines():
            assert len(line) <= 60

    def test_filters(self, run):
        """Tags and phrases, all of them."""
        rows = run("datasets", "--tag", "land cover", "--text", "BIGEARTHNET").splitlines()
        assert [row.split()[0] for row in rows[1:]] == ["bigearthnet_v1"]
        assert run("datasets", "--tag", "land").splitlines()[1:] == []

    def test_json(self, run):
        """The API's objects, in a list."""
        (dataset,) = json.loads(run("datasets", "--text", "bigearthnet", "--json"))
        assert dataset["doi"] == "10.5072/mlhubfs.sample-bigearthnet"


class TestCollections:
    """`mlhubfs collections`."""

    def test_what_is_shown(self, run):
        """Id, title, description, licence, citation, extensions: what MLHub's notebook printed."""
        first, second, rest = run("collections", "--match", "BigEarthNet").split("\n\n")
        assert [told(one)["collection"] for one in (first, second)] == [LABELS, SOURCE]
        assert rest == ""
        assert told(first).keys() >= {"title", "description", "license", "citation", "extensions"}

    def test_json(self, run):
        """STAC Collections, in a list."""
        found = json.loads(run("collections", "--json"))
        assert {one["type"] for one in found} == {"Collection"}
        assert len(found) == 4


class TestItems:
    """`mlhubfs items`."""

    def test_lines(self, run):
        """An id and a time each."""
        line = run("items", LABELS, "--limit", "1")
        assert re.fullmatch(rf"{LABELS}_\S+  2017-06-27T10:50:31Z\n", line)

    def test_conditions(self, run):
        """By label, property, place and time."""
        words = ["--where", "labels=Coniferous forest|Rice fields", "--bbox", "9,47,10,48"]
        words += ["--where", "cloud_and_shadow=false", "--datetime", "2017-07-01..2017-07-31"]
        found = [json.loads(line) for line in run("items", LABELS, *words, "--json").splitlines()]
        assert len(found) == 3
        for item in found:
            assert item["properties"].get("cloud_and_shadow") in {None, False, "false"}
            assert {"Coniferous forest", "Rice fields"} & set(item["properties"]["labels"])
            assert item["assets"]["labels"]["href"] == "./labels.geojson"

    def test_a_collection_that_shares_its_id_with_a_dataset(self, run):
        """The id names the collection."""
        assert run("items", "sample_crop_fields_v1", "--limit", "1").startswith("sample_crop")

    def test_a_limit_walks_no_further(self, run):
        """Of 500 items, those of the first page."""
        with FaultyServer() as host:
            mlhub(host, {"d": {"c": [stac_item(f"i{number}") for number in range(500)]}})
            out = run("items", "c", "--limit", "2", "-o", "page_size=10", source=f"{host.url}/v1")
            assert [line.split()[0] for line in out.splitlines()] == ["i0", "i1"]
            assert asked(host).count("/v1/collections/c/items") <= 2  # one may be read ahead

    def test_refusals(self, run):
        """What is no collection, and what is no condition."""
        with pytest.raises(NotFound, match="near: bigearthnet_v1_labels"):
            run("items", "bigearthnet_v1_label")
        with pytest.raises(NotFound, match="/bigearthnet_v1 is no collection"):
            run("items", "bigearthnet_v1")
        with pytest.raises(BadCondition, match="'nonsense' is no condition"):
            run("items", LABELS, "--where", "nonsense")


class TestShow:
    """`mlhubfs show`."""

    @pytest.mark.parametrize("name", ["bigearthnet_v1", "10.5072/mlhubfs.sample-bigearthnet"])
    def test_a_dataset(self, run, name):
        """By id or DOI: how to cite it, and its collections with their types."""
        out = run("show", name)
        assert told(out)["dataset"] == "bigearthnet_v1"
        assert told(out)["citation"].startswith("The developers of mlhubfs (2026)")
        assert re.search(rf"^{LABELS} +labels +\w", out, re.MULTILINE)

    def test_a_collection(self, run):
        """By its id, which no dataset has."""
        assert told(run("show", LABELS))["types"] == "labels"

    def test_an_item(self, run):
        """By its path in the tree: time, place, properties, and its assets with their bands."""
        out = run("show", ITEM)
        assert told(out)["datetime"] == "2017-07-01T09:30:31Z"
        assert told(out)["platform"] == "Sentinel-2"
        assert re.search(r"^B04 +B04 \(red\) +image/tiff", out, re.MULTILINE)

    def test_an_asset(self, run):
        """What MLHub's notebook printed of one, its size, and when and by what it was taken."""
        assert told(run("show", f"/{ITEM}/B04.tif")) == {
            "asset": "B04",
            "title": f"{CHIP}_B04",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "bands": "B04 (red)",
            "size": str((SAMPLE / ITEM / "B04.tif").stat().st_size),
            "path": f"/{ITEM}/B04.tif",
            "item": f"{SOURCE}_{CHIP}",
            "datetime": "2017-07-01T09:30:31Z",
            "platform": "Sentinel-2",
        }

    @pytest.mark.parametrize("name", ["bigearthnet_v1", LABELS, ITEM, f"{ITEM}/B04.tif"])
    def test_json(self, run, name):
        """Whatever it is."""
        assert name.rpartition("/")[2].partition(".")[0] in run("show", name, "--json")
        assert isinstance(json.loads(run("show", name, "--json")), dict)

    @pytest.mark.parametrize("binding", BINDINGS[:1])
    def test_a_path_inside_a_mount(self, run, source, mounted, monkeypatch, binding):
        """Then the source is the mount's, and who is in there may name an id all the same."""
        nowhere = "http://127.0.0.1:1"
        with mounted(source, binding=binding) as mount:
            for path in ("bigearthnet_v1", ITEM, f"{ITEM}/B04.tif"):
                inside = run("show", str(mount.path / path), source=nowhere)
                assert inside == run("show", f"/{path}")
            with monkeypatch.context() as there:
                there.chdir(mount.path)
                assert run("show", LABELS, source=nowhere) == run("show", LABELS)
                with pytest.raises(NotFound, match="no collection 'nope'"):
                    run("show", "bigearthnet_v1/nope", source=nowhere)


class TestPlace:
    """`mountpoint.place_of`."""

    def test_the_inmost_mount_counts(self, monkeypatch, tmp_path):
        """A folder within a mount may be another mount, or of another type."""
        outer, inner, other = tmp_path / "outer", tmp_path / "outer" / "in", tmp_path / "outerx"
        table = [
            mountpoint.Mount("/", "ext4", "/dev/root"),
            mountpoint.Mount(str(outer), "fuse.mlhubfs", "http://a"),
            mountpoint.Mount(str(inner), "ext4", "/dev/x"),
            mountpoint.Mount(str(inner), "fuse.mlhubfs", "http://b"),
        ]
        monkeypatch.setattr(mountpoint, "mounts", lambda: table)
        assert mountpoint.place_of(outer / "d" / "c") == (table[1], "/d/c")
        assert mountpoint.place_of(outer) == (table[1], "/")
        assert mountpoint.place_of(inner / "d") == (table[3], "/d")
        assert mountpoint.place_of(other) is None


class TestTable:
    """`cli.table`."""

    def test_columns_are_as_wide_as_they_have_to_be(self):
        """Where there is room."""
        lines = table(("A", "BB"), [("x", ""), ("xyz", "y")], None)
        assert lines == ["A    BB", "x", "xyz  y"]

    def test_the_widest_are_cut(self):
        """And no column to nothing."""
        rows = [("a" * 30, "b" * 10, "c")]
        assert table(("A", "B", "C"), rows, 30)[1] == "a" * 14 + "…  " + "b" * 10 + "  c"
        assert table(("A", "B", "C"), rows, 5)[1] == "a" * 7 + "…  " + "b" * 7 + "…  c"

    def test_one_of_a_thing_is_no_plural(self):
        """0 files, 1 file, 2 files."""
        assert [counted(count, "file") for count in (0, 1, 2000)] == [
            "0 files", "1 file", "2,000 files",
        ]  # fmt: skip

    def test_a_sheet_wraps_and_leaves_out_what_is_not_said(self):
        """Names to the left, values to the right."""
        fields = {"id": "x", "title": None, "tags": (), "text": "one two three four"}
        assert sheet(fields, 15) == ["id    x", "text  one two", "      three", "      four"]

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, ""),
            (0, "0"),
            (True, "true"),
            (["a", 1.5], "a, 1.5"),
            ({"a": [1]}, '{"a":[1]}'),
            (datetime(2017, 7, 1, 9, 30, 31, tzinfo=UTC), "2017-07-01T09:30:31Z"),
        ],
    )
    def test_values_are_written(self, value, text):
        """As people read them."""
        assert written(value) == text

    def test_a_server_does_not_speak_to_the_terminal(self):
        """Control characters and line breaks of a text are not printed."""
        assert plain("a\x1b[2J\n\tb\u202e") == "a?[2J b?"
