"""Several sources in one mount: by words, by a file, and what each of them is sent."""

import contextlib
import errno
import json
import re
import subprocess
import sys
import urllib.parse

import pytest
from commands import User, refused
from faulty import Asset, FaultyServer, Reply
from mounted import SECONDS, fails, names, need_fuse
from rooms import answer, asked, mlhub, stac_collection, stac_item

from mlhubfs.cli.sources import from_file, from_words
from mlhubfs.config import Permission
from mlhubfs.errors import BadAnswer, ConfigError, Denied, TimedOut, Unavailable
from mlhubfs.mount import opened
from mlhubfs.served import Served
from mlhubfs.transport.client import Transport
from mlhubfs.transport.session import Session
from mlhubfs.transport.workers import Workers
from mlhubfs.tree.forest import Forest

HEADER = "HEADER-1c7e"
TOKEN = "TOKEN a&b"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No settings of the user's, and a key that is for a single source."""
    monkeypatch.setenv("MLHUB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLHUB_API_KEY", "KEY-OF-ONE")
    monkeypatch.delenv("MLHUB_PROFILE", raising=False)


@pytest.fixture
def written(tmp_path):
    """`written(text)`: the path of a file of sources."""

    def write(text):
        path = tmp_path / "sources.toml"
        path.write_text(text)
        return path

    return write


def static(host, identifier):
    """Make a server a collection of one item with one asset, named by `identifier`."""
    link = {"rel": "item", "href": "items/one.json"}
    host.on("/collection.json", answer(stac_collection(identifier, links=[link])))
    host.on("/items/one.json", answer(stac_item("one", {"a": "../a.tif"})))
    host.on("/a.tif", Asset(f"of {identifier}".encode()))
    return f"{host.url}/collection.json"


@pytest.fixture
def user(tmp_path):
    """A user, who mounts on `folder / "mount"`."""
    return User(tmp_path)


@pytest.fixture
def two():
    with FaultyServer() as one, FaultyServer() as other:
        yield one, other


def test_words_name_sources():
    """All of them, or none: a lone URL is no name."""
    found = from_words(("pc=https://h.org/stac", "demo=http://127.0.0.1:1/v1?a=b"), ("ttl=7",))
    assert {name: (one.source, one.ttl) for name, one in found.items()} == {
        "pc": ("https://h.org/stac", 7.0),
        "demo": ("http://127.0.0.1:1/v1?a=b", 7.0),
    }
    assert from_words(("https://h.org/stac?a=b",), ()) is None
    assert from_words(("./a=b",), ()) is None
    with pytest.raises(ConfigError, match="same name"):
        from_words(("a=https://h.org", "a=https://g.org"), ())


