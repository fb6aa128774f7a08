"""Collections found by a text: what a server is asked for, and what is done here all the same."""

import re
from urllib.parse import parse_qs, urlencode

import pytest
from click.testing import CliRunner
from faulty import FaultyServer, Reply
from rooms import Rooms, answer, asked, stac_collection

import mlhubfs
from mlhubfs.catalog.filters import free_text
from mlhubfs.catalog.where import Where
from mlhubfs.cli import cli
from mlhubfs.errors import NotFound, Offline

SEARCH = "https://api.stacspec.org/v1.0.0-rc.1/collection-search"
TITLES = {
    "a": "Land cover of Kenya",
    "b": "Landsat scenes",
    "c": "Covers of lands",
    "d": "Rice",
    "e": "Land cover of Ghana",
}


class Texts(FaultyServer):
    """A STAC API that finds words as pgstac does, and pages its collections two by two."""

    def __init__(self, *classes, status=200):
        super().__init__()
        self.status = status
        self.queries = []
        """What `/collections` was asked for, without paging."""
        collections = [
            {**stac_collection(one), "title": title, "keywords": [f"key{one}"]}
            for one, title in TITLES.items()
        ]
        self.on("/v1", answer({"conformsTo": classes or (SEARCH, f"{SEARCH}#free-text")}))
        for one in collections:
            self.on(f"/v1/collections/{one['id']}", answer(one))
        self.on("/v1/collections", lambda request: self._page(request, collections))

    def _page(self, request, collections):
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        start = int(query.pop("token", 0))
        if not start:
            self.queries.append(query)
        if "q" in query and self.status != 200:
            return Reply(self.status)
        if "q" in query:
            terms = [_stems(term) for term in query["q"].split(",")]
            collections = [one for one in collections
                           if any(term <= _stems(_told(one)) for term in terms)]  # fmt: skip
        more = urlencode({**query, "token": start + 2})
        links = [{"rel": "next", "href": f"?{more}"}] if start + 2 < len(collections) else []
        return answer({"collections": collections[start : start + 2], "links": links})


def _told(one):
    return " ".join((one["title"], one["description"], *one["keywords"]))


def _stems(text):
    return {word.removesuffix("s") for word in re.findall(r"\w+", text.lower())}


def links(host, path):
    """Return the names in a view of a mount that has just been made."""
    with Rooms(host) as rooms:
        return rooms.names(path)


@pytest.fixture
def host():
    with Texts() as host:
        yield host


@pytest.mark.promise(
    "Collections are searched for a text in their list, if that is at hand; else an API that "
    "announces free-text search is asked and its answers are checked: it may pass over what is "
    "no whole word of title, description or keywords, and the list is read if nothing is found."
)
def test_a_server_that_searches_texts_is_asked_rather_than_its_list_read(host):
    """All pages of its answer; what it finds by a word's stem or in another order is left out."""
    assert links(host, "/@where/text=LAND cover") == ["a", "e"]
    assert host.queries == [{"q": "LAND cover"}]


def test_any_of_several_phrases_is_asked_for_at_once(host):
    """`|` is a comma; further conditions are looked at here."""
    assert links(host, "/@where/text=rice|Land cover of Ghana/tags=keye/text=ghana") == ["e"]
    assert host.queries == [{"q": "rice,Land cover of Ghana"}]


@pytest.mark.promise(
    "Collections are searched for a text in their list, if that is at hand; else an API that "
    "announces free-text search is asked and its answers are checked: it may pass over what is "
    "no whole word of title, description or keywords, and the list is read if nothing is found."
)
@pytest.mark.parametrize("text", ["ands", "ndsat", "nothing"])
def test_an_answer_that_leaves_nothing_is_not_believed(host, text):
    """A part of a word is no word; what is not there at all costs the list as well."""
    expected = [one for one, title in TITLES.items() if text in title.lower()]
    assert links(host, f"/@where/text={text}") == expected
    assert host.queries == [{"q": text}, {}]


@pytest.mark.promise(
    "Collections are searched for a text in their list, if that is at hand; else an API that "
    "announces free-text search is asked and its answers are checked: it may pass over what is "
    "no whole word of title, description or keywords, and the list is read if nothing is found."
)
def test_a_list_at_hand_is_searched_without_a_request(host):
    """And completely."""
    with Rooms(host) as rooms:
        rooms.names("/")
        asked(host)
        assert rooms.names("/@where/text=land") == ["a", "b", "c", "e"]
        assert asked(host) == []


@pytest.mark.parametrize(
    "classes",
    [
        (f"{SEARCH}#free-text",),
        ("https://api.stacspec.org/v1.0.0/collection-search#free-text/",),
        (SEARCH, "https://api.stacspec.org/v1.0.0-rc.3/free-text"),
    ],
)
def test_a_search_is_announced_by_a_class_of_any_version(classes):
    """By the end of its name."""
    with Texts(*classes) as host:
        assert links(host, "/@where/text=rice") == ["d"]
        assert host.queries == [{"q": "rice"}]


