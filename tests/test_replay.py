"""The recorded walks of 2021 and 2022, replayed by a server: nothing lost, and nothing leaked.

The bodies are the real ones (beside the repository). Tokens and keys in them were replaced by
placeholders when they were recorded; here they get values again, so that they can be searched for.
"""

import contextlib
import itertools
import json
import logging
import re
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from faulty import Asset, FaultyServer, Reply
from rooms import KEY, Rooms, answer, real

from mlhubfs.errors import Unavailable

COLLECTION = "ref_african_crops_kenya_02_source"
DATASET = "ref_african_crops_kenya_02"
ITEMS = f"/v1/collections/{COLLECTION}/items"
SIGNATURE = "SIGNATURE-8d2e55"
CHIP = b"the bytes of a chip, " * 200
PAGES = {
    2021: [f"items_2021_kenya_02_page{part}.json" for part in ("1", "2", "3_empty")],
    2022: [f"items_2022_kenya_02_page{number}.json" for number in range(1, 7)],
}
LIMIT = {2021: 30, 2022: 10}


class Walk(NamedTuple):
    """A replayed walk: the API, the storage, what the API says, and what must not be seen."""

    api: FaultyServer
    storage: FaultyServer
    ids: list[str]
    """In the server's order."""
    tokens: set[str]
    sent: str
    """All bodies of the API's, in a row."""


@contextlib.contextmanager
def replayed(generation, *, rehosted=True):
    """Serve a walk; `rehosted` replaces the recorded hosts by the server's own."""
    numbers = itertools.count(1)
    tokens = set()

    def token(match):
        tokens.add(f"gAAAAABh{next(numbers):05d}{'x' * 300}")
        return match[1] + max(tokens)

    with FaultyServer() as api, FaultyServer() as storage:

        def body(name):
            text = real(name).decode().replace("REDACTED_API_KEY", KEY)
            text = re.sub(r"(/download/)[A-Za-z0-9_-]+", token, text)
            if rehosted:
                text = re.sub(r"https://(staging\.)?api\.radiant\.earth/mlhub", api.url, text)
            return text

        pages = [body(name) for name in PAGES[generation]]
        features = [one for page in pages for one in json.loads(page)["features"]]
        collection = body("bigearthnet_v1_labels.json").replace("bigearthnet_v1_labels", COLLECTION)
        datasets = body("datasets_2022.json")
        api.on(ITEMS, _by_cursor(pages))
        api.on("/v1/datasets", answer(datasets.encode()))
        api.on(f"/v1/collections/{COLLECTION}", answer(collection.encode()))
        api.on("/v1/collections", answer(f'{{"collections": [{collection}]}}'.encode()))
        for one in features:
            api.on(f"{ITEMS}/{one['id']}", answer(one))
        for number, one in enumerate(sorted(tokens)):
            where = {"Location": f"{storage.url}/{number}?sig={SIGNATURE}"}
            api.on(f"/v1/download/{one}", Reply(302, where))
            storage.on(f"/{number}", Asset(CHIP))
        ids = [one["id"] for one in features]
        yield Walk(api, storage, ids, tokens, "".join([*pages, collection, datasets]))


def _by_cursor(pages):
    """Answer with the page that the one before links to by `next=` or `token=`."""
    by_cursor = {None: pages[0]}
    for page, following in itertools.pairwise(pages):
        (link,) = [one for one in json.loads(page)["links"] if one["rel"] == "next"]
        by_cursor[_cursor(urlsplit(link["href"]).query)] = following
    assert len(by_cursor) == len(pages)
    return lambda request: answer(by_cursor[_cursor(request.query)].encode())


def _cursor(query):
    values = parse_qs(query)
    return (values.get("next") or values.get("token") or [None])[0]


@pytest.mark.parametrize("rehosted", [True, False], ids=["own hosts", "recorded hosts"])
@pytest.mark.parametrize("generation", [2021, 2022])
def test_the_recorded_walk_has_52_items_in_the_servers_order(generation, rehosted):
    """Nothing is lost at the empty page of 2021, nor where 2022 leaves out the limit; next links
    that name the recorded hosts are asked at our own root."""
    with (
        replayed(generation, rehosted=rehosted) as walk,
        Rooms(walk.api, api_key=KEY, page_size=LIMIT[generation]) as rooms,
    ):
        names = rooms.names(f"/{DATASET}/{COLLECTION}")
        assert names == ["collection.json", *walk.ids]
        assert len(walk.ids) == 52
        assert walk.ids != sorted(walk.ids)
        assert rooms.catalog.problems() == []
        pages = [request for request in walk.api.requests if request.path == ITEMS]
        assert len(pages) == len(PAGES[generation])
        for request in pages:
            assert parse_qs(request.query)["limit"] == [str(LIMIT[generation])]
            assert request.headers["authorization"] == f"Bearer {KEY}"
            assert "key" not in parse_qs(request.query)


