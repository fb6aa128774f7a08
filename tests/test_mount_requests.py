"""What crosses the network, counted by the server that was asked, for what programs do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mounted as mounts
import pytest
import rasterio
from commands import until

import mlhubfs
from mlhubfs.server.run import LocalServer

SAMPLE = Path(mlhubfs.__file__).parent / "sample"
SOURCES = Path("bigearthnet_v1/bigearthnet_v1_source")
LABELS = Path("bigearthnet_v1/bigearthnet_v1_labels")
FIELDS = Path("sample_crop_fields_v1/sample_crop_fields_v1")
NAMES = """
    B04.tif.aux.xml B04.tif.aux B04.tif.AUX B04.aux B04.AUX B04.tif.ovr B04.tif.OVR B04.tif.msk
    B04.tif.MSK B04.ovr B04.IMD B04.imd B04.RPB B04.rpb B04.PVL B04.pvl B04_rpc.txt B04_RPC.TXT
    B04_MTL.txt B04_metadata.txt B04.tfw B04.tifw B04.wld B04.qml B04.vat.dbf B04.tif.vat.dbf
    B04.prj summary.txt METADATA.DIM .hidden .Trash .Trash-1000 .Trash/1000 .directory
    .sh_thumbnails .DS_Store ._B04.tif ._.DS_Store autorun autorun.sh autorun.inf .git .svn
    Thumbs.db desktop.ini .nomedia folder.jpg cover.jpg .dirstate .localized @nowhere @source
""".split()
"""What GDAL, QGIS, file managers and shells look for beside a file."""

DOWNLOAD = "/download/..."


class Seen:
    """The requests that a `with` block causes, as (path below the root, range)."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        self.start = len(self.server.requests)
        return self

    def __exit__(self, *_):
        root = "/" + self.server.root_url.split("/", 3)[3]
        self.lines = [
            (line.path.removeprefix(root), line.range)
            for line in self.server.requests[self.start :]
        ]
        self.paths = [path for path, _ in self.lines]


def item_of(chip):
    """The route of a chip's item."""
    return f"/collections/{chip.parent.parent.name}/items/{chip.parent.name}"


def assert_costs_one_chip(seen, chip):
    """Its item, its link, one range; no listing, no collection."""
    assert seen.paths[:2] == [item_of(chip), DOWNLOAD]
    [(path, extent)] = seen.lines[2:]
    assert path.endswith(f"/{chip.parent.name}/{chip.name}")
    assert extent == "bytes=0-131071"


@pytest.fixture(scope="module")
def shared(binding, tmp_path_factory):
    """A server and a mount of it that many tests use, each for other items."""
    with (
        LocalServer(cache_dir=tmp_path_factory.mktemp("server"), record=True) as server,
        mounts.mounted(
            server.root_url, tmp_path_factory.mktemp("shared"), "page_size=10", binding=binding
        ) as mount,
    ):
        yield server, mount.path


@pytest.fixture
def root(shared):
    return shared[1]


@pytest.fixture
def seen(shared):
    return Seen(shared[0])


CHIPS = iter(sorted(SAMPLE.glob(f"{SOURCES}/*/B04.tif")) * 2)


@pytest.fixture
def chip(binding):
    """The path of a chip of an item that no other test uses on this mount."""
    return next(CHIPS).relative_to(SAMPLE)


@pytest.mark.promise(
    "Every byte crosses the network once, and comes from the cache after a remount."
)
@pytest.mark.promise("A known path costs one look-up of its item, never a listing.")
def test_a_known_path_costs_one_look_up_and_then_none(server, mounted, binding, chip):
    """The first read of a chip is an item, a redirect, one range; after a remount, the item alone.

    The mount is new, nothing of it was looked at before; after the remount the bytes, and the
    size, come from the cache on disk.
    """
    with mounted(server.root_url, binding=binding) as mount:
        for_first, for_second = Seen(server), Seen(server)
        with for_first:
            data = (mount.path / chip).read_bytes()
        mount.remount()
        with for_second:
            assert (mount.path / chip).read_bytes() == data
    assert data == (SAMPLE / chip).read_bytes()
    assert_costs_one_chip(for_first, chip)
    assert for_second.paths == [item_of(chip)]


def test_rasterio_adds_nothing(root, seen, chip):
    """To open a chip with rasterio and read its pixels costs the same three requests."""
    with seen, rasterio.open(root / chip) as raster:
        assert raster.read().any()
        assert raster.crs
    assert_costs_one_chip(seen, chip)


def test_gdalinfo_adds_nothing(root, seen, chip):
    """gdalinfo with a checksum of the pixels costs the same three requests."""
    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not installed")
    with seen:
        done = subprocess.run(
            ["gdalinfo", "-checksum", root / chip], capture_output=True, check=True
        )
    assert b"Checksum=" in done.stdout
    assert_costs_one_chip(seen, chip)


def test_a_program_that_comes_after_costs_nothing(root, seen, chip):
    """rasterio after a plain read of the chip, and another plain read, ask the server nothing."""
    (root / chip).read_bytes()
    with seen:
        with rasterio.open(root / chip) as raster:
            raster.read()
        (root / chip).read_bytes()
    assert seen.paths == []


