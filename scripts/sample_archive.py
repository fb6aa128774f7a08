"""The folder of an archive: items, collections and datasets as MLHub's archives hold them.

Owns the layout, the JSON and the encodings of files; what is in the pictures is the caller's.
Links and hrefs are relative, JSON is compact, and nothing tells of the machine or of the clock.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rasterio
from affine import Affine
from rasterio.io import MemoryFile
from rasterio.warp import transform as reproject
from synthetic_land import Array

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
GEOJSON = "application/geo+json"
JSON = "application/json"

EO = "https://stac-extensions.github.io/eo/v1.0.0/schema.json"
LABEL = "https://stac-extensions.github.io/label/v1.0.0/schema.json"
SCIENTIFIC = "https://stac-extensions.github.io/scientific/v1.0.0/schema.json"

ADDED = "2026-11-20T00:00:00+00:00"
LICENSE = "MIT"
NOTE = (
    "This is a synthetic sample, drawn by scripts/make_sample.py of mlhubfs: no satellite or"
    " aeroplane took these pictures and the places do not look like this. Use it to try out"
    " software, not to learn about land."
)

Json = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """Square pixels on the ground."""

    epsg: int
    left: float
    top: float
    pixel: float
    """In metres."""
    size: int

    @property
    def transform(self) -> Affine:
        """From (column, row) to metres."""
        return Affine(self.pixel, 0, self.left, 0, -self.pixel, self.top)

    def lonlat(self, points: Iterable[tuple[float, float]]) -> list[list[float]]:
        """Return UTM points as [longitude, latitude], to a centimetre."""
        eastings, northings = zip(*points, strict=True)
        lons, lats = reproject(f"EPSG:{self.epsg}", "EPSG:4326", eastings, northings)
        return [[round(lon, 7), round(lat, 7)] for lon, lat in zip(lons, lats, strict=True)]

    def ring(self) -> list[list[float]]:
        """Return the footprint's closed ring, counter-clockwise."""
        extent = self.pixel * self.size
        right, bottom = self.left + extent, self.top - extent
        corners = [(self.left, self.top), (self.left, bottom), (right, bottom), (right, self.top)]
        return self.lonlat([*corners, corners[0]])


def box(rings: Iterable[Sequence[Sequence[float]]]) -> list[float]:
    """Return the rings' common bounding box: west, south, east, north."""
    lons, lats = zip(*(point for ring in rings for point in ring), strict=True)
    return [min(lons), min(lats), max(lons), max(lats)]


def polygon(ring: Sequence[Sequence[float]]) -> Json:
    """Return a GeoJSON polygon without holes."""
    return {"type": "Polygon", "coordinates": [ring]}


def features(parts: Iterable[tuple[Sequence[Sequence[float]], Json]]) -> Json:
    """Return a GeoJSON FeatureCollection of (ring, properties)."""
    listed = [
        {"type": "Feature", "geometry": polygon(ring), "properties": properties}
        for ring, properties in parts
    ]
    return {"type": "FeatureCollection", "features": listed}


def write_json(path: Path, value: Json) -> None:
    """Write compact JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n", "utf-8")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whose first row is its header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), "utf-8")


def write_cog(
    path: Path,
    layers: Array,
    grid: Grid,
    *,
    block: int,
    colours: Mapping[int, tuple[int, int, int, int]] | None = None,
    **options: str | int,
) -> None:
    """Write (band, row, column) values as a cloud-optimised GeoTIFF; `options` are GDAL's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = layers.shape
    profile = {
        "driver": "COG",
        "dtype": layers.dtype.name,
        "count": count,
        "height": height,
        "width": width,
        "crs": f"EPSG:{grid.epsg}",
        "transform": grid.transform,
        "blocksize": block,
        "num_threads": 1,
    }
    with rasterio.open(path, "w", **profile, **options) as target:
        target.write(layers)
        if colours:
            target.write_colormap(1, colours)


