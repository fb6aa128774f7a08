"""Real data end to end: an archive of MLHub's, served, mounted, and used by ordinary programs."""

import filecmp
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import mounted as mounts
import numpy as np
import pystac
import pytest
import rasterio
from rasterio.windows import Window

import mlhubfs
from mlhubfs.server.run import LocalServer

ARCHIVE = Path(__file__).parents[2] / "shared/real/archive_ref_african_crops_kenya_02_labels.tar.gz"
SAMPLE = Path(mlhubfs.__file__).parent / "sample"
DATASET = "ref_african_crops_kenya_02"
LABELS = f"{DATASET}_labels"
TILES = [f"{DATASET}_tile_0{number}_label" for number in range(4)]
MADE = {"README.txt", f"{DATASET}/catalog.json", f"{DATASET}/dataset.json"}
"""What the mount holds beyond the archive; the copies of `_common` files in items too."""


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """The archive as `tar x` leaves it."""
    if not ARCHIVE.exists():
        pytest.skip(f"the recorded data is not here: {ARCHIVE}")
    folder = tmp_path_factory.mktemp("extracted")
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def root_url(extracted, tmp_path_factory):
    """`mlhubfs serve ARCHIVE`, the process."""
    folder = tmp_path_factory.mktemp("serve")
    with subprocess.Popen(
        [sys.executable, "-m", "mlhubfs", "serve", "--port=0", "--quiet", ARCHIVE],
        env={**os.environ, "HOME": str(folder), "MLHUBFS_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            said = process.communicate()[1]
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def kenya(root_url, binding, tmp_path_factory):
    """The archive, mounted."""
    folder = tmp_path_factory.mktemp("kenya")
    with mounts.mounted(root_url, folder, binding=binding) as mount:
        yield mount.path


def test_pystac_walks_the_first_generation_of_stac(kenya):
    """An archive of STAC 1.0.0-beta.2, when collections had no `type`, opens from catalog.json."""
    catalog = pystac.Catalog.from_file(str(kenya / "ref_african_crops_kenya_02/catalog.json"))
    items = list(catalog.get_items(recursive=True))
    assert len(items) == 4
    for item in items:
        for asset in item.assets.values():
            assert Path(asset.get_absolute_href()).is_file()


def files(root):
    """The paths of all files below `root`."""
    return {
        path.relative_to(root).as_posix()
        for folder, _, names in os.walk(root)
        for path in (Path(folder, name) for name in names)
    }


def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def where_it_leads(document, href):
    """The path that a relative href means, below the folder that holds the collection."""
    return os.path.normpath(document.parent / href)


def test_every_file_has_the_sha256_of_the_archive_member(kenya, extracted):
    """Each asset file of the archive is in the mount under its own path, byte for byte."""
    members = {name for name in files(extracted) if not name.endswith(".json")}
    assert len(members) == 9
    for name in sorted(members):
        assert digest(kenya / DATASET / name) == digest(extracted / name), name


def test_it_holds_what_the_archive_holds(kenya, extracted):
    """Nothing is missing, and what is added is the dataset's JSON, a README and linked copies."""
    copies = {f"{DATASET}/{LABELS}/{tile}/field_train_test_ids.csv" for tile in TILES}
    archived = {f"{DATASET}/{name}" for name in files(extracted)}
    assert files(kenya) == archived | copies | MADE


@pytest.mark.parametrize("tile", TILES)
def test_the_item_means_what_the_archives_item_means(kenya, extracted, tile):
    """The stac.json's assets lead to the same bytes, its links to the same items; all else is kept.

    Tokens and absolute links are gone.
    """
    there = extracted / LABELS / tile / "stac.json"
    here = kenya / DATASET / LABELS / tile / "stac.json"
    original, shown = (json.loads(path.read_text("utf-8")) for path in (there, here))
    assert set(shown["assets"]) == set(original["assets"]) != set()
    for key, asset in original["assets"].items():
        assert shown["assets"][key] == {**asset, "href": shown["assets"][key]["href"]}
        file = Path(where_it_leads(here, shown["assets"][key]["href"]))
        assert file.is_relative_to(kenya)
        assert digest(file) == digest(Path(where_it_leads(there, asset["href"])))
    for rel in ("source", "collection", "parent"):
        assert [
            where_it_leads(here.relative_to(kenya / DATASET), link["href"])
            for link in shown["links"]
            if link["rel"] == rel
        ] == [
            where_it_leads(there.relative_to(extracted), link["href"])
            for link in original["links"]
            if link["rel"] == rel
        ]
    untouched = set(original) - {"assets", "links"}
    assert {name: shown[name] for name in untouched} == {name: original[name] for name in untouched}
    assert "http://" not in here.read_text("utf-8")


def test_the_collection_means_what_the_archives_collection_means(kenya, extracted):
    """The collection.json links to the same items in the same order, and keeps all else."""
    original, shown = (
        json.loads((root / LABELS / "collection.json").read_text("utf-8"))
        for root in (extracted, kenya / DATASET)
    )
    items = [
        [os.path.normpath(link["href"]) for link in document["links"] if link["rel"] == "item"]
        for document in (original, shown)
    ]
    assert items[0] == items[1] == [f"{tile}/stac.json" for tile in TILES]
    untouched = set(original) - {"links"}
    assert {name: shown[name] for name in untouched} == {name: original[name] for name in untouched}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("tile", TILES)
def test_rasterio_reads_the_pixels_of_the_archive(kenya, extracted, tile):
    """labels.tif opens as a raster with the archive's size and pixels (it never had a place)."""
    with (
        rasterio.open(kenya / DATASET / LABELS / tile / "labels.tif") as here,
        rasterio.open(extracted / LABELS / tile / "labels.tif") as there,
    ):
        assert here.profile == there.profile
        values = here.read()
        assert values.any()
        assert np.array_equal(values, there.read())


def test_gdalinfo_opens_it(kenya):
    """gdalinfo describes labels.tif, to the checksum of its pixels."""
    need("gdalinfo")
    path = kenya / DATASET / LABELS / TILES[0] / "labels.tif"
    assert "Checksum=" in run("gdalinfo", "-checksum", path)


def need(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def run(*command, **settings):
    """Run a program that must succeed and have nothing to complain of; return its stdout."""
    done = subprocess.run(
        command, capture_output=True, timeout=mounts.SECONDS, check=False, **settings
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def assert_same_tree(left, right):
    """Same names, same bytes, same times of the files."""
    assert files(left) == files(right)
    for name in files(left):
        assert filecmp.cmp(left / name, right / name, shallow=False), name


def assert_same_times(left, right):
    for name in files(left):
        assert int((left / name).stat().st_mtime) == int((right / name).stat().st_mtime), name


def test_find_sees_every_name(kenya):
    """`find` names each file once, and tells files from directories."""
    listed = run("find", ".", "-type", "f", cwd=kenya).splitlines()
    assert sorted(listed) == sorted(f"./{name}" for name in files(kenya))
    listed = run("find", DATASET, "-type", "d", cwd=kenya).splitlines()
    below = {f"{DATASET}/{LABELS}/{name}" for name in [*TILES, "_common"]}
    assert sorted(listed) == sorted({DATASET, f"{DATASET}/{LABELS}"} | below)


def test_cp_copies_all(kenya, tmp_path):
    """`cp -r` of the mount gives a copy with equal content."""
    run("cp", "-r", "--preserve=timestamps", kenya, tmp_path / "copy")
    assert_same_tree(kenya, tmp_path / "copy")
    assert_same_times(kenya, tmp_path / "copy")


def test_tar_archives_all(kenya, tmp_path):
    """`tar c` of the mount gives an archive with equal content, no file changed as it was read."""
    run("tar", "--create", "--file", tmp_path / "it.tar", "--directory", kenya, ".")
    with tarfile.open(tmp_path / "it.tar") as tar:
        tar.extractall(tmp_path / "copy", filter="data")
    assert_same_tree(kenya, tmp_path / "copy")
    assert_same_times(kenya, tmp_path / "copy")


def test_rsync_copies_all_and_then_nothing(kenya, tmp_path):
    """`rsync -a` gives a copy with equal content, and a second one finds nothing to do."""
    need("rsync")
    # A copy that its owner cannot write into could not be completed, nor cleaned up.
    command = ["rsync", "-a", "--chmod=u+w", "--itemize-changes", f"{kenya}/", tmp_path / "copy"]
    run(*command)
    assert_same_tree(kenya, tmp_path / "copy")
    assert run(*command) == ""


@pytest.fixture(scope="module")
def sample(binding, tmp_path_factory):
    """The bundled sample, mounted."""
    with (
        LocalServer(cache_dir=tmp_path_factory.mktemp("server")) as server,
        mounts.mounted(
            server.root_url, tmp_path_factory.mktemp("sample"), binding=binding
        ) as mount,
    ):
        yield mount.path


def test_the_sample_has_the_bytes_of_the_package(sample):
    """Each asset of the sample is in the mount under its own path, byte for byte."""
    assets = {name for name in files(SAMPLE) if not name.endswith((".json", ".py", ".pyc"))}
    assert len(assets) > 300
    for name in sorted(assets):
        assert filecmp.cmp(sample / name, SAMPLE / name, shallow=False), name


def test_windows_of_the_large_cog_are_those_of_the_file(sample):
    """Windows of the 4096 x 4096 COG, whole blocks, parts and overviews, have the true pixels."""
    [path] = SAMPLE.glob("sample_aerial_scene_v1/*/*/image.tif")
    windows = [
        Window(column, row, width, height)
        for column, row, width, height in [
            (0, 0, 1, 1), (2048, 2048, 256, 256), (4095, 4095, 1, 1), (100, 3000, 700, 300),
            (3840, 0, 256, 256), (1000, 1000, 2, 3000),
        ]
    ]  # fmt: skip
    with (
        rasterio.open(sample / path.relative_to(SAMPLE)) as here,
        rasterio.open(path) as there,
    ):
        assert here.profile == there.profile
        for window in windows:
            assert np.array_equal(here.read(window=window), there.read(window=window)), window
        for level in range(4):
            shape = (3, 4096 >> level + 1, 4096 >> level + 1)
            assert np.array_equal(here.read(out_shape=shape), there.read(out_shape=shape)), shape


READER = """
import hashlib, json, pathlib, random, sys
root, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
chips = sorted(root.glob("bigearthnet_v1/*_source/*/B*.tif"))
random.Random(seed).shuffle(chips)
seen = {}
for chip in chips[:150]:
    with chip.open("rb", buffering=0) as file:
        data = b""
        while piece := file.read(4000):
            data += piece
    seen[str(chip.relative_to(root))] = hashlib.sha256(data).hexdigest()
json.dump(seen, sys.stdout)
"""


def test_eight_processes_that_load_chips_get_the_true_bytes(sample):
    """Eight readers at once, as a training loader has, each in its own order: no wrong byte."""
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, sample, str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for seed in range(8)
    ]
    outcomes = [reader.communicate(timeout=mounts.SECONDS) for reader in readers]
    assert [error for _, error in outcomes] == [b""] * 8
    read = set()
    for output, _ in outcomes:
        seen = json.load(io.BytesIO(output))
        assert len(seen) == 150
        read.update(seen.items())
    assert read == {(name, digest(SAMPLE / name)) for name, _ in read}
