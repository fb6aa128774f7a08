"""What is on disk: sound, shared, bounded, and never the reason that a read fails."""

import errno
import logging
import os
import pickle
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import diskcache
import pytest
from faulty import Pattern

from mlhubfs.content.blocks import BLOCK, EXTENT
from mlhubfs.content.cache import DiskCache
from mlhubfs.content.disk import BytesDisk

LONG = 40_000  # bytes: more than diskcache keeps inside its database, so that each is a file
GIB = 1 << 30


def data(number, size=LONG):
    return number.to_bytes(4, "big") * (size // 4)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "blocks"


@pytest.fixture
def opened(folder):
    """Open caches, by default on one folder; afterwards all are closed."""
    caches = []

    def make(size=GIB, where=folder):
        caches.append(DiskCache(where, size))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


def stored(cache, values):
    """Put values and wait until they are on disk."""
    for key, value in values.items():
        cache.put(key, value)
    assert cache.flush(30)


def got(cache, keys):
    """Return key -> value for those of the keys that are there."""
    return {key: value for key in keys if (value := cache.get(key)) is not None}


def files(folder):
    return sorted(folder.rglob("*.val"))


def run(script, *arguments, **more):
    """Start a Python of its own on `script`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 100, LONG, 256 << 10])
def test_what_is_put_is_there_after_reopening(opened, size):
    """Whether it is kept in the database or in a file of its own."""
    cache = opened()
    stored(cache, {"k": b"x" * size})
    assert got(cache, ["k", "absent"]) == {"k": b"x" * size}
    cache.close()
    assert got(opened(), ["k"]) == {"k": b"x" * size}


def test_closing_writes_what_is_queued(opened):
    """An unmount right after a read does not lose it."""
    cache = opened()
    for number in range(200):
        cache.put(str(number), data(number))
    cache.close(timeout=60)
    found = got(opened(), map(str, range(200)))
    assert found == {str(number): data(number) for number in range(200)}


def test_after_closing_nothing_is_taken(opened):
    """A straggling fetch must not find a writer that has gone."""
    cache = opened()
    cache.close()
    cache.put("k", b"x")
    assert got(opened(), ["k"]) == {}


def test_the_folder_is_its_owners_alone(opened, folder):
    """Also where it was another's business before: what lies there is read without question."""
    folder.mkdir(parents=True, mode=0o755)
    folder.chmod(0o777)
    opened()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


# --- what was damaged


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [flip, lambda path: os.truncate(path, 1000), lambda path: os.truncate(path, 2),
     lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes() + b"x")],
    ids=["flip", "truncate", "empty", "delete", "append"],
)  # fmt: skip
def test_a_block_that_was_damaged_is_absent_and_can_be_stored_again(opened, folder, damage):
    """Its neighbours are not affected."""
    cache = opened()
    stored(cache, {"a": data(1), "b": data(2)})
    (damaged,) = [path for path in files(folder) if data(1)[:8] in path.read_bytes()]
    damage(damaged)
    assert got(cache, ["a", "b"]) == {"b": data(2)}
    stored(cache, {"a": data(1)})
    assert got(cache, ["a", "b"]) == {"a": data(1), "b": data(2)}


def test_a_small_block_that_was_damaged_is_absent_too(opened, folder, caplog):
    """Small values are kept in the database; the log says what happened."""
    cache = opened()
    stored(cache, {"a": b"hello"})
    with sqlite3.connect(folder / "cache.db") as database:
        database.execute("UPDATE Cache SET value = x'0000000068656c6c70'")
    database.close()
    assert got(cache, ["a"]) == {}
    assert "a fails its checksum and is fetched again" in caplog.text


def test_a_block_under_another_key_is_not_taken_for_its_own(opened, folder):
    """The checksum covers the key: a database that mixes up its rows gives no wrong bytes."""
    cache = opened()
    stored(cache, {"a": data(1), "b": data(2)})
    one, two = files(folder)
    swapped = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(swapped)
    assert got(cache, ["a", "b"]) == {}


# --- blocks of versions

