"""The cache as a whole: counted, verified, cleared, and pinned against eviction."""

import shutil
import sqlite3

import diskcache
import pytest
from faulty import Pattern

from mlhubfs.content.asset import key_of
from mlhubfs.content.blocks import BLOCK, EXTENT
from mlhubfs.content.cache import DiskCache, bad_blocks
from mlhubfs.content.disk import Value
from mlhubfs.content.pins import Pin, Pins
from mlhubfs.content.stock import Stock
from mlhubfs.errors import CacheUnusable

GIB = 1 << 30
LONG = 100_000  # bytes: a file of its own
SOURCE = "https://host/v1"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "blocks"


@pytest.fixture
def opened(folder):
    """Open caches on the folder; afterwards all are closed."""
    caches = []

    def make(size=GIB):
        caches.append(DiskCache(folder, size))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


def key(number, collection="c"):
    return key_of((SOURCE, collection, f"item-{number}", "B02"))


def version(number, collection="c"):
    return f"{key(number, collection)}.{number:016x}"


def store(cache, *numbers, collection="c", size=LONG):
    """Store one extent for each number, all but the last at a time."""
    for number in numbers:
        cache.write(version(number, collection), 0, Pattern(size)[:], size)
        assert cache.flush(30)


def there(cache, *numbers, collection="c", size=LONG):
    """Return those of the numbers whose extent is there."""
    return [number for number in numbers if cache.read(version(number, collection), [0], size)]


def pin(*collections):
    return Pin(SOURCE, "/d", tuple(key_of((SOURCE, one)) for one in collections))


# --- counting


def test_assets_and_bytes_are_counted(opened, folder):
    """An asset is one however many values it has; its bytes are those of its values."""
    cache = opened()
    store(cache, 1, 2)
    store(cache, 3, size=EXTENT + BLOCK)
    cache.put(f"{key(1)}:version", b"v")
    assert cache.flush(30)
    with Stock(folder) as stock:
        assert stock.totals().assets == 3
        assert 0 <= stock.totals().bytes - (2 * LONG + EXTENT + BLOCK) < 1000
        assert stock.pinned() == (0, 0)
        assert stock.limit == GIB


def test_where_no_cache_is_none_is_made(folder):
    """To look at a cache does not make a folder."""
    with pytest.raises(CacheUnusable, match="there is no cache"):
        Stock(folder)
    assert not folder.exists()


def test_a_damaged_database_is_an_error_of_ours(opened, folder):
    """It says which cache."""
    opened().close()
    (folder / "cache.db").write_bytes(b"x" * 10_000)
    for path in folder.glob("cache.db-*"):
        path.unlink()
    with pytest.raises(CacheUnusable, match="cannot be used"):
        Stock(folder)


# --- verifying


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5, EXTENT])
def test_sound_values_of_any_length_pass(opened, folder, size):
    """Blocks and extents, the last of an asset too, and what is not blocks."""
    cache = opened()
    store(cache, 1, size=size)
    cache.write(version(2), 1, Pattern(EXTENT)[BLOCK : 3 * BLOCK], EXTENT)
    cache.put(f"{key(1)}:version", b"v")
    assert cache.flush(30)
    with Stock(folder) as stock:
        assert [one.bad for one in stock.verify()] == [0, 0, 0, 0]
        assert sum(one.bytes for one in stock.verify()) == stock.totals().bytes


def test_bad_blocks_are_counted_and_their_values_removed(opened, folder):
    """A flipped bit, a file cut short, a file that is gone: each is found, the others stay."""
    cache = opened()
    store(cache, 1, 2, 3, 4, size=2 * BLOCK)
    first, second, third, _ = sorted(folder.glob("*/*.val"))
    data = bytearray(first.read_bytes())
    data[100] ^= 1
    data[-1] ^= 1
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:-1])
    third.unlink()
    with Stock(folder) as stock:
        assert sorted(one.bad for one in stock.verify()) == [0, 1, 1, 2]
        assert stock.totals().assets == 1
        assert [one.bad for one in stock.verify()] == [0]
    assert len(there(cache, 1, 2, 3, 4, size=2 * BLOCK)) == 1