@pytest.mark.parametrize(
    "classes",
    [(SEARCH,), (SEARCH, SEARCH.replace("collection", "item") + "#free-text"), (f"{SEARCH}#sort",)],
)
def test_what_is_not_announced_is_done_here(classes):
    """From the list."""
    with Texts(*classes) as host:
        assert links(host, "/@where/text=rice") == ["d"]
        assert host.queries == [{}]


@pytest.mark.parametrize("status", [400, 403, 404, 500, 501])
def test_a_server_that_refuses_to_search_is_not_asked_again(status):
    """It is done here from then on."""
    with Texts(status=status) as host, Rooms(host) as rooms:
        assert rooms.names("/@where/text=rice") == ["d"]
        assert rooms.names("/@where/text=kenya") == ["a"]
        assert {} in host.queries
        assert "kenya" not in {query.get("q") for query in host.queries}


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        (["text=land cover"], "land cover"),
        (["text=land|water", "text=x"], "land,water"),
        (["text=sentinel-2", "text=rice"], "rice"),
        (["tags=x", "text=größe"], "größe"),
        (["text=sentinel-2"], None),
        (['text="land"'], None),
        (["text=a|b%2Cc"], None),
        (["text=+land"], None),
        (["text= land"], None),
        (["text="], None),
        (["text!=land"], None),
        (["title=land"], None),
        ([], None),
    ],
)
def test_only_words_are_asked_for(conditions, told):
    """For to a server `-2` is "without 2"."""
    assert free_text(Where.parse(conditions)) == told


def test_a_known_path_costs_one_look_up(host):
    """By the id, whatever the server's search would find."""
    with Rooms(host) as rooms:
        assert rooms.tree.node("/@where/text=andsa/b").target == "../../b"
        with pytest.raises(NotFound):
            rooms.tree.node("/@where/text=andsa/a")
    paths = [one for one in asked(host) if one.startswith("/v1/collections")]
    assert paths == ["/v1/collections/b", "/v1/collections/a"]


def test_a_list_that_was_never_read_is_not_empty_offline(host, tmp_path):
    """A search has found some of it, and they are not all."""
    index = tmp_path / "i" / "s.sqlite"
    with Rooms(host, index=index) as rooms:
        assert rooms.names("/@where/text=rice") == ["d"]
    with Rooms(host, index=index, offline=True) as rooms, pytest.raises(Offline):
        rooms.names("/")


def test_a_page_that_is_asked_for_by_post_is_of_the_same_text(host):
    """As a list of phrases, in a body that had forgotten it."""
    bodies = []

    def page(request):
        if request.method == "POST":
            bodies.append(request.body)
            return answer({"collections": [{**stac_collection("f"), "title": "Rice"}]})
        link = {"rel": "next", "href": "collections", "method": "POST", "body": {"page": 2}}
        return answer({"collections": [], "links": [link]})

    host.on("/v1/collections", page)
    assert links(host, "/@where/text=rice") == ["f"]
    assert bodies == [b'{"q":["rice"],"page":2}']


class TestCommand:
    """`mlhubfs collections --match`, and the Python API."""

    @pytest.fixture
    def catalog(self, host, tmp_path):
        settings = {"profile": "__anonymous__", "cache_dir": tmp_path / "cache"}
        with mlhubfs.Catalog(f"{host.url}/v1", **settings) as catalog:
            yield catalog

    @pytest.mark.parametrize(
        ("match", "found", "queries"),
        [
            ("land cover", ["a", "e"], [{"q": "land cover"}]),
            ("keyd", [], [{"q": "keyd"}, {}]),
            ("ANDSAT", ["b"], [{"q": "ANDSAT"}, {}]),
            ("", list(TITLES), [{}]),
        ],
    )
    def test_a_match_is_asked_for(self, host, catalog, match, found, queries):
        """After one collection, with which the key is tried; keywords are not among its texts."""
        assert [one.id for one in catalog.collections(match)] == found
        assert host.queries == [{"limit": "1"}, *queries]

    def test_the_command_asks_likewise(self, host, tmp_path):
        """And prints what is left."""
        environ = {
            "MLHUB_ROOT_URL": f"{host.url}/v1",
            "MLHUB_PROFILE": "__anonymous__",
            "MLHUBFS_CACHE_DIR": str(tmp_path / "cache"),
        }
        words = ["collections", "--match", "kenya"]
        done = CliRunner(env=environ).invoke(cli, words, catch_exceptions=False)
        assert re.findall(r"^collection +(\w+)", done.stdout, re.MULTILINE) == ["a"]
        assert host.queries == [{"limit": "1"}, {"q": "kenya"}]
