"""The mount as a STAC catalog: pystac, as published, walks it as it walks files on disk."""

import json
from pathlib import Path

import mounted as mounts
import pystac
import pytest
from pystac.validation import validate_dict

import mlhubfs
from mlhubfs.server.run import LocalServer

SAMPLE = Path(mlhubfs.__file__).parent / "sample"
DATASETS = sorted(path.parent.name for path in SAMPLE.glob("*/dataset.json"))


@pytest.fixture(scope="module")
def root(binding, tmp_path_factory):
    """The bundled sample, mounted."""
    with (
        LocalServer(cache_dir=tmp_path_factory.mktemp("server")) as server,
        mounts.mounted(server.root_url, tmp_path_factory.mktemp("stac"), binding=binding) as mount,
    ):
        yield mount.path


@pytest.fixture
def catalog(root, request):
    return pystac.Catalog.from_file(root / request.param / "catalog.json")


over_datasets = pytest.mark.parametrize("catalog", DATASETS, indirect=True)


@over_datasets
def test_a_walk_reaches_every_item(catalog):
    """From catalog.json, pystac comes to each item of the dataset once."""
    walked = sorted(item.id for item in catalog.get_items(recursive=True))
    assert walked == sorted(path.parent.name for path in SAMPLE.glob(f"{catalog.id}/*/*/stac.json"))
    assert walked


@over_datasets
def test_every_href_leads_to_the_assets_file(catalog, root):
    """Each asset's href is the path of a file in the mount, with the bytes that the asset has."""
    seen = 0
    for above, _, items in catalog.walk():
        for owner in (above, *items):
            if not isinstance(owner, (pystac.Item, pystac.Collection)):
                continue
            here = Path(owner.get_self_href())
            original = json.loads((SAMPLE / here.relative_to(root)).read_text("utf-8"))
            assert set(owner.assets) == set(original.get("assets", {})), owner.id
            for key, asset in owner.assets.items():
                file = Path(asset.get_absolute_href())
                true = (SAMPLE / here.relative_to(root)).parent / original["assets"][key]["href"]
                assert file.is_relative_to(root)
                assert file.stem == key
                assert file.read_bytes() == true.read_bytes(), file
                seen += 1
    assert seen >= 3


@over_datasets
def test_links_lead_to_the_objects_that_they_name(catalog, root):
    """Every structural link is relative and resolves; items lead back up to the same catalog."""
    for above, _, items in catalog.walk():
        for one in (above, *items):
            document = json.loads(Path(one.get_self_href()).read_text("utf-8"))
            for link in document["links"]:
                assert ":" not in link["href"], link
                assert (Path(one.get_self_href()).parent / link["href"]).resolve().is_file(), link
        for item in items:
            assert item.get_collection().id == above.id
            assert item.get_parent().id == above.id
            assert item.get_root().id == catalog.id


@over_datasets
def test_everything_validates(catalog):
    """The catalog, its collections and items validate against the schemas that pystac brings."""
    kinds = set()
    for above, _, items in catalog.walk():
        for one in (above, *items):
            # Brought to the version of those schemas: pystac has no other ones offline.
            value = one.to_dict(include_self_link=False)
            validate_dict(value, one.STAC_OBJECT_TYPE, value["stac_version"], extensions=[])
            kinds.add(one.STAC_OBJECT_TYPE)
    assert len(kinds) == 3


def test_a_label_leads_to_its_imagery(root):
    """The `source` link of a BigEarthNet label opens the item that the label was made from."""
    labels = pystac.Collection.from_file(
        root / "bigearthnet_v1/bigearthnet_v1_labels/collection.json"
    )
    items = list(labels.get_items())
    assert len(items) == 24
    for item in items:
        [link] = item.get_links("source")
        source = link.resolve_stac_object().target
        assert source.id == item.id.replace("_labels_", "_source_")
        assert Path(source.assets["B02"].get_absolute_href()).is_file()
