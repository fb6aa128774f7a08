"""Large collections: names stream, and what is known is given without asking again."""

import ctypes
import errno
import os
import subprocess
import time
from pathlib import Path

import mounted as mounts
import pytest
from synthetic import Numbered, SyntheticServer

COUNT = 20_000
ITEMS = Numbered(COUNT)
NAMES = ["collection.json", *(item["id"] for item in ITEMS)]


@pytest.fixture
def server():
    with SyntheticServer({"many": ITEMS}, datasets={"large": ["many"]}) as running:
        yield running


@pytest.fixture(scope="module")
def listed(binding, tmp_path_factory):
    """A mount of which the daemon has the listing of all items in memory, and its server."""
    with (
        SyntheticServer({"many": ITEMS}, datasets={"large": ["many"]}) as server,
        mounts.mounted(
            server.root_url, tmp_path_factory.mktemp("many"), "page_size=1000", binding=binding
        ) as mount,
    ):
        assert mounts.names(mount.path / "large/many") == NAMES
        yield mount, server


def calls(mount):
    """How many requests of the kernel the daemon has taken: it reads each by one system call."""
    fields = Path(f"/proc/{mount.daemon}/io").read_text("ascii").split()
    return int(fields[fields.index("syscr:") + 1])


@pytest.mark.promise(
    "The first names of a directory appear after the first page of the server's listing."
)
def test_the_first_names_appear_after_the_first_page(server, mounted, binding):
    """`ls -U | head` shows names while the second page has not come: one page was asked for."""
    with mounted(server.root_url, binding=binding) as mount:
        server.hold("token=")
        with (
            subprocess.Popen(["ls", "-U", mount.path / "large/many"], stdout=subprocess.PIPE) as ls,
            subprocess.Popen(["head"], stdin=ls.stdout, stdout=subprocess.PIPE) as head,
        ):
            ls.stdout.close()
            try:
                shown = head.communicate(timeout=mounts.SECONDS)[0].decode().splitlines()
                answered = server.to("/items?")[:-1] or server.to("/items?")
            finally:
                server.release()
    assert shown == NAMES[:10]
    assert answered == ["GET /collections/many/items?limit=100"]


def test_a_reader_that_leaves_ends_the_walk(server, mounted, binding):
    """`ls -U | head` leaves most of the 200 pages unasked for."""
    with mounted(server.root_url, binding=binding) as mount:
        command = f"ls -U '{mount.path}/large/many' | head -3"
        shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert shown.stdout.splitlines() == NAMES[:3]
    assert len(server.to("/items?")) <= 3


def test_every_page_is_asked_for_once(listed):
    """All 20,000 names came from 20 pages, and listing them again asks nothing."""
    mount, server = listed
    assert len(server.to("/items?")) == COUNT / 1000
    before = list(server.requests)
    assert mounts.names(mount.path / "large/many") == NAMES
    assert server.requests == before


def test_ls_of_a_known_listing_is_answered_from_memory(listed, binding, capsys):
    """`ls -l` of 20,000 items asks the server nothing, and on libfuse 3 no name is asked for alone.

    There the names come with their attributes (readdirplus): 20,000 stats are no requests at all.
    """
    mount, server = listed
    requests, before, start = len(server.requests), calls(mount), time.monotonic()
    done = subprocess.run(["ls", "-l", mount.path / "large/many"], capture_output=True, check=True)
    seconds, taken = time.monotonic() - start, calls(mount) - before
    with capsys.disabled():
        print(f"\n`ls -l` of {COUNT} items, {binding}: {seconds:.2f} s, {taken} kernel requests")
    assert len(done.stdout.splitlines()) == COUNT + 2
    assert len(server.requests) == requests
    if binding == "fuse3":
        assert taken < COUNT / 10


