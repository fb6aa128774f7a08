"""stac-geoparquet: a table whose rows are items, read by another process (`rows`).

Owns that process: it is given the file, ends with who reads it, and is not believed before it has
read all of the file once. No more than the items under way are in memory.

*Threading.* Functions without state; an open table is one thread's.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import IO

import msgspec

from mlhubfs.catalog import rows
from mlhubfs.errors import BadAnswer, ConfigError

NEEDED = "reading stac-geoparquet needs arro3-io: pip install 'mlhubfs[parquet]'"
_MAGIC = b"PAR1"
_BUFFER = 256 << 10  # bytes read at once
_LINE = 16 << 20  # bytes of an item, as in `tarball`


def is_parquet(body: bytes) -> bool:
    """Say whether a document is a Parquet file."""
    return body.startswith(_MAGIC)


def is_readable() -> bool:
    """Say whether the library is installed."""
    return find_spec("arro3") is not None and find_spec("arro3.io") is not None


@contextlib.contextmanager
def open_table(
    file: IO[bytes], gets_on: Callable[[], object] = lambda: None
) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Give the number of rows of a file that the system knows, and their items' JSON, in order.

    `gets_on` is called while they are counted. Raises ConfigError without the library, and
    BadAnswer where the file is none, damaged, or cut short.
    """
    if not is_readable():
        raise ConfigError(NEEDED)
    with _start(file) as reader:
        try:
            lines = _lines(reader)
            count = 0
            for line in iter(lambda: next(lines, b""), b"null\n"):
                if not line:
                    raise BadAnswer("there is no stac-geoparquet: its reader broke down")
                count = int(line)
                gets_on()
            yield count, _counted(lines, count)
        finally:
            reader.kill()


def _start(file: IO[bytes]) -> subprocess.Popen[bytes]:
    # -P: what lies in the working directory is not ours to run.
    command = [sys.executable, "-P", "-m", rows.__name__]
    try:
        return subprocess.Popen(  # noqa: S603 - ours
            command,
            bufsize=_BUFFER,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise BadAnswer(f"what reads stac-geoparquet cannot be started: {error}") from None


def _lines(reader: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert reader.stdout  # noqa: S101 - a pipe, see above
    while line := reader.stdout.readline(_LINE):
        if not line.endswith(b"\n"):
            raise BadAnswer("an item of the stac-geoparquet is too long to be one")
        if line.startswith(b'"'):
            raise BadAnswer(f"there is no stac-geoparquet: {msgspec.json.decode(line)}")
        yield line


def _counted(items: Iterator[bytes], count: int) -> Iterator[bytes]:
    came = 0
    for item in items:
        yield item
        came += 1
    if came != count:
        raise BadAnswer(f"the stac-geoparquet breaks off after {came} of {count} rows")
