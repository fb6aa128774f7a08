"""Which boxes a GeoJSON geometry touches."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlhubfs.catalog.where import Where
from mlhubfs.download.geometry import read_geometry, touching
from mlhubfs.errors import BadCondition

RING = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]
TRIANGLE = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [0, 10], [0, 0]]]}
SQUARE = {"type": "Polygon", "coordinates": [RING, HOLE]}
DIAGONAL = {"type": "LineString", "coordinates": [[0, 0], [10, 10]]}
POINT = {"type": "Point", "coordinates": [1, 2, 300]}
MANY = {"type": "MultiPolygon", "coordinates": [[RING, HOLE], [[[20, 0], [21, 0], [20, 1]]]]}


def read(tmp_path, value):
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(value))
    return read_geometry(path)


@pytest.mark.parametrize(
    ("geometry", "box", "expected"),
    [
        (SQUARE, (-1, -1, 11, 11), True),  # all of it inside of the box
        (SQUARE, (1, 1, 2, 2), True),  # the box inside of it
        (SQUARE, (4.5, 4.5, 5.5, 5.5), False),  # in the hole
        (SQUARE, (4, 4, 5, 5), True),  # at the rim of the hole
        (SQUARE, (10, 10, 11, 11), True),  # at a corner
        (SQUARE, (10.1, 0, 11, 10), False),
        (TRIANGLE, (6, 6, 9, 9), False),  # in its box, beyond its long side
        (TRIANGLE, (5, 5, 9, 9), True),  # at that side
        (DIAGONAL, (4, 4.5, 5, 9), True),
        (DIAGONAL, (4, 6, 5, 9), False),
        (DIAGONAL, (3, 3, 3, 3), True),  # a box may be a point
        (POINT, (0, 0, 1, 2), True),
        (POINT, (0, 0, 0.9, 2), False),
        (MANY, (20.1, 0.1, 20.2, 0.2), True),
        (MANY, (15, 0, 19, 1), False),
        ({"type": "MultiPoint", "coordinates": [[50, 50], [1, 2]]}, (0, 0, 1, 2), True),
        ({"type": "MultiLineString", "coordinates": [DIAGONAL["coordinates"]]}, (9, 9, 9, 9), True),
        ({"type": "GeometryCollection", "geometries": [POINT, SQUARE]}, (9, 9, 9, 9), True),
        ({"type": "Feature", "geometry": SQUARE, "properties": {}}, (9, 9, 9, 9), True),
        (
            {
                "type": "FeatureCollection",
                "features": [
                    {"type": "Feature", "geometry": None},
                    {"type": "Feature", "geometry": POINT},
                ],
            },
            (1, 2, 3, 3),
            True,
        ),
        ({"type": "Point", "coordinates": [-179, 0]}, (170, -1, -170, 1), True),  # antimeridian
        (POINT, (170, -1, -170, 3), False),
    ],
)
def test_a_geometry_touches_a_box_where_they_share_a_point(tmp_path, geometry, box, expected):
    """Boundaries belong to both, holes to neither."""
    assert read(tmp_path, geometry).touches(box) is expected


NUMBERS = st.integers(-20, 20)
POSITIONS = st.tuples(NUMBERS, NUMBERS)


@given(st.tuples(POSITIONS, POSITIONS, POSITIONS), POSITIONS, POSITIONS)
def test_a_triangle_touches_a_box_unless_a_line_keeps_them_apart(tmp_path_factory, points, a, b):
    """Convex shapes are apart exactly where one of their sides separates them."""
    (x1, y1), (x2, y2), (x3, y3) = points
    assume((x2 - x1) * (y3 - y1) != (x3 - x1) * (y2 - y1))
    box = (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1]))
    corners = [(x, y) for x in (box[0], box[2]) for y in (box[1], box[3])]
    normals = [(1, 0), (0, 1)]
    normals += [(y2 - y1, x1 - x2), (y3 - y2, x2 - x3), (y1 - y3, x3 - x1)]
    apart = False
    for x, y in normals:
        ours = [x * px + y * py for px, py in points]
        theirs = [x * px + y * py for px, py in corners]
        apart |= max(ours) < min(theirs) or min(ours) > max(theirs)
    value = {"type": "Polygon", "coordinates": [[*points, points[0]]]}
    geometry = read(tmp_path_factory.getbasetemp(), value)
    assert geometry.touches(box) is not apart


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"type": "Circle"}', '{"type": "Point", "coordinates": ["a", 1]}',
             '{"type": "Polygon", "coordinates": [[]]}',
             '{"type": "Point", "coordinates": []}', '{"type": "Point", "coordinates": [3]}',
             '{"type": "LineString", "coordinates": [[]]}',
             '{"type": "Polygon", "coordinates": [[[]]]}',
             '{"type": "FeatureCollection", "features": []}',
             '{"type": "Point", "coordinates": [1e999, 0]}', "[" * 100_000],
)  # fmt: skip
def test_what_is_no_geometry_is_refused_by_the_files_name(tmp_path, text):
    """An area that would find nothing, or everything, is not searched."""
    path = tmp_path / "area.geojson"
    path.write_text(text)
    with pytest.raises(BadCondition, match=r"area\.geojson"):
        read_geometry(path)


def test_a_geometry_that_is_not_in_degrees_is_refused_by_the_files_name(tmp_path):
    """As one in metres, or one that goes on beyond the antimeridian."""
    path = tmp_path / "area.geojson"
    for x, y in ((500_000, 5_650_000), (190, 0)):
        path.write_text(json.dumps({"type": "Point", "coordinates": [x, y]}))
        with pytest.raises(BadCondition, match=r"area\.geojson: .* is not in degrees"):
            touching(path)


def test_as_a_condition_it_asks_a_server_for_its_box(tmp_path):
    """The server is asked for the items in the geometry's box, and these are looked through."""
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(TRIANGLE))
    where = Where(touching(path))
    assert where.query() == {"bbox": "0,0,10,10"}
    assert where.matches(b'{"bbox": [1, 1, 2, 2], "properties": {}}')
    assert not where.matches(b'{"bbox": [8, 8, 9, 9], "properties": {}}')
    assert not where.matches(b'{"properties": {}}')
