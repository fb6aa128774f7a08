"""The rooms below FUSE, built over a scripted server: transport, catalog, content, tree.

with FaultyServer() as host, Rooms(host) as rooms:
    mlhub(host, {"d": {"c": [stac_item("a", {"B02": "/store/a.tif"})]}})
    rooms.tree.node("/d/c/a/B02.tif")
    assert asked(host) == ["/v1/datasets", "/v1/collections/c/items/a"]
"""

import contextlib
import hashlib
import json
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, quote

import pytest
from faulty import FaultyServer, Reply

from mlhubfs.catalog.api import Api
from mlhubfs.catalog.catalog import Catalog
from mlhubfs.catalog.index import Index
from mlhubfs.catalog.index_documents import stripper
from mlhubfs.content.asset import AssetRef, Location
from mlhubfs.content.cache import DiskCache
from mlhubfs.content.content import Content
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers
from mlhubfs.tree.documents import scrubber
from mlhubfs.tree.root import Tree
from mlhubfs.tree.surroundings import Surroundings

KEY = "KEY-6f1c9a42"


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


class Rooms(contextlib.ExitStack):
    """Everything that one mount of `host` would hold.

    `cache` is a folder or a Cache, `index` the path of a file.
    """

    def __init__(
        self, host: FaultyServer, *, cache=None, api_key=None, page_size=100, interrupted=None,
        ttl=300.0, negative_ttl=60.0, content_ttl=86400.0, budget=256 << 20, clock=time.time,
        index=None, offline=False, show_views=False, guesses=None,
    ):  # fmt: skip
        super().__init__()
        self.root = f"{host.url}/v1"
        self.network = Workers(interrupted=interrupted or (lambda: False))
        self.disk = Workers(limit=4, interrupted=interrupted or (lambda: False))
        self.transport = Transport(
            root_url=self.root, api_key=api_key, timeout=30, backoff=0.001, read_timeout=10,
            is_offline=offline,
        )  # fmt: skip
        self.cache = DiskCache(cache, 1 << 30) if isinstance(cache, Path) else cache
        self.index = index and Index(index, root=self.root, strip=stripper(self.root))
        self.api = Api(self.transport, self.root, page_size=page_size)
        self.catalog = Catalog(
            self.api, self.network, ttl=ttl, negative_ttl=negative_ttl, index=self.index,
            page_size=page_size, patience=30, is_offline=offline,
        )  # fmt: skip
        self.content = Content(
            self.transport,
            self.cache,
            network=self.network,
            disk=self.disk,
            ttl=content_ttl,
            negative_ttl=negative_ttl,
            budget=budget,
            clock=clock,
        )
        around = Surroundings(
            self.catalog,
            self.content,
            scrubber(self.root),
            show_views=show_views,
            guesses=guesses,
        )
        self.tree = Tree(around)
        if self.index:
            self.callback(self.index.close)
        if isinstance(self.cache, DiskCache):
            self.callback(self.cache.close)
        for room in (self.transport, self.disk, self.network):
            self.callback(room.close)

    def flush(self):
        """Wait until the disk cache has written all it was given."""
        assert self.cache.flush(30)

    def read(self, path):
        """Return the whole file at a path of the tree, as `cat` would get it."""
        file = self.tree.file(path)
        return file.open().read(0, file.attributes().size)

    def names(self, path):
        """Return the names in a directory of the tree."""
        return [entry.name for entry in self.tree.directory(path).children()(0)]


def asset_at(*urls, identity=("source", "c", "i", "B02"), others=(), **more) -> AssetRef:
    """Return an asset whose link is the first URL, and the next one each time it is renewed."""
    links = [Location(url, time.monotonic(), tuple(others)) for url in urls]

    def locate(after):
        if after and len(links) > 1:
            links.pop(0)
            links[0] = links[0]._replace(fetched=time.monotonic())
        return links[0]

    return AssetRef(identity, locate, **more)


