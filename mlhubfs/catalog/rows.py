"""The rows of a stac-geoparquet file as STAC Items: a program, whose input is the file.

Owns the library that reads Parquet (arro3, of the extra `parquet`), and the way back from columns
to an item. It is a process of its own because that library ends the process it is in at one damaged
byte in some hundred; so it also takes its memory along, and the second core.

Writes lines of JSON: how many rows have been read so far, `null` when all have been, which says
that the file is sound, then the item of each. A string in their place says what is wrong.

What a table cannot tell: a property that is null from one that is not there, so both are left out,
but for `datetime`, which an item must have; 10 from 10.0; how a time was written.

*Threading.* One thread.
"""

import contextlib
import io
import os
import resource
import sys
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import msgspec

from mlhubfs.catalog.wkb import to_geojson

_INPUT = "/proc/self/fd/0"
_MEMORY = 1 << 30  # bytes; 590,326 items take a quarter of that, a bomb takes what it gets
_MEMBERS: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "stac_extensions": [],
    "id": None,
    "collection": None,
    "geometry": msgspec.Raw(b"null"),
    "bbox": None,
    "properties": None,
    "links": [],
    "assets": {},
}
"""What an item has beside its properties, and what that is where a table leaves it out."""
_BUFFER = 256 << 10  # bytes written at once
_UNWRAPPED = "called `Result::unwrap()` on an `Err` value: "
_CORNERS = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")


class Rows:
    """Items out of the rows of a table with the columns of `schema`."""

    def __init__(self, schema: Any) -> None:
        from arro3.core import DataType  # noqa: PLC0415 - an extra

        self._geometries = set[str]()
        self._unzoned = set[str]()
        for field in schema:
            kind = field.type
            if DataType.is_binary(kind) or DataType.is_large_binary(kind):
                self._geometries.add(field.name)
            elif DataType.is_timestamp(kind) and kind.tz is None:
                self._unzoned.add(field.name)

    def item(self, row: bytes) -> bytes:
        """Return the item of a row, which is JSON as arro3 writes it; raises ValueError."""
        values: dict[str, Any] = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
        for name in self._geometries & values.keys():
            values[name] = to_geojson(bytes.fromhex(msgspec.json.decode(values[name], type=str)))
        for name in self._unzoned & values.keys():
            values[name] = msgspec.Raw(bytes(values[name])[:-1] + b'Z"')
        if bytes(values.get("bbox", b"")).startswith(b"{"):
            corners = msgspec.json.decode(values["bbox"], type=dict[str, float])
            values["bbox"] = [corners[name] for name in _CORNERS if name in corners]
        item = {name: values.pop(name, otherwise) for name, otherwise in _MEMBERS.items()}
        item["properties"] = {"datetime": None, **values}
        return msgspec.json.encode({name: one for name, one in item.items() if one is not None})


def main() -> None:
    """Write the items of the file that is the input."""
    with contextlib.suppress(ValueError):  # the user has a lower limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with os.fdopen(sys.stdout.fileno(), "wb", _BUFFER) as out:
        try:
            for count in _counts():
                out.write(b"%d\n" % count)
                out.flush()
            out.write(b"null\n")
            out.writelines(item + b"\n" for item in _items())
        except BrokenPipeError:
            raise  # nobody reads on
        except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception
            reason = str(error).partition("\n")[0].removeprefix(_UNWRAPPED)
            out.write(msgspec.json.encode(reason) + b"\n")


def _counts() -> Iterator[int]:
    from arro3.io import read_parquet  # noqa: PLC0415 - an extra

    return accumulate(batch.num_rows for batch in read_parquet(_INPUT))


def _items() -> Iterator[bytes]:
    from arro3.io import read_parquet, write_ndjson  # noqa: PLC0415 - an extra

    table = read_parquet(_INPUT)
    rows = Rows(table.schema)
    for batch in table:
        written = io.BytesIO()
        write_ndjson(batch, written)
        yield from map(rows.item, filter(None, written.getvalue().split(b"\n")))


if __name__ == "__main__":
    main()