@pytest.mark.promise(
    "Neither the key nor a download token is in any file of the mount, any log line or the cache."
)
@pytest.mark.parametrize("generation", [2021, 2022])
def test_neither_key_nor_token_is_in_any_document_log_line_or_cache_file(
    generation, tmp_path, caplog
):
    """Byte by byte: every document of the walk, every line at DEBUG, every file of the cache."""
    caplog.set_level(logging.DEBUG, "mlhubfs")
    cache = tmp_path / "cache" / "blocks"
    seen = []
    with (
        replayed(generation) as walk,
        Rooms(walk.api, api_key=KEY, page_size=LIMIT[generation], cache=cache) as rooms,
    ):
        above = f"/{DATASET}/{COLLECTION}"
        dataset = f"/{DATASET}"
        paths = ["/README.txt", f"{dataset}/catalog.json", f"{dataset}/dataset.json"]
        seen += map(rooms.read, [*paths, f"{above}/collection.json"])
        for name in rooms.names(above)[1:]:
            assets = rooms.names(f"{above}/{name}")
            seen.append(rooms.read(f"{above}/{name}/stac.json"))
            seen.append("\n".join([name, *assets]).encode())
            assert rooms.read(f"{above}/{name}/{assets[1]}") == CHIP
        refusing = f"/v1/download/{min(walk.tokens)}"
        walk.api.on(refusing, Reply(500))
        with pytest.raises(Unavailable) as refused:
            rooms.transport.get_range(walk.api.url + refusing, 0, 1)
        seen.append(str(refused.value).encode())
    seen.append(caplog.text.encode())
    written = [path for path in cache.parent.rglob("*") if path.is_file()]
    seen += [path.read_bytes() for path in written]
    seen += [str(path).encode() for path in written]

    # The secrets were there to be leaked, and the search would have found them:
    assert len(walk.tokens) > 52
    assert any(token in walk.sent for token in walk.tokens)
    assert KEY in walk.sent or generation == 2021
    assert sum(request.path.startswith("/v1/download/") for request in walk.api.requests) >= 52
    assert any(CHIP[:50] in data for data in seen)
    assert caplog.text.count("/download/...") >= 52

    secrets = [KEY.encode(), SIGNATURE.encode(), b"sig=", *(one.encode() for one in walk.tokens)]
    haystack = b"\0".join(seen)
    assert [secret[:20] for secret in secrets if secret in haystack] == []
    assert b"gAAAAABh" not in haystack


@pytest.mark.promise(
    "The API key is sent to the source's own host only, in a header, and never over "
    "plain http to another machine."
)
def test_the_key_goes_to_the_api_and_not_to_storage():
    """Neither in a header nor in a query; and every request to the API has it in a header."""
    with replayed(2022) as walk, Rooms(walk.api, api_key=KEY, page_size=10) as rooms:
        above = f"/{DATASET}/{COLLECTION}/{walk.ids[0]}"
        rooms.read(f"{above}/B02.tif")
        (request,) = walk.storage.requests
        assert "authorization" not in request.headers
        assert request.query == f"sig={SIGNATURE}"
        for request in walk.api.requests:
            assert request.headers["authorization"] == f"Bearer {KEY}"
            assert KEY not in request.query


@pytest.mark.parametrize("generation", [2021, 2022])
def test_a_walk_that_breaks_off_is_resumed_and_complete(generation):
    """With the server down at each page in turn, the reader who comes back gets all 52."""
    with (
        replayed(generation) as walk,
        Rooms(walk.api, page_size=LIMIT[generation]) as rooms,
    ):
        listing = rooms.catalog.listing(COLLECTION)
        pages = walk.api._scripts[ITEMS][0]
        failures = 0
        while not listing.complete:
            walk.api.on(ITEMS, Reply(502))
            with pytest.raises(Unavailable, match="502"):
                listing.reach(len(listing))
            failures += 1
            walk.api.on(ITEMS, pages)
            listing.reach(len(listing))
        assert failures == len(PAGES[generation])
        assert [identifier for identifier, _ in listing.iterate()] == walk.ids