def multihash(data, kind="sha256"):
    """Return the `file:checksum` that a catalog would tell of bytes."""
    codes = {"sha1": "1114", "sha256": "1220", "sha512": "1340", "md5": "d50110"}
    return codes[kind] + hashlib.new(kind, data).hexdigest()


def stac_item(identifier, assets=None, links=(), **properties):
    """Return the JSON of an item; `assets` is key -> href, or key -> the asset's JSON."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": identifier,
        "geometry": None,
        "properties": {"datetime": "2017-07-01T10:20:30Z", **properties},
        "assets": {
            key: one if isinstance(one, dict) else {"href": one, "type": "image/tiff"}
            for key, one in (assets or {}).items()
        },
        "links": list(links),
    }


def stac_collection(identifier, assets=None, links=()):
    """Return the JSON of a collection whose extent ends on 2018-05-29."""
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": identifier,
        "description": identifier,
        "license": "CC-BY-4.0",
        "extent": {
            "spatial": {"bbox": [[9, 47, 10, 48]]},
            "temporal": {"interval": [["2017-06-13T10:10:31Z", "2018-05-29T11:54:01Z"]]},
        },
        "assets": assets or {},
        "links": list(links),
    }


def features(items, following=None, **more):
    """Return the JSON of a page of items."""
    links = [{"rel": "next", "href": following}] if following else []
    return {"type": "FeatureCollection", "features": items, "links": links, **more}


def answer(value, **more) -> Reply:
    """Return a reply with JSON, or with bytes as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Reply(200, {"Content-Type": "application/json"}, body, **more)


def mlhub(host: FaultyServer, datasets, loose=None, collections=None):
    """Have `host` answer as MLHub does: `datasets` is id -> collection id -> items.

    `loose` collections stand in no dataset; `collections` is id -> JSON where it is to be special.
    """
    held = {cid: items for one in datasets.values() for cid, items in one.items()} | (loose or {})
    listed = [
        {
            "id": identifier,
            "title": f"About {identifier}",
            "date_modified": "2021-11-16T12:01:17Z",
            "collections": [{"id": one, "types": ["labels"]} for one in ids],
        }
        for identifier, ids in datasets.items()
    ]
    host.on("/v1/datasets", answer(listed))
    documents = {cid: (collections or {}).get(cid) or stac_collection(cid) for cid in held}
    host.on("/v1/collections", answer({"collections": list(documents.values()), "links": []}))
    for cid, items in held.items():
        route = f"/v1/collections/{quote(cid, safe='')}"
        host.on(route, answer(documents[cid]))
        host.on(f"{route}/items", _pages(f"{host.url}{route}/items", items))
        for one in items:
            host.on(f"{route}/items/{quote(one['id'], safe='')}", answer(one))


def _pages(url, items):
    def page(request):
        query = parse_qs(request.query)
        start, limit = int(query.get("token", ["0"])[0]), int(query["limit"][0])
        following = f"{url}?token={start + limit}" if start + limit < len(items) else None
        context = {"limit": limit, "matched": len(items)}
        return answer(features(items[start : start + limit], following, context=context))

    return page


def asked(host: FaultyServer):
    """Return the paths that were requested, in order, and forget them."""
    paths = [request.path for request in host.requests]
    host.requests.clear()
    return paths


def together(count, act):
    """Let `count` threads call `act(number)` at the same instant; return results and errors."""
    barrier = threading.Barrier(count)
    outcomes = [None] * count

    def run(number):
        barrier.wait()
        try:
            outcomes[number] = act(number)
        except Exception as error:  # noqa: BLE001 - handed to the test
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return outcomes


def real(name) -> bytes:
    """Return a recorded body, or skip: they lie beside the repository and are not part of it."""
    for folder in Path(__file__).resolve().parents:
        path = folder / "shared" / "real" / name
        if path.is_file():
            return path.read_bytes()
    pytest.skip(f"no shared/real/{name} beside the repository: recorded data are not part of it")
