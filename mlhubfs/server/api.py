"""The routes of the API: what a caller asks, and what is answered, in the recorded words.

Owns the routes and the texts of their errors; what a query means is `query`'s.

Paths are routed as they were sent, still percent-encoded, and each segment is decoded alone: an id
may hold a slash. The URLs in an answer begin with the host that the caller reached, as the real
ones did.

*Threading.* Handlers are plain functions and run in the event loop's worker threads.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from mlhubfs.errors import Denied
from mlhubfs.server.collection import Collection, Json
from mlhubfs.server.holdings import Holdings
from mlhubfs.server.pack import Packer
from mlhubfs.server.present import GEOJSON_TYPE, Presenter, file_of, link
from mlhubfs.server.query import check_key, is_wanted, read_page
from mlhubfs.server.storage import Storage
from mlhubfs.server.tokens import Tokens

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
_CONFORMANCE = [
    "https://api.stacspec.org/v1.0.0-beta.2/core",
    "https://api.stacspec.org/v1.0.0-beta.2/ogcapi-features",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/oas30",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
]

Handler = Callable[[Request], Response]


class Answer(Response):
    """JSON. Ids and texts may hold lone surrogates, so everything beyond ASCII is escaped."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return `content` as bytes."""
        return json.dumps(content, separators=(",", ":")).encode("ascii")


