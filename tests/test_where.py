"""Conditions: what they mean, how they are written, what of them a server is asked for."""

import io
import json
import math
import re
import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rooms import real

from mlhubfs.catalog.conditions import During, Within, condition, parse
from mlhubfs.catalog.where import Where
from mlhubfs.errors import BadCondition

LABELS = ["Rice fields", "Transitional woodland/shrub", "Beaches, dunes, sands"]


def item(bbox=None, **properties):
    return json.dumps({"id": "a", "bbox": bbox, "properties": properties}).encode()


def holds(text, **properties):
    return Where.parse([text]).matches(item(**properties))


# --- grammar


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda name: name not in {"datetime", "bbox", "text"}
)
values = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), min_size=1)


@given(names, values, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))
@example("a=b", ["|", "%", "/", "%7C", ""], "=")
@example("a!", ["=b"], "=")
@example("0", ["="], "<")
def test_what_is_written_is_read_back(name, values, operator):
    """Any name and any values, as the name of a directory."""
    made = condition(name, values, operator)
    assert parse(str(made)) == made
    assert "/" not in str(made)
    assert "\0" not in str(made)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("labels=Rice fields|Pastures", ("labels", "=", ("Rice fields", "Pastures"))),
        ("labels=Transitional woodland%2Fshrub", ("labels", "=", (LABELS[1],))),
        ("labels=Transitional woodland/shrub", ("labels", "=", (LABELS[1],))),
        ("a=50%", ("a", "=", ("50%",))),
        ("a=b%7Cc|d", ("a", "=", ("b|c", "d"))),
        ("eo:cloud_cover<=10.5", ("eo:cloud_cover", "<=", ("10.5",))),
        ("a!=", ("a", "!=", ("",))),
        ("a=b=c", ("a", "=", ("b=c",))),
    ],
)
def test_a_condition_is_a_name_an_operator_and_values(text, parts):
    """What a person writes, percent-encoded no more than is needed."""
    made = parse(text)
    assert (made.name, made.operator, made.values) == parts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labels", "name=value"),
        ("", "name=value"),
        ("=x", "name=value"),
        ("datetime=yesterday", "'yesterday' is no time"),
        ("datetime=", "no time"),
        ("datetime=..", "no time"),
        ("datetime=2017-13-01", "no time"),
        ("datetime=2017-07-31..2017-07-01", "ends before it begins"),
        ("datetime<2017-07-01..2017-07-02", "give one time"),
        ("bbox=9,47,10", "no box"),
        ("bbox=9,48,10,47", "no box"),
        ("bbox=9,47,10,north", "no box"),
        ("bbox=9,47,10,1e999", "no box"),
        ("bbox=500000,5650000,510000,5660000", "not in degrees: west and east are from -180"),
        ("bbox=170,-10,190,10", "west is more than east across the antimeridian"),
        ("bbox=9,-90.5,10,48", "south and north from -90 to 90"),
        ("bbox=9,47,0,10,91,500", "not in degrees"),
        ("bbox<9,47,10,48", "= and != only"),
        ("text>a", "= and != only"),
    ],
)
def test_what_is_no_condition_is_refused_in_words(text, words):
    """The message holds what was written and how it is to be."""
    with pytest.raises(BadCondition, match=words):
        parse(text)


def test_an_operator_is_one_of_six():
    """Also where the condition was not read from a text."""
    with pytest.raises(BadCondition, match="no operator"):
        condition("a", ["b"], "~")


# --- properties


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("labels=Rice fields", LABELS, True),
        ("labels=Rice", LABELS, False),
        ("labels=Pastures|Beaches, dunes, sands", LABELS, True),
        ("labels=Pastures", LABELS, False),
        ("labels!=Pastures", LABELS, True),
        ("labels!=Pastures|Rice fields", LABELS, False),
        ("labels=Rice fields", "Rice fields", True),
        ("labels=Rice fields", [{"name": "crop", "classes": ["Rice fields"]}], True),
        ("labels=Rice fields", [], False),
        ("labels=Rice fields", None, False),
    ],
)
def test_a_list_matches_by_any_of_its_members(text, labels, expected):
    """And by any of the condition's values; `!=` means none."""
    assert holds(text, labels=labels) is expected