def test_find_asks_for_no_item(listed):
    """`find`, which stats every directory, needs no more than the pages: no request an item."""
    mount, server = listed
    done = subprocess.run(
        ["find", mount.path / "large/many", "-maxdepth", "1", "-type", "d"],
        capture_output=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == COUNT + 1
    # the one that `mount` asks for, to see whether a key is needed
    assert server.to("/items/") == ["GET /collections/many/items/many"]


class Dirent(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    )


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = ctypes.c_void_p
LIBC.opendir.argtypes = [ctypes.c_char_p]
LIBC.readdir.restype = ctypes.POINTER(Dirent)
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
for call in (LIBC.readdir, LIBC.telldir, LIBC.rewinddir, LIBC.closedir):
    call.argtypes = [ctypes.c_void_p]


@pytest.fixture
def stream(listed):
    """A C directory stream of the large collection."""
    opened = LIBC.opendir(os.fsencode(listed[0].path / "large/many"))
    assert opened
    yield opened
    LIBC.closedir(opened)


def read(stream):
    found = LIBC.readdir(stream)
    return (found.contents.d_name.decode(), found.contents.d_type) if found else None


def test_each_name_comes_with_its_kind(stream):
    """readdir gives d_type: DT_DIR (4) for items, DT_REG (8) for files."""
    kinds = dict(iter(lambda: read(stream), None))
    assert list(kinds) == [".", "..", *NAMES]
    assert kinds.pop("collection.json") == 8
    assert set(kinds.values()) == {4}


def test_a_stream_goes_back_to_where_it_was(stream):
    """telldir and seekdir lead to the same name again, anywhere; rewinddir to the beginning."""
    places = {}
    for number in range(COUNT + 3):
        if number % 1777 == 0:
            places[number] = LIBC.telldir(stream), read(stream)
        else:
            read(stream)
    assert read(stream) is None
    assert len(places) == 12
    for number in sorted(places, key=lambda number: number * 7 % 13):
        place, entry = places[number]
        LIBC.seekdir(stream, place)
        assert read(stream) == entry
    LIBC.rewinddir(stream)
    assert [read(stream)[0] for _ in range(4)] == [".", "..", *NAMES[:2]]


def test_an_item_of_the_last_page_needs_no_listing(server, mounted, binding):
    """A known path in an unlisted collection of 20,000 is one look-up."""
    last = NAMES[-1]
    with mounted(server.root_url, binding=binding) as mount:
        before = len(server.requests)
        assert (mount.path / "large/many" / last / "B02").read_bytes() == b"chip 19999"
        asked = server.requests[before:]
    assert asked[0] == f"GET /collections/many/items/{last}"
    assert len(asked) == 2


@pytest.mark.promise(
    "An error in the middle of a listing is an error of `readdir`, and the next "
    "listing goes on from there."
)
def test_a_page_that_is_not_there_is_an_error(mounted, binding):
    """A listing whose next page the server does not find fails with EIO: it is not silently short.

    The names of the pages before it were given.
    """
    with (
        SyntheticServer({"many": Numbered(30)}, datasets={"large": ["many"]}) as server,
        mounted(server.root_url, "page_size=10", binding=binding) as mount,
    ):
        server.lose("token=next%3A20")
        found = []
        with os.scandir(mount.path / "large/many") as entries, mounts.fails(errno.EIO):
            found.extend(entry.name for entry in entries)
        assert found == NAMES[:21]
        server.find()
        assert len(mounts.names(mount.path / "large/many")) == 31


def test_two_readers_share_one_walk(server, mounted, binding):
    """Two programs that list the same collection at once see the same names, from one walk."""
    with mounted(server.root_url, "page_size=1000", binding=binding) as mount:
        server.hold("/items?")
        readers = [
            subprocess.Popen(["ls", "-U", mount.path / "large/many"], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        server.wait_for("/items?")
        server.release()
        for reader in readers:
            output = reader.communicate(timeout=mounts.SECONDS)[0]
            assert output.decode().splitlines() == NAMES
    assert len(server.to("/items?")) == COUNT / 1000
