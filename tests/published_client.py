"""A session with MLHub's published client; run by the Python that has it, prints JSON.

    python published_client.py FOLDER          # MLHUB_ROOT_URL, MLHUB_API_KEY are set

Does what the client's documentation shows, 0.4.1 and 0.5.5 alike where they are alike.
"""

import json
import sys
from pathlib import Path

from radiant_mlhub import Collection, Dataset, MLModel, __version__, client
from radiant_mlhub.exceptions import EntityDoesNotExist

ID, DOI = "bigearthnet_v1", "10.5072/mlhubfs.sample-bigearthnet"
LABELS = "bigearthnet_v1_labels"


def datasets():
    everything = Dataset.list()
    dataset = Dataset.fetch(ID)
    return {
        "ids": [one.id for one in everything],
        "with a tag": [one.id for one in Dataset.list(tags="agriculture")],
        "with tags": [one.id for one in Dataset.list(tags=["agriculture", "nothing"])],
        "with text": [one.id for one in Dataset.list(text=["BigEarthNet"])],
        "fetched": [dataset.id, dataset.doi, bool(dataset.title), bool(dataset.citation)],
        "by id": Dataset.fetch_by_id(ID).id,
        "by doi": [Dataset.fetch(DOI).id, Dataset.fetch_by_doi(DOI).id],
        "collections": [one.id for one in dataset.collections],
        "source imagery": [one.id for one in dataset.collections.source_imagery],
        "labels": [one.id for one in dataset.collections.labels],
    }


def collections():
    collection = Collection.fetch(LABELS)
    items = list(client.list_collection_items(LABELS, limit=20))
    return {
        "ids": sorted(one.id for one in Collection.list()),
        "fetched": collection.id,
        "items": [one["id"] for one in items],
        "item": client.get_collection_item(LABELS, items[-1]["id"])["id"],
        "as pystac": collection.fetch_item(items[0]["id"]).id,
    }


def sizes():
    asked = getattr(client, "get_archive_info", None) or client.get_collection_archive_info
    dataset = Dataset.fetch(ID)
    total = getattr(dataset, "total_archive_size", None) or sum(
        one.archive_size for one in dataset.collections
    )
    return {"info": asked(LABELS), "archive": Collection.fetch(LABELS).archive_size, "total": total}


def archive(folder):
    collection = Collection.fetch(LABELS)
    path = collection.download(folder)
    data = path.read_bytes()
    found = {"path": str(path), "size": len(data)}
    path.write_bytes(data[: len(data) // 2])
    collection.download(folder, if_exists="skip")
    found["skipped"] = path.stat().st_size == len(data) // 2
    collection.download(folder, if_exists="resume")
    found["resumed"] = path.read_bytes() == data
    path.write_bytes(b"x" * len(data))
    collection.download(folder, if_exists="overwrite")
    found["overwritten"] = path.read_bytes() == data
    return found


def models():
    found = {"ids": [one.id for one in MLModel.list()]}
    if __version__ < "0.5":  # the later one asks for 204 s before it believes a 404
        for missing in (client.get_model_by_id, Dataset.fetch):
            try:
                missing("nothing")
            except EntityDoesNotExist as error:
                found[missing.__name__] = str(error)
    return found


def filtered(folder):
    """As the client of 0.5 downloads single assets."""
    dataset = Dataset.fetch(ID)
    dataset.download(folder, collection_filter={f"{ID}_source": ["B02"]}, bbox=[-180, -90, 180, 90])
    return {"catalog": dataset.stac_catalog_size, "dataset": dataset.estimated_dataset_size}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(
        json.dumps(
            {
                "version": __version__,
                "datasets": datasets(),
                "collections": collections(),
                "sizes": sizes(),
                "archive": archive(folder / "archives"),
                "models": models(),
                "filtered": filtered(folder / "filtered") if __version__ >= "0.5" else None,
            }
        )
    )