@pytest.mark.parametrize("true", [True, "true", "True"])
@pytest.mark.parametrize("false", [False, "false", None, ...])
def test_booleans_are_booleans_or_texts_or_missing(true, false):
    """MLHub recorded all three, within one collection."""
    missing = {} if false is ... else {"snow": false}
    assert holds("snow=true", snow=true)
    assert not holds("snow=false", snow=true)
    assert holds("snow=false", **missing)
    assert not holds("snow=true", **missing)
    assert holds("snow!=true", **missing)
    assert not holds("snow!=false", **missing)
    assert holds("snow=true|false", **missing)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("x<10", 9, True),
        ("x<10", 10, False),
        ("x<=10", 10.0, True),
        ("x>9.5", 10, True),
        ("x>=1e1", 10, True),
        ("x=10", 10.0, True),
        ("x=10.0", 10, True),
        ("x!=10", 9, True),
        ("x=10", True, False),
        ("x=1", True, False),
        ("x<a", 3, False),
        ("x=a", 3, False),
        ("x<10", None, False),
        ("x=007", "7", False),
        ("x<b", "a", True),
        ("x=9007199254740993", 9007199254740992, False),
        ("x<2018-01-01", "2017-12-31T23:59:59Z", True),
        ("x<2018-01-01", "2018-01-01T00:00:00+01:00", True),
        ("x<=2018-01-01", "2018-01-01T12:00:00Z", True),
        ("x=2018-01-01", "2018-01-01T12:00:00Z", True),
        ("x>2018-01-01", "2018-01-01T12:00:00Z", False),
        ("x>2018-01-01", "2018-01-02", True),
        ("x=2018-01-01T12:00:00Z", "2018-01-01T13:00:00+01:00", True),
        ("x=2018-01-01", "new year", False),
    ],
)
def test_numbers_compare_as_numbers_and_times_as_times(text, value, expected):
    """What cannot be compared does not match; an id that looks like a number is a text."""
    assert holds(text, x=value) is expected


def test_all_conditions_must_hold():
    """And none admits everything that is an item."""
    where = Where.parse(["labels=Rice fields", "snow=false"])
    assert where.matches(item(labels=LABELS))
    assert not where.matches(item(labels=LABELS, snow="true"))
    assert Where().matches(item())


@pytest.mark.parametrize("name", ['a"b', "a\\b", "é", "a b", "class", "1"])
def test_any_name_may_be_that_of_a_property(name):
    """Also one that JSON has to escape."""
    assert Where((condition(name, ["x"]),)).matches(item(**{name: "x"}))


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b'{"properties": []}', b"\xff", b"1"])
def test_what_is_no_item_does_not_match(document):
    """Nor does it raise: a search goes on behind it."""
    assert not Where.parse(["a=1"]).matches(document)


def test_an_item_without_properties_matches_what_may_be_missing():
    """`properties` is null, or absent."""
    for document in (b'{"properties": null}', b"{}"):
        assert Where.parse(["snow=false"]).matches(document)
        assert not Where.parse(["snow=true"]).matches(document)


def test_a_phrase_is_looked_for_in_every_text():
    """Whatever its case and however deep; several phrases are several conditions."""
    fields = {"title": "Land Cover of Kenya", "publications": [{"title": "Crops"}], "year": 2019}
    for text, expected in [
        ("text=land cover", True),
        ("text=cover land", False),
        ("text=CROPS", True),
        ("text=2019", False),
        ("text=snow|kenya", True),
        ("text!=kenya", False),
    ]:
        assert Where.parse([text]).admits(fields) is expected
    assert not Where.parse(["text=land cover", "text=snow"]).admits(fields)
    assert Where.parse(["text=cover", "datetime=2017-07-01"]).matches(
        item(description="Cover", datetime="2017-07-01T00:00:00Z")
    )


