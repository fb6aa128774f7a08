"""What the API's answers say: recorded ones, sparse ones, and ones that are none."""

import json
import logging

import msgspec
import pytest
from rooms import real, stac_item

from mlhubfs.catalog.models import (
    CollectionRef,
    parse_collection,
    parse_collections,
    parse_dataset,
    parse_datasets,
    parse_item,
    parse_page,
    parse_time,
)
from mlhubfs.errors import BadAnswer

PARSERS = {
    "datasets": parse_datasets,
    "dataset": parse_dataset,
    "collections": lambda body: parse_collections(body, 0.0),
    "collection": lambda body: parse_collection(body, 0.0),
    "item": lambda body: parse_item(body, 0.0),
    "page": lambda body: parse_page(body, 0.0),
}


def encoded(value):
    return json.dumps(value).encode()


def test_the_recorded_datasets_parse():
    """All 31 of 2022, one with a null bbox, none passed over."""
    body = real("datasets_2022.json")
    datasets = parse_datasets(body)
    assert [one.id for one in datasets] == [one["id"] for one in json.loads(body)]
    assert len(datasets) == 31
    assert all(one.title and one.collection_ids and one.modified for one in datasets)
    assert json.loads(datasets[3].document) == json.loads(body)[3]


def test_the_recorded_early_dataset_parses():
    """BigEarthNet's of 2020 has six fields."""
    dataset = parse_dataset(real("bigearthnet_v1_dataset.json"))
    assert dataset.id == "bigearthnet_v1"
    assert set(dataset.collection_ids) == {"bigearthnet_v1_source", "bigearthnet_v1_labels"}


def test_the_recorded_early_collection_parses():
    """Its null title and its empty assets are no obstacle; its time is the end of its extent."""
    collection = parse_collection(real("bigearthnet_v1_labels.json"), 5.0)
    assert (collection.id, collection.assets, collection.fetched) == (
        "bigearthnet_v1_labels",
        (),
        5,
    )
    assert collection.modified == parse_time("2018-05-29T11:54:01Z") == 1527594841


@pytest.mark.parametrize("number", [0, 1])
def test_the_recorded_pages_of_bigearthnet_parse(number):
    """Thirty items each, also the one with the broken geometry, and the cursor."""
    page = parse_page(real(f"bigearthnet_v1_source_items_{number}.json"), 0.0)
    assert len(page.items) == 30
    assert page.matched is None
    assert "items?next=" in page.next
    for item in page.items:
        assert item.modified > 1497000000
        assets = parse_item(item.document, 1.0).assets
        assert {"B01", "B02", "B8A", "B12"} <= {asset.key for asset in assets}
        assert all(asset.media_type.startswith("image/tiff") for asset in assets)


@pytest.mark.parametrize(
    ("name", "count", "matched", "goes_on"),
    [("2021_kenya_02_page1", 30, None, True), ("2021_kenya_02_page2", 22, None, True),
     ("2021_kenya_02_page3_empty", 0, None, False), ("2022_kenya_02_page1", 10, 52, True),
     ("2022_kenya_02_page6", 2, 52, False)],
)  # fmt: skip
def test_the_recorded_pages_of_both_generations_parse(name, count, matched, goes_on):
    """With their counts and next links, or without."""
    page = parse_page(real(f"items_{name}.json"), 0.0)
    assert (len(page.items), page.matched, page.next is not None) == (count, matched, goes_on)


# --- fields that are missing, null, unknown or of another kind


def test_an_item_needs_nothing_but_an_id():
    """It has no time and no assets then; fields that nobody knows are no matter."""
    for value in (
        {"id": "a"},
        {"id": "a", "properties": None, "assets": None, "links": None, "novelty": [{}]},
        {"id": "a", "properties": {"datetime": None}, "assets": {}},
        {"id": "a", "properties": {"datetime": 5, "start_datetime": []}},
    ):
        item = parse_item(encoded(value), 7.0)
        assert (item.id, item.modified, item.assets, item.fetched) == ("a", 0.0, (), 7.0)
        assert json.loads(item.document) == value


