"""The sample inside the package: its files, its JSON and its pictures, and how they are made."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from pystac.validation import validate_dict
from rasterio.warp import transform

import mlhubfs

SAMPLE = Path(mlhubfs.__file__).parent / "sample"
SCRIPTS = Path(__file__).parent.parent / "scripts"
MAKE_SAMPLE = SCRIPTS / "make_sample.py"

MADE_WITH = {"rasterio": "1.4.4", "gdal": "3.10.3"}
"""Versions of the wheel that wrote the committed files."""

DATASET_FIELDS = {
    "id", "title", "description", "bbox", "citation", "collections", "creator_contact",
    "date_added", "date_modified", "documentation_link", "doi", "publications", "registry",
    "status", "tags", "tools_applications", "tutorials",
}  # fmt: skip
PIXELS = {
    "B01": 20, "B02": 120, "B03": 120, "B04": 120, "B05": 60, "B06": 60,
    "B07": 60, "B08": 120, "B8A": 60, "B09": 20, "B11": 60, "B12": 60,
}  # fmt: skip
BIGEARTHNET = SAMPLE / "bigearthnet_v1"
SOURCES = sorted((BIGEARTHNET / "bigearthnet_v1_source").glob("*/stac.json"))
LABELS = sorted((BIGEARTHNET / "bigearthnet_v1_labels").glob("*/stac.json"))
SCENE = next((SAMPLE / "sample_aerial_scene_v1").glob("*/*/stac.json"))
FIELDS = sorted((SAMPLE / "sample_crop_fields_v1").glob("*/*/stac.json"))

FILES = sorted(path for path in SAMPLE.rglob("*/*") if path.is_file())
DATASETS = sorted(SAMPLE.glob("*/dataset.json"))
COLLECTIONS = sorted(SAMPLE.glob("*/*/collection.json"))
ITEMS = sorted(SAMPLE.glob("*/*/*/stac.json"))
RASTERS = [path for path in FILES if path.suffix == ".tif"]


def load(path):
    return json.loads(path.read_text("utf-8"))


def named(path):
    """The files that a STAC JSON names as assets."""
    return [
        (path.parent / asset["href"]).resolve() for asset in load(path).get("assets", {}).values()
    ]


def chip_name(path):
    return path.parent.name.split("_", 3)[3]


def read(item, band):
    with rasterio.open(item.parent / f"{band}.tif") as raster:
        return raster.read(1).astype(float)


def flag(label, name):
    """A flag as MLHub meant it: a boolean, a string, or missing, which is false."""
    return load(label)["properties"].get(name, False) in (True, "true")


# Size and layout


def test_it_weighs_at_most_4_megabytes():
    """All files together are at most 4,000,000 bytes."""
    assert 0 < sum(path.stat().st_size for path in FILES) <= 4_000_000


def test_it_has_three_datasets_that_say_that_they_are_synthetic():
    """Each dataset and each collection has "Synthetic" in its title and explains it."""
    assert len(DATASETS) == 3
    for path in DATASETS + COLLECTIONS:
        assert "Synthetic" in load(path)["title"]
        assert "synthetic" in load(path)["description"]


@pytest.mark.parametrize("path", DATASETS, ids=lambda path: path.parent.name)
def test_a_dataset_has_the_recorded_fields(path):
    """A dataset object has MLHub's fields, a tag, a DOI of the test prefix, and its collections."""
    dataset = load(path)
    assert set(dataset) == DATASET_FIELDS
    assert dataset["id"] == path.parent.name
    assert dataset["status"] == "ready"
    assert dataset["tags"]
    assert dataset["doi"].startswith("10.5072/")
    assert dataset["bbox"]["type"] == "MultiPolygon"
    folders = {folder.name for folder in path.parent.iterdir() if folder.is_dir()}
    assert {part["id"] for part in dataset["collections"]} == folders
    assert all(set(part) == {"id", "types", "license"} for part in dataset["collections"])


