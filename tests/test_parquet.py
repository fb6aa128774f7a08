"""Items out of the rows of stac-geoparquet: what a table can carry comes back, and nothing else."""

import io
import json
import random
import struct
import subprocess
import types

import pytest
from rooms import stac_item

from mlhubfs.catalog import parquet
from mlhubfs.catalog.parquet import open_table
from mlhubfs.catalog.wkb import to_geojson
from mlhubfs.errors import BadAnswer, ConfigError

POINT = struct.pack("<BIdd", 1, 1, 9.5, 47.25)


def placed(identifier, geometry=None, **more):
    """Return an item with a place, which a table has to know."""
    geometry = geometry or {"type": "Point", "coordinates": [9.5, 47.25]}
    bbox = [9.5, 47.25, 9.5, 47.25]
    return stac_item(identifier) | {"geometry": geometry, "bbox": bbox, "collection": "c"} | more


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a file of items as rustac does."""
    rustac = pytest.importorskip("rustac")

    def write(items):
        path = tmp_path / "items.parquet"
        rustac.write_sync(str(path), items)
        return path

    return write


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a file whose columns are as JSON has them, without names."""
    arro3 = pytest.importorskip("arro3.io")

    def write(rows):
        lines = "\n".join(json.dumps(row) for row in rows).encode()
        schema = arro3.infer_json_schema(io.BytesIO(lines))
        path = tmp_path / "table.parquet"
        arro3.write_parquet(arro3.read_json(io.BytesIO(lines), schema), str(path))
        return path

    return write


def read(path):
    """Return the items of a file."""
    with path.open("rb") as file, open_table(file) as (count, rows):
        items = [json.loads(row) for row in rows]
    assert len(items) == count
    return items


class TestItems:
    def test_items_are_what_was_written(self, written):
        """In their order, with times, numbers, lists, nested objects and links."""
        items = [
            placed(
                identifier,
                properties={
                    "datetime": "2017-07-01T10:20:30.123Z",
                    "start_datetime": "2017-07-01T00:00:00Z",
                    "eo:cloud_cover": 12.5,
                    "count": 1 << 53,
                    "is_good": False,
                    "labels": ["Coniferous forest", "Rice fields \u00e9\n\"'"],
                    "nested": {"deep": {"deeper": [1, 2]}},
                },
                stac_extensions=["https://stac-extensions.github.io/eo/v1.0.0/schema.json"],
                assets={"B02": {"href": "./B02.tif", "roles": ["data"], "file:size": 5}},
                links=[{"rel": "self", "href": "https://h/c/a", "type": "application/geo+json"}],
            )
            for identifier in ("b", "a/\u00fc", "c")
        ]
        found = read(written(items))
        for one in found:
            one["stac_version"] = "1.0.0"  # rustac writes 1.1.0, whatever it was
        assert found == items

    def test_what_an_item_lacks_it_lacks_again(self, written):
        """Others' columns do not make it null; `datetime` must be there, and may be null."""
        times = {"start_datetime": "2017-07-01T00:00:00Z", "end_datetime": "2017-07-02T00:00:00Z"}
        items = [
            placed("a", assets={"x": {"href": "x.tif", "title": "X"}}),
            placed("b", assets={"y": {"href": "y.tif"}}, properties={"datetime": None, **times}),
            placed("c", assets={}),
        ]
        a, b, c = read(written(items))
        assert a["properties"] == {"datetime": "2017-07-01T10:20:30Z"}
        assert b["properties"] == {"datetime": None, **times}
        assert [a["assets"], b["assets"], c["assets"]] == [one["assets"] for one in items]

    def test_every_kind_of_geometry_comes_back(self, written):
        """Polygons have several rings."""
        ring = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.5], [0.0, 0.0]]
        geometries = [
            {"type": kind, "coordinates": coordinates}
            for kind, coordinates in {
                "Point": [1.0, 2.0],
                "LineString": ring,
                "Polygon": [ring, ring],
                "MultiPoint": ring,
                "MultiLineString": [ring, ring],
                "MultiPolygon": [[ring], [ring, ring]],
            }.items()
        ]
        geometries.append({"type": "GeometryCollection", "geometries": geometries[:2]})
        items = [placed(str(at), geometry) for at, geometry in enumerate(geometries)]
        assert [one["geometry"] for one in read(written(items))] == geometries

    def test_a_table_may_have_few_columns(self, table):
        """What each item has is made up; where it lies is not known then."""
        (item,) = read(table([{"id": "a", "datetime": "2017-07-01T10:20:30Z"}]))
        assert item == {
            "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": "a",
            "geometry": None, "properties": {"datetime": "2017-07-01T10:20:30Z"},
            "links": [], "assets": {},
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("written", "bbox"),
        [
            ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
            ({"xmin": 1.0, "ymin": 2.0, "xmax": 3.0, "ymax": 4.0}, [1.0, 2.0, 3.0, 4.0]),
            (
                {"xmin": 1.0, "ymin": 2.0, "zmin": 5.0, "xmax": 3.0, "ymax": 4.0, "zmax": 6.0},
                [1.0, 2.0, 5.0, 3.0, 4.0, 6.0],
            ),
        ],
    )
    def test_a_box_is_a_list_however_it_is_written(self, table, written, bbox):
        """The older ones are lists, the newer ones have named corners."""
        assert read(table([{"id": "a", "bbox": written}]))[0]["bbox"] == bbox

    def test_a_time_without_zone_is_utc(self, tmp_path):
        """STAC's times have one."""
        arro3 = pytest.importorskip("arro3.io")
        core = pytest.importorskip("arro3.core")
        fields = [
            core.Field("id", core.DataType.string()),
            core.Field("datetime", core.DataType.timestamp("us")),
        ]
        rows = io.BytesIO(b'{"id":"a","datetime":"2017-07-01T10:20:30.5"}')
        path = tmp_path / "naive.parquet"
        arro3.write_parquet(arro3.read_json(rows, core.Schema(fields)), str(path))
        assert read(path)[0]["properties"]["datetime"] == "2017-07-01T10:20:30.500Z"


