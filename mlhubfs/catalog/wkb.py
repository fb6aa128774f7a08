"""Geometries as Well-Known Binary, which is how GeoParquet has them, made GeoJSON.

Owns the format: ISO's and EWKB's, either byte order, with a third coordinate; a fourth one has no
place in GeoJSON, and is dropped.

*Threading.* Functions without state.
"""

import struct
from typing import Any

_KINDS = (
    "Point",
    "LineString",
    "Polygon",
    "MultiPoint",
    "MultiLineString",
    "MultiPolygon",
    "GeometryCollection",
)
_Z, _M, _SRID = 0x80000000, 0x40000000, 0x20000000  # EWKB's flags


def to_geojson(data: bytes) -> dict[str, Any]:
    """Return a geometry as GeoJSON; raises ValueError where it is none."""
    try:
        return _Reader(data).geometry()
    except (struct.error, IndexError, RecursionError):
        raise ValueError("a geometry is no WKB, or breaks off") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._order = "<"
        self._width = 2
        self._has_z = False

    def geometry(self) -> dict[str, Any]:
        kind = self._header()
        if kind == "GeometryCollection":
            return {"type": kind, "geometries": [self.geometry() for _ in range(self._count())]}
        return {"type": kind, "coordinates": self._coordinates(kind)}

    def _header(self) -> str:
        self._order = "<" if self._data[self._at] else ">"
        self._at += 1
        code = self._count()
        if code & _SRID:
            self._count()
        thousands, number = divmod(code & 0xFFFF, 1000)
        self._has_z = bool(code & _Z) or thousands in {1, 3}
        self._width = 2 + self._has_z + (bool(code & _M) or thousands in {2, 3})
        if not 1 <= number <= len(_KINDS):
            raise ValueError(f"a geometry of the kind {number} has no place in GeoJSON")
        return _KINDS[number - 1]

    def _coordinates(self, kind: str) -> list[Any]:
        if kind == "Point":
            (point,) = self._points(1)
            return [] if point[0] != point[0] else point  # an empty one is written as NaN
        if kind == "LineString":
            return self._points(self._count())
        if kind == "Polygon":
            return [self._points(self._count()) for _ in range(self._count())]
        return [self._coordinates(self._header()) for _ in range(self._count())]

    def _points(self, count: int) -> list[list[float]]:
        numbers = self._take(f"{self._order}{count * self._width}d")
        points = zip(*[iter(numbers)] * self._width, strict=True)
        return [list(point[: 2 + self._has_z]) for point in points]

    def _count(self) -> int:
        return int(self._take(f"{self._order}I")[0])

    def _take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return found