def test_an_asset_without_a_usable_link_has_an_empty_one_and_the_others_stay():
    """No href, null, a number, or a URL that cannot be parsed."""
    assets = {
        "good": {"href": "https://h/a.tif", "type": None, "roles": [], "title": None},
        "none": {}, "null": None, "nulls": {"href": None}, "empty": {"href": ""},
        "number": {"href": 5}, "unreadable": {"href": "http://[oops/"},
    }  # fmt: skip
    item = parse_item(encoded(stac_item("a", assets)), 0.0)
    usable = {"good": "https://h/a.tif"}
    assert {one.key: one.href for one in item.assets} == dict.fromkeys(assets, "") | usable


@pytest.mark.parametrize("odd", [[], ["href"], "a.tif", 5, 10**40, 0.5, True, None])
def test_an_asset_that_is_no_object_is_passed_over(odd):
    """The others are files, of an item and of a collection."""
    assets = {"a": {"href": "https://h/a"}, "odd": odd, "z": {"href": "https://h/z"}}
    item = parse_item(encoded({"id": "i", "assets": assets}), 0.0)
    collection = parse_collection(encoded({"id": "c", "assets": assets}), 0.0)
    for value in (item, collection):
        assert [one.key for one in value.assets] == ["a", "z"]


@pytest.mark.parametrize(
    ("size", "known"),
    [(0, 0), (5, 5), ((1 << 63) - 1, (1 << 63) - 1), (1 << 63, None), (-1, None), (1.5, None),
     ("5", None), (True, None), (None, None), (10**40, None)],
)  # fmt: skip
def test_a_size_that_the_catalog_tells_must_be_one(size, known):
    """`file:size` is believed only where a file can have it."""
    asset = {"href": "https://h/a", "type": 5, "file:size": size}
    (found,) = parse_item(encoded(stac_item("a", {"x": asset})), 0.0).assets
    assert (found.size, found.media_type) == (known, None)


@pytest.mark.parametrize(
    ("properties", "seconds"),
    [
        ({"datetime": "2017-07-01T10:20:30Z"}, 1498904430),
        ({"datetime": "2017-07-01T12:20:30+02:00"}, 1498904430),
        ({"datetime": "2017-07-01T10:20:30"}, 1498904430),
        ({"datetime": "2017-07-01T10:20:30.250000000Z"}, 1498904430.25),
        ({"datetime": None, "start_datetime": "2017-07-01T10:20:30Z"}, 1498904430),
        ({"datetime": "yesterday"}, 0),
        ({"datetime": "2019-13-45T00:00:00Z"}, 0),
    ],
)
def test_the_time_of_an_item_is_its_datetime(properties, seconds):
    """In UTC unless it says otherwise; else its start; else 1970, the same at every call."""
    assert parse_item(encoded({"id": "a", "properties": properties}), 0.0).modified == seconds


@pytest.mark.parametrize("extent", [None, 5, "x", {}, {"temporal": None}, {"temporal": {}},
    {"temporal": {"interval": []}}, {"temporal": {"interval": [[]]}},
    {"temporal": {"interval": [[None, None]]}}, {"temporal": {"interval": "x"}}])  # fmt: skip
def test_a_collection_with_any_extent_parses(extent):
    """One that tells no time has none."""
    assert parse_collection(encoded({"id": "c", "extent": extent}), 0.0).modified == 0


def test_a_collection_without_an_end_is_as_old_as_its_beginning():
    """Ongoing collections have null for an end."""
    extent = {"temporal": {"interval": [["2017-07-01T10:20:30Z", None]]}}
    assert parse_collection(encoded({"id": "c", "extent": extent}), 0.0).modified == 1498904430


