"""Collection archives and dataset catalogs, built once into the cache folder.

Owns the `.tar.gz` files that `/archive` and `/catalog` lead to. The same tree gives the same bytes:
names sorted, owner root, times those of the files, no time in the gzip header. A file is built
again when the number of files, their size or the newest time in the tree has changed.

*Threading.* One build at a time; whoever asks for the same file meanwhile waits for it.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from mlhubfs.server.collection import Collection, Item, Json, is_junk
from mlhubfs.server.holdings import Holdings
from mlhubfs.server.present import file_of, is_relative, item_path, link, with_common

_LEVEL = 1  # imagery hardly shrinks; a higher level only makes the first caller wait longer
_STRUCTURE = {"self", "root", "parent", "collection", "item", "items", "child"}

StorageUrl = Callable[[str, str], str]
"""From a collection's id and the path of a file in its folder to the file's URL."""


class Packer:
    """Builds archives of `holdings` below `cache_dir`."""

    def __init__(self, holdings: Holdings, cache_dir: Path) -> None:
        self._holdings = holdings
        self._folder = cache_dir / "packed"
        self._lock = threading.Lock()
        self._latest: dict[str, Path] = {}

    def archive(self, collection: Collection, *, check: bool = True) -> Path:
        """Return the collection's archive: the file that it came from, or one that is built.

        Without `check`, what was returned last, so that the ranges of one download fit together.
        """
        if given := self._holdings.archives.get(collection.id):
            return given
        root = collection.folder

        def write(tar: tarfile.TarFile) -> None:
            for path in _walk(root):
                name = path.relative_to(root)
                facts = path.stat()
                header = _header(f"{collection.id}/{name}", int(facts.st_mtime))
                if path.is_dir():
                    header.type, header.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(header)
                else:
                    with path.open("rb") as file:
                        header.size = facts.st_size
                        tar.addfile(header, file)

        stem = _digest(f"archive\0{root}")
        if not check and (latest := self._last(stem)):
            return latest
        return self._built(stem, str(tree_facts(root)), write)

    def catalog(self, dataset_id: str, storage_url: StorageUrl, *, check: bool = True) -> Path:
        """Return the dataset's catalog archive, whose asset hrefs `storage_url` gives."""
        dataset = self._holdings.datasets[dataset_id]
        members = self._holdings.members(dataset_id)
        stem = _digest(f"catalog\0{dataset_id}\0{storage_url('', '')}")
        if not check and (latest := self._last(stem)):
            return latest
        facts = [(str(each.folder), tree_facts(each.folder)) for each in members]
        state = json.dumps([dataset, facts, storage_url("", "")])

        def write(tar: tarfile.TarFile) -> None:
            newest = max((newest_ns for _, (_, _, newest_ns) in facts), default=0) // 10**9
            _add_json(tar, f"{dataset_id}/catalog.json", _catalog(dataset, members), newest)
            for each in members:
                base = f"{dataset_id}/{each.folder.name}"
                _add_json(tar, f"{base}/collection.json", _collection(each, storage_url), newest)
                for item in each.items():
                    path = f"{base}/{item.folder}/{item.folder}.json"
                    _add_json(tar, path, _item(each, item, storage_url), newest)

        return self._built(stem, state, write)

    def dataset_size(self, dataset_id: str) -> int:
        """Return the bytes of all files of the dataset's collections."""
        return sum(tree_facts(each.folder)[1] for each in self._holdings.members(dataset_id))

    def _last(self, stem: str) -> Path | None:
        path = self._latest.get(stem)
        return path if path and path.exists() else None

    def _built(self, stem: str, state: str, write: Callable[[tarfile.TarFile], None]) -> Path:
        path = self._folder / f"{stem}-{_digest(state)}.tar.gz"
        with self._lock:
            self._latest[stem] = path
            if path.exists():
                return path
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            try:
                with (
                    partial.open("wb") as file,
                    gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed,
                    tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
                ):
                    write(tar)
                partial.rename(path)
            finally:
                partial.unlink(missing_ok=True)
            for old in self._folder.glob(f"{stem}-*.tar.gz"):
                if old != path:
                    old.unlink(missing_ok=True)
            return path


def tree_facts(folder: Path) -> tuple[int, int, int]:
    """Return how many files and folders `folder` holds, their bytes, and the newest mtime_ns."""
    count = size = newest = 0
    for path in _walk(folder):
        facts = path.stat()
        count += 1
        size += 0 if path.is_dir() else facts.st_size
        newest = max(newest, facts.st_mtime_ns)
    return count, size, newest


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files and folders below `folder`, sorted, without links and junk."""
    with os.scandir(folder) as entries:
        found = sorted(
            (entry for entry in entries if not is_junk(entry.name) and not entry.is_symlink()),
            key=lambda entry: entry.name,
        )
    for entry in found:
        path = Path(entry.path)
        if entry.is_dir():
            yield path
            yield from _walk(path)
        elif entry.is_file():
            yield path


def _catalog(dataset: Json, members: list[Collection]) -> Json:
    title = dataset.get("title") or dataset["id"]
    children = (link("child", f"{quote(each.folder.name)}/collection.json") for each in members)
    return {
        "type": "Catalog",
        "id": dataset["id"],
        "stac_version": "1.0.0",
        "title": title,
        "description": dataset.get("description") or title,
        "links": [link("root", "catalog.json"), link("self", "catalog.json"), *children],
    }


def _collection(collection: Collection, storage_url: StorageUrl) -> Json:
    document = collection.document()
    items = (quote(item.folder, errors="surrogatepass") for item in collection.items())
    document["links"] = [
        link("root", "../catalog.json"),
        link("parent", "../catalog.json"),
        *_other_links(document, collection, ""),
        *(link("item", f"{folder}/{folder}.json") for folder in items),
    ]
    assets = with_common(collection, document.get("assets"))
    document["assets"] = _assets(collection, "", assets, storage_url)
    return document


def _item(collection: Collection, item: Item, storage_url: StorageUrl) -> Json:
    document = dict(item.document)
    document["links"] = [
        link("root", "../../catalog.json"),
        link("collection", "../collection.json"),
        link("parent", "../collection.json"),
        *_other_links(document, collection, item.folder),
    ]
    document["assets"] = _assets(collection, item.folder, document.get("assets"), storage_url)
    return document


def _other_links(document: Json, collection: Collection, folder: str) -> list[Json]:
    """Return the links that are not of the tree's structure; items are named as in a catalog."""
    links = document.get("links")
    kept = []
    for each in links if isinstance(links, list) else []:
        if not isinstance(each, dict) or each.get("rel") in _STRUCTURE:
            continue
        target = item_path(collection, folder, each["href"]) if is_relative(each) else None
        if target:
            above = "../.." if folder else ".."
            kept.append({**each, "href": f"{above}/{target[0]}/{target[1]}/{target[1]}.json"})
        else:
            kept.append(each)
    return kept


def _assets(collection: Collection, folder: str, assets: object, storage_url: StorageUrl) -> Json:
    def href(relative: str) -> str:
        path = file_of(folder, relative, lambda each: (collection.folder / each).is_file())
        return storage_url(collection.id, path or relative)

    return {
        key: {**asset, "href": href(asset["href"])} if is_relative(asset) else asset
        for key, asset in (assets.items() if isinstance(assets, dict) else ())
    }


def _header(name: str, mtime: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.mtime = mtime
    return header


def _add_json(tar: tarfile.TarFile, name: str, document: Json, mtime: int) -> None:
    text = json.dumps(document, indent=1).encode()
    header = _header(name, mtime)
    header.size = len(text)
    tar.addfile(header, io.BytesIO(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