VERSION = "0123456789abcdef" * 2
SIZE = 2 * EXTENT + 3 * BLOCK + 77
ASSET = Pattern(SIZE)
LAST = SIZE // BLOCK


def block(number):
    return ASSET[number * BLOCK : (number + 1) * BLOCK]


def written(cache, first, stop):
    """Write the asset's blocks from `first` on, `stop` exclusive, and wait."""
    cache.write(VERSION, first, ASSET[first * BLOCK : stop * BLOCK], SIZE)
    assert cache.flush(30)


def read(cache, numbers, version=VERSION):
    return {number: bytes(one) for number, one in cache.read(version, numbers, SIZE).items()}


def test_whole_extents_are_one_value_and_other_blocks_their_own(opened, folder):
    """So that reading on is one file an extent, and what was jumped to costs no more than it is."""
    cache = opened()
    written(cache, 30, LAST + 1)
    sizes = sorted(path.stat().st_size for path in files(folder))
    last = 3 * BLOCK + 77 + 4 * 4
    assert sizes == [BLOCK + 4, BLOCK + 4, last, EXTENT + 32 * 4]


@pytest.mark.parametrize("again", [False, True], ids=["at once", "after reopening"])
def test_blocks_are_read_as_they_were_written(opened, again):
    """Any of them, across extents, to the short last one; those not written are absent."""
    cache = opened()
    written(cache, 30, LAST + 1)
    if again:
        cache.close()
        cache = opened()
    assert read(cache, range(LAST + 1)) == {n: block(n) for n in range(30, LAST + 1)}
    assert read(cache, [3, 31, 40, LAST]) == {n: block(n) for n in (31, 40, LAST)}
    assert len(block(LAST)) == 77
    assert read(cache, [40], "another version") == {}


def test_an_asset_shorter_than_a_block_is_one_value(opened, folder):
    """It is kept inside the database where it is small enough for that."""
    cache = opened()
    cache.write(VERSION, 0, b"hello", 5)
    assert cache.flush(30)
    assert cache.read(VERSION, [0], 5) == {0: b"hello"}
    assert files(folder) == []


def test_an_extent_that_comes_whole_stands_above_its_single_blocks(opened):
    """What a jump left there before does no harm."""
    cache = opened()
    written(cache, 5, 6)
    written(cache, 0, 32)
    assert read(cache, range(32)) == {number: block(number) for number in range(32)}


def test_an_extent_that_is_not_there_costs_two_look_ups(opened):
    """One for the whole, one for all of its blocks: each new extent of a file begins with that."""
    cache = opened()
    assert not cache.read("k", range(1), GIB)  # the connection is there
    statements = []
    cache._reader._con.set_trace_callback(statements.append)
    assert not cache.read("k", range(32), GIB)
    assert len(statements) == 2


def test_a_flipped_bit_spoils_its_block_only(opened, folder, caplog):
    """The others of the extent serve on; the one that is fetched again stands in for it."""
    cache = opened()
    written(cache, 0, 32)
    (path,) = files(folder)
    raw = bytearray(path.read_bytes())
    raw[32 * 4 + 7 * BLOCK + 1000] ^= 1
    path.write_bytes(raw)
    rest = {number: block(number) for number in range(32) if number != 7}
    assert read(cache, range(32)) == rest
    assert read(cache, [7]) == {}
    assert "is fetched again" in caplog.text
    written(cache, 7, 8)
    assert read(cache, range(32)) == rest | {7: block(7)}