def test_one_collection_is_both_imagery_and_labels():
    """The types in the datasets are imagery, labels, imagery, and both."""
    types = [part["types"] for path in DATASETS for part in load(path)["collections"]]
    assert types == [
        ["source_imagery"],
        ["labels"],
        ["source_imagery"],
        ["source_imagery", "labels"],
    ]


def test_every_file_is_named_and_every_name_is_a_file():
    """The assets and links of the JSON name exactly the files that there are."""
    expected = {path.resolve() for path in DATASETS + COLLECTIONS + ITEMS}
    expected.update(file for path in COLLECTIONS + ITEMS for file in named(path))
    assert {path.resolve() for path in FILES} == expected


def test_every_link_is_relative_and_leads_to_a_file():
    """Links of all relations, `source` links between sibling archives too, resolve."""
    for path in COLLECTIONS + ITEMS:
        for link in load(path)["links"]:
            assert ":" not in link["href"]
            assert not link["href"].startswith("/")
            assert (path.parent / link["href"]).is_file(), (path, link)


def test_collections_link_to_all_their_items_and_back():
    """A collection's `item` links are its item folders; items link to it three times."""
    for path in COLLECTIONS:
        links = load(path)["links"]
        items = {link["href"] for link in links if link["rel"] == "item"}
        assert items == {
            item.relative_to(path.parent).as_posix() for item in path.parent.glob("*/stac.json")
        }
    for path in ITEMS:
        up = {link["rel"] for link in load(path)["links"] if link["href"] == "../collection.json"}
        assert up == {"root", "parent", "collection"}


def test_names_are_those_of_the_archives():
    """Folders are ids, and an asset lies beside its item as <asset key>.<ext> or in _common."""
    for path in ITEMS:
        item = load(path)
        assert item["id"] == path.parent.name
        assert item["collection"] == path.parent.parent.name
        for key, asset in item["assets"].items():
            folder, _, file = asset["href"].rpartition("/")
            assert folder in ("", "../_common")
            assert file.rpartition(".")[0] == key


def test_json_is_compact():
    """No byte is spent on indentation."""
    for path in FILES:
        if path.suffix in (".json", ".geojson"):
            text = json.dumps(load(path), separators=(",", ":"), ensure_ascii=False) + "\n"
            assert path.read_bytes() == text.encode()


def test_no_file_tells_where_it_was_made():
    """No file holds a path of the machine that made it."""
    homes = [str(SAMPLE.parent.parent).encode(), b"/tmp/", b"/vsimem", b"/home/", b"/root/"]
    for path in FILES:
        content = path.read_bytes()
        assert not [home for home in homes if home in content], path


# STAC


@pytest.mark.parametrize("path", COLLECTIONS, ids=lambda path: path.parent.name)
def test_a_collection_is_valid_stac(path):
    """A collection validates against the core schema that pystac brings along."""
    assert load(path)["stac_version"] == "1.0.0"
    value = pystac.Collection.from_file(path).to_dict(include_self_link=False)
    validate_dict(value, pystac.STACObjectType.COLLECTION, value["stac_version"], extensions=[])


@pytest.mark.parametrize("path", ITEMS, ids=lambda path: path.parent.name)
def test_an_item_is_valid_stac(path):
    """An item validates against the core schema that pystac brings along."""
    assert load(path)["stac_version"] == "1.0.0"
    value = pystac.Item.from_file(path).to_dict(include_self_link=False)
    validate_dict(value, pystac.STACObjectType.ITEM, value["stac_version"], extensions=[])


def test_extents_hold_the_items():
    """A collection's box and interval are the union of its items'."""
    for path in COLLECTIONS:
        items = [load(item) for item in path.parent.glob("*/stac.json")]
        west, south, east, north = zip(*(item["bbox"] for item in items), strict=True)
        extent = load(path)["extent"]
        assert extent["spatial"]["bbox"] == [[min(west), min(south), max(east), max(north)]]
        times = sorted(item["properties"]["datetime"] for item in items)
        assert extent["temporal"]["interval"] == [[times[0], times[-1]]]


