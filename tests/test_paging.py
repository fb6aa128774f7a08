"""The ways in which STAC APIs page, each by a small server that does so."""

import json
from urllib.parse import parse_qs

import pytest
from faulty import FaultyServer, Reply
from rooms import KEY, Rooms, answer, features, stac_collection, stac_item

from mlhubfs.catalog.paging import Pages
from mlhubfs.errors import BadAnswer

IDS = [f"item-{number:02}" for number in range(25)]
ROUTE = "/v1/collections/c/items"
COLLECTIONS = "/v1/collections"


class Shelf:
    """The items IDS behind `host`; `style` returns the next link after `stop` of them."""

    def __init__(self, host, style, most=10):
        self.url = f"{host.url}{ROUTE}"
        self.search = f"{host.url}/v1/search"
        self.bodies = []
        self._style = style
        self._most = most
        host.on("/v1/collections/c", answer(stac_collection("c")))
        host.on(ROUTE, self._answer)
        host.on("/v1/search", self._answer)

    def _answer(self, request):
        asked = {name: values[-1] for name, values in parse_qs(request.query).items()}
        if request.method == "POST":
            asked = json.loads(request.body)
            self.bodies.append(asked)
        limit = min(int(asked.get("limit", 10)), self._most)
        start = int(asked.get("skip") or asked.get("offset") or asked.get("token", "after-0")[6:])
        if "page" in asked:
            start = (int(asked["page"]) - 1) * limit
        stop = start + limit
        link = self._style(self, stop, limit, asked) if stop < len(IDS) else None
        page = features([stac_item(one) for one in IDS[start:stop]])
        page["links"] = [{"rel": "self", "href": self.url}, *([link] if link else [])]
        return answer(page)


def by_post(shelf, stop, limit, asked):
    """A body that is complete: Earth Search's way."""
    body = {"collections": ["c"], "token": f"after-{stop}", "limit": limit}
    return {"rel": "next", "href": shelf.search, "method": "POST", "body": body, "merge": False}


def by_merging(shelf, stop, limit, asked):
    """A body that is what changes."""
    body = {"token": f"after-{stop}"}
    return {"rel": "next", "href": shelf.search, "method": "POST", "body": body, "merge": True}


def by_forgetful_post(shelf, stop, limit, asked):
    """A body that does not say of which collection."""
    body = {"token": f"after-{stop}", "limit": limit}
    return {"rel": "next", "href": shelf.search, "method": "post", "body": body}