@pytest.mark.parametrize("value", [b"", b"123", bytes(BLOCK)])
def test_what_has_no_room_for_its_checksums_is_bad(value):
    """A value cut anywhere counts at least one bad block."""
    assert bad_blocks("k:e0", value) >= 1


# --- clearing


def test_all_is_cleared_and_its_files_are_gone(opened, folder):
    """A cache that is open meanwhile misses, and goes on to store."""
    cache = opened()
    store(cache, *range(150))
    with Stock(folder) as stock:
        assert stock.clear() >= 150 * LONG
        assert stock.totals() == (0, 0)
    assert list(folder.glob("*/*.val")) == []
    assert there(cache, 1) == []
    store(cache, 1)
    assert there(cache, 1) == [1]


def test_a_collection_is_cleared_and_others_stay(opened, folder):
    """So is an item, or an asset."""
    cache = opened()
    store(cache, 1, 2, collection="a")
    store(cache, 1, 2, collection="b")
    with Stock(folder) as stock:
        stock.clear([key_of((SOURCE, "a"))])
        stock.clear([key_of((SOURCE, "b", "item-1"))])
    assert there(cache, 1, 2, collection="a") == []
    assert there(cache, 1, 2, collection="b") == [2]


# --- pinning


def pressed(cache):
    """Store more than the cache may hold."""
    store(cache, *range(100, 160), collection="others")


SMALL = 20 * LONG


@pytest.mark.promise(
    "What is pinned is neither evicted nor cleared, and what is fetched of it later is kept too."
)
def test_under_pressure_pinned_values_stay_and_others_go(opened, folder):
    """Least recently used or not, in this cache and in one that is opened later."""
    cache = opened(SMALL)
    store(cache, 1, 2, collection="kept")
    store(cache, 3, 4)
    with Stock(folder) as stock:
        stock.pin(pin("kept"))
        assert stock.pinned().assets == 2
    pressed(cache)
    assert there(cache, 1, 2, collection="kept") == [1, 2]
    assert there(cache, 3, 4) == []
    cache.close()
    again = opened(SMALL)
    pressed(again)
    assert there(again, 1, 2, collection="kept") == [1, 2]


@pytest.mark.promise(
    "What is pinned is neither evicted nor cleared, and what is fetched of it later is kept too."
)
def test_what_comes_after_the_pin_is_pinned(opened, folder):
    """By a cache that was open when the pin came, and again when it is stored anew."""
    cache = opened(SMALL)
    with Stock(folder) as stock:
        stock.pin(pin("kept"))
    store(cache, 1, 1, 2, collection="kept")
    pressed(cache)
    assert there(cache, 1, 2, collection="kept") == [1, 2]


def test_what_comes_of_a_pinned_archive_is_pinned(opened, folder):
    """Its identity has one part more than an asset's."""
    cache = opened()
    archive = key_of((SOURCE, "kept", "", "", "archive.tar.gz"))
    with Stock(folder) as stock:
        stock.pin(Pin(SOURCE, "/d/kept/@archive.tar.gz", (archive,)))
        cache.write(f"{archive}.{0:016x}", 0, Pattern(LONG)[:], LONG)
        assert cache.flush(30)
        assert stock.pinned().assets == 1


@pytest.mark.promise(
    "What is pinned is neither evicted nor cleared, and what is fetched of it later is kept too."
)
def test_clearing_leaves_what_is_pinned(opened, folder):
    """Whatever is cleared."""
    cache = opened()
    store(cache, 1, collection="kept")
    store(cache, 2)
    with Stock(folder) as stock:
        stock.pin(pin("kept"))
        stock.clear()
        stock.clear([key_of((SOURCE,))])
    assert there(cache, 1, collection="kept") == [1]
    assert there(cache, 2) == []


def test_a_use_does_not_unpin(opened, folder):
    """To note that a value was used leaves its mark alone."""
    cache = opened(SMALL)
    store(cache, 1, collection="kept")
    with Stock(folder) as stock:
        stock.pin(pin("kept"))
    assert there(cache, 1, collection="kept") == [1]
    cache.close()  # writes what was used
    with Stock(folder) as stock:
        assert stock.pinned().assets == 1


