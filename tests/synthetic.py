"""An MLHub-like API over a catalog made up in memory, however large, whatever its names.

    collections = {"many": Numbered(20_000), "odd": [item("a/b", {"x": b"bytes"})]}
    with SyntheticServer(collections, datasets={"d": ["many"]}) as server:
        server.root_url                        # `/v1` of a free port on loopback
        server.requests                        # "GET /collections/many/items?limit=100", ...
        server.hold("token=")                  # requests whose line holds that wait for `release`
        server.release()
        server.lose("token=")                  # requests whose line holds that: 404 until `find`

Nothing is random: two servers over the same catalog say the same. Items come in pages, at most
`limit` in one, with a token in the `next` link and the counts of the 2022 generation. Assets are
served from `/files/...` of the same port, with ranges. Ids come percent-encoded in paths, as one
segment; `routes_slashes=False` answers 404 to those with a slash, as many servers do.

*Threading.* A thread for each connection. A request is in `requests` before it is answered.
"""

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote

MODIFIED = "Sat, 01 Jul 2017 10:20:30 GMT"
Item = dict[str, Any]


def item(identifier: str, assets: Mapping[str, bytes] | None = None) -> Item:
    """Return an item whose assets have these bytes."""
    return {"id": identifier, "datetime": "2017-07-01T10:20:30Z", "assets": assets or {}}


