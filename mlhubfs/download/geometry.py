"""Whether a GeoJSON geometry and a box have a point in common, and that as a condition on items.

Owns that one question, asked of an area of interest and items' boxes: exact for straight lines
between positions in degrees, as GeoJSON means them (RFC 7946, 3.1.1). Boundaries belong to both.
For that alone, shapely, which others bring for it, would be a large dependency.

A geometry touches a box if one of its lines or points does, or else if it surrounds the box: then
it surrounds each corner.

*Threading.* Values.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlhubfs.catalog.conditions import Condition, condition
from mlhubfs.catalog.values import Box, box_of
from mlhubfs.errors import BadCondition

Position = tuple[float, float]
Line = tuple[Position, ...]
_NESTED = {
    "FeatureCollection": "features",
    "Feature": "geometry",
    "GeometryCollection": "geometries",
}


@dataclass(frozen=True)
class Geometry:
    """Points, lines, and polygons with holes, in degrees."""

    lines: tuple[Line, ...]
    """Lines and rings; a point is a line of one position."""
    polygons: tuple[tuple[Line, ...], ...]
    """The rings of each polygon: its outer one, then its holes."""

    def touches(self, box: Box) -> bool:
        """Say whether the geometry and the box, both closed, have a point in common.

        A box whose west is more than its east crosses the antimeridian.
        """
        west, south, east, north = box
        if west > east:
            return self.touches((west, south, 180.0, north)) or self.touches(
                (-180.0, south, east, north)
            )
        return any(_line_touches(line, box) for line in self.lines) or any(
            _surrounds(rings, (west, south)) for rings in self.polygons
        )


@dataclass(frozen=True)
class Touching(Condition):
    """That an item's bbox touches a geometry."""

    geometry: Geometry

    @property
    def fields(self) -> tuple[str, ...]:
        """Where an item says where it is."""
        return ("bbox",)

    def admits(self, fields: Mapping[str, Any]) -> bool:
        """Say whether an item with this bbox touches the geometry."""
        box = box_of(fields.get("bbox"))
        return box is not None and self.geometry.touches(box)


def touching(path: Path) -> tuple[Condition, ...]:
    """Return the conditions that an item touches the geometry in a GeoJSON file.

    The first of them, the geometry's box, is one that a server can be asked for. Raises
    BadCondition where the file has none, or one that is not in degrees.
    """
    geometry = read_geometry(path)
    xs, ys = zip(*(one for line in geometry.lines for one in line), strict=True)
    box = ",".join(repr(number) for number in (min(xs), min(ys), max(xs), max(ys)))
    try:
        around = condition("bbox", [box])
    except BadCondition as error:
        raise BadCondition(f"{path}: {error}") from None
    return around, Touching("intersects", "=", (str(path),), geometry)


def read_geometry(path: Path) -> Geometry:
    """Return the geometry in a GeoJSON file, of a feature or of many; raises BadCondition."""
    try:
        found = list(_parts(json.loads(path.read_bytes())))
    except OSError as error:
        raise BadCondition(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise BadCondition(f"{path} holds no GeoJSON geometry, feature or collection") from None
    lines = tuple(line for some, _ in found for line in some)
    if not lines:
        raise BadCondition(f"{path} holds an empty geometry: nothing would be found")
    return Geometry(lines, tuple(rings for rings, is_area in found if is_area))


def _parts(value: Any) -> Iterator[tuple[tuple[Line, ...], bool]]:
    """Yield the lines of each part, and whether they are the rings of a polygon."""
    if value is None:  # a feature without a place
        return
    kind = value["type"]
    if kind in _NESTED:
        inside = value[_NESTED[kind]]
        for one in inside if isinstance(inside, list) else [inside]:
            yield from _parts(one)
    elif kind.startswith("Multi"):
        for one in value["coordinates"]:
            yield from _parts({"type": kind.removeprefix("Multi"), "coordinates": one})
    elif kind == "Polygon":
        yield _rings(value["coordinates"]), True
    elif kind in {"Point", "LineString"}:
        line = value["coordinates"]
        yield (_line([line] if kind == "Point" else line),), False
    else:
        raise ValueError("not a GeoJSON type")


def _rings(value: Any) -> tuple[Line, ...]:
    rings = tuple(map(_line, value))
    return tuple(ring if ring[0] == ring[-1] else (*ring, ring[0]) for ring in rings)


def _line(value: Any) -> Line:
    line = tuple((float(one[0]), float(one[1])) for one in value)
    if not line or not all(math.isfinite(number) for one in line for number in one):
        raise ValueError("a line without positions")
    return line


def _line_touches(line: Line, box: Box) -> bool:
    if len(line) == 1:
        return _segment_touches(line[0], line[0], box)
    return any(_segment_touches(one, other, box) for one, other in pairwise(line))


def _segment_touches(one: Position, other: Position, box: Box) -> bool:
    """Say whether a segment touches a box: it overlaps in each direction, and is not beside it."""
    west, south, east, north = box
    if max(one[0], other[0]) < west or min(one[0], other[0]) > east:
        return False
    if max(one[1], other[1]) < south or min(one[1], other[1]) > north:
        return False
    sides = [_side(one, other, (x, y)) for x in (west, east) for y in (south, north)]
    return not (all(side > 0 for side in sides) or all(side < 0 for side in sides))


def _side(one: Position, other: Position, point: Position) -> float:
    """Return more than 0 for a point on the left of a line, less on the right."""
    return (other[0] - one[0]) * (point[1] - one[1]) - (other[1] - one[1]) * (point[0] - one[0])


def _surrounds(rings: tuple[Line, ...], point: Position) -> bool:
    """Say whether a polygon has a point that is on none of its rings: an odd number of crossings.

    Holes count as they should: who is in one has crossed the outer ring too.
    """
    x, y = point
    crossings = 0
    for ring in rings:
        for one, other in pairwise(ring):
            if (one[1] > y) != (other[1] > y):
                at = one[0] + (y - one[1]) * (other[0] - one[0]) / (other[1] - one[1])
                crossings += at > x
    return crossings % 2 == 1