@pytest.mark.parametrize("at", [0, 4 * 31], ids=["first", "last"])
def test_a_flipped_bit_in_a_checksum_spoils_its_block_only(opened, folder, at):
    """The header has a checksum for each block."""
    cache = opened()
    written(cache, 0, 32)
    (path,) = files(folder)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x80
    path.write_bytes(raw)
    assert read(cache, range(32)) == {n: block(n) for n in range(32) if n != at // 4}


def test_a_block_copied_over_another_is_noticed(opened, folder):
    """With its checksum: the number of the block is part of what that covers."""
    cache = opened()
    written(cache, 0, 32)
    (path,) = files(folder)
    raw = bytearray(path.read_bytes())
    raw[4 * 9 : 4 * 10] = raw[4 * 3 : 4 * 4]
    raw[128 + 9 * BLOCK : 128 + 10 * BLOCK] = raw[128 + 3 * BLOCK : 128 + 4 * BLOCK]
    path.write_bytes(raw)
    assert read(cache, [3, 9]) == {3: block(3)}


def test_an_extent_of_another_version_is_noticed(opened, folder):
    """The checksum covers the version's key: values that changed places give no wrong bytes."""
    cache = opened()
    written(cache, 0, 32)
    other = "f" * 32
    cache.write(other, 0, bytes(EXTENT), SIZE)
    assert cache.flush(30)
    one, two = files(folder)
    swapped = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(swapped)
    assert read(cache, range(32)) == read(cache, range(32), other) == {}


def test_of_a_truncated_extent_what_is_there_is_used(opened, folder):
    """A crash may leave the end of a file unwritten."""
    cache = opened()
    written(cache, 0, 32)
    (path,) = files(folder)
    os.truncate(path, 128 + 10 * BLOCK + 5)
    assert read(cache, range(32)) == {number: block(number) for number in range(10)}
    os.truncate(path, 20)
    assert read(cache, range(32)) == {}
    written(cache, 0, 32)
    assert len(read(cache, range(32))) == 32


def test_an_extent_whose_file_is_gone_is_absent(opened, folder):
    """And its single blocks are still looked for."""
    cache = opened()
    written(cache, 3, 4)
    written(cache, 0, 32)
    for path in files(folder):
        if path.stat().st_size > EXTENT:
            path.unlink()
    assert read(cache, range(32)) == {3: block(3)}


def test_a_disk_that_takes_a_part_only_keeps_nothing(opened, folder, monkeypatch, caplog):
    """A write that is cut short, as on a full disk, leaves neither a value nor a file."""
    cache = opened()
    whole = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, pieces: whole(descriptor, pieces[:1]))
    written(cache, 0, 64)
    assert "the disk took only a part" in caplog.text
    assert files(folder) == []
    monkeypatch.undo()
    assert read(cache, range(64)) == {}
    written(cache, 0, 64)
    assert len(read(cache, range(64))) == 64


def test_a_batch_that_fails_leaves_no_files(opened, folder, monkeypatch):
    """Also those before the one that failed: no row would ever lead to them."""
    cache = opened()
    whole, calls = os.writev, []

    def fail_the_third(descriptor, pieces):
        calls.append(descriptor)
        if len(calls) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(descriptor, pieces)

    stall = sqlite3.connect(folder / "cache.db", isolation_level=None)
    stall.execute("BEGIN IMMEDIATE")  # so that all are one batch, or the first is one alone
    monkeypatch.setattr(os, "writev", fail_the_third)
    for number in range(5):
        cache.put(str(number), data(number))
    stall.execute("ROLLBACK")
    stall.close()
    assert cache.flush(30)
    monkeypatch.undo()
    kept = got(cache, map(str, range(5)))
    assert len(files(folder)) == len(kept) <= 2


def test_a_folder_removed_by_another_process_is_made_again(opened, monkeypatch, caplog):
    """It removes folders that its evictions leave empty, also between our making and using one."""
    cache = opened()
    opening, failed = os.open, []

    def raced(path, flags, mode=0o777, **more):
        if str(path).endswith(".val") and Path(path).parent.exists() and not failed:
            failed.append(path)
            Path(path).parent.rmdir()
        return opening(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", raced)
    written(cache, 0, 32)
    assert len(failed) == 1
    assert len(read(cache, range(32))) == 32
    assert caplog.records == []


def test_what_is_written_is_not_copied(opened, monkeypatch):
    """The kernel is handed slices of the answer itself."""
    cache, answer, handed = opened(), ASSET[0:EXTENT], []
    writing = os.writev

    def watched(descriptor, pieces):
        handed.extend(pieces)
        return writing(descriptor, pieces)

    monkeypatch.setattr(os, "writev", watched)
    cache.write(VERSION, 0, answer, SIZE)
    assert cache.flush(30)
    assert [getattr(piece, "obj", None) is answer for piece in handed] == [False, True]


class Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (self.mark,))