def test_a_file_names_sources_with_their_options(written):
    """The command line goes first; what is sent to hosts is kept by host, and not shown."""
    path = written(
        f"""
        [one]
        root = "https://h.org:8443/stac"
        ttl = "1h"
        immutable = true
        sign = "planetary-computer"
        headers = {{"X-Token" = "{HEADER}"}}
        [one.hosts."data.example.org"]
        query = {{token = "{TOKEN}"}}
        [two]
        root = "https://g.org"
        """
    )
    found = from_file(path, ("content_ttl=5",))
    one = found["one"]
    assert (one.ttl, one.immutable, one.content_ttl, one.sign) == (
        3600.0, True, 5.0, "planetary-computer",
    )  # fmt: skip
    assert one.permissions == (
        Permission("h.org:8443", headers=(("X-Token", HEADER),)),
        Permission("data.example.org", query=(("token", TOKEN),)),
    )
    assert HEADER not in repr(one)
    assert found["two"].ttl == 300.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no source"),
        ("root = 'https://h'", "root"),
        ("[a]\nttl = '1h'", "'a' has no root"),
        ("[a]\nroot = 'https://h'\ncolour = 'red'", "colour"),
        ("[a]\nroot = 'https://h'\nheaders = {b = 1}", "'a': headers for h: b is no text"),
        ("[a]\nroot = 'https://h'\nheaders = {b = \"x\\ny: z\"}", "'a': headers for h: b is"),
        ("[a]\nroot = 'https://h'\nheaders = {b = '日本'}", "'a': headers for h: b is no text"),
        ("[a]\nroot = 'https://h'\nheaders = {b = 'x '}", "'a': headers for h: b is no text"),
        ("[a]\nroot = 'https://h'\nheaders = {'b c:' = 'x'}", "'a': headers for h: 'b c:' is no"),
        ("[a]\nroot = 'https://h'\nquery = {b = ''}", "'a': query for h: b is no text"),
        ("[a]\nroot = 'https://h'\n[a.hosts.'http://g/']\n", "'a': 'http://g/' is no host"),
        ("[a]\nroot = 'https://h'\n[a.hosts.'*.g']\n", r"'a': '\*\.g' is no host"),
        ("[a]\nroot = 'https://h'\n[a.hosts.g]\nheader = {b = 'x'}", r"for g: \['header'\]"),
        ("[a]\nroot = 'https://h'\nquery = {b = 'x'}\n[a.hosts.H]\n", "a host stands twice"),
        ("[a]\nroot = 'https://h'\nhosts = 3", "hosts"),
        ("[a]\nroot = 'nowhere'", "'a': source 'nowhere'"),
        ("['a/b']\nroot = 'https://h'", "a/b"),
        ("[a", "cannot read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(written, text, said):
    """Which source, and what."""
    with pytest.raises(ConfigError, match=said):
        from_file(written(text), ())


@pytest.mark.promise("Of several sources, none is sent another's key, nor `$MLHUB_API_KEY`.")
def test_each_source_has_its_own_key(written, tmp_path):
    """That of the profile or the file that it names; one for all is refused."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "profiles").write_text("[default]\napi_key = D\n[ours]\napi_key = O\n")
    (tmp_path / "key").write_text("F")
    found = from_file(
        written(
            "[a]\nroot = 'https://a'\n[b]\nroot = 'https://b'\nprofile = 'ours'\n"
            f"[c]\nroot = 'https://c'\napi_key_file = '{tmp_path / 'key'}'"
        ),
        (),
    )
    assert [one.api_key for one in found.values()] == [None, "O", "F"]
    assert from_words(("a=https://h.org",), ())["a"].api_key is None
    with pytest.raises(ConfigError, match="key each"):
        from_words(("a=https://h.org",), ("profile=ours",))


@pytest.mark.promise(
    "Headers and query parameters that a file of sources sets for a host are sent to that host "
    "only, and over plain http only within this machine."
)
def test_what_is_for_a_host_goes_there_only(two, monkeypatch, caplog):
    """Not along with a redirect, not to the same name over http, and into no URL that is told."""
    caplog.set_level("DEBUG")
    one, other = two
    hosts = [urllib.parse.urlsplit(one.url).netloc, "plain.example.org"]
    given = [Permission(host, (("X-Token", HEADER),), (("token", TOKEN),)) for host in hosts]
    monkeypatch.setenv("http_proxy", other.url)
    transport = Transport(root_url=one.url, permissions=given, allow_private=True, backoff=0.001)
    one.on("/r", Reply(302, {"Location": f"{other.url}/a.tif"}))
    one.on("/a.tif", Asset(b"own"))
    other.on("/a.tif", Asset(b"other"))
    other.on("http://plain.example.org/a.tif", Asset(b"plain"))
    part = transport.get_range(f"{one.url}/a.tif?x=1", 0, 3)
    assert part.url == f"{one.url}/a.tif?x=1"
    assert transport.get_range(f"{one.url}/r", 0, 5).data == b"other"
    assert transport.get_range("http://plain.example.org/a.tif", 0, 5).data == b"plain"
    transport.close()
    assert [request.query for request in one.requests] == [
        "x=1&token=TOKEN%20a%26b", "token=TOKEN%20a%26b",
    ]  # fmt: skip
    assert [request.headers.get("x-token") for request in one.requests] == [HEADER, HEADER]
    assert [(r.query, r.headers.get("x-token")) for r in other.requests] == [("", None)] * 2
    assert caplog.text.count("query for plain.example.org are not sent over plain http") == 1
    assert HEADER not in caplog.text
    assert "TOKEN" not in caplog.text


def test_what_is_not_sent_to_a_source_is_told(user, two):
    """Over plain http to another machine: which setting, not its value, by notice and log."""
    need_fuse("fuse3")
    two[0].on("http://plain.example.org/collection.json", answer(stac_collection("x")))
    (user.folder / "sources.toml").write_text(
        "[a]\nroot = 'http://plain.example.org/collection.json'\n"
        f"headers = {{X-Token = '{HEADER}'}}\nquery = {{token = '{HEADER}'}}"
    )
    where = user.folder / "mount"
    words = ("mount", "--config", "sources.toml", where)
    done = user.run(*words, http_proxy=two[0].url)
    assert done.code == 0, done
    assert user.run("umount", where).code == 0
    log = next(user.logs.glob("*.log")).read_text()
    told = "headers and query for plain.example.org are not sent over plain http: use https"
    assert f"mlhubfs: a: {told}\n" in done.err
    assert re.search(f"WARNING .*{told}\n", log)
    assert HEADER not in done.err + log


@pytest.mark.parametrize(
    ("host", "url", "is_sent"),
    [
        ("h.org", "https://h.org/", True),
        ("h.org:443", "https://h.org/", True),
        ("h.org", "https://h.org:8443/", False),
        ("h.org:8443", "https://h.org:8443/", True),
        ("[::1]:80", "http://[::1]/", True),
        ("localhost", "http://localhost:8811/", False),
    ],
)
def test_a_host_without_a_port_is_at_the_usual_one(host, url, is_sent):
    """What is at another port of it may be another's."""
    session = Session(
        root_url="https://root.example.org", api_key=None, ca_bundle=None, pool_size=1,
        allow_private=False, permissions=[Permission(host, query=(("token", "T"),))],
    )  # fmt: skip
    assert session.with_query(url) == f"{url}{'?token=T' * is_sent}"


def test_each_source_is_a_directory(tmp_path, binding, two):
    """Their names at the root, their trees below; the key of the environment goes to none."""
    roots = [static(host, name) for host, name in zip(two, "xy", strict=True)]
    path = tmp_path / "sources.toml"
    path.write_text(
        f"[first]\nroot = '{roots[0]}'\nheaders = {{X-Token = '{HEADER}'}}\n"
        f"[second]\nroot = '{roots[1]}'\n"
    )
    where = tmp_path / "mount"
    where.mkdir()
    run = [sys.executable, "-m", "mlhubfs"]
    options = ["-o", f"binding={binding},cache_dir={tmp_path / 'cache'}"]
    words = [*run, "mount", "--config", str(path), str(where), *options]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    try:
        assert f"first={roots[0]} second={roots[1]}" in told
        assert names(where) == ["first", "second"]
        assert (where / "first" / "one" / "a.tif").read_bytes() == b"of x"
        assert (where / "second" / "one" / "a.tif").read_bytes() == b"of y"
        for missing in ("third", "first/none", "README.txt"):
            with fails(errno.ENOENT):
                (where / missing).stat()
        shown = subprocess.run(
            [*run, "prefetch", str(where / "second" / "one")],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert shown.returncode == 0, shown.stderr
    finally:
        subprocess.run([*run, "umount", str(where)], check=True)
    assert {request.headers.get("x-token") for request in two[0].requests} == {HEADER}
    assert {request.headers.get("x-token") for request in two[1].requests} == {None}
    assert not [one for host in two for one in host.requests if "authorization" in one.headers]


def test_commands_know_the_source_that_a_path_is_of(user, two):
    """`show` and `items` ask the one whose directory it is in, as `prefetch` does."""
    need_fuse("fuse3")
    roots = [static(host, name) for host, name in zip(two, "xy", strict=True)]
    where = user.folder / "mount"
    words = [f"{name}={root}" for name, root in zip(("first", "second"), roots, strict=True)]
    assert user.run("mount", *words, where, "-o", "binding=fuse3").code == 0
    try:
        shown = user.run("show", where / "second", "--json")
        assert json.loads(shown.out)["id"] == "y"
        shown = user.run("show", "one/a.tif", "--json", cwd=where / "second")
        assert json.loads(shown.out)["path"] == "/one/a.tif"
        assert user.run("items", where / "first").out.startswith("one  2017-")
        refused(user.run("show", where), "several sources", "first", "second")
    finally:
        assert user.run("umount", where).code == 0


@pytest.mark.promise(
    "Of several sources, one whose server is down, refuses the key or answers with something else "
    "is a directory that fails to be listed, until it can be opened."
)
def test_a_source_that_is_down_comes_when_its_server_does(user, two):
    """The others are mounted; the notice, the log and `status` name it and say why."""
    need_fuse("fuse3")
    roots = [static(host, name) for host, name in zip(two, "xy", strict=True)]
    where = user.folder / "mount"
    words = [f"{name}={root}" for name, root in zip(("up", "down"), roots, strict=True)]
    two[1].kill()
    done = user.run("mount", *words, where, "-o", "binding=fuse3,negative_ttl=0,timeout=3")
    assert done.code == 0
    assert re.search(r"down: .* again when down is looked into", done.err)
    try:
        assert {one.name: one.is_dir() for one in where.iterdir()} == {"up": True, "down": True}
        assert (where / "up" / "one" / "a.tif").read_bytes() == b"of x"
        with fails(errno.EIO, errno.ETIMEDOUT):
            names(where / "down")
        assert "  not there: down: " in user.run("status", where).out
        assert re.search(r"WARNING .*down: ", next(user.logs.glob("*.log")).read_text())
        two[1].restart()
        assert names(where / "down") == ["README.txt", "collection.json", "one"]
        assert (where / "down" / "one" / "a.tif").read_bytes() == b"of y"
        assert "not there:" not in user.run("status", where).out
    finally:
        assert user.run("umount", where).code == 0


@pytest.mark.parametrize(
    ("hangs", "kind", "seconds"), [(False, Unavailable, 2), (True, TimedOut, 15)]
)
def test_a_source_that_was_down_is_not_asked_at_every_look(two, tmp_path, hangs, kind, seconds):
    """For two seconds the last failure is the answer, at once; for longer where a server hangs."""
    two[0].on("/collection.json", Reply(404, hold=two[0].hold() if hangs else None))
    texts = (f"timeout=1,cache_dir={tmp_path}",)
    config = from_words((f"a={two[0].url}/collection.json",), texts)["a"]
    now = 100.0
    with contextlib.closing(Workers()) as workers:
        served = Served("a", config, workers, bool, clock=lambda: now)
        with contextlib.closing(served):
            for later in (0, seconds - 0.1):
                now = 100.0 + later
                with pytest.raises(kind, match=r"^a: "):
                    served.grow()
            assert (len(asked(two[0])), served.tree) == (1, None)
            static(two[0], "x")
            now = 100.0 + seconds
            assert served.grow() is served.tree


def test_sources_are_opened_side_by_side(user, two):
    """One that hangs keeps no other waiting: both are asked before either has answered."""
    need_fuse("fuse3")
    release = two[0].hold()
    roots = [static(host, name) for host, name in zip(two, "xy", strict=True)]
    for host, name in zip(two, "xy", strict=True):
        host.on("/collection.json", answer(stac_collection(name), hold=release))
    where = user.folder / "mount"
    words = [f"{name}={root}" for name, root in zip("ab", roots, strict=True)]
    with user.running("mount", *words, where) as process:
        for host in two:
            host.wait_for("/collection.json")
        release.set()
        assert process.wait(SECONDS) == 0
    assert user.run("umount", where).code == 0


def test_sources_that_are_all_down_are_not_mounted(user, two):
    """There is nothing to show: the first is told, as where it is the only one."""
    roots = [static(host, name) for host, name in zip(two, "xy", strict=True)]
    for host in two:
        host.kill()
    where = user.folder / "mount"
    words = [f"{name}={root}" for name, root in zip("ab", roots, strict=True)]
    refused(user.run("mount", *words, where, "-o", "timeout=1"), "a: ")


def test_a_local_source_that_is_wrong_is_told_at_once(user, two):
    """What is to be mended on this machine keeps the mount from being made."""
    words = [f"a={static(two[0], 'x')}", f"b=file://{user.folder}/none.json"]
    refused(user.run("mount", *words, user.folder / "mount"), "b: ", "none.json")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404),
        Reply(401),
        Reply(200, {"Content-Type": "text/html"}, b"<html>Back soon</html>"),
        Reply(200, {"Content-Type": "application/json"}),
    ],
    ids=["404", "401", "a web page", "nothing"],
)
@pytest.mark.parametrize("path", ["/collection.json", "/v1"])
def test_a_source_that_answers_something_else_may_come(two, tmp_path, path, reply):
    """The others are there, and it comes when its server answers as it should."""
    for below in ("", "/datasets", "/collections"):
        two[1].on(f"{path}{below}", reply)
    words = (f"a={static(two[0], 'x')}", f"b={two[1].url}{path}")
    sources = from_words(words, (f"negative_ttl=0,cache_dir={tmp_path}",))
    with contextlib.closing(Workers()) as workers, opened(sources, workers, bool) as served:
        assert served["a"].tree
        forest = Forest(served)
        with pytest.raises((Unavailable, Denied, BadAnswer), match=r"^b: "):
            forest.node("/b/one")
        static(two[1], "y")
        mlhub(two[1], {})
        assert list(forest.directory("/b").children()(0))
