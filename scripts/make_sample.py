"""Make the sample: three synthetic datasets, in the layout of MLHub's collection archives.

Run it as `python scripts/make_sample.py`; it replaces the datasets' folders in `mlhubfs/sample`.
The same versions of rasterio (with its GDAL) and numpy give the same bytes at every run: seeds and
dates are fixed, and files say nothing of the machine that they were made on.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.features import rasterize
from sample_archive import (
    COG,
    EO,
    GEOJSON,
    JSON,
    LABEL,
    Collection,
    Grid,
    Json,
    features,
    polygon,
    write_cog,
    write_csv,
    write_dataset,
    write_jpeg,
    write_json,
)
from sample_chips import CHIPS, CLASSES, Chip
from synthetic_land import BANDS, Array, Land, chip, field_picture
from synthetic_scene import valley

SAMPLE = Path(__file__).parent.parent / "mlhubfs" / "sample"

CHIP_SIZE = 120
SCENE_SIZE = 4096
FIELDS_SIZE = 112
LEAST_SHARE = 0.01
"""A class below this share of a chip is not worth a label."""

# Band -> (the extension's common name, the words that MLHub recorded).
BAND_NAMES = {
    "B01": ("coastal", "Coastal Aerosol"),
    "B02": ("blue", "Blue"),
    "B03": ("green", "Green"),
    "B04": ("red", "Red"),
    "B05": ("rededge", "Vegetation Red Edge (704.1nm)"),
    "B06": ("rededge", "Vegetation Red Edge (740.1nm)"),
    "B07": ("rededge", "Vegetation Red Edge (782.8nm)"),
    "B08": ("nir", "NIR"),
    "B8A": ("nir08", "Narrow NIR"),
    "B09": ("nir09", "Water Vapour"),
    "B11": ("swir16", "SWIR (1613.7nm)"),
    "B12": ("swir22", "SWIR (2202.4nm)"),
}


def band(name: str) -> Json:
    """Return a band's `eo:bands` object."""
    common_name, words = BAND_NAMES[name]
    return {"name": name, "common_name": common_name, "description": words}


def chip_time(name: str) -> str:
    """Return the time in a chip's name: S2A_MSIL2A_20170701T093031_65_62."""
    day, clock = name.split("_")[2].split("T")
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z"


def chip_grid(place: Chip) -> Grid:
    """Return the ground that a chip's column and row in its tile mean."""
    column, row = map(int, place.name.split("_")[3:])
    left, top = place.tile.left + 1200 * column, place.tile.top - 1200 * row
    return Grid(place.tile.epsg, left, top, 10, CHIP_SIZE)