def test_a_dataset_with_nulls_parses():
    """And it may list a collection twice."""
    refs = [{"id": "c", "types": ["labels"]}, {"id": "b"}, {"id": "c", "types": None}]
    null = dict.fromkeys(["title", "doi", "tags", "bbox", "date_modified", "date_added"])
    dataset = parse_dataset(encoded({"id": "d", "collections": refs, **null, "new": 1}))
    assert dataset.collection_ids == ("c", "b")
    assert dataset.collections[0] == CollectionRef("c", ("labels",))
    assert dataset.modified == 0
    assert parse_dataset(b'{"id": "d", "collections": null}').collection_ids == ()


def test_the_counts_of_a_page_are_found_in_both_places():
    """`context` of MLHub and pgstac, `numberMatched` of OGC; either may be null."""
    for more, matched in (
        ({}, None),
        ({"context": {"matched": 5}}, 5),
        ({"numberMatched": 6}, 6),
        ({"context": {"returned": 1}, "numberMatched": 7}, 7),
        ({"context": None, "numberMatched": None}, None),
    ):
        assert parse_page(encoded({"features": [], **more}), 0.0).matched == matched


@pytest.mark.parametrize(
    ("links", "following"),
    [([], None), (None, None), ([{"rel": "self", "href": "x"}], None),
     ([{"rel": "next", "href": None}], None), ([{"rel": "next"}], None),
     ([{"rel": None}, {}, {"rel": "next", "href": "?token=2", "method": "GET"}], "?token=2")],
)  # fmt: skip
def test_the_next_link_may_be_null_or_missing(links, following):
    """Or there are no links at all."""
    assert parse_page(encoded({"features": [], "links": links}), 0.0).next == following
    assert parse_page(b'{"features": []}', 0.0).next is None


# --- what is no answer


@pytest.mark.parametrize("kind", sorted(PARSERS))
@pytest.mark.parametrize(
    "body",
    [
        b"", b"\0", b"null", b"5", b'"text"', b"{", b'{"id": 5}', b'{"id": null}', b"{}x",
        b"\xff\xfe",
        b"<html><body>Sign in</body></html>",
        b'{"id": "\xff"}',
        b'{"detail":"Not found"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"id":"a","assets":' + b'{"x":' * 100_000 + b"}" * 100_001,
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(kind, body):
    """Garbage, HTML, another document, bottomless nesting: BadAnswer, whatever was asked for."""
    with pytest.raises(BadAnswer, match="the server's answer is not a"):
        PARSERS[kind](body)


def test_one_bad_item_of_a_page_is_passed_over_and_said(caplog):
    """The others of the page are shown; the log tells that something was left out."""
    body = b'{"features": [{"id": "a"}, {"id": null}, 5, {"assets": {}}, {"id": "b"}]}'
    with caplog.at_level(logging.WARNING, "mlhubfs"):
        page = parse_page(body, 0.0)
    assert [item.id for item in page.items] == ["a", "b"]
    assert [record.message[:24] for record in caplog.records] == ["passed over in a listing"] * 3


def test_one_bad_dataset_or_collection_is_passed_over_and_said(caplog):
    """As with items."""
    with caplog.at_level(logging.WARNING, "mlhubfs"):
        assert [one.id for one in parse_datasets(b'[{"id": "a"}, {}, {"id": "b"}]')] == ["a", "b"]
        body = b'{"collections": [{"id": "a"}, null, {"id": "b", "links": 5}]}'
        assert [one.id for one in parse_collections(body, 0.0)] == ["a", "b"]
    assert len(caplog.records) == 2


def test_values_are_frozen():
    """They are shared by threads and kept in memory."""
    item = parse_item(b'{"id": "a"}', 0.0)
    with pytest.raises(AttributeError):
        item.id = "b"
    assert isinstance(item.document, bytes)
    assert isinstance(item, msgspec.Struct)