def write_jpeg(path: Path, layers: Array) -> None:
    """Write (3, row, column) bytes as a JPEG; it has no place on the ground, and needs none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = layers.shape
    profile = {"count": count, "height": height, "width": width, "dtype": "uint8"}
    # The georeferencing only keeps rasterio from warning that there is none: JPEG drops it.
    with MemoryFile() as memory:
        placed = {"crs": "EPSG:4326", "transform": Affine(2, 0, 0, 0, -2, 0)}
        with memory.open(driver="JPEG", quality=80, **profile, **placed) as target:
            target.write(layers)
        path.write_bytes(memory.read())


@dataclass
class Collection:
    """A collection's folder: items are written as they are added, then its JSON."""

    folder: Path
    title: str
    types: tuple[str, ...]
    keywords: tuple[str, ...]
    assets: Json = field(default_factory=dict)
    items: list[Json] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The collection's id is its folder's name."""
        return self.folder.name

    def add(
        self,
        name: str,
        ring: Sequence[Sequence[float]],
        properties: Json,
        assets: Json,
        *,
        extensions: Sequence[str],
        links: Sequence[Json] = (),
    ) -> None:
        """Write an item's JSON, whose assets lie beside it."""
        parents = [
            {"rel": rel, "href": "../collection.json", "type": JSON}
            for rel in ("root", "collection", "parent")
        ]
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": list(extensions),
            "id": name,
            "collection": self.id,
            "geometry": polygon(ring),
            "bbox": box([ring]),
            "properties": properties,
            "assets": assets,
            "links": [*parents, *links],
        }
        write_json(self.folder / name / "stac.json", item)
        self.items.append(item)

    def write(self, citation: str) -> None:
        """Write the collection's own JSON."""
        times = sorted(item["properties"]["datetime"] for item in self.items)
        links = [{"rel": "root", "href": "collection.json", "type": JSON}]
        links += [
            {"rel": "item", "href": f"{item['id']}/stac.json", "type": JSON} for item in self.items
        ]
        value = {
            "type": "Collection",
            "stac_version": "1.0.0",
            "stac_extensions": [SCIENTIFIC],
            "id": self.id,
            "title": self.title,
            "description": f"{self.title}. {NOTE}",
            "keywords": list(self.keywords),
            "license": LICENSE,
            "providers": [{"name": "mlhubfs", "roles": ["producer", "licensor"]}],
            "extent": {
                "spatial": {"bbox": [self.bbox()]},
                "temporal": {"interval": [[times[0], times[-1]]]},
            },
            "sci:citation": citation,
            **({"assets": self.assets} if self.assets else {}),
            "links": links,
        }
        write_json(self.folder / "collection.json", value)

    def bbox(self) -> list[float]:
        """Return the box around all items."""
        return box(item["geometry"]["coordinates"][0] for item in self.items)


def write_dataset(
    folder: Path,
    *,
    title: str,
    description: str,
    doi: str,
    tags: list[str],
    parts: list[Collection],
) -> None:
    """Write the collections' JSON and the dataset object, as the API answers with it."""
    citation = f"The developers of mlhubfs (2026) {title}. doi:{doi} (a test DOI, not registered)"
    for part in parts:
        part.write(citation)
    west, south, east, north = box(
        item["geometry"]["coordinates"][0] for part in parts for item in part.items
    )
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    value = {
        "id": folder.name,
        "title": title,
        "description": f"{description} {NOTE}",
        "bbox": {"type": "MultiPolygon", "coordinates": [[ring]]},
        "citation": citation,
        "collections": [
            {
                "id": part.id,
                "types": list(part.types),
                "license": f"[{LICENSE}](https://opensource.org/license/mit)",
            }
            for part in parts
        ],
        "creator_contact": {"contact": "mlhubfs", "creator": "The developers of mlhubfs"},
        "date_added": ADDED,
        "date_modified": ADDED,
        "documentation_link": None,
        "doi": doi,
        "publications": [],
        "registry": None,
        "status": "ready",
        "tags": tags,
        "tools_applications": None,
        "tutorials": [],
    }
    write_json(folder / "dataset.json", value)
