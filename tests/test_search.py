"""Searching a collection: what is found, what it costs, and where it stops."""

from datetime import datetime, timedelta
from itertools import islice
from urllib.parse import parse_qs

import pytest
from faulty import FaultyServer, Reply
from rooms import Rooms, answer, asked, features, mlhub, stac_item

from mlhubfs.catalog.models import LONG_AGO
from mlhubfs.catalog.where import Where
from mlhubfs.errors import NotFound, Unavailable
from mlhubfs.server.filters import item_bounds, parse_filter

ITEMS = "/v1/collections/c/items"
CORE = "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core"
JULY = Where.parse(["datetime=2017-07-01..2017-07-31"])
EVEN = Where.parse(["even=true"])


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.fixture
def rooms(host, tmp_path):
    """Make rooms on the index of this test, or without one."""

    def make(*, index=True, **more):
        return Rooms(host, index=tmp_path / "i" / "s.sqlite" if index else None, **more)

    return make


def numbered(count):
    """Return items of which every second is even; one a day, from 2017-06-30 on."""
    first = datetime.fromisoformat("2017-06-30T12:00:00+00:00")
    times = [(first + timedelta(days=n)).isoformat() for n in range(count)]
    return [
        {**stac_item(str(n), {"x": "/x.tif"}, even=n % 2 == 0, datetime=times[n]),
         "bbox": [n, 0, n + 0.5, 1]}
        for n in range(count)
    ]  # fmt: skip


def found(rooms, where, limit=None):
    return [item.id for item in rooms.catalog.search("c", where, limit)]


def filtering(host, items, *, classes=(CORE,), honest=True, forgets=False, fails=None):
    """Have `host` filter by bbox and datetime, and say so; return the queries, as they come.

    Or it is not `honest`, or `forgets` to link on with the question, or `fails` with a status.
    """
    mlhub(host, {"d": {"c": items}})
    host.on("/v1", answer({"conformsTo": list(classes)}))
    queries = []

    def page(request):
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        queries.append(query)
        if fails and {"bbox", "datetime"} & set(query):
            return Reply(fails)
        wanted = parse_filter(query.get("bbox"), query.get("datetime"))
        chosen = [one for one in items
                  if not (wanted and honest) or wanted.admits(item_bounds(one))]  # fmt: skip
        start, limit = int(query.get("token", "0")), int(query["limit"])
        kept = {} if forgets else {n: query[n] for n in ("bbox", "datetime") if n in query}
        more = "&".join(f"{n}={v}" for n, v in {**kept, "token": start + limit}.items())
        following = f"{host.url}{ITEMS}?{more}" if start + limit < len(chosen) else None
        return answer(features(chosen[start : start + limit], following))

    host.on(ITEMS, page)
    return queries


@pytest.mark.parametrize("index", [True, False])
def test_all_that_fulfil_the_conditions_are_found(host, rooms, index):
    """In the server's order, with an index and without, the first time and the second."""
    mlhub(host, {"d": {"c": numbered(25)}})
    with rooms(index=index, page_size=10) as these:
        for _ in range(2):
            assert found(these, EVEN) == [str(n) for n in range(0, 25, 2)]
            assert found(these, Where()) == [str(n) for n in range(25)]
            assert found(these, Where.parse(["even=false", "datetime=..2017-07-02"])) == ["1"]
            assert found(these, Where.parse(["even=none"])) == []


@pytest.mark.promise(
    "A search streams what it finds; it reads a complete listing from the index, else asks a "
    "server that filters and checks its answers, else walks the collection, and ends where its "
    "reader ends."
)
def test_a_complete_listing_is_searched_without_a_request(host, rooms):
    """What a search has walked is indexed, for the next mount too."""
    mlhub(host, {"d": {"c": numbered(25)}})
    with rooms(page_size=10) as first:
        expected = found(first, EVEN)
    asked(host)
    with rooms(page_size=10) as again:
        assert found(again, EVEN) == expected
        assert found(again, JULY)
    assert asked(host) == []


@pytest.mark.promise(
    "A search streams what it finds; it reads a complete listing from the index, else asks a "
    "server that filters and checks its answers, else walks the collection, and ends where its "
    "reader ends."
)
@pytest.mark.parametrize("index", [True, False])
def test_who_has_enough_ends_the_walk(host, rooms, index):
    """`| head -1` of a large collection costs a page, and one that is read ahead."""
    mlhub(host, {"d": {"c": numbered(1000)}})
    with rooms(index=index, page_size=10) as these:
        assert found(these, EVEN, limit=2) == ["0", "2"]
        results = these.catalog.search("c", EVEN)
        assert next(results).id == "0"
        results.close()
        assert asked(host).count(ITEMS) <= 3


