"""Files of this machine as assets: read where they are, each open of the file as it is now."""

import contextlib
import os
import random

import pytest
from faulty import Asset, FaultyServer
from rooms import asset_at

from mlhubfs.content.cache import DiskCache
from mlhubfs.content.content import Content
from mlhubfs.errors import Changed, NotFound
from mlhubfs.transport.client import Transport
from mlhubfs.transport.local import Folder
from mlhubfs.transport.workers import Workers

DATA = random.Random(9).randbytes(5_000_000)


@pytest.fixture
def path(tmp_path):
    """A file in a catalog's folder."""
    (tmp_path / "catalog").mkdir()
    found = tmp_path / "catalog" / "scene.tif"
    found.write_bytes(DATA)
    return found


@pytest.fixture
def cache(tmp_path):
    with contextlib.closing(DiskCache(tmp_path / "blocks", 1 << 30)) as cache:
        yield cache


@pytest.fixture
def content(path, cache):
    network, disk = Workers(), Workers(limit=4)
    transport = Transport(root_url=path.as_uri(), files=Folder(path.parent))
    yield Content(transport, cache, network=network, disk=disk, ttl=3600.0, negative_ttl=60.0)
    for room in (transport, disk, network):
        room.close()


@pytest.fixture
def asset(path):
    return asset_at(path.as_uri(), is_local=True)


def replace(path, data):
    """Put another file in its place, as programs that write safely do."""
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").replace(path)


def test_any_range_is_exact(content, asset):
    """Fewer bytes at the end, none behind it."""
    reader = content.open(asset)
    for offset, size in ((0, 10), (131_000, 4096), (len(DATA) - 5, 100), (len(DATA), 1)):
        assert bytes(reader.read(offset, size)) == DATA[offset : offset + size]


def test_nothing_of_it_is_kept_on_disk(content, asset, cache):
    """Neither blocks nor versions; an asset on a server, beside it, has both."""
    content.open(asset).read(0, len(DATA))
    assert cache.flush(30)
    assert not list(cache._reader)
    with FaultyServer() as host:
        host.on("/a.tif", Asset(b"x" * 1000))
        content.open(asset_at(f"{host.url}/a.tif", identity=("s", "c", "i", "a"))).read(0, 10)
    assert cache.flush(30)
    assert len(list(cache._reader)) == 2


def test_there_is_nothing_to_prefetch(content, asset):
    """It is here."""
    assert content.open(asset).plan() == (len(DATA), 0, [], True)


@pytest.mark.parametrize("data", [b"y" * len(DATA), b"short"], ids=["same size", "another size"])
def test_a_file_that_is_replaced_is_stale_and_the_next_open_sees_it(content, path, asset, data):
    """Whatever the time that versions of servers are trusted; no byte is of both."""
    reader = content.open(asset)
    assert reader.read(0, 10) == DATA[:10]
    replace(path, data)
    with pytest.raises(Changed):
        reader.read(0, 10)
    assert content.version(asset).size == len(data)
    assert content.open(asset).read(0, len(DATA)) == data


def test_a_file_that_is_written_to_is_stale(content, path, asset):
    """Its time tells, where its size and its inode do not."""
    reader = content.open(asset)
    with path.open("r+b") as file:
        file.write(b"else")
    os.utime(path, ns=(1, 1))  # clocks are coarse: the change may fall into the same tick
    with pytest.raises(Changed):
        reader.read(0, 10)


def test_a_file_that_is_gone_is_not_found(content, path, asset):
    """For who has it open, too: it is opened anew for each read."""
    reader = content.open(asset)
    path.unlink()
    with pytest.raises(NotFound):
        reader.read(0, 10)