class TestDamage:
    """It ends the process that reads, and never this one."""

    @pytest.mark.parametrize("body", [b"", b"PAR1", b"PAR1PAR1", b"<html>", bytes(5000)])
    def test_what_is_no_parquet_is_a_bad_answer(self, tmp_path, body):
        """That says so."""
        (tmp_path / "x").write_bytes(body)
        with pytest.raises(BadAnswer, match="there is no stac-geoparquet"):
            read(tmp_path / "x")

    def test_a_file_that_is_cut_short_has_no_items(self, written, tmp_path):
        """Wherever: it is read from its end."""
        body = written([placed(str(number)) for number in range(50)]).read_bytes()
        for share in (0.1, 0.5, 0.99):
            (tmp_path / "cut").write_bytes(body[: int(len(body) * share)])
            with pytest.raises(BadAnswer):
                read(tmp_path / "cut")

    def test_a_damaged_file_is_read_or_is_an_error(self, written, tmp_path):
        """Bytes changed anywhere: some of them end the library's process."""
        body = written([placed(str(number)) for number in range(50)]).read_bytes()
        chance = random.Random(5)
        failed = 0
        for _ in range(8):
            damaged = bytearray(body)
            for _ in range(20):
                damaged[chance.randrange(len(body))] = chance.randrange(256)
            (tmp_path / "damaged").write_bytes(damaged)
            try:
                read(tmp_path / "damaged")
            except BadAnswer:
                failed += 1
        assert failed

    @pytest.mark.parametrize(
        ("program", "told"),
        [
            ("import os; os.abort()", "its reader broke down"),
            ("import os; print('3\\nnull\\n{}', flush=True); os.abort()", "after 1 of 3 rows"),
            ("print('1\\nnull'); print('{\"id\":' + '\"' + 'a' * (17 << 20))", "too long"),
        ],
    )
    def test_a_reader_that_breaks_down_is_an_error(
        self, tmp_path, monkeypatch, program, told, written
    ):
        """At once, or in the middle."""
        (tmp_path / "breaking.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(parquet, "rows", types.SimpleNamespace(__name__="breaking"))
        with pytest.raises(BadAnswer, match=told):
            read(written([placed("a")]))

    def test_a_reader_that_cannot_be_started_is_an_error(self, written, monkeypatch):
        """Where Python is not a program of its own."""
        monkeypatch.setattr(parquet.sys, "executable", "/nowhere/python")
        with pytest.raises(BadAnswer, match="cannot be started"):
            read(written([placed("a")]))

    def test_who_reads_no_further_ends_the_reader(self, written, monkeypatch):
        """It does not wait for its output to be taken."""
        begun = []

        class Noted(subprocess.Popen):
            def __init__(self, *args, **more):
                super().__init__(*args, **more)
                begun.append(self)

        monkeypatch.setattr(subprocess, "Popen", Noted)
        path = written([placed(str(number)) for number in range(2000)])
        with path.open("rb") as file, open_table(file) as (count, rows):
            assert (count, json.loads(next(rows))["id"]) == (2000, "0")
        assert begun[0].returncode is not None

    def test_without_the_library_the_remedy_is_told(self, written, monkeypatch):
        """It is an extra."""
        monkeypatch.setattr(parquet, "is_readable", lambda: False)
        with pytest.raises(ConfigError, match=r"pip install 'mlhubfs\[parquet\]'"):
            read(written([placed("a")]))


class TestWkb:
    @pytest.mark.parametrize(
        ("data", "coordinates"),
        [
            (POINT, [9.5, 47.25]),
            (struct.pack(">BIdd", 0, 1, 9.5, 47.25), [9.5, 47.25]),
            (struct.pack("<BIddd", 1, 1001, 9.5, 47.25, 5), [9.5, 47.25, 5.0]),
            (struct.pack("<BIddd", 1, 2001, 9.5, 47.25, 5), [9.5, 47.25]),
            (struct.pack("<BIdddd", 1, 3001, 9.5, 47.25, 5, 6), [9.5, 47.25, 5.0]),
            (struct.pack("<BIddd", 1, 0x80000001, 9.5, 47.25, 5), [9.5, 47.25, 5.0]),
            (struct.pack("<BIIdd", 1, 0x20000001, 4326, 9.5, 47.25), [9.5, 47.25]),
            (struct.pack("<BIdd", 1, 1, float("nan"), float("nan")), []),
        ],
    )
    def test_a_point_is_understood_however_it_is_written(self, data, coordinates):
        """Byte orders, ISO's and EWKB's dimensions, a reference system, an empty one."""
        assert to_geojson(data) == {"type": "Point", "coordinates": coordinates}

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            POINT[:-1],
            struct.pack("<BI", 1, 17),
            struct.pack("<BII", 1, 2, 0xFFFFFFFF),
            struct.pack("<BII", 1, 7, 1) * 5000,
        ],
    )
    def test_what_is_no_geometry_is_an_error(self, data):
        """Cut short, a surface, more points than bytes, nested without end."""
        with pytest.raises(ValueError, match="geometry"):
            to_geojson(data)