@pytest.mark.promise(
    "A search streams what it finds; it reads a complete listing from the index, else asks a "
    "server that filters and checks its answers, else walks the collection, and ends where its "
    "reader ends."
)
def test_matches_come_before_the_walk_ends(host, rooms):
    """The first is there while the server has not answered the page behind."""
    items = numbered(30)
    mlhub(host, {"d": {"c": items}})
    with rooms(page_size=10) as these:
        results = these.catalog.search("c", EVEN)
        assert [one.id for one in islice(results, 5)] == ["0", "2", "4", "6", "8"]
        host.wait_for(ITEMS, 2)
        host.kill()
        with pytest.raises(Unavailable):
            list(results)
        host.restart()
        assert len(found(these, EVEN)) == 15


def test_the_items_that_are_found_have_links_that_work(host, rooms):
    """Those of the pages that came last; else they are of long ago, and to be renewed."""
    mlhub(host, {"d": {"c": numbered(3)}})
    with rooms() as these:
        assert all(item.fetched > LONG_AGO for item in these.catalog.search("c", EVEN))
    with rooms() as again:
        assert all(item.fetched == LONG_AGO for item in again.catalog.search("c", EVEN))
        (first, *_) = again.catalog.search("c", EVEN)
        assert [asset.key for asset in first.assets] == ["x"]


@pytest.mark.promise(
    "A search streams what it finds; it reads a complete listing from the index, else asks a "
    "server that filters and checks its answers, else walks the collection, and ends where its "
    "reader ends."
)
def test_a_server_that_filters_is_asked_to(host, rooms):
    """Only for what it says it knows; the rest is looked at here; its links keep the question."""
    for forgets in (False, True):
        queries = filtering(host, numbered(60), forgets=forgets)
        with rooms(index=False, page_size=10) as these:
            where = Where.parse(["datetime=2017-07-01..2017-07-31", "even=true"])
            assert found(these, where) == [str(n) for n in range(2, 32, 2)]
        when = "2017-07-01T00:00:00Z/2017-07-31T23:59:59.999999Z"
        assert len(queries) == 4
        assert all(query["datetime"] == when for query in queries)


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        (["datetime=2017-07-01|2017-07-20"], ["1", "20"]),
        (["datetime=2017-07-01..2017-07-03", "datetime!=2017-07-02"], ["1", "3"]),
        (["bbox=0,0,5,1", "bbox=5,0,9,1"], ["5"]),
        (["datetime>2017-07-10", "bbox=0,0,11.2,1"], ["11"]),
    ],
)
def test_a_server_that_knows_less_is_asked_for_more(host, rooms, texts, ids):
    """The span of several times, the first of two boxes; the rest is told apart here."""
    queries = filtering(host, numbered(30))
    with rooms(page_size=10) as these:
        assert found(these, Where.parse(texts)) == ids
    assert all({"bbox", "datetime"} & set(query) for query in queries)


@pytest.mark.parametrize(
    "classes",
    [[], ["https://api.stacspec.org/v1.0.0/core"], ["http://x/ogcapi-features-2/1.0/conf/crs"]],
)
def test_a_server_that_does_not_say_that_it_filters_is_not_asked(host, rooms, classes):
    """Nor one without a landing page: the collection is walked, and indexed."""
    queries = filtering(host, numbered(40), classes=classes)
    with rooms(page_size=10) as these:
        assert len(found(these, JULY)) == 31
        assert not any("datetime" in query for query in queries)
        assert these.catalog.listing("c").complete


@pytest.mark.parametrize(
    "version", ["https://api.stacspec.org/v1.0.0-beta.2/ogcapi-features", CORE + "/"]
)
def test_any_version_of_the_conformance_class_will_do(host, rooms, version):
    """Of STAC's, and of OGC's own."""
    queries = filtering(host, numbered(3), classes=[version])
    with rooms() as these:
        assert found(these, JULY) == ["1", "2"]
    assert "datetime" in queries[0]


@pytest.mark.promise(
    "A search streams what it finds; it reads a complete listing from the index, else asks a "
    "server that filters and checks its answers, else walks the collection, and ends where its "
    "reader ends."
)
def test_a_server_that_ignores_the_question_is_found_out(host, rooms):
    """Its first page holds what was not asked for: then the collection is walked instead, once."""
    queries = filtering(host, numbered(40), honest=False)
    with rooms(page_size=10) as these:
        for _ in range(2):
            assert len(found(these, JULY)) == 31
        assert len([one for one in queries if "datetime" in one]) == 1
        assert these.catalog.listing("c").complete


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_server_that_fails_at_the_question_is_walked(host, rooms, status):
    """Some say that they filter, and answer 500."""
    filtering(host, numbered(3), fails=status)
    with rooms() as these:
        assert found(these, Where.parse(["bbox=0.9,0,2,1"])) == ["1", "2"]


SEARCH = "https://api.stacspec.org/v1.0.0/item-search"
CQL2 = "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text"


