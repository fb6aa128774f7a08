"""A catalog as large as BigEarthNet, made up as it is asked for: to measure listings with.

    python scripts/synthetic_catalog.py --items 590326 --limit 100 --delay 0.05 --catalog

Prints its root URL when it is ready and serves until it is ended. It answers as MLHub did in 2022:
pages of 10 unless `limit` says more, at most `--limit`; `next` links carry a token and no limit; a
new download token of 320 characters for each asset at each request. One dataset, one collection. An
item is 7.3 kB, of which only numbers differ, and item number n is the same at every run.

It is to be no bottleneck: an item is joined from pieces of bytes (5 us), so that one process gives
some 100,000 items/s. Bodies are not compressed, which spares both sides the same. `--catalog` adds
the dataset's STAC metadata as `/catalog/{dataset}`, a tar that is written at the start. `GET
/requests` counts the requests so far by kind: page, item, catalog, other.
"""

import argparse
import asyncio
import contextlib
import functools
import gzip
import itertools
import json
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DATASET = "bigearthnet_v1"
COLLECTION = "bigearthnet_v1_source"
ROOT_PATH = "/mlhub/v1"
ITEMS = 590_326
_BANDS = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split()
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_DEFAULT_LIMIT = 10
_HEADS = 3000  # places and times that are told apart; to write them takes longer than the rest
_PIECE = 1 << 20
_SOME = 100  # items written at once: a body of 70 MB in one piece takes twice as long
_CATALOG_PATH = f"/catalogs/{DATASET}.tar.gz"
_DATASET = {
    "id": DATASET,
    "title": "BigEarthNet, made up",
    "collections": [{"id": COLLECTION, "types": ["source_imagery"]}],
    "tags": ["synthetic"],
}
_ID, _NONCE = "<<ID>>", "<<NONCE>>"
_TOKEN_FILL = "YmlnZWFydGhuZXRfdjE" * 13
_TIMES = ["2017-06-13T10:10:31", "2017-08-18T11:21:09", "2017-12-17T10:03:29"]


def item_id(number: int) -> str:
    """Return the id of item `number`; the number can be read back from it."""
    time = _TIMES[number % len(_TIMES)].replace("-", "").replace(":", "")
    return f"{COLLECTION}_S2A_MSIL2A_{time}_{number // 100}_{number % 100}"


def item_number(identifier: str) -> int:
    """Return the number of the item with that id; ValueError if it is none."""
    row, column = identifier.rsplit("_", 2)[1:]
    number = int(row) * 100 + int(column)
    if identifier != item_id(number):
        raise ValueError(identifier)
    return number


