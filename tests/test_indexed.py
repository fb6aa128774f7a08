"""The catalog and the tree over an index: what needs no request, and what `offline` still gives."""

import errno
import json
import time
from dataclasses import replace

import pytest
from faulty import Asset, FaultyServer, Reply
from rooms import KEY, Rooms, answer, asked, features, mlhub, stac_item

from mlhubfs.config import Config
from mlhubfs.errors import Denied, NotFound, Offline, Unavailable
from mlhubfs.session import open_session

ITEMS = "/v1/collections/c/items"
TOKEN = "dGhpcyBpcyBhIHRva2Vu" * 16


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.fixture
def rooms(host, tmp_path):
    """Make rooms on the index, and the cache, of this test."""

    def make(**more):
        return Rooms(host, index=tmp_path / "i" / "s.sqlite", cache=tmp_path / "blocks", **more)

    return make


def serve(host, count=3, token=TOKEN):
    """Have `host` serve items with download links; their bytes are their ids."""
    ids = [f"item-{number}" for number in range(count)]
    items = [stac_item(one, {"B02": f"{host.url}/v1/download/{one}{token}"}) for one in ids]
    mlhub(host, {"d": {"c": items}})
    for one in ids:
        host.on(f"/v1/download/{one}{token}", Asset(one.encode()))


