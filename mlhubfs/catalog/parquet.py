"""stac-geoparquet: a table whose rows are items, read by rustac (the extra `parquet`).

Owns the library, which is loaded when there is such a file. All rows are in memory at once.

*Threading.* Functions without state.
"""

import tempfile

import msgspec

from mlhubfs.errors import BadAnswer, ConfigError

_MAGIC = b"PAR1"


def is_parquet(body: bytes) -> bool:
    """Say whether a document is a Parquet file."""
    return body.startswith(_MAGIC)


def to_item_collection(body: bytes) -> bytes:
    """Return the items of a stac-geoparquet file as JSON; raises BadAnswer where it is none."""
    try:
        import rustac  # noqa: PLC0415 - 90 MB that few need
    except ImportError:
        raise ConfigError(
            "reading stac-geoparquet needs rustac: pip install 'mlhubfs[parquet]'"
        ) from None
    # It reads what has a name; on a server, that would be behind the transport's back.
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(body)
        file.flush()
        try:
            items = rustac.read_sync(file.name)
        except Exception as error:  # noqa: BLE001 - it raises whatever its libraries do
            raise BadAnswer(f"there is no stac-geoparquet: {error}") from None
    return msgspec.json.encode(items)
