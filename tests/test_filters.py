"""Conditions that a server is told in its language, and those that it must not be told."""

import json
import re
from urllib.parse import parse_qs

import pytest
from faulty import FaultyServer, Reply
from rooms import Rooms, answer, features, stac_item

from mlhubfs.catalog.filters import express
from mlhubfs.catalog.where import Where

TYPES = {"cloud": "number", "n": "integer", "platform": "string", "snow": "boolean", "l": "array"}


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("cloud<10", '("cloud" < 10)'),
        ("cloud>=0.5", '("cloud" >= 0.5)'),
        ("n=1|2", '("n" = 1 OR "n" = 2)'),
        ("platform=a'b|c", "(\"platform\" = 'a''b' OR \"platform\" = 'c')"),
        ("platform=5", "(\"platform\" = '5')"),
        ("snow=true", '("snow" = true)'),
        ("snow=false", '(("snow" = false OR "snow" IS NULL))'),
    ],
)
def test_what_means_the_same_is_told(condition, text):
    """Including what is missing, where that counts here."""
    where = Where.parse([condition])
    assert express(where, {"filter"}, TYPES) == (
        {"filter": text, "filter-lang": "cql2-text"}, where
    )  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "query"),
    [
        (["cloud<10"], {"cloud": {"lt": 10}}),
        (["n>=1", "n<=5"], {"n": {"gte": 1, "lte": 5}}),
        (["platform=a|b"], {"platform": {"in": ["a", "b"]}}),
        (["snow=true"], {"snow": {"eq": True}}),
    ],
)
def test_what_means_the_same_is_told_in_the_older_language(conditions, query):
    """STAC's `query`."""
    where = Where.parse(conditions)
    said, expressed = express(where, {"query"}, TYPES)
    assert ({"query": query}, expressed) == ({"query": json.loads(said["query"])}, where)


@pytest.mark.parametrize("condition", ["snow=false", "cloud<1|2"])
def test_the_older_language_knows_neither_or_nor_nothing(condition):
    """A missing boolean is false here."""
    assert express(Where.parse([condition]), {"query"}, TYPES) == ({}, Where())


@pytest.mark.parametrize(
    "condition",
    [
        "cloud!=5", "cloud<high", "cloud=1|high", "platform<b", "platform=true",
        "platform=2017-07-01", "snow=1", "l=forest", "unknown=5", "text=5", "datetime=2017-07-01",
        "bbox=1,2,3,4",
    ],
)  # fmt: skip
def test_what_might_mean_less_is_not_told(condition):
    """It is looked at here."""
    assert express(Where.parse([condition]), {"filter", "query"}, TYPES) == ({}, Where())


def test_a_name_is_quoted():
    """A property's name is the server's, and may hold anything."""
    where = Where.parse(['a"b;--=5'])
    assert express(where, {"filter"}, {'a"b;--': "number"})[0]["filter"] == '("a""b;--" = 5)'


class Filtering:
    """A server with a hundred items that understands `"cloud" < N`, or only says so."""

    def __init__(self, host, *, honest=True):
        self.host = host
        self.honest = honest
        cql2 = "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text"
        features_filter = "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter"
        core = "https://api.stacspec.org/v1.0.0-rc.3/ogcapi-features"
        host.on("/v1", answer({"conformsTo": [cql2, features_filter, core]}))
        host.on("/v1/datasets", Reply(404))
        queryables = {"properties": {"cloud": {"type": "number"}}}
        host.on("/v1/collections/c/queryables", answer(queryables))
        host.on("/v1/collections/c/items", self._answer)

    def _answer(self, request):
        text = parse_qs(request.query).get("filter", [""])[0]
        match = re.fullmatch(r'\("cloud" < (\d+)\)', text)
        most = int(match[1]) if match and self.honest else 100
        items = [stac_item(f"i{number:02}", cloud=number) for number in range(most)]
        return answer(features(items, context={"matched": most}))


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.mark.parametrize("honest", [True, False])
def test_a_search_asks_the_server_that_filters(host, honest):
    """And looks through its answer, whether it does what it says or not."""
    Filtering(host, honest=honest)
    with Rooms(host) as rooms:
        found = [one.id for one in rooms.catalog.search("c", Where.parse(["cloud<3"]))]
    assert found == ["i00", "i01", "i02"]
    asked = [parse_qs(one.query) for one in host.to("/v1/collections/c/items")]
    assert asked[0]["filter"] == ['("cloud" < 3)']
    assert asked[0]["filter-lang"] == ["cql2-text"]
    assert len(asked) == (1 if honest else 2)


def test_what_cannot_be_told_is_not_asked(host):
    """The collection is walked instead."""
    Filtering(host)
    with Rooms(host) as rooms:
        found = [one.id for one in rooms.catalog.search("c", Where.parse(["cloud!=3"]))]
    assert len(found) == 99
    assert not any("filter" in one.query for one in host.requests)