def test_a_doi_is_the_same_in_any_case():
    """As the DOI foundation has it; a dataset without one matches none."""
    where = Where.parse(["doi=10.34911%2FRDNT.d2ce8i"])
    assert where.admits({"doi": "10.34911/rdnt.D2CE8I"})
    assert not where.admits({"doi": None})


# --- times


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("2017-07-01", True),
        ("2017-07-01T10:20:30Z", True),
        ("2017-07-01T12:20:30+02:00", True),
        ("2017-07-01T10:20:31Z", False),
        ("2017-06-30", False),
        ("2017-07-01..2017-07-31", True),
        ("2017-06-01..2017-07-01", True),
        ("2017-07-02..", False),
        ("2017-07-01..", True),
        ("..2017-07-01", True),
        ("..2017-06-30", False),
        ("2017-06-01/2017-07-01", True),
        ("2017-07-02/..", False),
        ("/2017-07-01", True),
        ("2016-01-01|2017-07-01", True),
    ],
)
def test_a_time_is_in_a_range_or_not(wanted, expected):
    """Bounds are in; a date means all of its day."""
    assert holds(f"datetime={wanted}", datetime="2017-07-01T10:20:30Z") is expected
    assert holds(f"datetime!={wanted}", datetime="2017-07-01T10:20:30Z") is not expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("datetime<2017-07-02", True),
        ("datetime<2017-07-01", False),
        ("datetime<=2017-07-01", True),
        ("datetime>2017-07-01", False),
        ("datetime>2017-06-30", True),
        ("datetime>=2017-07-01", True),
    ],
)
def test_a_time_is_compared_with_one(text, expected):
    """The operators of any property."""
    assert holds(text, datetime="2017-07-01T10:20:30Z") is expected


def test_an_item_that_lasts_matches_what_it_overlaps():
    """With `start_datetime` and `end_datetime`; one without any time matches none."""
    times = {"start_datetime": "2017-07-01T00:00:00Z", "end_datetime": "2017-07-31T00:00:00Z"}
    assert holds("datetime=2017-07-10", datetime=None, **times)
    assert holds("datetime=2017-07-31..", datetime="2017-07-01T00:00:00Z", **times)
    assert not holds("datetime=2017-08-01", **times)
    assert not holds("datetime=2017-08-01", datetime=None)
    assert not holds("datetime!=2017-08-01", datetime="soon")


# --- boxes


@pytest.mark.parametrize(
    ("wanted", "bbox", "expected"),
    [
        ("9,47,10,48", [9.5, 47.5, 9.6, 47.6], True),
        ("9,47,10,48", [10, 48, 11, 49], True),
        ("9,47,10,48", [10.1, 47, 11, 48], False),
        ("9,47,10,48", [9, 48.1, 10, 49], False),
        ("9,47,0,10,48,500", [9.5, 47.5, -10, 9.6, 47.6, 10], True),
        ("170,-10,-170,10", [175, 0, 176, 1], True),
        ("170,-10,-170,10", [-175, 0, -174, 1], True),
        ("170,-10,-170,10", [0, 0, 1, 1], False),
        ("-175,-10,-170,10", [170, 0, -172, 1], True),
        ("160,-10,165,10", [170, 0, -172, 1], False),
        ("0,0,1,1|9,47,10,48", [9.5, 47.5, 9.6, 47.6], True),
        ("-180,-90,180,90", [9, 47, 10, 48], True),
        ("9,47,10,48", None, False),
        ("9,47,10,48", ["9", "47", "10", "48"], False),
        ("9,47,10,48", [9, 47], False),
    ],
)
def test_a_box_touches_another_or_not(wanted, bbox, expected):
    """Bounds are in; either may cross the antimeridian; an item without a box is nowhere."""
    assert Where.parse([f"bbox={wanted}"]).matches(item(bbox)) is expected


