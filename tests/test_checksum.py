"""Whole assets, compared with the catalog's `file:checksum`."""

import hashlib
import random
from dataclasses import replace

import pytest
from faulty import Asset, FaultyServer
from rooms import Rooms, asset_at, multihash

from mlhubfs.content.checksum import Checksum, Proof, parse_checksum
from mlhubfs.errors import BadAnswer

DATA = random.Random(3).randbytes(300_000)
STEP = 128 << 10


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


def checked(host, data):
    """Return an asset of `host` that the catalog says to have the bytes `data`."""
    return replace(asset_at(f"{host.url}/a.tif"), checksum=parse_checksum(multihash(data)))


def read_all(reader):
    return b"".join(bytes(reader.read(at, STEP)) for at in range(0, len(DATA), STEP))


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256", "sha512"])
def test_a_multihash_tells_kind_and_digest(kind):
    """In small letters or capitals."""
    expected = Checksum(kind, hashlib.new(kind, DATA).hexdigest())
    assert parse_checksum(multihash(DATA, kind)) == expected
    assert parse_checksum(multihash(DATA, kind).upper()) == expected


@pytest.mark.parametrize("text", [None, 7, "", "1220", "1220ab", "1e20" + "00" * 32, "x" * 68])
def test_another_kind_is_passed_over(text):
    """BLAKE3, half a digest, nonsense."""
    assert parse_checksum(text) is None


@pytest.mark.parametrize("seed", range(5))
def test_reads_may_come_in_about_their_order(seed):
    """As the kernel's threads bring them, overlapping or twice; the answer comes once."""
    proof = Proof(parse_checksum(multihash(DATA)), len(DATA))
    reads = [(at, DATA[at : at + 9000]) for at in range(0, len(DATA), 7000)]
    reads += reads[::4]
    random.Random(seed).shuffle(reads)
    answers = [proof.note(*one) for one in (*reads, *sorted(reads), *sorted(reads))]
    assert [one for one in answers if one is not None] == [True]


def test_what_was_not_read_is_not_judged():
    """A reader that jumps leaves gaps."""
    proof = Proof(parse_checksum(multihash(b"other")), len(DATA))
    assert proof.note(0, DATA[:1000]) is None
    assert proof.note(2000, DATA[2000:]) is None


@pytest.mark.promise(
    "A file that is read from its beginning to its end is compared with the catalog's "
    "`file:checksum` (MD5, SHA-1, SHA-2): one that differs ends in EIO once, is fetched again at "
    "the next open, and is then served as it is, and the log says so."
)
def test_bytes_that_are_wrong_are_an_error_once_and_fetched_again(host, caplog):
    """Right ones are served; where they stay wrong, the catalog may be, and the file is served."""
    wrong = DATA[:-1] + b"?"
    host.on("/a.tif", Asset(wrong))
    with Rooms(host) as rooms:
        asset = checked(host, DATA)
        reader = rooms.content.open(asset)
        beside = rooms.content.open(asset)
        for one in (reader, reader, beside):
            with pytest.raises(BadAnswer, match="checksum"):
                read_all(one)
        before = len(host.requests)
        again = rooms.content.open(asset)
        assert again.edition != reader.edition
        host.on("/a.tif", Asset(DATA))
        assert read_all(again) == DATA
        assert len(host.requests) > before
        assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_catalog_that_is_wrong_makes_no_file_unreadable(host, caplog):
    """The second time it is said in the log only, the third time not even that."""
    host.on("/a.tif", Asset(DATA))
    with Rooms(host) as rooms:
        asset = checked(host, b"other")
        with pytest.raises(BadAnswer):
            read_all(rooms.content.open(asset))
        for _ in range(2):
            assert read_all(rooms.content.open(asset)) == DATA
    assert len(caplog.records) == 2


def test_an_empty_file_is_compared_when_it_is_opened(host):
    """The kernel asks for none of its bytes."""
    host.on("/a.tif", Asset(b""))
    with Rooms(host) as rooms:
        assert rooms.content.open(checked(host, b"")).read(0, 1) == b""
    with Rooms(host) as rooms:
        asset = checked(host, DATA)
        with pytest.raises(BadAnswer, match="checksum"):
            rooms.content.open(asset)
        assert rooms.content.open(asset).read(0, 1) == b""


def test_right_bytes_are_read_as_ever(host):
    """And are not looked at again."""
    host.on("/a.tif", Asset(DATA))
    with Rooms(host) as rooms:
        asset = checked(host, DATA)
        for _ in range(2):
            assert read_all(rooms.content.open(asset)) == DATA


def test_what_was_wrong_on_disk_is_not_served_after_a_remount(host, tmp_path):
    """The blocks that were found wrong are under a key that nobody asks for any more."""
    host.on("/a.tif", Asset(DATA[:-1] + b"?"))
    asset = checked(host, DATA)
    with Rooms(host, cache=tmp_path) as rooms, pytest.raises(BadAnswer):
        read_all(rooms.content.open(asset))
    host.on("/a.tif", Asset(DATA))
    with Rooms(host, cache=tmp_path) as rooms:
        assert read_all(rooms.content.open(asset)) == DATA