def test_what_is_unpinned_is_evicted_again(opened, folder):
    """Unless another pin holds it."""
    cache = opened(SMALL)
    store(cache, 1, 2, collection="kept")
    inner = Pin(SOURCE, "/d/kept/item-2", (key_of((SOURCE, "kept", "item-2")),))
    with Stock(folder) as stock:
        stock.pin(pin("kept"))
        stock.pin(inner)
        assert stock.unpin(SOURCE, "/d")
        assert not stock.unpin(SOURCE, "/d")
        assert stock.pins.all() == [inner]
    pressed(cache)
    assert there(cache, 1, 2, collection="kept") == [2]


def test_a_cache_full_of_pins_stays_within_its_limit(opened, folder):
    """What is not pinned goes at once, and the pinned stay."""
    cache = opened(SMALL)
    with Stock(folder) as stock:
        stock.pin(pin("kept"))
    store(cache, *range(20), collection="kept")
    pressed(cache)
    assert there(cache, *range(20), collection="kept") == list(range(20))
    assert sum(path.stat().st_size for path in folder.glob("*/*.val")) < SMALL + 3 * LONG


def test_the_eviction_of_many_pinned_does_not_read_them(opened, folder):
    """What is to go is found by an index that holds only what is not pinned."""
    cache = opened()
    query = "FROM Cache INDEXED BY Cache_unpinned WHERE expire_time IS NULL ORDER BY access_time"
    with sqlite3.connect(folder / "cache.db") as table:
        plan = table.execute(f"EXPLAIN QUERY PLAN SELECT filename {query} LIMIT 20").fetchall()
    table.close()
    assert [row[-1] for row in plan] == ["SCAN Cache USING INDEX Cache_unpinned"]
    assert query in diskcache.EVICTION_POLICY[cache._writer.eviction_policy]["cull"]


def test_files_of_no_value_are_removed(opened, folder):
    """What a writer leaves that is killed before its values can be seen, or after they went."""
    cache = opened()
    store(cache, 1, 2)
    stray = folder / "00" / "stray.val"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(bytes(LONG))
    with Stock(folder) as stock:
        assert stock.remove_strays() == LONG
        assert not stray.exists()
        assert stock.remove_strays() == 0
    assert there(cache, 1, 2) == [1, 2]


def test_the_file_of_a_value_that_is_being_written_is_none_of_those(opened, folder, monkeypatch):
    """Nothing is removed while somebody writes: that is waited for."""
    monkeypatch.setattr("mlhubfs.content.stock._SECONDS", 0.05)
    writer = opened()._writer
    with Stock(folder) as stock:
        stock._cache  # noqa: B018 - opened: that waits for a minute, whatever it was told
        with writer.transact():
            writer.set("key", Value([bytes(LONG)]))
            with pytest.raises(CacheUnusable):
                stock.remove_strays()
        assert stock.remove_strays() == 0
        assert len(list(folder.glob("*/*.val"))) == 1


@pytest.mark.parametrize("damage", [b"", b"[1]", b'[{"source": "s"}]', b"\xff"])
def test_pins_that_cannot_be_read_are_not_lost(tmp_path, damage):
    """They are neither taken for none nor written over: the file is the user's to mend."""
    path = tmp_path / "pins.json"
    pins = Pins(path)
    pins.add(pin("kept"))
    path.write_bytes(damage)
    for act in (pins.all, lambda: pins.add(pin("more")), lambda: pins.remove(SOURCE, "/d")):
        with pytest.raises(CacheUnusable, match=r"pins\.json .* mend the file"):
            act()
    assert path.read_bytes() == damage
    pins.refresh()
    assert pins.cover(key(1, collection="kept"))


def test_pins_survive_a_database_that_does_not(opened, folder):
    """What is fetched again into a new database is pinned as before."""
    cache = opened(SMALL)
    with Stock(folder) as stock:
        stock.pin(pin("kept"))
    cache.close()
    shutil.rmtree(folder)
    again = opened(SMALL)
    store(again, 1, collection="kept")
    pressed(again)
    assert there(again, 1, collection="kept") == [1]