def by_query(form):
    """An href with a query."""

    def link(shelf, stop, limit, asked):
        query = form.format(stop=stop, limit=limit, page=stop // limit + 1)
        return {"rel": "next", "href": f"{shelf.url}?{query}", "method": "GET"}

    return link


STYLES = {
    "token": by_query("token=after-{stop}"),
    "skip": by_query("skip={stop}&limit={limit}"),
    "offset": by_query("offset={stop}&limit={limit}"),
    "page": by_query("page={page}&limit={limit}"),
    "POST": by_post,
    "POST, merge": by_merging,
    "POST, forgetful": by_forgetful_post,
}


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


def walked(rooms):
    return [item_id for item_id, _ in rooms.catalog.listing("c").iterate()]


@pytest.mark.parametrize("most", [10, 1000], ids=["clamps", "gives all"])
@pytest.mark.parametrize("style", STYLES)
def test_every_item_comes_once_and_in_order(host, tmp_path, style, most):
    """Whatever the way of paging, and whether the server takes larger pages."""
    Shelf(host, STYLES[style], most)
    with Rooms(host, page_size=10, index=tmp_path / "index.sqlite") as rooms:
        listing = rooms.catalog.listing("c")
        assert [item_id for item_id, _ in listing.iterate()] == IDS
        assert (listing.complete, listing.problem) == (True, None)


@pytest.mark.parametrize("style", ["token", "skip", "offset", "page", "POST", "POST, merge"])
def test_pystac_client_walks_the_same(host, style):
    """The servers above are such as others can page; ours is not the only reading of them."""
    shelf = Shelf(host, STYLES[style])
    search = pytest.importorskip("pystac_client").ItemSearch
    if style.startswith("POST"):
        pages = search(shelf.search, method="POST", collections=["c"], limit=10)
    else:
        pages = search(shelf.url, method="GET", limit=10)
    assert [item["id"] for item in pages.items_as_dicts()] == IDS


@pytest.mark.parametrize("style", STYLES)
def test_a_walk_goes_on_with_another_process(host, tmp_path, style):
    """The cursor that is kept on disk holds all that the next page needs."""
    Shelf(host, STYLES[style])
    with Rooms(host, page_size=10, index=tmp_path / "index.sqlite") as rooms:
        rooms.catalog.listing("c").reach(9)
    asked = len(host.requests)
    with Rooms(host, page_size=10, index=tmp_path / "index.sqlite") as rooms:
        assert walked(rooms) == IDS
    # What the first one looked for ahead may come in late: the same page, the collection.
    pages = {(one.query, one.body) for one in host.requests[asked:] if one.query or one.body}
    assert len(pages) == 2


def test_merging_keeps_what_was_sent_before(host):
    """A search that goes on must stay in its collection, with its limit."""
    shelf = Shelf(host, by_merging)
    with Rooms(host, page_size=10) as rooms:
        walked(rooms)
    assert [body["collections"] for body in shelf.bodies] == [["c"], ["c"]]
    assert [body["token"] for body in shelf.bodies] == ["after-10", "after-20"]
    assert all(int(body["limit"]) == 10 for body in shelf.bodies)


def test_a_body_without_a_collection_is_told_which(host):
    """Else another collection's items would be taken for this one's."""
    shelf = Shelf(host, by_forgetful_post)
    with Rooms(host, page_size=10) as rooms:
        walked(rooms)
    assert [body["collections"] for body in shelf.bodies] == [["c"], ["c"]]


def test_the_headers_of_a_link_are_sent_and_ours_stay(host):
    """A server may want some of its own repeated; it does not choose ours."""
    headers = {"X-Page": "7", "Authorization": "Bearer theirs", "Host": "else", "Content-Length": 0}
    link = {"rel": "next", "href": f"{host.url}{ROUTE}?token=2", "headers": headers}
    host.on(ROUTE, answer({**features([stac_item("a")]), "links": [link]}), answer(features([])))
    with Rooms(host, api_key=KEY) as rooms:
        first = rooms.api.page("c")
        rooms.api.page("c", first.next)
    request = host.requests[-1]
    assert request.headers["x-page"] == "7"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["host"] == f"127.0.0.1:{host.port}"


def test_a_body_goes_to_another_host_without_the_key(host):
    """As any request does."""
    with FaultyServer() as other, Rooms(host, api_key=KEY) as rooms:
        link = {"rel": "next", "href": f"{other.url}/search", "method": "POST", "body": {"a": 1}}
        host.on(ROUTE, answer({**features([]), "links": [link]}))
        other.on("/search", answer(features([stac_item("z")])))
        page = rooms.api.page("c", rooms.api.page("c").next)
        assert [item.id for item in page.items] == ["z"]
        (request,) = other.requests
        assert "authorization" not in request.headers


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_body_follows_a_redirect(host, status):
    """From http to https, or to the path with a slash: the question stays the same."""
    host.on("/v1/search", Reply(status, {"Location": "/v1/search/"}))
    host.on("/v1/search/", lambda request: answer(features([stac_item(request.body.decode())])))
    with Rooms(host) as rooms:
        found = rooms.transport.post_document(f"{host.url}/v1/search", b"asked")
    assert json.loads(found.body)["features"][0]["id"] == "asked"


def test_see_other_is_asked_for_without_the_body(host):
    """303 means GET, be it at the same URL."""
    page = answer(features([stac_item("found")]))

    def search(request):
        return page if request.method == "GET" else Reply(303, {"Location": "/v1/search"})

    host.on("/v1/search", search)
    with Rooms(host) as rooms:
        found = rooms.transport.post_document(f"{host.url}/v1/search", b"asked")
    assert found.body == page.body
    assert [(one.method, one.body) for one in host.requests] == [("POST", b"asked"), ("GET", b"")]
    assert "content-type" not in host.requests[1].headers


@pytest.mark.parametrize(
    ("href", "expected"),
    [("http://h.org/v1/search", "https://h.org/v1/search"),
     ("http://h.org:8080/v1/search?token=2", "https://h.org/v1/search"),
     ("http://other.org/v1/search", "http://other.org/v1/search")],
)  # fmt: skip
def test_plain_http_on_our_https_host_is_asked_by_https(host, href, expected):
    """A server behind a proxy that ends TLS names the scheme that it sees itself."""
    with Rooms(host) as rooms:
        pages = Pages(rooms.transport, "https://h.org/v1")
        assert pages.locate("/collections/c/items", href)[0] == expected


@pytest.mark.parametrize(
    "link",
    [{"rel": "next", "href": None}, {"rel": "next"}, {"rel": "next", "href": 5}, {"rel": None},
     {"rel": "next", "href": None, "method": "POST"}],
)  # fmt: skip
def test_a_next_link_that_leads_nowhere_is_an_end(host, link):
    """A last page may say so with null."""
    host.on(ROUTE, answer({**features([stac_item("a")], context={"matched": 1}), "links": [link]}))
    with Rooms(host) as rooms:
        assert walked(rooms) == ["a"]


@pytest.mark.parametrize(
    "odd",
    [{"method": 5}, {"method": "POST", "body": []}, {"headers": [1]}, {"merge": "yes"},
     {"method": "POST", "headers": {"A\r\nB": "x", "C": "d\r\nE: f", "G": 7}}],
)  # fmt: skip
def test_an_odd_next_link_is_followed_as_far_as_it_makes_sense(host, odd):
    """Neither a traceback, nor a header that the server writes for us."""
    link = {"rel": "next", "href": f"{host.url}{ROUTE}?token=2", **odd}
    host.on(ROUTE, answer({**features([stac_item("a")]), "links": [link]}), answer(features([])))
    with Rooms(host) as rooms:
        assert walked(rooms) == ["a"]
    assert not {"a", "b", "e", "g"} & set(host.requests[-1].headers)


def test_a_cursor_that_is_damaged_is_a_bad_answer(host):
    """Not a traceback: it may come from another release's index."""
    with Rooms(host) as rooms, pytest.raises(BadAnswer):
        rooms.api.page("c", '{"href": 5}')


def test_post_pages_that_lead_back_end_incomplete(host, caplog):
    """A loop is noticed by the whole question, not by its URL."""
    body = {"collections": ["c"], "token": "same"}
    link = {"rel": "next", "href": f"{host.url}/v1/search", "method": "POST", "body": body}
    for route in (ROUTE, "/v1/search"):
        host.on(route, answer({**features([stac_item("a")]), "links": [link]}))
    with Rooms(host) as rooms:
        listing = rooms.catalog.listing("c")
        list(listing.iterate())
        assert "leads back" in listing.problem


class TestCollections:
    """`/collections` pages as well."""

    def names(self, rooms):
        return [one.id for one in rooms.api.collections()]

    def page(self, ids, following=None, **more):
        links = [{"rel": "next", "href": following}] if following else []
        return answer(
            {"collections": [stac_collection(one) for one in ids], "links": links, **more}
        )

    def test_all_pages_are_read(self, host):
        """To the one without a link."""
        url = f"{host.url}{COLLECTIONS}?token="
        pages = [self.page("ab", f"{url}2"), self.page("cd", f"{url}3"), self.page("e")]
        host.on(COLLECTIONS, *pages)
        with Rooms(host) as rooms:
            assert self.names(rooms) == list("abcde")
        assert [one.query for one in host.requests] == ["", "token=2", "token=3"]

    def test_a_link_that_leads_back_is_an_end(self, host):
        """The mount must not hang on it."""
        host.on(COLLECTIONS, self.page("ab", f"{host.url}{COLLECTIONS}?token=2"))
        with Rooms(host) as rooms:
            assert self.names(rooms) == ["a", "b"]
        assert len(host.requests) == 2

    def test_a_count_that_is_higher_is_asked_for(self, host):
        """Some list ten, tell how many there are, and link to nothing."""
        host.on(COLLECTIONS, self.page("ab", numberMatched=4), self.page("abcd", numberMatched=4))
        with Rooms(host) as rooms:
            assert self.names(rooms) == list("abcd")
        assert host.requests[-1].query == "limit=4"

    def test_a_count_that_stays_higher_is_said(self, host, caplog):
        """And what there is is shown."""
        host.on(COLLECTIONS, self.page("ab", numberMatched=4))
        with Rooms(host) as rooms:
            assert self.names(rooms) == ["a", "b"]
        assert "counts 4 collections and lists 2" in caplog.text