@pytest.mark.parametrize("padding", [b"", b"x" * LONG], ids=["in the database", "in a file"])
def test_a_pickle_in_the_database_is_not_unpickled(opened, folder, tmp_path, padding):
    """CVE-2025-69872: who can write the folder could else run code in us."""
    opened().close()
    mark = str(tmp_path / "pwned")
    with diskcache.Cache(str(folder)) as plain:
        plain.set("k", (Evil(mark), padding))
        plain.set(Evil("never"), b"x")
    cache = opened()
    assert got(cache, ["k"]) == {}
    stored(cache, {"k": data(1)})
    assert got(cache, ["k"]) == {"k": data(1)}
    assert not Path(mark).exists()
    # The plant was live: what diskcache alone would have done.
    pickle.loads(pickle.dumps(Evil(mark)))
    assert Path(mark).exists()


@pytest.mark.parametrize("value", ["text", 5, 1.5, "x" * LONG, b"", b"abc"])
def test_a_value_that_we_did_not_write_is_absent(opened, folder, value):
    """Of whatever type the database says that it is."""
    opened().close()
    with diskcache.Cache(str(folder)) as plain:
        plain.set("k", value)
    assert got(opened(), ["k"]) == {}


@pytest.mark.parametrize("key", [("a", 1), 5, b"bytes"])
def test_only_strings_and_bytes_go_in(opened, key):
    """Anything else would be pickled by diskcache."""
    disk = BytesDisk(str(opened()._folder))
    with pytest.raises(TypeError, match="strings"):
        disk.put(key)
    with pytest.raises(TypeError, match="bytes"):
        disk.store(key if not isinstance(key, bytes) else "text", False)


@pytest.mark.parametrize("size", [100, 1 << 20], ids=["short", "long"])
def test_a_damaged_database_is_set_aside(opened, folder, caplog, size):
    """The mount goes on with an empty cache, and the log says where the old one is."""
    stored(opened(), {"k": data(1)})
    opened().close()
    for path in folder.glob("cache.db*"):
        path.unlink()
    (folder / "cache.db").write_bytes(b"no database at all, " * (size // 20))
    cache = opened()
    assert "it is set aside" in caplog.text
    assert folder.with_name("blocks.damaged").is_dir()
    stored(cache, {"k": data(1)})
    assert got(cache, ["k"]) == {"k": data(1)}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_second_damage_replaces_the_first(opened, folder):
    """What is set aside does not pile up."""
    for _ in range(2):
        opened().close()
        for path in folder.glob("cache.db*"):
            path.unlink()
        (folder / "cache.db").write_bytes(b"no database" * 1000)
        opened().close()
    assert [path.name for path in folder.parent.iterdir()] == ["blocks", "blocks.damaged"] or {
        path.name for path in folder.parent.iterdir()
    } == {"blocks", "blocks.damaged"}


# --- what cannot be used


@pytest.mark.parametrize("make", [
    lambda path: path.write_text("a file"),
    lambda path: path.symlink_to("/proc/nowhere"),
], ids=["a file", "a dead link"])  # fmt: skip
def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path, make):
    """That is what the composition root goes on without; nothing else leaves the constructor."""
    make(tmp_path / "blocks")
    with pytest.raises(OSError):  # noqa: PT011 - any of its kinds
        DiskCache(tmp_path / "blocks", GIB)
    with pytest.raises(OSError):  # noqa: PT011
        DiskCache(tmp_path / "blocks" / "below", GIB)


def test_a_database_that_cannot_be_opened_is_not_taken_for_damaged(opened, folder):
    """It is left alone: it may be whole, and another process may be using it."""
    (folder / "cache.db").mkdir(parents=True)
    with pytest.raises(OSError, match="unable to open"):
        opened()
    assert (folder / "cache.db").is_dir()
    assert not folder.with_name("blocks.damaged").exists()


LIMITED = """
    import logging, resource, sys
    from pathlib import Path
    from mlhubfs.content.cache import DiskCache
    logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")
    folder, bytes_per_file, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if when == "before":
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, bytes_per_file))
    try:
        cache = DiskCache(folder, 1 << 30)
    except OSError as error:
        sys.exit(f"OSError {error}"[:200])
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, bytes_per_file))
    for number in range(20):
        cache.put(str(number), b"x" * 200_000)
    assert cache.flush(60), "the queue does not drain"
    print("found", {number for number in range(20) if cache.get(str(number))})
    print("old", cache.get("old") is not None)
"""


def test_a_disk_that_is_full_costs_the_cache_and_nothing_else(opened, folder):
    """Writes fail as with ENOSPC (here: a limit on file sizes): they are dropped, said once."""
    cache = opened()
    stored(cache, {"old": data(1)})
    cache.close()
    with run(LIMITED, folder, 100_000, "after") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "found set()" in said
    assert "old True" in said
    assert said.count("it goes on without") == said.count("cannot write") == 1
    assert len(files(folder)) == 1, "what a failed batch has written stays on a full disk for ever"


def test_a_disk_that_is_full_at_the_start_does_not_throw_the_cache_away(opened, folder):
    """It cannot be opened, which is an OSError; what it holds is there when there is room again."""
    cache = opened()
    stored(cache, {"old": data(1)})
    cache.close()
    with run(LIMITED, folder, 0, "before", stderr=subprocess.PIPE) as process:
        _, wrong = process.communicate(timeout=90)
    assert wrong.startswith("OSError"), wrong
    assert not folder.with_name("blocks.damaged").exists()
    assert got(opened(), ["old"]) == {"old": data(1)}


def test_the_last_of_the_disk_is_left_alone(opened, monkeypatch, caplog):
    """With less than 5 % free nothing is written, and that is said once."""
    cache = opened()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=100, free=4))
    for number in range(10):
        stored(cache, {str(number): data(number)})
    assert got(cache, map(str, range(10))) == {}
    assert caplog.text.count("less than 5% of the disk is free") == 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=100, free=5))
    stored(cache, {"k": data(1)})
    assert got(cache, ["k"]) == {"k": data(1)}