class Items:
    """The items of the collection; `root` is the URL of the API."""

    def __init__(self, root: str, count: int) -> None:
        self.count = count
        self._nonces = itertools.count()
        self._api = self._template(
            f"{root}/download/{_NONCE}{_TOKEN_FILL}{_ID}-{{band}}", f"{root}/collections"
        )
        self._archived = self._template(f"https://storage.invalid/{_ID}/{{band}}.tif", "..")

    def page(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the items [start, stop) as JSON, with commas between and new download links."""
        nonce = f"{next(self._nonces):016x}".encode()
        pieces = [piece.replace(_NONCE.encode(), nonce) for piece in self._api]
        for first in range(start, stop, _SOME):
            last = min(first + _SOME, stop)
            yield b",".join(_item(number, pieces) for number in range(first, last))
            yield b"," if last < stop else b""

    def archived(self, number: int) -> bytes:
        """Return the item as the dataset's catalog has it: relative links, no tokens."""
        return _item(number, self._archived)

    @staticmethod
    def _template(href: str, collections: str) -> list[bytes]:
        document = {
            "id": _ID,
            "collection": COLLECTION,
            "stac_version": "1.0.0",
            "stac_extensions": ["https://stac-extensions.github.io/eo/v1.0.0/schema.json"],
            "assets": {
                band: {
                    "href": href.format(band=band),
                    "title": band,
                    "type": _COG,
                    "eo:bands": [{"name": band}],
                }
                for band in _BANDS
            },
            "links": [
                {
                    "rel": rel,
                    "href": f"{collections}/{COLLECTION}{path}",
                    "type": "application/json",
                }
                for rel, path in (("self", f"/items/{_ID}"), ("collection", ""), ("parent", ""))
            ],
        }
        return json.dumps(document, separators=(",", ":"))[1:].encode().split(_ID.encode())


def _item(number: int, pieces: list[bytes]) -> bytes:
    return _head(number % _HEADS) + item_id(number).encode().join(pieces)


@functools.cache
def _head(number: int) -> bytes:
    west, south = -9 + number % 7919 / 500, 37 + number % 6007 / 300
    east, north = west + 0.014, south + 0.011
    return (
        f'{{"type":"Feature","bbox":[{west:.7f},{south:.7f},{east:.7f},{north:.7f}],'
        f'"geometry":{{"type":"Polygon","coordinates":[[[{west:.7f},{south:.7f}],'
        f"[{east:.7f},{south:.7f}],[{east:.7f},{north:.7f}],[{west:.7f},{north:.7f}],"
        f'[{west:.7f},{south:.7f}]]]}},"properties":{{"datetime":"{_TIMES[number % 3]}Z",'
        f'"eo:cloud_cover":{number % 997 / 10},"constellation":"sentinel-2"}},'
    ).encode()


def write_catalog(items: Items, path: Path) -> None:
    """Write the dataset's catalog, a gzipped tar, to `path`."""
    with gzip.open(path, "wb", compresslevel=1) as archive:
        for name, body in _members(items):
            prefix, _, base = name.rpartition("/")
            archive.write(_tar_header(prefix, base, len(body)) + body + bytes(-len(body) % 512))
        archive.write(bytes(1024))


def _members(items: Items) -> Iterator[tuple[str, bytes]]:
    catalog = {
        "type": "Catalog",
        "id": DATASET,
        "stac_version": "1.0.0",
        "description": "synthetic",
        "links": [{"rel": "child", "href": f"./{COLLECTION}/collection.json"}],
    }
    yield f"{DATASET}/catalog.json", json.dumps(catalog).encode()
    yield f"{DATASET}/{COLLECTION}/collection.json", json.dumps(_collection("")).encode()
    for number in range(items.count):
        identifier = item_id(number)
        name = f"{DATASET}/{COLLECTION}/{identifier}/{identifier}.json"
        yield name, items.archived(number)


def _tar_header(prefix: str, name: str, size: int) -> bytes:
    # By hand: tarfile takes 40 us a member, this 4.
    fields = (
        name.encode().ljust(100, b"\0")
        + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"00000000000\0"
        + b"%s0" + bytes(100) + b"ustar\x0000" + bytes(80) + prefix.encode().ljust(155, b"\0")
        + bytes(12)
    )  # fmt: skip
    unsummed = fields % (b" " * 8)
    return fields % (b"%06o\0 " % sum(unsummed))


def _collection(root: str) -> dict[str, Any]:
    interval = [["2017-06-01T00:00:00Z", "2018-05-31T00:00:00Z"]]
    return {
        "type": "Collection",
        "id": COLLECTION,
        "stac_version": "1.0.0",
        "description": "synthetic",
        "license": "CC0-1.0",
        "extent": {
            "spatial": {"bbox": [[-9, 36, 32, 69]]},
            "temporal": {"interval": interval},
        },
        "links": [
            {"rel": "self", "href": f"{root}/collections/{COLLECTION}"},
            {"rel": "items", "href": f"{root}/collections/{COLLECTION}/items"},
        ],
    }


def _landing(root: str) -> dict[str, Any]:
    return {
        "type": "Catalog",
        "id": "synthetic",
        "stac_version": "1.0.0",
        "description": "synthetic",
        "conformsTo": [
            "https://api.stacspec.org/v1.0.0/core",
            "https://api.stacspec.org/v1.0.0/collections",
            "https://api.stacspec.org/v1.0.0/ogcapi-features",
        ],
        "links": [
            {"rel": "self", "href": root},
            {"rel": "root", "href": root},
            {"rel": "data", "href": f"{root}/collections"},
        ],
    }


def _kind(path: str) -> str:
    if path.endswith("/items"):
        return "page"
    if "/items/" in path:
        return "item"
    return "catalog" if path.endswith(".tar.gz") else "other"


class Answer(Exception):
    """Ends the handling of a request with another status than 200."""

    def __init__(self, status: str, location: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.location = location


class Server:
    """Answers for `items`; `limit` caps a page, `delay` is seconds before every answer.

    With `keep`, the limit stands in the `next` links.
    """

    def __init__(
        self, root: str, items: Items, *, limit: int, delay: float, keep: bool, catalog: Path | None
    ) -> None:
        self._root = root
        self._items = items
        self._limit = limit
        self._delay = delay
        self._keep = keep
        self._catalog = catalog
        self._requests = Counter[str]()
        fixed = {
            "": _landing(root),
            "/datasets": [_DATASET],
            f"/datasets/{DATASET}": _DATASET,
            "/collections": {"collections": [_collection(root)], "links": []},
            f"/collections/{COLLECTION}": _collection(root),
        }
        if catalog:
            size = catalog.stat().st_size
            fixed[f"/catalog/{DATASET}/info"] = {"dataset": DATASET, "stac_catalog_size": size}
        self._fixed = {path: json.dumps(value).encode() for path, value in fixed.items()}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _method, target, _ = head.split(b" ", 2)
                await self._answer(target.decode(), writer)
        writer.close()

    async def _answer(self, target: str, writer: asyncio.StreamWriter) -> None:
        if target != "/requests":
            self._requests[_kind(urlsplit(target).path)] += 1
            await asyncio.sleep(self._delay)
        status, more = "200 OK", ""
        try:
            path = urlsplit(target).path
            if path == _CATALOG_PATH and self._catalog:
                await self._send_catalog(self._catalog, writer)
                return
            body = self._body(path, parse_qs(urlsplit(target).query))
        except Answer as other:
            status = other.status
            more = f"Location: {other.location}\r\n" if other.location else ""
            body = [json.dumps({"detail": status}).encode()]
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}"
            f"Content-Length: {sum(map(len, body))}\r\n\r\n".encode()
        )
        for piece in body:
            writer.write(piece)
            await writer.drain()

    @staticmethod
    async def _send_catalog(path: Path, writer: asyncio.StreamWriter) -> None:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\n"
                f"Content-Length: {size}\r\n\r\n".encode()
            )
            while piece := file.read(_PIECE):
                writer.write(piece)
                await writer.drain()

    def _body(self, path: str, query: dict[str, list[str]]) -> list[bytes]:
        if path == "/requests":
            return [json.dumps(self._requests).encode()]
        if not path.startswith(ROOT_PATH):
            raise Answer("404 Not Found")
        route = unquote(path.removeprefix(ROOT_PATH)).rstrip("/")
        items = f"/collections/{COLLECTION}/items"
        if route in self._fixed:
            return [self._fixed[route]]
        if route == items:
            return self._page(query)
        if route.startswith(f"{items}/"):
            return self._item(route.removeprefix(f"{items}/"))
        if route == f"/catalog/{DATASET}" and self._catalog:
            raise Answer("302 Found", self._root.removesuffix(ROOT_PATH) + _CATALOG_PATH)
        raise Answer("404 Not Found")

    def _item(self, identifier: str) -> list[bytes]:
        try:
            number = item_number(identifier)
        except ValueError:
            number = -1
        if not 0 <= number < self._items.count:
            raise Answer("404 Not Found")
        return list(self._items.page(number, number + 1))

    def _page(self, query: dict[str, list[str]]) -> list[bytes]:
        try:
            limit = min(int(query.get("limit", [str(_DEFAULT_LIMIT)])[0]), self._limit)
            token = query.get("token", [""])[0]
            start = item_number(token.removeprefix("next:")) + 1 if token else 0
        except ValueError:
            raise Answer("400 Bad Request") from None
        stop = min(start + max(limit, 1), self._items.count)
        url = f"{self._root}/collections/{COLLECTION}/items"
        links = [{"rel": "collection", "href": f"{self._root}/collections/{COLLECTION}"}]
        if stop < self._items.count:
            more = f"&limit={limit}" if self._keep else ""
            links.append({"rel": "next", "href": f"{url}?token=next%3A{item_id(stop - 1)}{more}"})
        context = {"limit": limit, "matched": self._items.count, "returned": stop - start}
        tail = json.dumps({"links": links, "context": context})[1:]
        head = b'{"type":"FeatureCollection","features":['
        return [head, *self._items.page(start, stop), b"],", tail.encode()]


async def run(options: argparse.Namespace, folder: Path) -> None:
    """Serve until this process is ended."""
    servers: list[Server] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled at the end, while it waits for a client's next request.
        with contextlib.suppress(asyncio.CancelledError):
            await servers[0].serve(reader, writer)

    listening = await asyncio.start_server(serve, "127.0.0.1", options.port)
    port = listening.sockets[0].getsockname()[1]
    root = f"http://127.0.0.1:{port}{ROOT_PATH}"
    items = Items(root, options.items)
    catalog = folder / "catalog.tar.gz" if options.catalog else None
    if catalog:
        write_catalog(items, catalog)
    servers.append(
        Server(
            root,
            items,
            limit=options.limit,
            delay=options.delay,
            keep=options.keep_limit,
            catalog=catalog,
        )
    )
    ended = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, ended.set)
    print(root, flush=True)
    await ended.wait()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--limit", type=int, default=100, help="most items of a page")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--catalog", action="store_true", help="serve /catalog/{dataset} too")
    parser.add_argument("--keep-limit", action="store_true", help="leave it in the next links")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="synthetic-catalog-"))
    try:
        asyncio.run(run(options, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
