"""Copies of files of a server: fetched once, in the version that the server has."""

import contextlib
import fcntl
import json
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import Asset, FaultyServer, Reply
from rooms import stac_item, together

from mlhubfs.config import Config
from mlhubfs.download.copy import Copies, remove_copies, size_of_copies
from mlhubfs.errors import BadAnswer, Changed, NotFound, NotWritten, Offline, Unavailable
from mlhubfs.session import copies_folder, open_session
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers

DATA = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.fixture
def kept(host, tmp_path):
    """Return a function that asks for a copy of `/x.tar` and returns its bytes."""

    def act(**more):
        transport = Transport(root_url=host.url, backoff=0.001, timeout=5, **more)
        with contextlib.closing(transport), contextlib.closing(Workers()) as workers:
            copies = Copies(transport, workers, f"{host.url}/x.tar", tmp_path / "kept")
            return copies.present().read_bytes()

    return act


def looks(host):
    """Return how many requests were for a byte, and how many for more; forget them."""
    found = [request.headers["range"] == "bytes=0-0" for request in host.requests]
    host.requests.clear()
    return found.count(True), found.count(False)


def breaking_off(request):
    """Answer with a half of it, and with no more."""
    return Reply(503) if start_of(request) else Asset(DATA, cut=len(DATA) // 2)(request)


def start_of(request):
    return int(request.headers["range"].removeprefix("bytes=").partition("-")[0])


def test_it_is_fetched_once(host, kept):
    """Afterwards a byte tells that it is the same."""
    host.on("/x.tar", Asset(DATA))
    assert kept() == DATA
    assert looks(host)[1] >= 1
    assert kept() == DATA
    assert looks(host) == (1, 0)


def test_what_was_interrupted_goes_on(host, kept):
    """What had come is not asked for again."""
    host.on("/x.tar", breaking_off)
    with pytest.raises(Unavailable):
        kept()
    host.requests.clear()
    host.on("/x.tar", Asset(DATA))
    assert kept() == DATA
    look, *others, look_again = host.requests
    assert start_of(look) == start_of(look_again) == 0
    assert others
    assert all(start_of(request) > 0 for request in others)


@pytest.mark.parametrize("is_whole", [True, False])
def test_another_version_is_fetched_from_its_beginning(host, kept, tmp_path, is_whole):
    """Whether all of the old one had come or not; and what was of the old one is deleted."""
    host.on("/x.tar", Asset(DATA) if is_whole else breaking_off)
    with contextlib.nullcontext() if is_whole else pytest.raises(Unavailable):
        kept()
    host.on("/x.tar", Asset(DATA[::-1], etag='"v2"'))
    assert kept() == DATA[::-1]
    assert len(list((tmp_path / "kept").iterdir())) == 2  # with the lock


@pytest.mark.parametrize("size", [len(DATA), len(DATA) - 1])
def test_one_that_is_replaced_meanwhile_is_not_believed(host, kept, size):
    """It is an error, and the next time it is fetched anew."""
    other = DATA[::-1][:size]
    new = Asset(other, etag='"v2"')

    def replaced(request):
        return (new if len(host.requests) > 1 else Asset(DATA))(request)

    host.on("/x.tar", replaced)
    with pytest.raises(Changed, match="try again"):
        kept()
    assert kept() == other


def test_what_has_no_validator_is_fetched_each_time(host, kept):
    """Nothing would tell that it has changed."""
    host.on("/x.tar", Asset(DATA, etag=None, modified=None))
    kept()
    host.on("/x.tar", Asset(DATA[::-1], etag=None, modified=None))
    assert kept() == DATA[::-1]


def test_a_server_without_ranges_will_do(host, kept):
    """As Python's own is."""
    host.on("/x.tar", Asset(DATA, ranges=False))
    assert kept() == DATA


def test_the_last_copy_will_do_where_the_server_is_away(host, kept):
    """Offline as well; not where there is none."""
    with pytest.raises(Offline):
        kept(is_offline=True)
    host.on("/x.tar", Asset(DATA))
    kept()
    host.on("/x.tar", Reply(503))
    assert kept() == DATA
    assert kept(is_offline=True) == DATA


def test_those_who_want_it_at_the_same_time_fetch_it_once(host, kept):
    """The others wait."""
    host.on("/x.tar", Asset(DATA))
    kept()
    (_, alone), one = looks(host), Asset(DATA[::-1], etag='"v2"')
    host.on("/x.tar", one)
    assert together(4, lambda _: kept()) == [DATA[::-1]] * 4
    assert looks(host)[1] == alone


def test_a_folder_that_cannot_be_is_told(host, kept, tmp_path):
    """With its path."""
    (tmp_path / "kept").write_bytes(b"a file")
    with pytest.raises(NotWritten, match="kept"):
        kept()


@pytest.fixture
def tarball(tmp_path):
    """The bytes of a tarball of a catalog with one item."""
    folder = tmp_path / "c"
    folder.mkdir()
    item = [{"rel": "item", "href": "./a.json"}]
    catalog = {"type": "Catalog", "id": "c", "description": "c", "links": item}
    (folder / "catalog.json").write_text(json.dumps(catalog))
    (folder / "a.json").write_text(json.dumps(stac_item("a", {"data": "./a.tif"})))
    (folder / "a.tif").write_bytes(DATA)
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(folder, "c")
    return (tmp_path / "c.tar.gz").read_bytes()


@pytest.mark.promise(
    "A tarball on a server is fetched once, goes on where it was interrupted, and is fetched again "
    "when it has changed."
)
def test_a_tarball_on_a_server_is_a_catalog(host, tarball, tmp_path):
    """With its bytes; opened again, also offline, it costs a look, or nothing."""
    host.on("/data/c.tar.gz", Asset(tarball))
    for offline in (False, False, True):
        config = Config(
            source=f"{host.url}/data/c.tar.gz", cache_dir=tmp_path / "cache", offline=offline
        )
        with open_session(config) as opened:
            file = opened.tree.file("/a/data.tif")
            assert bytes(file.open().read(0, len(DATA))) == DATA
            assert "c.tar.gz" in opened.catalog.root
    assert sum(looks(host)) == 4  # one look each, all of it, and a look whether it was still that


def test_a_copy_is_removed_unless_it_is_being_fetched(host, tarball, tmp_path):
    """With all that was begun; who has it open reads on, and the next one fetches it again."""
    host.on("/data/c.tar.gz", Asset(tarball))
    config = Config(source=f"{host.url}/data/c.tar.gz", cache_dir=tmp_path / "cache")
    folder = copies_folder(config)
    assert (size_of_copies(folder), remove_copies(folder)) == (0, 0)
    with open_session(config) as opened:
        assert size_of_copies(folder) == len(tarball)
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert remove_copies(folder) == 0
        assert remove_copies(folder) == len(tarball)
        assert size_of_copies(folder) == 0
        file = opened.tree.file("/a/data.tif")
        assert bytes(file.open().read(0, len(DATA))) == DATA
    with open_session(config):
        assert size_of_copies(folder) == len(tarball)


def test_a_source_that_fails_leaves_nothing_open(tmp_path):
    """A tarball without a catalog is closed again."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "x.py")
    config = Config(source=path.as_uri(), cache_dir=tmp_path / "cache")
    with pytest.raises(NotFound, match="neither a catalog"), open_session(config):
        pass
    links = list(Path("/proc/self/fd").iterdir())
    assert path not in [link.readlink() for link in links if link.is_symlink()]


def test_a_server_that_has_no_such_tarball_is_told(host, tmp_path):
    """As any source is."""
    host.on("/x.tar.gz", Asset(b"no tarball"))
    config = Config(source=f"{host.url}/x.tar.gz", cache_dir=tmp_path / "cache")
    with pytest.raises(BadAnswer, match="no tarball"), open_session(config):
        pass
    with pytest.raises(NotFound), open_session(replace(config, source=f"{host.url}/y.tar")):
        pass