def add_source(collection: Collection, place: Chip, grid: Grid, pictures: dict[str, Array]) -> str:
    """Write one chip's imagery and return its item's name."""
    name = f"{collection.id}_{place.name}"
    assets = {}
    for key, picture in pictures.items():
        gsd = BANDS[key]
        small = Grid(grid.epsg, grid.left, grid.top, gsd, len(picture))
        block = -(-len(picture) // 32) * 32
        path = collection.folder / name / f"{key}.tif"
        deflate = {"compress": "DEFLATE", "level": 9, "predictor": "STANDARD"}
        write_cog(path, picture[None], small, block=block, **deflate)
        assets[key] = {
            "href": f"{key}.tif",
            "title": f"{place.name}_{key}",
            "type": COG,
            "gsd": gsd,
            "eo:bands": [band(key)],
        }
    properties = {
        "datetime": chip_time(place.name),
        "constellation": "Sentinel-2",
        "platform": "Sentinel-2",
        "instruments": ["MSI"],
        "gsd": 10,
        "eo:bands": [band(key) for key in BANDS],
    }
    collection.add(name, grid.ring(), properties, assets, extensions=[EO])
    return name


def add_labels(
    collection: Collection, place: Chip, grid: Grid, labels: list[str], source: str
) -> None:
    """Write one chip's labels."""
    name = f"{collection.id}_{place.name}"
    flags = {"cloud_and_shadow": place.cloud_and_shadow, "seasonal_snow": place.seasonal_snow}
    recorded = {key: flag for key, flag in flags.items() if flag is not None}
    properties = {
        "datetime": chip_time(place.name),
        "label:type": "vector",
        "label:tasks": ["classification"],
        "label:methods": ["synthetic"],
        "label:properties": ["labels"],
        "label:classes": [{"name": "labels", "classes": list(CLASSES)}],
        "label:description": "CORINE Land Cover classes that the synthetic chip was drawn from",
        "labels": labels,
        **recorded,
    }
    content = features([(grid.ring(), {"name": place.name, "labels": labels, **recorded})])
    write_json(collection.folder / name / "labels.geojson", content)
    asset = {"href": "labels.geojson", "title": f"{place.name}_labels", "type": GEOJSON}
    link = {"rel": "source", "href": f"../../bigearthnet_v1_source/{source}/stac.json"}
    collection.add(
        name,
        grid.ring(),
        properties,
        {"labels": {**asset, "roles": ["labels", "labels-vector"]}},
        extensions=[LABEL],
        links=[{**link, "type": JSON}],
    )


def make_bigearthnet(root: Path, pairs: int) -> None:
    """Write the first `pairs` chips of the sample of BigEarthNet."""
    folder = root / "bigearthnet_v1"
    tags = ("land cover", "image classification", "sentinel-2")
    title = "Synthetic sample of BigEarthNet"
    source = Collection(
        folder / "bigearthnet_v1_source", f"{title}: imagery", ("source_imagery",), tags
    )
    labels = Collection(folder / "bigearthnet_v1_labels", f"{title}: labels", ("labels",), tags)
    for seed, place in enumerate(CHIPS[:pairs]):
        covers = tuple((cover[0], cover[1], (*cover, "contour")[2]) for cover in place.covers)
        clouds, snow = (
            flag in (True, "true") for flag in (place.cloud_and_shadow, place.seasonal_snow)
        )
        land = Land(covers, int(place.name[15:17]), clouds, snow)
        pictures, classes = chip(np.random.RandomState(seed), CHIP_SIZE, land)
        shares = np.bincount(classes.ravel(), minlength=len(covers)) / classes.size
        seen = [covers[i][0] for i in np.argsort(-shares) if shares[i] >= LEAST_SHARE]
        grid = chip_grid(place)
        item = add_source(source, place, grid, pictures)
        add_labels(labels, place, grid, seen, item)
    write_dataset(
        folder,
        title=title,
        description=f"{len(source.items)} pairs in the form of BigEarthNet v1.0: 12 bands of a"
        " 1200 m chip, and the CORINE Land Cover classes on it.",
        doi="10.5072/mlhubfs.sample-bigearthnet",
        tags=list(tags),
        parts=[source, labels],
    )


def make_scene(root: Path, size: int) -> None:
    """Write the one large picture."""
    folder = root / "sample_aerial_scene_v1"
    tags = ("aerial imagery", "land cover", "rgb")
    title = "Synthetic sample of an aerial scene"
    part = Collection(folder / "sample_aerial_scene_v1_source", title, ("source_imagery",), tags)
    grid = Grid(32632, 600000, 5330000, 1, size)
    picture = valley(np.random.RandomState(7), size)
    name = f"{part.id}_valley"
    item = part.folder / name
    write_cog(item / "image.tif", picture, grid, block=256, compress="JPEG", quality=50)
    shrink = size // 256
    cells = picture.reshape(3, 256, shrink, 256, shrink).mean(axis=(2, 4))
    write_jpeg(item / "thumbnail.jpg", np.rint(cells).astype(np.uint8))
    bands = ["red", "green", "blue"]
    write_csv(
        part.folder / "_common" / "bands.csv",
        [("band", "name", "ground sampling distance in metres"), (1, "red", 1), (2, "green", 1),
         (3, "blue", 1)],
    )  # fmt: skip
    part.assets["bands"] = {
        "href": "_common/bands.csv",
        "title": "The picture's bands",
        "type": "text/csv",
        "roles": ["metadata"],
    }
    assets = {
        "image": {
            "href": "image.tif",
            "title": "RGB picture with overviews",
            "type": COG,
            "roles": ["data", "visual"],
            "eo:bands": [{"name": colour, "common_name": colour} for colour in bands],
        },
        "thumbnail": {
            "href": "thumbnail.jpg",
            "title": "Thumbnail",
            "type": "image/jpeg",
            "roles": ["thumbnail"],
        },
    }
    properties = {"datetime": "2021-06-14T10:15:00Z", "gsd": 1, "platform": "synthetic"}
    part.add(name, grid.ring(), properties, assets, extensions=[EO])
    write_dataset(
        folder,
        title=title,
        description=f"One cloud-optimised GeoTIFF of {size} x {size} pixels with overviews.",
        doi="10.5072/mlhubfs.sample-aerial-scene",
        tags=list(tags),
        parts=[part],
    )


# Crop number -> (name, spectrum in June, colour on a map); 0 is no data.
CROPS = {
    1: ("Maize", "young crop", (240, 200, 60, 255)),
    2: ("Wheat", "ripe crop", (214, 170, 110, 255)),
    3: ("Sunflower", "green crop", (250, 140, 30, 255)),
    4: ("Meadow", "meadow", (110, 180, 80, 255)),
    5: ("Fallow", "soil", (150, 110, 90, 255)),
}


def draw_fields(random: np.random.RandomState, grid: Grid) -> list[tuple[list, int]]:
    """Return (closed UTM ring, crop number) of fields that lie inside of the grid."""
    angle = random.uniform(0, np.pi / 2)
    extent = grid.pixel * grid.size

    def turned(along: float, across: float) -> tuple[float, float]:
        x = along * np.cos(angle) - across * np.sin(angle)
        y = along * np.sin(angle) + across * np.cos(angle)
        middle = extent / 2
        return round(float(grid.left + middle + x), 2), round(float(grid.top - middle + y), 2)

    fields = []
    bottom = -extent
    while bottom < extent:
        height, left = random.uniform(90, 180), -extent
        while left < extent:
            width = random.uniform(110, 340)
            right, top = left + width - 12, bottom + height - 12
            crop = int(random.randint(1, 1 + len(CROPS)))
            corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
            ring = [turned(*corner) for corner in corners]
            inside = all(
                grid.left < x < grid.left + extent and grid.top - extent < y < grid.top
                for x, y in ring
            )
            if inside:
                fields.append(([*ring, ring[0]], crop))
            left += width
        bottom += height
    return fields


def make_crops(root: Path) -> None:
    """Write the collection that is both imagery and labels."""
    folder = root / "sample_crop_fields_v1"
    tags = ("crop type", "segmentation", "sentinel-2", "agriculture")
    title = "Synthetic sample of crop fields"
    part = Collection(folder / "sample_crop_fields_v1", title, ("source_imagery", "labels"), tags)
    names = [(number, name) for number, (name, _, _) in CROPS.items()]
    write_csv(part.folder / "_common" / "crop_names.csv", [("crop_id", "crop_name"), *names])
    shared = {"title": "Names of the crop numbers", "type": "text/csv", "roles": ["metadata"]}
    part.assets["crop_names"] = {"href": "_common/crop_names.csv", **shared}
    for tile in range(4):
        grid = Grid(32736, 690000 + 1120 * tile, 9900000, 10, FIELDS_SIZE)
        add_crop_tile(part, tile, grid, shared)
    write_dataset(
        folder,
        title=title,
        description="Four chips, each with its imagery, a raster and a vector of its crops.",
        doi="10.5072/mlhubfs.sample-crop-fields",
        tags=list(tags),
        parts=[part],
    )


def add_crop_tile(part: Collection, tile: int, grid: Grid, shared: Json) -> None:
    """Write one chip with its labels."""
    name = f"{part.id}_tile_{tile:02d}"
    random = np.random.RandomState(100 + tile)
    fields = draw_fields(random, grid)
    shapes = [(polygon(ring), number) for number, (ring, _) in enumerate(fields, 1)]
    where = {"out_shape": (grid.size, grid.size), "transform": grid.transform}
    numbers = rasterize(shapes, **where, dtype="uint16")
    crops = np.array([0, *(crop for _, crop in fields)], dtype=np.uint8)
    materials = ["dry grass", *(CROPS[crop][1] for _, crop in fields)]
    bands = ("B02", "B03", "B04", "B08")
    picture = field_picture(random, numbers, materials, bands)
    deflate = {"compress": "DEFLATE", "level": 9, "predictor": "STANDARD"}
    item = part.folder / name
    write_cog(item / "image.tif", picture, grid, block=128, interleave="BAND", **deflate)
    write_cog(
        item / "labels.tif",
        crops[numbers][None],
        grid,
        block=128,
        compress="DEFLATE",
        colours={0: (0, 0, 0, 0), **{number: crop[2] for number, crop in CROPS.items()}},
    )
    listed = [
        (grid.lonlat(ring), {"field_id": number, "crop_id": crop, "crop_name": CROPS[crop][0]})
        for number, (ring, crop) in enumerate(fields, 1)
    ]
    write_json(item / "field_outlines.geojson", features(listed))
    assets = {
        "image": {
            "href": "image.tif",
            "title": "Imagery",
            "type": COG,
            "roles": ["data"],
            "eo:bands": [band(key) for key in bands],
        },
        "labels": {
            "href": "labels.tif",
            "title": "Crop numbers",
            "type": COG,
            "roles": ["labels", "labels-raster"],
        },
        "field_outlines": {
            "href": "field_outlines.geojson",
            "title": "Fields and their crops",
            "type": GEOJSON,
            "roles": ["labels", "labels-vector"],
        },
        "crop_names": {"href": "../_common/crop_names.csv", **shared},
    }
    properties = {
        "datetime": f"2021-06-{3 + 5 * tile:02d}T07:45:00Z",
        "constellation": "Sentinel-2",
        "gsd": 10,
        "label:type": "raster",
        "label:tasks": ["segmentation"],
        "label:methods": ["synthetic"],
        "label:properties": None,
        "label:classes": [{"name": "crop_name", "classes": [crop[0] for crop in CROPS.values()]}],
        "label:description": "Crops that the synthetic fields were drawn from",
    }
    part.add(name, grid.ring(), properties, assets, extensions=[EO, LABEL])


def make(root: Path, pairs: int, scene_size: int) -> None:
    """Write all datasets into `root`, in the place of those of an earlier run."""
    root.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=root.parent) as made,
        rasterio.Env(GDAL_PAM_ENABLED="NO"),  # no .aux.xml beside a picture
    ):
        make_bigearthnet(Path(made), pairs)
        make_scene(Path(made), scene_size)
        make_crops(Path(made))
        for folder in sorted(Path(made).iterdir()):
            shutil.rmtree(root / folder.name, ignore_errors=True)
            folder.rename(root / folder.name)


def main() -> None:
    """Read the command line, make the sample, say what it weighs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=SAMPLE, help="default: %(default)s")
    parser.add_argument("--pairs", type=int, default=len(CHIPS), help="default: %(default)s")
    parser.add_argument("--scene-size", type=int, default=SCENE_SIZE, help="default: %(default)s")
    options = parser.parse_args()
    make(options.root, options.pairs, options.scene_size)
    for folder in sorted(options.root.iterdir()):
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        print(f"{folder.name}: {len(sizes)} files, {sum(sizes):,} bytes")


if __name__ == "__main__":
    main()
