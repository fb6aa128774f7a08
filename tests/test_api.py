"""The routes of the API, and the traps of its paging, against a server that sets them."""

from urllib.parse import parse_qs, urlencode

import pytest
from faulty import FaultyServer, Reply
from rooms import KEY, Rooms, answer, asked, features, mlhub, stac_collection, stac_item

from mlhubfs.catalog.api import Api
from mlhubfs.errors import BadAnswer, Denied, NotFound, Unavailable

ITEMS = "/v1/collections/c/items"


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.fixture
def api(host):
    with Rooms(host, api_key=KEY, page_size=30) as rooms:
        yield rooms.api


def next_request(host, api, following):
    """Return the request for the page that `following` links to."""
    host.on(ITEMS, answer(features([])))
    host.requests.clear()
    api.page("c", following)
    (request,) = host.requests
    return request


def test_the_first_page_asks_for_the_page_size(host, api):
    """And for nothing else."""
    request = next_request(host, api, None)
    assert (request.path, parse_qs(request.query)) == (ITEMS, {"limit": ["30"]})


@pytest.mark.parametrize(
    "base",
    [
        "https://staging.api.radiant.earth/mlhub/v1/collections/c/items",
        "http://10.0.0.7:8080/collections/c/items",
        "https://h/mlhub/v1/collections/c/items/",
        "https://h/%63ollections/c/items",
        "",
        "items",
    ],
)
def test_a_next_link_of_another_host_is_asked_at_our_own_root(host, api, base):
    """Trap 1: servers name the host that they believe they have; only the query is taken."""
    request = next_request(host, api, f"{base}?token=next%3Atile_02&limit=7")
    assert request.path == ITEMS
    assert parse_qs(request.query) == {"token": ["next:tile_02"], "limit": ["7"]}
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_a_next_link_to_another_route_is_followed_without_the_key():
    """A STAC API may page at `/search` or elsewhere; the key stays at its own origin."""
    with FaultyServer() as host, FaultyServer() as other, Rooms(host, api_key=KEY) as rooms:
        other.on("/search", answer(features([stac_item("a")])))
        page = rooms.api.page("c", f"{other.url}/search?collections=c&token=5")
        assert [item.id for item in page.items] == ["a"]
        (request,) = other.requests
        assert "authorization" not in request.headers
        assert KEY not in request.query
        assert host.requests == []


def test_the_key_is_cut_out_of_a_next_link(host, api):
    """Trap 2: recorded `next` and `previous` links carried the caller's key."""
    request = next_request(host, api, f"https://h{ITEMS}?token=a&key={KEY}")
    assert "key" not in parse_qs(request.query)
    assert KEY not in request.query


def test_the_limit_is_sent_again_where_the_link_leaves_it_out(host, api):
    """Trap 3: the 2022 server's `next` links have no `limit`, and its own default is 10."""
    request = next_request(host, api, f"https://h{ITEMS}?token=next%3Aa")
    assert parse_qs(request.query) == {"token": ["next:a"], "limit": ["30"]}


@pytest.mark.parametrize("token", ["a b+c&d=é/%", "%2526", "\N{FIRE}", "=="])
def test_a_token_arrives_as_the_server_wrote_it(host, api, token):
    """Whatever characters it has."""
    request = next_request(host, api, f"https://h{ITEMS}?{urlencode({'token': token})}")
    assert parse_qs(request.query)["token"] == [token]


@pytest.mark.parametrize("following", ["http://[oops/?token=1", "ftp://h/x", "mailto:me@h.org"])
def test_a_next_link_that_is_no_web_address_is_a_bad_answer(host, api, following):
    """Not a traceback."""
    with pytest.raises(BadAnswer):
        api.page("c", following)
    assert asked(host) == []


@pytest.mark.parametrize("identifier", ["", ".", ".."])
def test_an_id_that_a_path_cannot_hold_asks_nothing(host, api, identifier):
    """Trap 4: `..` would leave the route; such ids are looked for in the listing."""
    for call in (
        lambda: api.item("c", identifier),
        lambda: api.item(identifier, "a"),
        lambda: api.collection(identifier),
        lambda: api.dataset(identifier),
        lambda: api.page(identifier),
    ):
        with pytest.raises(NotFound):
            call()
    assert asked(host) == []