# --- what a server is asked for


@pytest.mark.parametrize(
    ("texts", "query"),
    [
        (["labels=x"], {}),
        (["bbox=9,47,10,48.5"], {"bbox": "9,47,10,48.5"}),
        (["bbox=9,47,0,10,48,1"], {"bbox": "9,47,10,48"}),
        (["bbox=0,0,1,1|2,2,3,3"], {}),
        (["bbox!=0,0,1,1"], {}),
        (["datetime=2017-07-01T00:00:00Z.."], {"datetime": "2017-07-01T00:00:00Z/.."}),
        (
            ["datetime=2017-07-01|2017-07-31", "snow=true"],
            {"datetime": "2017-07-01T00:00:00Z/2017-07-31T23:59:59.999999Z"},
        ),
        (["datetime!=2017-07-01"], {}),
        (["datetime=..2016-12-31|2018-01-01.."], {}),
        (["datetime=0001-01-01T00:00:00+05:00"], {}),
        (["datetime>2017-07-01"], {"datetime": "2017-07-01T23:59:59.999999Z/.."}),
        (["bbox=0,0,1,1", "bbox=2,2,3,3"], {"bbox": "0,0,1,1"}),
    ],
)
def test_a_server_is_asked_for_what_it_can_tell_apart(texts, query):
    """Never for less than what the conditions admit, and in full RFC 3339."""
    assert Where.parse(texts).query() == query
    assert Where.parse(texts).query(()) == {}


def test_a_server_is_asked_for_the_box_to_the_last_digit():
    """A rounded one would miss items that touch its edge."""
    box = "-87.626953125,15.95604762305055,-87,15.961329081596643"
    assert Where.parse([f"bbox={box}"]).query() == {"bbox": box}


boxes = st.tuples(*[st.floats(-180, 180)] * 2, *[st.floats(-90, 90)] * 2).map(
    lambda box: [box[0], min(box[2:]), box[1], max(box[2:])]
)


@given(boxes, boxes)
def test_touching_is_mutual(one, other):
    """Whichever of the two is the item's."""
    made = [Within("bbox", "=", (",".join(map(repr, box)),)) for box in (one, other)]
    assert made[0].admits({"bbox": other}) == made[1].admits({"bbox": one})
    assert made[0].admits({"bbox": one})


@given(st.datetimes(), st.datetimes())
def test_every_time_of_a_range_is_in_it(one, other):
    """First and last included, whatever the order in which they come."""
    first, last = sorted((one, other))
    made = During("datetime", "=", (f"{first.isoformat()}Z..{last.isoformat()}Z",))
    for moment in (first, last):
        assert made.admits({"datetime": f"{moment.isoformat()}Z"})
    assert all(map(math.isfinite, made.intervals[0]))


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        ([], 2825),
        (["datetime=2018-12-15T00:00:00Z"], 9),
        (["datetime=2016-01-01/2016-12-31"], 325),
        (["bbox=-87.5610,5.9137,-87.5555,15.9191"], 9),
        (["bbox=-87.626953125,15.95604762305055,-87.6214599609375,15.961329081596643"], 37),
    ],
)
def test_the_items_of_a_real_catalog_are_those_that_others_counted(texts, count):
    """Marine debris: how many assets an independent reading found in each place and time."""
    where, assets = Where.parse(texts), set()
    with tarfile.open(fileobj=io.BytesIO(real("catalog_nasa_marine_debris.tar.gz"))) as tar:
        for member in tar:
            if member.isfile() and re.fullmatch(r"[^/]+(/[^/]+){3}\.json", member.name):
                document = tar.extractfile(member).read()
                if where.matches(document):
                    assets |= {one["href"] for one in json.loads(document)["assets"].values()}
    assert len(assets) == count