def searching(host, items, *, classes, ignores=False):
    """Have `host` search for all of `items` at /search, and return what it was asked for.

    By ids and by collections, where it does not ignore them; other questions are remembered only.
    """
    mlhub(host, {"d": {"c": items}})
    host.on("/v1", answer({"conformsTo": [CORE, SEARCH, *classes]}))
    queryables = {"properties": {"platform": {"type": "string"}}}
    host.on("/v1/collections/c/queryables", answer(queryables))
    queries = []

    def search(request):
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        queries.append(query)
        others = [{**stac_item("other"), "collection": "e"}]
        found = [{**one, "collection": "c"} for one in items]
        if "ids" in query:
            found = [one for one in found if one["id"] in query["ids"].split(",")]
        return answer(features(found + others * ignores))

    host.on("/v1/search", search)
    return queries


@pytest.mark.parametrize(
    ("classes", "asked_for"),
    [
        (
            [f"{SEARCH}#filter", CQL2],
            {"filter": "(\"platform\" = 'x')", "filter-lang": "cql2-text"},
        ),
        ([f"{SEARCH}#query"], {"query": '{"platform":{"eq":"x"}}'}),
    ],
)
def test_what_filters_at_search_only_is_asked_there(host, rooms, classes, asked_for):
    """With the collection's id, and not below the collection, where it would be ignored."""
    items = [stac_item("a", platform="x"), stac_item("b", platform="y")]
    queries = searching(host, items, classes=classes)
    with rooms(index=False) as these:
        assert found(these, Where.parse(["platform=x"])) == ["a"]
    # What it ignores is found out, and the collection is walked.
    assert queries[0] == {**asked_for, "collections": "c", "limit": "100"}


def test_bbox_alone_is_asked_below_the_collection(host, rooms):
    """Every server takes it there."""
    queries = searching(host, numbered(3), classes=[f"{SEARCH}#query"])
    with rooms(index=False) as these:
        assert found(these, Where.parse(["bbox=0.9,0,2,1"])) == ["1", "2"]
    assert queries == []


def test_a_search_that_brings_other_collections_is_not_believed(host, rooms):
    """Their items would be shown where they are not."""
    items = [stac_item("a", platform="x")]
    searching(host, items, classes=[f"{SEARCH}#query"], ignores=True)
    with rooms(index=False) as these:
        assert found(these, Where.parse(["platform=x"])) == ["a"]
        assert found(these, Where.parse(["platform=y"])) == []


@pytest.mark.parametrize(("is_announced", "is_honest"), [(1, 1), (1, 0), (0, 1)])
def test_an_id_that_no_path_can_hold_is_searched_for(host, rooms, is_announced, is_honest):
    """Instead of walking the collection, where the server has a search and it works."""
    items = [*numbered(30), stac_item("..")]
    queries = searching(host, items, classes=[], ignores=not is_honest)
    if not is_announced:
        host.on("/v1", answer({"conformsTo": [CORE]}))
    with rooms(page_size=10) as these:
        assert these.catalog.item("c", "..").id == ".."
    assert queries == [{"ids": "..", "collections": "c", "limit": "10"}] * is_announced
    assert (asked(host).count(ITEMS) == 0) == bool(is_announced and is_honest)


@pytest.mark.parametrize("status", [403, 500])
def test_a_server_that_does_not_tell_what_it_filters_by_is_walked(host, rooms, status):
    """All that fulfil the conditions are found nevertheless."""
    filtering(host, numbered(5), classes=(CORE, CQL2, "https://x/conf/features-filter"))
    host.on("/v1/collections/c/queryables", Reply(status))
    assert found(rooms(), EVEN) == ["0", "2", "4"]


def test_a_complete_listing_needs_no_server_that_filters(host, rooms):
    """The index answers sooner, and all the same."""
    queries = filtering(host, numbered(40))
    with rooms(page_size=10) as these:
        list(these.catalog.listing("c").iterate())
        queries.clear()
        assert len(found(these, JULY)) == 31
    assert queries == []


def test_an_index_that_fails_does_not_end_a_search(host, rooms, tmp_path, monkeypatch):
    """What is missing comes from the pages, and nothing twice."""
    mlhub(host, {"d": {"c": numbered(25)}})
    with rooms(page_size=10) as these:
        results = these.catalog.search("c", EVEN)
        before = [next(results).id for _ in range(3)]
        these.index.close()
        after = [item.id for item in results]
    assert before + after == [str(n) for n in range(0, 25, 2)]


def test_a_collection_that_is_not_there_is_not_found(host, rooms):
    """However it is asked for."""
    mlhub(host, {"d": {}})
    host.on("/v1", answer({"conformsTo": [CORE]}))
    with rooms() as these:
        for where in (EVEN, JULY):
            with pytest.raises(NotFound):
                found(these, where)