@pytest.mark.parametrize(
    ("identifier", "segment"),
    [("a/b", "a%2Fb"), ("../x", "..%2Fx"), ("a?b#c", "a%3Fb%23c"), ("%2F", "%252F"),
     ("é", "%C3%A9"), ("a b", "a%20b"), ("a\nb", "a%0Ab"), ("...", "..."), ("a\0b", "a%00b")],
)  # fmt: skip
def test_an_id_stays_one_segment_of_the_path(host, api, identifier, segment):
    """Slashes and the like are encoded, so that no id leaves its route."""
    host.on(f"/v1/collections/{segment}", answer(stac_collection(identifier)))
    host.on(f"/v1/collections/{segment}/items/{segment}", answer(stac_item(identifier)))
    assert api.collection(identifier).id == identifier
    assert api.item(identifier, identifier).id == identifier
    assert asked(host) == [
        f"/v1/collections/{segment}",
        f"/v1/collections/{segment}/items/{segment}",
    ]


def test_an_answer_about_something_else_is_not_it(host, api):
    """A server that folds case, or that falls back to something, has not got what was asked."""
    host.on(f"{ITEMS}/A", answer(stac_item("a")))
    host.on("/v1/collections/C", answer(stac_collection("c")))
    with pytest.raises(NotFound, match=r"'A'.*'a'"):
        api.item("c", "A")
    with pytest.raises(NotFound):
        api.collection("C")


def test_a_dataset_is_found_by_its_doi(host, api):
    """Anything with a slash is a DOI, and its slash is not escaped."""
    host.on("/v1/datasets/doi/10.34911/rdnt.d2ce8i", answer({"id": "bigearthnet_v1"}))
    host.on("/v1/datasets/bigearthnet_v1", answer({"id": "bigearthnet_v1"}))
    assert api.dataset("10.34911/rdnt.d2ce8i").id == "bigearthnet_v1"
    assert api.dataset("bigearthnet_v1").id == "bigearthnet_v1"


def test_a_source_without_datasets_is_told_from_one_that_fails(host, api):
    """A STAC API answers 404 or something else; a server that is down is not one without."""
    assert api.datasets() is None  # 404
    host.on("/v1/datasets", answer({"detail": "no such collection: datasets"}))
    assert api.datasets() is None
    host.on("/v1/datasets", answer([]))
    assert api.datasets() == []
    host.on("/v1/datasets", Reply(503))
    with pytest.raises(Unavailable):
        api.datasets()
    host.on("/v1/datasets", Reply(401))
    with pytest.raises(Denied):
        api.datasets()


def test_each_thing_is_one_request_with_the_time_it_was_asked_for(host, api):
    """Links in what comes back are as old as the question."""
    mlhub(host, {"d": {"c": [stac_item("a"), stac_item("b")]}})
    assert [one.id for one in api.datasets()] == ["d"]
    assert [one.id for one in api.collections()] == ["c"]
    assert api.collection("c").fetched <= api.item("c", "a").fetched
    page = api.page("c")
    assert [one.id for one in page.items] == ["a", "b"]
    assert all(one.fetched > 0 for one in page.items)
    assert asked(host) == [
        "/v1/datasets", "/v1/collections", "/v1/collections/c", f"{ITEMS}/a", ITEMS
    ]  # fmt: skip


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_root_may_end_in_a_slash(host, slash):
    """No route has two."""
    mlhub(host, {"d": {"c": []}})
    with Rooms(host) as rooms:
        api = Api(rooms.transport, rooms.root + slash, page_size=1)
        assert api.collection("c").id == "c"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_denied(host, api, status):
    """`check_key` asks for something that needs a key, and takes its absence for a yes."""
    host.on(f"{ITEMS}/c", Reply(status, body=b'{"detail":"Must provide API key"}'))
    with pytest.raises(Denied) as raised:
        api.check_key("c")
    assert KEY not in str(raised.value)
    host.on(f"{ITEMS}/c", Reply(404, body=b'{"detail":"Not found"}'))
    api.check_key("c")