def test_geometries_are_right_handed_and_fill_their_boxes():
    """A footprint is closed, counter-clockwise, and its box is the item's."""
    for path in ITEMS:
        item = load(path)
        [ring] = item["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        area = sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring))
        assert area > 0
        lons, lats = zip(*ring, strict=True)
        assert item["bbox"] == [min(lons), min(lats), max(lons), max(lats)]


# BigEarthNet


def test_there_are_24_pairs():
    """Each of 24 chips has imagery, and labels whose one `source` link is that imagery."""
    assert len(SOURCES) == len(LABELS) == 24
    assert [chip_name(path) for path in SOURCES] == [chip_name(path) for path in LABELS]
    for label, source in zip(LABELS, SOURCES, strict=True):
        links = [link["href"] for link in load(label)["links"] if link["rel"] == "source"]
        assert [(label.parent / href).resolve() for href in links] == [source.resolve()]
        for key in ("geometry", "bbox"):
            assert load(label)[key] == load(source)[key]


def test_a_source_item_has_the_recorded_assets():
    """Assets are the 12 bands without B10, typed and titled as MLHub did."""
    for path in SOURCES:
        assets = load(path)["assets"]
        assert list(assets) == list(PIXELS)
        for key, asset in assets.items():
            assert asset["href"] == f"{key}.tif"
            assert asset["title"] == f"{chip_name(path)}_{key}"
            assert asset["type"] == "image/tiff; application=geotiff; profile=cloud-optimized"
            assert [band["name"] for band in asset["eo:bands"]] == [key]


def test_ids_hold_the_datetime():
    """An item's datetime is the time in its name; 2017 and 2018 and July 2017 are there."""
    months = Counter()
    for path in SOURCES + LABELS:
        item = load(path)
        compact = item["properties"]["datetime"].translate(str.maketrans("", "", "-:Z"))
        assert compact in item["id"]
        months[item["properties"]["datetime"][:7]] += 1
    assert months["2017-07"] >= 8
    assert len(months) >= 8
    assert {month[:4] for month in months} == {"2017", "2018"}


def test_labels_are_corine_classes():
    """Every label is one of the 43 class names, as many classes are listed, many are in use."""
    used = set()
    for path in LABELS:
        properties = load(path)["properties"]
        [listed] = properties["label:classes"]
        classes = listed["classes"]
        assert len(set(classes)) == 43
        assert properties["labels"]
        assert set(properties["labels"]) <= set(classes)
        used |= set(properties["labels"])
    assert len(used) >= 30
    assert {"Transitional woodland/shrub", "Beaches, dunes, sands", "Rice fields"} <= used


@pytest.mark.parametrize("name", ["cloud_and_shadow", "seasonal_snow"])
def test_flags_are_as_various_as_the_recorded_ones(name):
    """A flag is true or false, "true" or "false", or missing, each at least once."""
    flags = {repr(load(path)["properties"].get(name)) for path in LABELS}
    assert flags == {"True", "False", "'true'", "'false'", "None"}


def test_the_geojson_repeats_the_labels():
    """A label file is the chip's footprint with the item's labels."""
    for path in LABELS:
        item, content = load(path), load(path.parent / "labels.geojson")
        [feature] = content["features"]
        assert feature["geometry"] == item["geometry"]
        assert feature["properties"]["labels"] == item["properties"]["labels"]


def test_the_example_query_has_answers_and_near_misses():
    """DESIGN.md's query finds three chips; dropping any of its conditions finds more."""

    def conditions(path):
        item = load(path)
        west, south, east, north = item["bbox"]
        labels = item["properties"]["labels"]
        return (
            bool({"Coniferous forest", "Rice fields"} & set(labels)),
            not flag(path, "cloud_and_shadow"),
            item["properties"]["datetime"].startswith("2017-07"),
            west >= 9 and east <= 10 and south >= 47 and north <= 48,
        )

    met = [conditions(path) for path in LABELS]
    found = sum(map(all, met))
    assert found == 3
    for dropped in range(4):
        rest = [one[:dropped] + one[dropped + 1 :] for one in met]
        assert sum(map(all, rest)) > found, f"condition {dropped} decides nothing"


def test_clouds_and_snow_are_where_the_flags_say():
    """Bright blue is seen on flagged chips only; snow among it is dark in short-wave infrared."""
    for source, label in zip(SOURCES, LABELS, strict=True):
        blue = read(source, "B02").reshape(60, 2, 60, 2).mean(axis=(1, 3))
        swir, green = read(source, "B11"), read(source, "B03")
        snow = (blue > 3500) & (swir < 1800)
        cloud = (blue > 3500) & (swir > 2200)
        assert (snow.mean() > 0.1) == flag(label, "seasonal_snow"), source
        assert (cloud.mean() > 0.1) == flag(label, "cloud_and_shadow"), source
        assert green.max() <= 10000


def test_water_is_where_the_labels_say():
    """On clear chips, near infrared below green is seen exactly where a label is of water."""
    water = {"Water bodies", "Water courses", "Sea and ocean", "Estuaries"}
    for source, label in zip(SOURCES, LABELS, strict=True):
        if flag(label, "cloud_and_shadow") or flag(label, "seasonal_snow"):
            continue
        wet = read(source, "B08") < 0.8 * read(source, "B03")
        assert (wet.mean() > 0.02) == bool(water & set(load(label)["properties"]["labels"])), label


def test_bands_look_like_one_landscape():
    """Neighbouring pixels and the visible bands are correlated, as noise would not be."""
    for source in SOURCES:
        red, green = read(source, "B04"), read(source, "B03")
        assert np.corrcoef(red[:, 1:].ravel(), red[:, :-1].ravel())[0, 1] > 0.6
        assert np.corrcoef(red.ravel(), green.ravel())[0, 1] > 0.6


# Rasters


@pytest.mark.parametrize("path", RASTERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_raster_is_a_cog_in_its_place(path):
    """A tif has the COG layout, a UTM zone, and the footprint that its item says."""
    with rasterio.open(path) as raster:
        assert raster.driver == "GTiff"
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.profile["tiled"]
        assert raster.crs.to_epsg() // 100 in (326, 327)
        left, bottom, right, top = raster.bounds
        lons, lats = transform(
            raster.crs, "EPSG:4326", [left, left, right, right], [top, bottom, bottom, top]
        )
        values = raster.read()
    bbox = load(path.parent / "stac.json")["bbox"]
    assert [min(lons), min(lats), max(lons), max(lats)] == pytest.approx(bbox, abs=1e-6)
    assert len(np.unique(values)) > 3


@pytest.mark.parametrize("band", PIXELS)
def test_a_band_has_its_pixel_size(band):
    """Bands are uint16, of 120, 60 or 20 pixels that cover 1200 m, in one zone a chip."""
    for source in SOURCES:
        with (
            rasterio.open(source.parent / f"{band}.tif") as raster,
            rasterio.open(source.parent / "B02.tif") as reference,
        ):
            assert raster.dtypes == ("uint16",)
            assert raster.shape == (PIXELS[band], PIXELS[band])
            assert raster.res == (1200 / PIXELS[band], 1200 / PIXELS[band])
            assert raster.bounds == reference.bounds
            assert raster.crs == reference.crs


def test_the_scene_is_large_and_has_overviews():
    """The scene is 4096 x 4096 in 256 pixel blocks, with overviews down to one block."""
    with rasterio.open(SCENE.parent / "image.tif") as raster:
        assert raster.shape == (4096, 4096)
        assert raster.dtypes == ("uint8",) * 3
        assert set(raster.block_shapes) == {(256, 256)}
        assert raster.overviews(1) == [2, 4, 8, 16]
    assert {"image", "thumbnail"} == set(load(SCENE)["assets"])
    assert load(SCENE.parent.parent / "collection.json")["assets"]["bands"]["href"] == (
        "_common/bands.csv"
    )


def test_no_block_of_the_scene_is_like_another():
    """Every block of the scene has other pixels, none is of one value: misplaced reads show."""
    blocks = set()
    with rasterio.open(SCENE.parent / "image.tif") as raster:
        for _, window in raster.block_windows(1):
            block = raster.read(window=window)
            assert block.std(axis=(1, 2)).min() > 1
            blocks.add(block.tobytes())
    assert len(blocks) == 256


def test_raster_and_vector_labels_agree():
    """In the middle of each outlined field, the raster has the field's crop number."""
    assert len(FIELDS) == 4
    for item in FIELDS:
        outlines = load(item.parent / "field_outlines.geojson")["features"]
        with rasterio.open(item.parent / "labels.tif") as raster:
            assert raster.dtypes == ("uint8",)
            crops, crs, grid = raster.read(1), raster.crs, raster.transform
        assert len(outlines) > 10
        for outline in outlines:
            lons, lats = zip(*outline["geometry"]["coordinates"][0][:4], strict=True)
            xs, ys = transform("EPSG:4326", crs, lons, lats)
            column, row = (sum(xs) / 4 - grid.c) / grid.a, (sum(ys) / 4 - grid.f) / grid.e
            assert crops[int(row), int(column)] == outline["properties"]["crop_id"]


# The generator


def make(root, *options):
    command = [sys.executable, "-W", "error", MAKE_SAMPLE, root, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    """The whole sample, made anew."""
    return make(tmp_path_factory.mktemp("remade") / "sample")


def test_two_runs_make_the_same_bytes(tmp_path):
    """The generator's trees are byte-identical, also where it replaces those of another run."""
    reduced = ("--scene-size", "512", "--pairs")
    first = make(tmp_path / "first", *reduced, "2")
    make(tmp_path / "second", *reduced, "3")
    second = make(tmp_path / "second", *reduced, "2")
    assert len(first) == 3 + 4 + 2 * (13 + 2) + 4 + (1 + 4 * 4)
    assert list(tmp_path.iterdir()) in (
        [tmp_path / "first", tmp_path / "second"],
        [tmp_path / "second", tmp_path / "first"],
    )
    assert {name: path.read_bytes() for name, path in first.items()} == {
        name: path.read_bytes() for name, path in second.items()
    }


def test_the_committed_sample_is_what_the_generator_makes(remade):
    """Names, JSON, tables and the values of lossless pictures are those that a new run makes."""
    committed = {path.relative_to(SAMPLE).as_posix(): path for path in FILES}
    assert set(remade) == set(committed)
    for name, path in committed.items():
        if path.suffix == ".jpg" or path.parent == SCENE.parent:
            continue
        if path.suffix != ".tif":
            assert path.read_bytes() == remade[name].read_bytes(), name
            continue
        with rasterio.open(path) as kept, rasterio.open(remade[name]) as new:
            assert kept.transform == new.transform, name
            assert kept.crs == new.crs, name
            assert np.array_equal(kept.read(), new.read()), name


def test_the_committed_bytes_are_what_the_generator_makes(remade):
    """With the libraries that made the sample, every byte is the same."""
    versions = {"rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__}
    bundled = (Path(rasterio.__file__).parent.parent / "rasterio.libs").is_dir()
    if versions != MADE_WITH or not bundled:
        pytest.skip(f"encoders differ: made with the wheel of {MADE_WITH}, here is {versions}")
    different = [
        name for name, path in remade.items() if path.read_bytes() != (SAMPLE / name).read_bytes()
    ]
    assert different == []