class Api:
    """The API over `holdings`; with `api_key`, items and archives are for those who have it."""

    def __init__(
        self,
        holdings: Holdings,
        packer: Packer,
        storage: Storage,
        tokens: Tokens,
        *,
        root_path: str,
        address: str,
        storage_port: int,
        api_key: str | None,
    ) -> None:
        self._holdings = holdings
        self._packer = packer
        self._storage = storage
        self._tokens = tokens
        self._root_path = root_path
        self._address = address
        self._storage_port = storage_port
        self._api_key = api_key

    def app(self) -> Starlette:
        """Return the ASGI application."""
        open_routes: dict[str, Handler] = {
            "": self.landing,
            "/datasets": self.datasets,
            "/datasets/doi/{doi:path}": self.dataset_by_doi,
            "/datasets/{dataset}": self.dataset,
            "/collections": self.collections,
            "/collections/{collection}": self.collection,
            "/download/{token}": self.download,
            "/models": lambda _request: Answer([]),
            "/models/{model}": self.model,
        }
        keyed_routes: dict[str, Handler] = {
            "/collections/{collection}/items": self.items,
            "/collections/{collection}/items/{item}": self.item,
            "/archive/{collection}": self.archive,
            "/archive/{collection}/info": self.archive_info,
            "/catalog/{dataset}": self.catalog,
            "/catalog/{dataset}/info": self.catalog_info,
        }
        routes = open_routes | {path: self._keyed(each) for path, each in keyed_routes.items()}
        if self._root_path:
            routes_at = {self._root_path + path: each for path, each in routes.items()}
            # Told the root without a slash at its end, MLHub's client loses its last segment.
            above = self._root_path.rpartition("/")[0]
            routes_at |= {above + path: each for path, each in routes.items() if path}
            routes_at["/"] = routes_at[""] = self.signpost
        else:
            routes_at = {path or "/": each for path, each in routes.items()}
        return Starlette(
            routes=[Route(path or "/", each) for path, each in routes_at.items()],
            middleware=[Middleware(GZipMiddleware, compresslevel=1)],  # half of an item is tokens
            exception_handlers={HTTPException: _explain, Exception: _explain},
        )

    def signpost(self, request: Request) -> Response:
        """Tell who comes to the host where its API is."""
        root = self._presenter(request).root
        return Answer({"title": "A local MLHub, by mlhubfs", "links": [link("data", root)]})

    def landing(self, request: Request) -> Response:
        """Answer `GET /`."""
        present = self._presenter(request)
        children = (present.url("collections", each) for each in self._holdings.collections)
        return Answer(
            {
                "type": "Catalog",
                "id": "mlhub",
                "stac_version": "1.0.0",
                "title": "A local MLHub, by mlhubfs",
                "description": "Earth-observation training data, served from archives on disk.",
                "conformsTo": _CONFORMANCE,
                "links": [
                    link("self", present.root),
                    link("root", present.root),
                    link("data", present.url("collections")),
                    *(link("child", each) for each in children),
                ],
            }
        )

    def datasets(self, request: Request) -> Response:
        """Answer `GET /datasets`."""
        found = self._holdings.datasets.values()
        return Answer([dataset for dataset in found if is_wanted(request, dataset)])

    def dataset(self, request: Request) -> Response:
        """Answer `GET /datasets/{id}`."""
        return Answer(self._dataset(request))

    def dataset_by_doi(self, request: Request) -> Response:
        """Answer `GET /datasets/doi/{doi}`."""
        doi = _parameter(request, "doi")
        for dataset in self._holdings.datasets.values():
            if (dataset.get("doi") or "").casefold() == doi.casefold():
                return Answer(dataset)
        raise HTTPException(404, f"Dataset with doi '{doi}' not found")

    def collections(self, request: Request) -> Response:
        """Answer `GET /collections`."""
        present = self._presenter(request)
        found = [present.collection(each) for each in self._holdings.collections.values()]
        links = [
            link("root", present.root),
            link("parent", present.root),
            link("self", present.url("collections")),
        ]
        return Answer({"collections": found, "links": links})

    def collection(self, request: Request) -> Response:
        """Answer `GET /collections/{id}`."""
        return Answer(self._presenter(request).collection(self._collection(request)))

    def items(self, request: Request) -> Response:
        """Answer `GET /collections/{id}/items`: one page."""
        present, collection = self._presenter(request), self._collection(request)
        page = read_page(request, collection)
        here = present.url("collections", collection.id)
        links = [
            link("items", here + "/items", GEOJSON_TYPE),
            link("parent", present.root),
            link("root", present.root),
            link("self", here),
        ]
        if page.next_query:
            links.append({**link("next", f"{here}/items?{page.next_query}"), "method": "GET"})
        return Answer(
            {
                "type": "FeatureCollection",
                "context": {
                    "limit": page.limit,
                    "matched": page.matched,
                    "returned": len(page.items),
                },
                "features": [present.item(collection, item) for item in page.items],
                "links": links,
            }
        )

    def item(self, request: Request) -> Response:
        """Answer `GET /collections/{id}/items/{item}`."""
        collection, name = self._collection(request), _parameter(request, "item")
        item = collection.find(name)
        if item is None:
            raise HTTPException(404, f"Item {name} in Collection {collection.id} does not exist.")
        return Answer(self._presenter(request).item(collection, item), media_type=GEOJSON_TYPE)

    def download(self, request: Request) -> Response:
        """Answer `GET /download/{token}`."""
        try:
            name, folder, href = self._tokens.read(_parameter(request, "token"))
        except Denied as error:
            raise HTTPException(403, str(error)) from error
        root = self._holdings.collections[name].folder
        path = file_of(folder, href, lambda each: "\0" not in each and (root / each).is_file())
        if path is None:
            raise HTTPException(404, "The asset is outside of its collection.")
        origin = self._storage_origin(request)
        return RedirectResponse(self._storage.file_url(origin, name, path), 302)

    def archive(self, request: Request) -> Response:
        """Answer `GET /archive/{collection}`."""
        collection = self._archived(request)
        self._packer.archive(collection)  # built now, so that storage answers at once
        origin = self._storage_origin(request)
        return RedirectResponse(self._storage.archive_url(origin, "archives", collection.id), 303)

    def archive_info(self, request: Request) -> Response:
        """Answer `GET /archive/{collection}/info`."""
        collection = self._archived(request)
        return Answer(
            {
                "collection": collection.id,
                "dataset": self._holdings.dataset_of(collection.id)["id"],
                "size": self._packer.archive(collection).stat().st_size,
                "types": self._holdings.types_of(collection.id),
            }
        )

    def catalog(self, request: Request) -> Response:
        """Answer `GET /catalog/{dataset}`."""
        name = self._dataset(request)["id"]
        origin = self._storage_origin(request)
        self._packer.catalog(name, partial(self._storage.file_url, origin))
        return RedirectResponse(self._storage.archive_url(origin, "catalogs", name), 303)

    def catalog_info(self, request: Request) -> Response:
        """Answer `GET /catalog/{dataset}/info`."""
        name = self._dataset(request)["id"]
        origin = self._storage_origin(request)
        path = self._packer.catalog(name, partial(self._storage.file_url, origin))
        return Answer(
            {
                "dataset": name,
                "stac_catalog_size": path.stat().st_size,
                "estimated_dataset_size": self._packer.dataset_size(name),
            }
        )

    def model(self, request: Request) -> Response:
        """Answer `GET /models/{id}`: there are none."""
        raise HTTPException(404, f"Model {_parameter(request, 'model')} does not exist.")

    def _keyed(self, handler: Handler) -> Handler:
        def checked(request: Request) -> Response:
            check_key(request, self._api_key)
            return handler(request)

        return checked

    def _host(self, request: Request) -> str:
        host = request.headers.get("host", "")
        return host if _HOST.fullmatch(host) else self._address

    def _presenter(self, request: Request) -> Presenter:
        root = f"http://{self._host(request)}{self._root_path}"
        return Presenter(self._holdings, self._tokens, root)

    def _storage_origin(self, request: Request) -> str:
        name = re.sub(r":\d+$", "", self._host(request))
        return f"http://{name}:{self._storage_port}"

    def _dataset(self, request: Request) -> Json:
        name = _parameter(request, "dataset")
        dataset = self._holdings.datasets.get(name)
        if dataset is None:
            raise HTTPException(404, f"Dataset with id '{name}' not found")
        return dataset

    def _collection(self, request: Request) -> Collection:
        name = _parameter(request, "collection")
        collection = self._holdings.collections.get(name)
        if collection is None:
            raise HTTPException(404, f"Collection {name} does not exist.")
        return collection

    def _archived(self, request: Request) -> Collection:
        name = _parameter(request, "collection")
        collection = self._holdings.collections.get(name)
        if collection is None:
            raise HTTPException(404, f"Archive for collection {name} does not exist.")
        return collection


def _parameter(request: Request, name: str) -> str:
    return unquote(str(request.path_params[name]))


def _explain(_request: Request, error: Exception) -> Response:
    status, detail = 500, "Internal Server Error"
    if isinstance(error, HTTPException):
        status, detail = error.status_code, error.detail
    return Answer({"detail": detail}, status)