def test_a_folder_that_disappears_costs_the_cache_and_nothing_else(opened, folder, caplog):
    """Somebody empties ~/.cache under a running mount: misses, and no exception."""
    cache = opened()
    stored(cache, {"a": data(1)})
    shutil.rmtree(folder)
    assert got(cache, ["a"]) == {}
    for number in range(200):
        cache.put(str(number), data(number))
    assert cache.flush(60)
    got(cache, map(str, range(200)))


def test_nothing_is_left_in_another_cache_in_its_place(opened, folder, caplog):
    """One daemon's folder is moved away, another daemon makes a new one: that has its own only."""
    cache = opened()
    stored(cache, {"a": data(1)})
    folder.rename(folder.with_name("away"))
    other = opened()
    stored(cache, {"b": data(2)})
    stored(other, {"c": data(3)})
    assert got(other, "abc") == {"c": data(3)}
    assert len(files(folder)) == 1
    assert "mount again" in caplog.text


def test_a_folder_that_comes_back_is_used_again(opened, folder):
    """Moved away and back, it holds what it held, and takes more."""
    cache = opened()
    stored(cache, {"a": data(1)})
    folder.rename(folder.with_name("away"))
    stored(cache, {"b": data(2)})
    folder.with_name("away").rename(folder)
    stored(cache, {"c": data(3)})
    assert got(cache, "abc") == {"a": data(1), "c": data(3)}


# --- bounds


def test_at_the_size_limit_the_least_recently_used_goes(opened, folder):
    """What was read lately stays, what was not goes, and the limit holds."""
    cache = opened(size=100 * LONG)
    stored(cache, {str(number): data(number) for number in range(80)})
    early = [str(number) for number in range(5)]
    assert len(got(cache, early)) == 5
    for number in range(80, 130):
        stored(cache, {str(number): data(number)})
    assert len(got(cache, early)) == 5
    assert got(cache, map(str, range(5, 20))) == {}
    assert len(got(cache, map(str, range(110, 130)))) == 20
    assert sum(path.stat().st_size for path in files(folder)) <= 100 * LONG