class TestLookUps:
    @pytest.mark.promise(
        "An item of a current listing needs no request: its directory and stac.json come from "
        "the index, and only its bytes need a download link."
    )
    def test_an_indexed_item_needs_no_request(self, host, rooms):
        """Its directory, its stac.json and its time come from disk, after a remount too."""
        serve(host)
        with rooms() as first:
            expected = [first.names("/d/c"), first.names("/d/c/item-1")]
            shown = first.read("/d/c/item-1/stac.json")
            modified = first.tree.node("/d/c/item-1").attributes()
        with rooms() as again:
            again.catalog.datasets()
            again.catalog.collection("c")
            asked(host)
            assert again.tree.node("/d/c/item-1").attributes() == modified
            assert again.names("/d/c/item-1") == expected[1]
            assert again.read("/d/c/item-1/stac.json") == shown
            assert again.names("/d/c") == expected[0]
            assert asked(host) == []

    @pytest.mark.promise(
        "An item of a current listing needs no request: its directory and stac.json come from "
        "the index, and only its bytes need a download link."
    )
    def test_bytes_of_an_indexed_item_cost_one_request_for_its_link(self, host, rooms):
        """Personal download links are not stored: one is asked for when it is needed."""
        serve(host)
        with rooms() as first:
            first.names("/d/c")
        with rooms() as again:
            again.names("/d/c/item-1")
            asked(host)
            assert again.read("/d/c/item-1/B02.tif") == b"item-1"
            assert asked(host) == [f"{ITEMS}/item-1", f"/v1/download/item-1{TOKEN}"]

    def test_links_of_the_pages_that_came_last_still_work(self, host, rooms):
        """Who lists a directory and reads in it pays no request an item."""
        serve(host)
        with rooms() as first:
            first.names("/d/c")
            asked(host)
            assert first.read("/d/c/item-1/B02.tif") == b"item-1"
            assert asked(host) == [f"/v1/download/item-1{TOKEN}"]

    @pytest.mark.promise(
        "Neither the key nor a download token is in any file of the mount, any log line, the "
        "cache or the index."
    )
    def test_no_link_and_no_key_reaches_the_disk(self, host, rooms, tmp_path):
        """Neither of pages nor of what is asked for singly."""
        serve(host)
        with rooms(api_key=KEY) as first:
            first.names("/d/c")
            mlhub(host, {"d": {"e": [stac_item("x", {"B02": f"{host.url}/v1/download/{TOKEN}"})]}})
            first.catalog.item("e", "x")
        for path in (tmp_path / "i").rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            assert TOKEN.encode() not in data
            assert KEY.encode() not in data

    def test_an_item_is_looked_at_again_when_its_listing_is_old(self, host, rooms):
        """As every item is after its time to live; the new one is shown."""
        serve(host)
        with rooms(ttl=0) as first:
            first.names("/d/c")
            host.on(f"{ITEMS}/item-1", answer(stac_item("item-1", {"new": "/new.tif"})))
            assert first.names("/d/c/item-1") == ["stac.json", "new.tif"]

    def test_an_old_item_serves_while_the_server_is_down(self, host, rooms):
        """Also one that this process has never asked for."""
        serve(host)
        with rooms() as first:
            first.names("/d/c")
        with rooms(ttl=0) as again:
            host.on(f"{ITEMS}/item-1", Reply(503))
            assert again.catalog.item("c", "item-1").id == "item-1"
            host.on(f"{ITEMS}/nobody", Reply(503))
            with pytest.raises(Unavailable):
                again.catalog.item("c", "nobody")

    def test_a_cut_link_is_never_asked_for(self, host, rooms):
        """Where a new one cannot be had, that is the error."""
        serve(host)
        with rooms() as first:
            first.names("/d/c")
        with rooms() as again:
            again.catalog.datasets()
            host.on(f"{ITEMS}/item-1", Reply(403))
            file = again.tree.file("/d/c/item-1/B02.tif")
            with pytest.raises(Denied):
                file.open()
            assert not [one for one in asked(host) if "..." in one]

    def test_a_plain_link_of_an_indexed_item_is_used_and_renewed(self, host, rooms):
        """A STAC API's links are no secrets: they are kept, and asked for anew when they fail."""
        mlhub(host, {"d": {"c": [stac_item("a", {"B02": f"{host.url}/old.tif"})]}})
        with rooms() as first:
            first.names("/d/c")
        with rooms() as again:
            host.on("/old.tif", Reply(403))
            host.on("/new.tif", Asset(b"new"))
            host.on(f"{ITEMS}/a", answer(stac_item("a", {"B02": f"{host.url}/new.tif"})))
            assert again.read("/d/c/a/B02.tif") == b"new"

    def test_an_unknown_name_is_one_request_even_in_a_complete_listing(self, host, rooms):
        """The server may know more than what it listed; the answer is remembered."""
        serve(host)
        with rooms() as first:
            first.names("/d/c")
            asked(host)
            for _ in range(2):
                with pytest.raises(NotFound):
                    first.tree.node("/d/c/nobody")
            assert asked(host) == [f"{ITEMS}/nobody"]

    def test_a_look_up_does_not_wait_for_a_walk(self, host, rooms):
        """While a page is on its way, a known item is one request."""
        serve(host)
        with rooms() as first:
            go = host.hold()
            host.on(ITEMS, answer(features([]), hold=go))
            listing = first.catalog.listing("c")
            first.network.flight("walk it", lambda: listing.reach(0))
            host.wait_for(ITEMS)
            assert first.catalog.item("c", "item-2").id == "item-2"
            go.set()

    def test_a_look_up_among_many_takes_less_than_a_millisecond(self, host, rooms, capsys):
        """Printed, not asserted: machines differ; the walk behind it is asserted to be whole."""
        serve(host, 3)
        with rooms() as first:
            with first.index.claim("c") as claim:
                page = first.api.page("c")
                claim.append(page.items, cursor=None)
                claim.finish()
            began = time.perf_counter()
            for _ in range(100):
                assert first.catalog.listed("c", "item-1") is not None
            seconds = (time.perf_counter() - began) / 100
        with capsys.disabled():
            print(f"\na look-up in the index: {seconds * 1e6:.0f} us")