def test_many_first_readers_cost_one_request(root, seen, chip):
    """Eight processes that open the same chip at once cause one item, one link, one range."""
    with seen:
        readers = [subprocess.Popen(["cat", root / chip], stdout=subprocess.PIPE) for _ in range(8)]
        outputs = [reader.communicate(timeout=mounts.SECONDS)[0] for reader in readers]
    assert set(outputs) == {(SAMPLE / chip).read_bytes()}
    assert_costs_one_chip(seen, chip)


@pytest.mark.promise("A name that the item's JSON does not hold is refused without a request.")
def test_names_that_an_item_does_not_hold_cost_nothing(root, seen, chip):
    """Side-cars and what file managers look for are refused without a request."""
    assert len(NAMES) >= 40
    (root / chip.parent / "stac.json").stat()
    with seen:
        for name in NAMES:
            assert not os.path.lexists(root / chip.parent / name), name
            with pytest.raises(FileNotFoundError):
                (root / chip.parent / name).open("rb")
    assert seen.paths == []


@pytest.mark.parametrize("folder", [Path(), SOURCES.parent, SOURCES], ids=str)
def test_hidden_names_cost_nothing_at_any_level(root, seen, folder):
    """Names that begin with a dot or an `@`, but for views, are refused without a request."""
    with seen:
        for name in NAMES:
            if name[0] in ".@":
                assert not os.path.lexists(root / folder / name), name
    assert seen.paths == []


def test_listing_is_by_pages_and_once(root, seen):
    """A collection of 24 items at 10 a page is three pages, for however many readers."""
    with seen:
        for _ in range(3):
            assert len(mounts.names(root / LABELS)) == 25
    assert seen.paths == [
        f"/collections/{LABELS.name}",
        *[f"/collections/{LABELS.name}/items"] * 3,
    ]


def test_item_directories_of_a_listed_collection_cost_nothing(root, seen):
    """Once a collection is listed, to open and read every item directory asks nothing more.

    QGIS does so when a folder is opened in its browser.
    """
    with os.scandir(root / FIELDS) as entries:
        items = [entry.path for entry in entries if entry.is_dir() and entry.name != "_common"]
    assert len(items) == 4
    with seen:
        for item in items:
            assert sorted(mounts.names(item)) == sorted(
                ["stac.json", "crop_names.csv", "field_outlines.geojson", "image.tif", "labels.tif"]
            )
    assert seen.paths == []


@pytest.mark.promise("Sizes are exact, learned from the first request for a file's bytes.")
def test_sizes_are_learned_once_and_bring_the_bytes(root, seen, chip):
    """`ls -l` of an item asks for each asset once, and to read them all afterwards for nothing."""
    with seen:
        subprocess.run(["ls", "-l", root / chip.parent], capture_output=True, check=True)
    assert len([path for path in seen.paths if path.endswith(".tif")]) == 12
    assert seen.paths.count(DOWNLOAD) == 12
    assert seen.paths.count(item_of(chip)) == 1
    assert len(seen.paths) == 25
    with seen:
        for path in (root / chip.parent).glob("*.tif"):
            assert path.read_bytes() == (SAMPLE / chip.parent / path.name).read_bytes()
    assert seen.paths == []


def test_a_file_of_some_megabytes_costs_two_ranges(root, seen):
    """Windows all over the 4096 x 4096 COG: its first block, which tells the size, and the rest."""
    [path] = SAMPLE.glob("sample_aerial_scene_v1/*/*/image.tif")
    assert 256 << 10 < path.stat().st_size <= 4 << 20
    with seen, rasterio.open(root / path.relative_to(SAMPLE)) as raster:
        for row in range(3840, 0, -512):
            raster.read(1, window=((row, row + 256), (row, row + 256)))
    ranges = [extent for name, extent in seen.lines if name.endswith("/image.tif")]
    assert ranges == ["bytes=0-131071", f"bytes=131072-{path.stat().st_size - 1}"]


def test_a_loader_gets_the_bands_of_an_item_together(server, mounted, binding):
    """A program that has read two bands of an item gets the second band of the next unasked.

    A thread of its own is a program of its own, and costs only what it reads.
    """
    first, second, third = sorted(SAMPLE.glob(f"{SOURCES}/*"))[:3]
    with mounted(server.root_url, binding=binding) as mount:
        folder = mount.path / SOURCES
        script = "import sys; [open(path, 'rb').read() for path in sys.argv[1:]]"
        read = [folder / first.name / "B02.tif", folder / first.name / "B03.tif"]
        seen = Seen(server)
        with seen:
            run = [sys.executable, "-c", script, *read, folder / second.name / "B02.tif"]
            subprocess.run(run, check=True)
            (folder / third.name / "B02.tif").read_bytes()
            guessed = f"/{second.name}/B03.tif"
            until(lambda: any(line.path.endswith(guessed) for line in server.requests), guessed)
    chips = sorted("/".join(path.split("/")[-2:]) for path in seen.paths if path.endswith(".tif"))
    assert chips == [
        f"{first.name}/B02.tif", f"{first.name}/B03.tif",
        f"{second.name}/B02.tif", f"{second.name}/B03.tif",
        f"{third.name}/B02.tif",
    ]  # fmt: skip
