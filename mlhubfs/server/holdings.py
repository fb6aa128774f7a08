"""Everything that a server has to offer: its collections, and the datasets that they make up.

Owns the finding of collections below the paths given, and the dataset objects. Reads no item unless
a collection's name does not tell its type. Knows no URLs.

*Threading.* Built once; only read afterwards.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mlhubfs.errors import BadAnswer, ConfigError
from mlhubfs.server.collection import Collection, Json, Log, read_document
from mlhubfs.server.unpack import unpack

SAMPLE = Path(__file__).parent.parent / "sample"
_SUFFIX = re.compile(r"_(source|labels)$")
_TYPES = {"source": "source_imagery", "labels": "labels"}
_PROBES = 3  # items that are looked at for a type
_FIELDS = (
    "id title description bbox citation collections creator_contact date_added date_modified "
    "documentation_link doi publications registry status tags tools_applications tutorials"
).split()


class Holdings:
    """The collections below `paths`, and their datasets; the bundled sample without paths.

    A path is a collection's folder, a dataset's, a folder of those, or a `.tar.gz` of one.
    `ConfigError` where a path holds none.
    """

    def __init__(self, paths: Sequence[Path], cache_dir: Path, log: Log) -> None:
        self.collections: dict[str, Collection] = {}
        self.datasets: dict[str, Json] = {}
        self.archives: dict[str, Path] = {}
        """The file that a collection came from, where it was given as one."""
        self._log = log
        for path in paths or [SAMPLE]:
            self._add(path, cache_dir)
        self._by_folder = {each.folder.name: each for each in self.collections.values()}
        self._complete_datasets()
        self._homes: dict[str, str] = {}
        for dataset in self.datasets.values():
            for entry in dataset["collections"]:
                self._homes.setdefault(entry["id"], dataset["id"])

    def dataset_of(self, collection_id: str) -> Json:
        """Return the dataset object that names the collection."""
        return self.datasets[self._homes[collection_id]]

    def types_of(self, collection_id: str) -> list[str]:
        """Return the collection's types as its dataset gives them."""
        entries = self.dataset_of(collection_id)["collections"]
        return next(entry.get("types") or [] for entry in entries if entry["id"] == collection_id)

    def members(self, dataset_id: str) -> list[Collection]:
        """Return the dataset's collections, each once."""
        entries = self.datasets[dataset_id]["collections"]
        return [self.collections[name] for name in dict.fromkeys(entry["id"] for entry in entries)]

    def in_folder(self, name: str) -> Collection | None:
        """Return the collection whose folder has that name."""
        return self._by_folder.get(name)

    def _add(self, path: Path, cache_dir: Path) -> None:
        if not path.exists():
            raise ConfigError(f"{path} does not exist: give a folder or a .tar.gz of a collection")
        folder = path if path.is_dir() else unpack(path, cache_dir, log=self._log)
        found = []
        for each in _candidates(folder):
            if _is_collection(each):
                found.append(self._add_collection(each))
            elif (each / "dataset.json").is_file():
                self._add_dataset(each / "dataset.json")
        usable = [each for each in found if each]
        if not usable:
            raise ConfigError(
                f"{path} holds no collection: give a folder with a collection.json, "
                "a folder of such folders, or a .tar.gz of one"
            )
        if folder is not path and len(usable) == 1:
            self.archives[usable[0]] = path.resolve()

    def _add_collection(self, folder: Path) -> str | None:
        """Return the collection's id, None if it cannot be used."""
        try:
            collection = Collection(folder, self._log)
        except (OSError, BadAnswer) as error:
            self._log(f"collection left out: {folder}/collection.json: {error}")
            return None
        known = self.collections.setdefault(collection.id, collection)
        if known is not collection:
            self._log(f"collection left out: {folder}: {known.folder} has the same id")
        return collection.id

    def _add_dataset(self, path: Path) -> None:
        try:
            dataset = read_document(str(path))
        except (OSError, BadAnswer) as error:
            self._log(f"dataset left out: {path}: {error}")
        else:
            self.datasets.setdefault(dataset["id"], dataset)

    def _complete_datasets(self) -> None:
        """Keep of each dataset the collections that are here, and find the others a dataset."""
        homeless = dict(self.collections)
        for dataset in self.datasets.values():
            entries = dataset.get("collections")
            dataset["collections"] = [
                entry
                for entry in (entries if isinstance(entries, list) else [])
                if isinstance(entry, dict) and entry.get("id") in self.collections
            ]
            for entry in dataset["collections"]:
                homeless.pop(entry["id"], None)
        for collection in homeless.values():
            name = _SUFFIX.sub("", collection.id)
            document = collection.document()
            dataset = self.datasets.setdefault(name, _new_dataset(name, document))
            dataset["collections"].append(
                {
                    "id": collection.id,
                    "types": collection_types(collection),
                    "license": document.get("license"),
                }
            )


def collection_types(collection: Collection) -> list[str]:
    """Return `source_imagery`, `labels` or both: as the id says, else as the first items do."""
    if suffix := _SUFFIX.search(collection.id):
        return [_TYPES[suffix[1]]]
    items = [item.document for item in islice(collection.items(), _PROBES)]
    types = []
    if not items or not all(map(_is_label, items)) or any(map(_has_bands, items)):
        types.append("source_imagery")
    if any(map(_is_label, items)):
        types.append("labels")
    return types


def _is_label(item: Json) -> bool:
    return any(
        name == "labels" or name.startswith("label:") for name in item.get("properties") or ()
    ) or any(
        isinstance(link, dict) and link.get("rel") == "source" for link in item.get("links") or ()
    )


def _has_bands(item: Json) -> bool:
    assets = item.get("assets")
    return isinstance(assets, dict) and any(
        isinstance(asset, dict) and "eo:bands" in asset for asset in assets.values()
    )


def _new_dataset(name: str, collection: Json) -> Json:
    """Return a dataset object with the recorded fields, as far as a collection can tell them."""
    description = collection.get("description")
    if description == "No Description":  # MLHub's word for none
        description = None
    known = {
        "id": name,
        "title": collection.get("title") or description or name,
        "description": description,
        "bbox": _multipolygon(collection),
        "citation": collection.get("sci:citation"),
        "collections": [],
        "doi": collection.get("sci:doi"),
        "publications": [],
        "status": "ready",
        "tags": collection.get("keywords") or [],
    }
    return {field: known.get(field) for field in _FIELDS}


def _multipolygon(collection: Json) -> Json | None:
    try:
        boxes = collection["extent"]["spatial"]["bbox"]
        corners = [(box[0], box[1], box[len(box) // 2], box[len(box) // 2 + 1]) for box in boxes]
    except (KeyError, TypeError, IndexError):
        return None
    return {
        "type": "MultiPolygon",
        "coordinates": [
            [[[west, south], [west, north], [east, north], [east, south], [west, south]]]
            for west, south, east, north in corners
        ],
    }


def _is_collection(folder: Path) -> bool:
    return (folder / "collection.json").is_file()


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield `folder`, the folders in it, and those in them, but none that a collection holds."""
    yield folder
    for child in [] if _is_collection(folder) else _subfolders(folder):
        yield child
        if not _is_collection(child):
            yield from _subfolders(child)


def _subfolders(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if child.name[0] not in "@.")
    return sorted(child for child in children if child.is_dir())