def test_a_short_session_counts_as_use(opened):
    """What a mount read is noted when it ends, though it read little."""
    cache = opened(size=100 * LONG)
    stored(cache, {str(number): data(number) for number in range(80)})
    cache.close()
    cache = opened(size=100 * LONG)
    assert got(cache, ["0"])
    cache.close()
    cache = opened(size=100 * LONG)
    for number in range(80, 110):
        stored(cache, {str(number): data(number)})
    assert got(cache, ["0", "1"]) == {"0": data(0)}


def test_the_queue_is_bounded(opened, folder):
    """While the disk stalls, 64 MiB wait at most, the rest is dropped, and no reader is held."""
    cache = opened()
    stored(cache, {"warm": b"x"})
    stall = sqlite3.connect(folder / "cache.db", isolation_level=None)
    stall.execute("BEGIN IMMEDIATE")
    for number in range(100):
        cache.put(str(number), data(number, 1 << 20))
    assert 63 << 20 <= cache._queued_bytes <= 64 << 20
    stall.execute("ROLLBACK")
    stall.close()
    assert cache.flush(60)
    assert set(got(cache, map(str, range(100)))) <= {str(number) for number in range(64)}
    stored(cache, {"later": data(1)})
    assert got(cache, ["later"]) == {"later": data(1)}


def test_a_read_waits_for_no_write(opened, folder):
    """While another process writes, blocks are read."""
    cache = opened()
    stored(cache, {"k": data(1)})
    writing = sqlite3.connect(folder / "cache.db", isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    assert got(cache, ["k"]) == {"k": data(1)}
    writing.execute("ROLLBACK")
    writing.close()


def test_many_threads_read_and_write(opened, caplog):
    """Whatever is found is right."""
    cache, wrong = opened(), []

    def work(seed):
        for number in range(seed, 300, 3):
            cache.put(str(number), data(number, 4000))
            for key, value in got(cache, [str(number), str(number // 2)]).items():
                if value != data(int(key), 4000):
                    wrong.append(key)

    threads = [threading.Thread(target=work, args=(seed % 3,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.flush(60)
    assert wrong == []
    assert len(got(cache, map(str, range(300)))) == 300
    assert caplog.records == []


# --- several processes

WRITER = """
    import sys
    from pathlib import Path
    from mlhubfs.content.cache import DiskCache
    cache = DiskCache(Path(sys.argv[1]), 1 << 30)
    first, last = int(sys.argv[2]), int(sys.argv[3])
    for number in range(first, last):
        cache.put(str(number), number.to_bytes(4, "big") * 10_000)
        if number % 50 == 49:
            assert cache.flush(60)
            print(number, flush=True)
    cache.close(60)
"""


def test_processes_share_the_folder(opened, folder, caplog):
    """What one has written another reads; both may write the same keys at the same time."""
    cache = opened()
    with run(WRITER, folder, 0, 200) as one, run(WRITER, folder, 100, 300) as two:
        for number in range(250, 350):
            cache.put(str(number), data(number))
        one.communicate(timeout=60)
        two.communicate(timeout=60)
    assert (one.returncode, two.returncode) == (0, 0)
    assert cache.flush(60)
    found = got(cache, map(str, range(350)))
    assert found == {str(number): data(number) for number in range(350)}
    assert caplog.records == []


def test_what_was_written_survives_a_kill(opened, folder, caplog):
    """A writer killed in the middle loses what it had not written, and harms nothing."""
    caplog.set_level(logging.WARNING)
    with run(WRITER, folder, 0, 1_000_000) as writer:
        lines = [int(writer.stdout.readline()) for _ in range(3)]
        writer.send_signal(signal.SIGKILL)
        writer.stdout.read()
    assert writer.returncode == -signal.SIGKILL
    cache = opened()
    found = got(cache, map(str, range(lines[-1] + 500)))
    assert set(map(str, range(lines[-1] + 1))) <= set(found)
    assert all(value == data(int(key)) for key, value in found.items())
    assert "damaged" not in caplog.text
    stored(cache, {"after": data(1)})
    assert got(cache, ["after"]) == {"after": data(1)}