class Numbered(Sequence[Item]):
    """`count` items with names as long as BigEarthNet's, made when they are asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        name = f"synthetic_v1_source_S2A_MSIL2A_20170701T102030_{index:08d}"
        return item(name, {"B02": b"chip %d" % index})

    def find(self, identifier: str) -> Item | None:
        """Return the item with that id, without a search."""
        number = int(identifier[-8:]) if re.fullmatch(r"\d{8}", identifier[-8:]) else self._count
        found = self[number] if number < self._count else None
        return found if found and found["id"] == identifier else None


class SyntheticServer:
    """The server over `collections`; those that no dataset names are loose."""

    def __init__(
        self,
        collections: Mapping[str, Sequence[Item]],
        *,
        datasets: Mapping[str, Iterable[str]],
        routes_slashes: bool = True,
    ) -> None:
        self.requests: list[str] = []
        self._collections = collections
        self._datasets = {name: list(ids) for name, ids in datasets.items()}
        self._routes_slashes = routes_slashes
        self._files: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._held: str | None = None
        self._lost: str | None = None
        answer = type("Answer", (_Answer,), {"catalog": self})
        self._http = _Http(("127.0.0.1", 0), answer)
        self.root_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        # A short interval, or each `shutdown` takes half a second.
        serve = {"target": self._http.serve_forever, "kwargs": {"poll_interval": 0.01}}
        self._thread = threading.Thread(**serve)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def hold(self, text: str) -> None:
        """Let requests whose line holds `text` wait, once they are recorded."""
        with self._changed:
            self._held = text

    def release(self) -> None:
        """Answer what waits, and let nothing wait any more."""
        with self._changed:
            self._held = None
            self._changed.notify_all()

    def lose(self, text: str) -> None:
        """Answer 404 to requests whose line holds `text`, until `find`."""
        self._lost = text

    def find(self) -> None:
        """Lose nothing any more."""
        self._lost = None

    def knows(self, line: str) -> bool:
        """Say whether a request is to be answered as the catalog has it."""
        return self._lost is None or self._lost not in line

    def to(self, text: str) -> list[str]:
        """Return the requests so far whose line holds `text`."""
        with self._changed:
            return [line for line in self.requests if text in line]

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until `count` requests whose line holds `text` have come."""
        with self._changed:
            came = self._changed.wait_for(
                lambda: sum(text in line for line in self.requests) >= count, timeout=30
            )
        assert came, f"{text!r} was not requested {count} times in 30 s"

    def admit(self, line: str) -> None:
        """Record a request, and hold it if that is asked for."""
        with self._changed:
            self.requests.append(line)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._held is None or self._held not in line)

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Any:
        """Return the JSON that answers a path below the root, None for 404."""
        match path.split("/")[1:]:
            case ["datasets"]:
                return [self._dataset(name) for name in self._datasets]
            case ["collections"]:
                return {"collections": [self._collection(name) for name in self._collections]}
            case ["collections", name]:
                name = unquote(name)
                return self._collection(name) if name in self._collections else None
            case ["collections", name, "items"]:
                name = unquote(name)
                return self._page(name, query) if name in self._collections else None
            case ["collections", name, "items", identifier]:
                return self._item(unquote(name), unquote(identifier))
        return None

    def file(self, path: str) -> bytes | None:
        """Return the bytes of a file that an item has linked to."""
        return self._files.get(path)

    def _find(self, collection: str, identifier: str) -> Item | None:
        items = self._collections.get(collection, ())
        if isinstance(items, Numbered):
            return items.find(identifier)
        return next((one for one in items if one["id"] == identifier), None)

    def _item(self, collection: str, identifier: str) -> Any:
        if "/" in identifier and not self._routes_slashes:
            return None
        found = self._find(collection, identifier)
        return self._present(collection, found) if found else None

    def _dataset(self, name: str) -> Any:
        refs = [{"id": one, "types": ["source_imagery"]} for one in self._datasets[name]]
        return {"id": name, "title": f"Synthetic {name}", "collections": refs}

    def _collection(self, name: str) -> Any:
        return {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": "Synthetic",
            "license": "CC-BY-4.0",
            "extent": {
                "spatial": {"bbox": [[9, 47, 10, 48]]},
                "temporal": {"interval": [["2017-07-01T00:00:00Z", "2017-07-02T00:00:00Z"]]},
            },
            "links": [],
        }

    def _page(self, name: str, query: Mapping[str, list[str]]) -> Any:
        items, limit = self._collections[name], int(query.get("limit", ["10"])[0])
        start = int(query.get("token", ["next:0"])[0].removeprefix("next:"))
        page = items[start : start + limit]
        links = []
        if start + limit < len(items):
            href = f"{self.root_url}/collections/{quote(name, safe='')}/items"
            links.append({"rel": "next", "href": f"{href}?token=next%3A{start + limit}"})
        return {
            "type": "FeatureCollection",
            "context": {"limit": limit, "matched": len(items), "returned": len(page)},
            "features": [self._present(name, one) for one in page],
            "links": links,
        }

    def _present(self, collection: str, found: Item) -> Any:
        assets = {}
        for key, data in found["assets"].items():
            # Not the names themselves: no URL could hold all of them.
            names = "\0".join((collection, found["id"], key)).encode("utf-8", "surrogatepass")
            path = f"/files/{hashlib.blake2b(names, digest_size=8).hexdigest()}"
            self._files[path] = data
            assets[key] = {"href": self.root_url.removesuffix("/v1") + path}
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": found["id"],
            "collection": collection,
            "geometry": None,
            "properties": {"datetime": found["datetime"]},
            "links": [],
            "assets": assets,
        }


class _Http(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


class _Answer(http.server.BaseHTTPRequestHandler):
    catalog: SyntheticServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        line = f"GET {self.path.removeprefix('/v1')}"
        self.catalog.admit(line)
        if not self.catalog.knows(line):
            path = "/lost"
        if path.startswith("/files/"):
            self._send_file(self.catalog.file(path))
            return
        found = self.catalog.answer(path.removeprefix("/v1"), parse_qs(query))
        body = found if found is not None else {"detail": "does not exist"}
        self._send(200 if found is not None else 404, {}, json.dumps(body).encode())

    def log_message(self, *arguments: object) -> None:
        pass

    def _send_file(self, data: bytes | None) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if data is None:
            self._send(404, {}, b"")
        elif match is None:
            self._send(200, {"Last-Modified": MODIFIED}, data)
        elif int(match[1]) >= len(data):
            self._send(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        else:
            start, stop = int(match[1]), min(int(match[2]) + 1, len(data))
            extent = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            self._send(206, {"Last-Modified": MODIFIED, **extent}, data[start:stop])

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