class TestOffline:
    def test_what_was_read_is_there_without_a_server(self, host, rooms):
        """Names, documents and the bytes that the cache holds."""
        serve(host)
        with rooms() as first:
            shown = {path: first.names(path) for path in ("/", "/d", "/d/c", "/d/c/item-1")}
            text = first.read("/d/c/item-1/stac.json"), first.read("/d/c/collection.json")
            assert first.read("/d/c/item-1/B02.tif") == b"item-1"
            first.flush()
        host.kill()
        with rooms(offline=True, content_ttl=float("inf"), ttl=0) as again:
            assert {path: again.names(path) for path in shown} == shown
            assert again.read("/d/c/item-1/stac.json") == text[0]
            assert again.read("/d/c/collection.json") == text[1]
            assert again.read("/d/c/item-1/B02.tif") == b"item-1"
            assert json.loads(again.read("/d/dataset.json"))["id"] == "d"

    def test_anything_else_fails_at_once_and_asks_nobody(self, host, rooms):
        """ENETUNREACH: not what is missing, and not what a server refused."""
        serve(host)
        with rooms() as first:
            first.names("/d/c")
        asked(host)
        with rooms(offline=True) as again:
            for act in (
                lambda: again.tree.node("/d/c/nobody"),
                lambda: again.read("/d/c/item-1/B02.tif"),
                lambda: again.catalog.collection("e"),
                lambda: list(again.catalog.listing("e").iterate()),
            ):
                with pytest.raises(Offline) as raised:
                    act()
                assert raised.value.errno == errno.ENETUNREACH
        assert asked(host) == []

    def test_nothing_is_known_of_a_source_that_was_never_mounted(self, rooms):
        """That is said, with the remedy."""
        with rooms(offline=True) as again, pytest.raises(Offline, match="mount it once without"):
            again.catalog.datasets()

    def test_an_item_that_was_looked_up_alone_is_there(self, host, rooms):
        """Though its collection was never listed."""
        serve(host)
        with rooms() as first:
            assert first.read("/d/c/item-2/B02.tif") == b"item-2"
            first.flush()
        with rooms(offline=True) as again:
            assert again.read("/d/c/item-2/B02.tif") == b"item-2"

    def test_an_interrupted_walk_shows_what_it_has_and_then_says_so(self, host, rooms):
        """An incomplete directory must not look complete."""
        serve(host, 5)
        with rooms(page_size=2) as first:
            assert first.catalog.listing("c").reach(1)
        with rooms(offline=True) as again:
            found = []
            with pytest.raises(Offline):
                found.extend(one for one, _ in again.catalog.listing("c").iterate())
            assert found == ["item-0", "item-1"]

    def test_datasets_are_kept_through_a_bad_answer(self, host, rooms):
        """A mount to which a proxy says that there are none does not lose those of the last one."""
        serve(host)
        with rooms() as first:
            first.catalog.datasets()
        host.on("/v1/datasets", Reply(404))
        with rooms() as again:
            assert again.catalog.datasets() == {}
        with rooms(offline=True) as offline:
            assert list(offline.catalog.datasets()) == ["d"]

    def test_a_stac_api_without_datasets_is_kept_too(self, host, rooms):
        """Its collections stand at the root."""
        mlhub(host, {}, loose={"c": [stac_item("a")]})
        host.on("/v1/datasets", Reply(404))
        with rooms() as first:
            expected = first.names("/")
            assert first.names("/c") == ["collection.json", "a"]
        with rooms(offline=True) as again:
            assert again.names("/") == expected == ["README.txt", "c"]
            assert again.names("/c") == ["collection.json", "a"]


class TestFailedOpening:
    def test_a_source_that_was_never_there_leaves_no_index(self, host, tmp_path):
        """Whoever mistypes a URL need not clean up."""
        config = Config(source=f"{host.url}/v1", cache_dir=tmp_path)
        with pytest.raises(NotFound), open_session(config):
            pass
        assert list((tmp_path / "index").iterdir()) == []

    def test_what_is_known_of_a_source_outlives_its_failures(self, host, tmp_path):
        """It is gone for now."""
        serve(host)
        config = Config(source=f"{host.url}/v1", cache_dir=tmp_path, timeout=1)
        with open_session(config):
            pass
        host.kill()
        with pytest.raises(Unavailable), open_session(config):
            pass
        with open_session(replace(config, offline=True)) as session:
            assert list(session.catalog.datasets()) == ["d"]
