"""One HTTP request done properly, against a server that fails, stalls, cuts and lies."""

import gzip
import logging
import math
import random
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from faulty import MODIFIED, Asset, FaultyServer, Pattern, Reply

from mlhubfs import __version__
from mlhubfs.errors import (
    BadAnswer,
    Busy,
    ConfigError,
    Denied,
    Interrupted,
    MlhubfsError,
    NotFound,
    Rejected,
    TimedOut,
    Unavailable,
)
from mlhubfs.transport import document, ranges, retry
from mlhubfs.transport.buckets import over_http
from mlhubfs.transport.client import Transport, describe, without_key
from mlhubfs.transport.origin import followed, origin

KEY = "KEY-6f1c9a"
SIGNED = "?sig=SECRET-8d2e"
DATA = random.Random(7).randbytes(10_000)
SECRETS = (KEY, "SECRET-8d2e", "TOKEN-77ab")
JSON = Reply(200, {"Content-Type": "application/json"}, b'{"a": 1}')
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


@pytest.fixture
def other() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def opened(
    server: FaultyServer, caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[..., Transport]]:
    """Make transports; afterwards everything that was logged, by anybody, is searched."""
    caplog.set_level(logging.DEBUG)
    transports: list[Transport] = []

    def make(**settings: Any) -> Transport:
        settings = {"root_url": server.url, "api_key": KEY, "backoff": 0.001, **settings}
        transports.append(Transport(**settings))
        return transports[-1]

    yield make
    for transport in transports:
        transport.close()
    assert not [secret for secret in SECRETS if secret in caplog.text]


@pytest.fixture
def transport(opened: Callable[..., Transport]) -> Transport:
    return opened()


def failure(kind: type[MlhubfsError], call: Callable[[], object]) -> str:
    """Return the message of the error of `call`, of which nothing anywhere may hold a secret."""
    with pytest.raises(kind) as raised:
        call()
    assert type(raised.value) is kind
    text = "".join(traceback.format_exception(raised.value))
    link: BaseException | None = raised.value
    while link is not None:
        text += f"{link!r} {link} {link.args}"
        link = link.__cause__ or link.__context__
    assert not [secret for secret in SECRETS if secret in text]
    return str(raised.value)


# --- URLs: what is said of them, where they lead


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://user:TOKEN@h.org/a/b.tif?sig=x#f", "https://h.org/a/b.tif"),
        ("https://h.org:8080/mlhub/v1/download/gAAAB", "https://h.org:8080/mlhub/v1/download/..."),
        ("https://h.org/download/gAAAB/", "https://h.org/download/..."),
        ("https://h.org/download/", "https://h.org/download/"),
        ("http://h.org/a\nb\x1b[2J", "http://h.org/ab?[2J"),
        ("http://[oops/", "an unreadable URL"),
    ],
)
def test_what_is_said_of_a_url_has_neither_user_nor_query_nor_token(url: str, said: str) -> None:
    """`describe` cuts what is a permission, and what would spoil a terminal."""
    assert describe(url) == said


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("http://h/x?key=1", "http://h/x"),
        ("http://h/x?a=%2F&key=1&b=c+d&k%65y=2", "http://h/x?a=%2F&b=c+d"),
        ("http://h/x?key=1#f", "http://h/x#f"),
        ("http://h/x?monkey=1&keys=2", "http://h/x?monkey=1&keys=2"),
        ("http://h/x", "http://h/x"),
    ],
)
def test_a_key_in_a_link_is_taken_out_and_nothing_else(url: str, clean: str) -> None:
    """Only the parameter `key` goes; the rest of the query stays as it is, to the byte."""
    assert without_key(url) == clean


def test_origins_are_equal_when_scheme_host_and_port_are() -> None:
    """A default port may be written or not, a host in capitals or not."""
    assert origin("https://H.org/a") == origin("https://h.org:443/b") != origin("http://h.org/")
    assert origin("http://127.0.0.7:1").loopback()
    assert origin("http://[::1]/").loopback()
    assert origin("http://localhost/").loopback()
    assert not origin("http://localhost.example.org/").loopback()
    assert not origin("http://128.0.0.1/").loopback()


def test_an_s3_url_is_asked_over_https() -> None:
    """The bucket becomes the host, unless its dots would spoil the certificate."""
    assert over_http("s3://buck/a b/c.tif") == "https://buck.s3.amazonaws.com/a%20b/c.tif"
    assert over_http("s3://my.buck/c.tif") == "https://s3.amazonaws.com/my.buck/c.tif"
    assert followed("https://h/x", "s3://buck/c") == "https://buck.s3.amazonaws.com/c"


@pytest.mark.fault(
    "redirects in circles, more than 10, without `Location`, to another scheme, from https to http"
)
def test_a_redirect_to_plain_http_elsewhere_is_refused() -> None:
    """From https only this machine may be asked in the clear; from http the way up is open."""
    for url, location in [("https://h/x", "http://h/x"), ("https://h/x", "http://10.0.0.1/")]:
        with pytest.raises(retry.Failed, match="plain http"):
            followed(url, location)
    assert followed("https://h/x", "http://localhost:1/y") == "http://localhost:1/y"
    assert followed("http://h/x", "https://h/x") == "https://h/x"


# --- documents


def test_a_document_comes_with_its_final_url(server: FaultyServer, transport: Transport) -> None:
    """Relative redirects are followed, parameters sent as given, and the body handed over."""
    server.on("/v1/datasets", Reply(307, {"Location": "../v2/datasets?x=1"}))
    server.on("/v2/datasets", JSON)
    answer = transport.get_document(
        f"{server.url}/v1/datasets", [("tags", "land cover"), ("tags", "off-nadir")]
    )
    assert answer == (b'{"a": 1}', f"{server.url}/v2/datasets?x=1")
    assert server.to("/v1/datasets")[0].query == "tags=land%20cover&tags=off-nadir"


def test_who_asks_is_said(server: FaultyServer, transport: Transport) -> None:
    """The User-Agent names program and version; documents may come as gzip, ranges may not."""
    server.on("/d", JSON)
    server.on("/f", Asset(DATA))
    transport.get_document(f"{server.url}/d")
    transport.get_range(f"{server.url}/f", 0, 5)
    first, second = server.requests
    assert first.headers["user-agent"] == f"mlhubfs/{__version__} (+python-requests)"
    assert first.headers["accept-encoding"] == "gzip"
    assert "range" not in first.headers
    assert second.headers["accept-encoding"] == "identity"
    assert second.headers["range"] == "bytes=0-4"
    assert first.connection == second.connection


@pytest.mark.parametrize(
    "framing", [{}, {"chunked": True}, {"compressed": True}, {"length": -1}, {"close": True}]
)
def test_a_document_is_whole_however_it_is_framed(
    server: FaultyServer, transport: Transport, framing: dict[str, Any]
) -> None:
    """Chunks, gzip and bodies that end with the connection are put together."""
    body = DATA * 300
    server.on("/d", Reply(body=body, **framing))
    assert transport.get_document(f"{server.url}/d").body == body


def test_a_web_page_is_no_document(server: FaultyServer, transport: Transport) -> None:
    """HTML with status 200 is a captive portal or a wrong root, and the message says so."""
    server.on("/d", Reply(200, HTML, b"<html>"))
    message = failure(BadAnswer, lambda: transport.get_document(f"{server.url}/d{SIGNED}"))
    assert "web page" in message
    assert len(server.requests) == 2


def test_gzip_that_is_cut_short_is_noticed(server: FaultyServer, transport: Transport) -> None:
    """A compressed body that ends too early is asked for again, though its length was right."""
    packed = gzip.compress(DATA)
    headers = {"Content-Encoding": "gzip"}
    server.on("/d", Reply(200, headers, packed[:-20]), Reply(200, headers, packed))
    assert transport.get_document(f"{server.url}/d").body == DATA
    server.on("/d", Reply(200, headers, b"no gzip"))
    assert "damaged" in failure(BadAnswer, lambda: transport.get_document(f"{server.url}/d"))
    server.on("/d", Reply(200, {"Content-Encoding": "br"}, b"x"))
    assert "'br'" in failure(BadAnswer, lambda: transport.get_document(f"{server.url}/d"))


def test_a_document_without_end_is_refused(
    server: FaultyServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body over the limit is refused, compressed or not."""
    monkeypatch.setattr(document, "LIMIT", 5000)
    for reply in (Reply(body=DATA), Reply(body=bytes(1 << 20), compressed=True)):
        server.on("/d", reply)
        assert "5000" in failure(BadAnswer, lambda: transport.get_document(f"{server.url}/d"))


# --- ranges


def test_a_range_is_exactly_what_was_asked(server: FaultyServer, transport: Transport) -> None:
    """Any range gives the file's bytes, clamped at its end, with size, validator and time."""
    server.on("/f", Asset(DATA, etag='W/"abc"'))
    for start, stop in [(0, 1), (0, 10_000), (17, 4711), (9_990, 20_000), (9_999, 10_000)]:
        part = transport.get_range(f"{server.url}/f{SIGNED}", start, stop)
        assert part.data == DATA[start:stop]
        assert part.total == len(DATA)
        assert part.validator == "etag:abc"
        assert part.modified == 1498904430.0
        assert part.url == f"{server.url}/f{SIGNED}"
        assert part.whole is None


def test_the_validator_is_the_same_however_it_is_written(
    server: FaultyServer, transport: Transport
) -> None:
    """Quoted, unquoted and weak ETags are one; without any, Last-Modified stands in."""
    for etag, modified, validator in [
        ('"a"', MODIFIED, "etag:a"),
        ("a", MODIFIED, "etag:a"),
        ('W/"a"', None, "etag:a"),
        (None, MODIFIED, f"modified:{MODIFIED}"),
        ('""', "yesterday", "modified:yesterday"),
        (None, None, ""),
    ]:
        server.on("/f", Asset(DATA, etag=etag, modified=modified))
        part = transport.get_range(f"{server.url}/f", 0, 1)
        assert part.validator == validator
        assert (part.modified is None) == (modified != MODIFIED)


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"'], ids=["strong", "weak"])
def test_an_asset_that_is_known_comes_only_if_it_has_changed(
    server: FaultyServer, transport: Transport, etag: str
) -> None:
    """304 gives back what is known, with the URL of now; any other answer counts as ever."""
    server.on("/download/1", Reply(302, {"Location": f"/f{SIGNED}"}))
    server.on("/f", Asset(DATA, etag=etag, conditional=True))
    known = transport.get_range(f"{server.url}/f", 0, 10)
    found = transport.get_range(f"{server.url}/download/1", 0, 1, known=known)
    assert found == known._replace(url=f"{server.url}/f{SIGNED}")
    for changed in (Asset(DATA, etag='"v2"', conditional=True), Asset(DATA, etag=etag)):
        server.on("/f", changed)
        part = transport.get_range(f"{server.url}/f", 0, 1, known=known)
        assert (part.data, part.total) == (DATA[:1], len(DATA))
    assert server.connections == 1


@pytest.mark.parametrize("validator", ["", f"modified:{MODIFIED}", 'etag:a", "b', "etag:a b"])
def test_without_a_usable_etag_no_condition_is_set(
    server: FaultyServer, transport: Transport, validator: str
) -> None:
    """Servers take If-Modified-Since for fulfilled by an older file, so only bytes can tell."""
    server.on("/f", Asset(DATA))
    known = ranges.Part(b"", len(DATA), validator, None, "")
    assert transport.get_range(f"{server.url}/f", 0, 1, known=known).data == DATA[:1]
    assert not [name for name in server.requests[0].headers if name.startswith("if-")]


def test_304_of_another_version_or_unasked_is_a_lie(
    server: FaultyServer, transport: Transport
) -> None:
    """Nothing is known to be unchanged by it."""
    known = ranges.Part(b"", len(DATA), "etag:v1", None, "")
    server.on("/f", Reply(304, {"ETag": '"v2"'}))
    for one in (known, known._replace(validator=""), None):
        failure(BadAnswer, lambda one=one: transport.get_range(f"{server.url}/f", 0, 1, known=one))


def test_offsets_past_4_gib_are_right(server: FaultyServer, transport: Transport) -> None:
    """Ranges of a file of 5 GiB come from where they were asked for."""
    huge = Pattern(5 << 30)
    server.on("/f", Asset(huge))
    for start in (0, (1 << 32) - 5, (1 << 32) + 12_345, len(huge) - 7):
        part = transport.get_range(f"{server.url}/f", start, start + 1000)
        assert part.data == huge[start : start + 1000]
        assert part.total == 5 << 30


@pytest.mark.parametrize("asset", [Asset(DATA), Asset(b"")], ids=["full", "empty"])
def test_a_range_past_the_end_is_empty(
    server: FaultyServer, transport: Transport, asset: Asset
) -> None:
    """416 with the size is an answer: no bytes, and how many there are. So an empty file is."""
    server.on("/f", asset)
    part = transport.get_range(f"{server.url}/f", len(asset.content), 20_000)
    assert (part.data, part.total) == (b"", len(asset.content))


def test_416_for_bytes_that_exist_is_a_lie(server: FaultyServer, transport: Transport) -> None:
    """A refusal that contradicts the size, or gives none, is no end of file."""
    for said in ("bytes */100", "bytes */*", "nonsense"):
        server.on("/f", Reply(416, {"Content-Range": said}))
        failure(BadAnswer, lambda: transport.get_range(f"{server.url}/f{SIGNED}", 50, 60))


@pytest.mark.parametrize("framing", [{}, {"chunked": True}])
def test_a_server_that_ignores_ranges_gives_the_whole(
    server: FaultyServer, transport: Transport, framing: dict[str, Any]
) -> None:
    """A 200 is read to its end; the range is cut out, and the whole handed on to be kept."""
    server.on("/f", Asset(DATA, ranges=False, **framing))
    part = transport.get_range(f"{server.url}/f", 100, 200)
    assert (part.data, part.total, part.whole) == (DATA[100:200], len(DATA), DATA)
    assert transport.get_range(f"{server.url}/f", 20_000, 20_001).data == b""
    server.on("/f", Asset(b"", ranges=False, **framing))
    assert transport.get_range(f"{server.url}/f", 0, 10)[:2] == (b"", 0)
    assert server.connections == 1


@pytest.mark.fault("`Range` is ignored: 200 and the whole file")
@pytest.mark.fault("no length")
def test_a_whole_that_is_too_large_or_endless_is_refused(
    server: FaultyServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 200 over the limit, or one whose end cannot be told from a broken wire, is not used."""
    monkeypatch.setattr(ranges, "WHOLE_LIMIT", 5000)
    for framing in ({}, {"chunked": True}, {"length": -1}):
        server.on("/f", Asset(DATA, ranges=False, **framing))
        message = failure(BadAnswer, lambda: transport.get_range(f"{server.url}/f", 0, 10))
        assert "ignores ranges" in message
    assert len(server.requests) == 3


LIES = {
    "another start": Asset(DATA, headers={"Content-Range": "bytes 1-99/10000"}),
    "another end": Asset(DATA, headers={"Content-Range": "bytes 0-98/10000"}),
    "an end past the size": Asset(DATA, headers={"Content-Range": "bytes 0-99/50"}),
    "turned round": Asset(DATA, headers={"Content-Range": "bytes 0--1/10000"}),
    "another unit": Asset(DATA, headers={"Content-Range": "items 0-99/10000"}),
    "no Content-Range": Reply(206, {}, DATA[:100]),
    "several ranges": Asset(DATA, headers={"Content-Type": "multipart/byteranges; boundary=x"}),
    "compressed": Asset(DATA, headers={"Content-Encoding": "gzip"}),
    "a web page": Asset(DATA, headers=HTML),
    "a whole web page": Reply(200, HTML, b"<html>log in</html>"),
    "no size": Asset(DATA, headers={"Content-Range": "bytes 0-99/*"}),
    "another length": Asset(DATA, length=50),
    "more than announced": Reply(
        206, {"Content-Range": "bytes 0-99/10000"}, DATA[:101], chunked=True
    ),
    "no content": Reply(204),
    "several choices": Reply(300),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_an_answer_that_contradicts_the_question_is_not_used(
    server: FaultyServer, transport: Transport, lie: Any
) -> None:
    """Whatever is wrong with a range: BadAnswer, after one more try at most, and no bytes."""
    server.on("/f", lie)
    failure(BadAnswer, lambda: transport.get_range(f"{server.url}/f{SIGNED}", 0, 100))
    assert len(server.requests) <= 2


def test_a_web_page_may_be_the_file(server: FaultyServer, transport: Transport) -> None:
    """An asset that is HTML is read as any other."""
    server.on("/f", Asset(DATA, headers=HTML))
    assert transport.get_range(f"{server.url}/f", 0, 9, expect_html=True).data == DATA[:9]


def test_a_size_left_out_is_learned_at_the_end(server: FaultyServer, transport: Transport) -> None:
    """`*` for the size is enough where fewer bytes came than were asked for."""
    server.on("/f", Asset(DATA, headers={"Content-Range": "bytes 9000-9999/*"}))
    part = transport.get_range(f"{server.url}/f", 9_000, 20_000)
    assert (part.data, part.total) == (DATA[9000:], len(DATA))


def test_a_chunked_range_leaves_the_connection_usable(
    server: FaultyServer, transport: Transport
) -> None:
    """The last chunk is read too, so that the next request needs no new connection."""
    server.on("/f", Asset(DATA, chunked=True))
    for _ in range(3):
        assert transport.get_range(f"{server.url}/f", 5, 50).data == DATA[5:50]
    assert server.connections == 1


def test_a_range_must_be_one(transport: Transport, server: FaultyServer) -> None:
    """An empty or backward range is the caller's mistake, not a request."""
    for start, stop in [(5, 5), (6, 5), (-1, 5)]:
        with pytest.raises(ValueError, match="not a range"):
            transport.get_range(server.url, start, stop)


# --- redirects and the key


@pytest.mark.fault("a redirect to another host")
def test_the_key_goes_to_the_root_and_nowhere_else(
    server: FaultyServer, other: FaultyServer, transport: Transport
) -> None:
    """Root and storage differ by port: one gets the key in a header, the other does not."""
    server.on("/download/TOKEN-77ab", Reply(302, {"Location": f"{other.url}/f{SIGNED}"}))
    other.on("/f", Asset(DATA))
    part = transport.get_range(f"{server.url}/download/TOKEN-77ab", 0, 10)
    assert part.url == f"{other.url}/f{SIGNED}"
    transport.get_range(part.url, 10, 20)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert [KEY in str(request) for request in other.requests] == [False, False]
    assert "authorization" not in other.requests[0].headers


def test_the_key_comes_back_with_the_root(
    server: FaultyServer, other: FaultyServer, transport: Transport
) -> None:
    """A chain that returns to the root's origin has the key there again."""
    server.on("/a", Reply(301, {"Location": f"{other.url}/b"}))
    other.on("/b", Reply(303, {"Location": f"{server.url}/c"}))
    server.on("/c", JSON)
    transport.get_document(f"{server.url}/a")
    assert [KEY in str(r) for r in server.requests + other.requests] == [True, True, False]


def test_a_redirect_does_not_carry_the_key_along(
    server: FaultyServer, other: FaultyServer, transport: Transport
) -> None:
    """A Location into which the server wrote the caller's key is followed without it."""
    server.on("/a", Reply(302, {"Location": f"{other.url}/b?key={KEY}&key=blob"}))
    other.on("/b", JSON)
    transport.get_document(f"{server.url}/a")
    assert other.requests[0].query == "key=blob"


def test_the_key_does_not_leave_the_machine_in_the_clear(
    opened: Callable[..., Transport],
    server: FaultyServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A root with http on another host is asked without the key, and a warning says so once."""
    monkeypatch.setenv("http_proxy", server.url)
    transport = opened(root_url="http://mlhub.example.org/v1")
    server.on("http://mlhub.example.org/v1", JSON)
    assert transport.get_document("http://mlhub.example.org/v1").body == b'{"a": 1}'
    assert "authorization" not in server.requests[0].headers
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "the API key is not sent to mlhub.example.org over plain http: use https"
    ]


def test_this_machine_is_asked_without_a_proxy(
    transport: Transport, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes over loopback may hold the key, so it is not sent round a proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.on("/d", JSON)
    transport.get_document(f"{server.url}/d")
    assert server.requests[0].path == "/d"


def test_the_environment_is_looked_up_once_for_an_origin(
    opened: Callable[..., Transport], server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy that an origin was first reached through stays, whatever the environment says."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    transport = opened()
    server.on("http://storage.example.org/f", Asset(DATA))
    transport.get_range("http://storage.example.org/f", 0, 10)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    transport.get_range("http://storage.example.org/f", 0, 10)
    assert len(server.requests) == 2


def test_azure_is_asked_in_its_own_words(
    transport: Transport, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`x-ms-version` goes to Azure's blob storage and to nobody else."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    for host in ("acc.blob.core.windows.net", "blob.core.windows.net.example.org"):
        server.on(f"http://{host}/f", Asset(DATA))
        transport.get_range(f"http://{host}/f", 0, 10)
    azure, other = server.requests
    assert azure.headers["x-ms-version"] == "2021-06-08"
    assert "x-ms-version" not in other.headers


def test_netrc_and_cookies_are_left_alone(
    server: FaultyServer,
    opened: Callable[..., Transport],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A .netrc entry for the host does not replace the key, and no cookie is ever sent back."""
    netrc = tmp_path / "netrc"
    netrc.write_text(
        "machine 127.0.0.1 login me password SECRET-8d2e\ndefault login a password b\n"
    )
    monkeypatch.setenv("NETRC", str(netrc))
    transport = opened()
    server.on("/a", Reply(302, {"Location": "/d", "Set-Cookie": "session=1; Path=/"}))
    server.on("/d", Reply(200, {"Set-Cookie": "other=1"}, b"{}"))
    for _ in range(2):
        transport.get_document(f"{server.url}/a")
    assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {KEY}"}
    assert not [r for r in server.requests if "cookie" in r.headers]


BAD_REDIRECTS = {
    "": "where to",
    "ftp://h/SECRET-8d2e": "a ftp: URL",
    "file:///etc/passwd": "a file: URL",
    "http://[SECRET-8d2e": "",
    "http://": "",
    "/f": "circles",
    "?a=1": "circles",
    "?b=2": "circles",
}


@pytest.mark.parametrize("location", BAD_REDIRECTS)
@pytest.mark.fault(
    "redirects in circles, more than 10, without `Location`, to another scheme, from https to http"
)
def test_a_redirect_that_leads_nowhere_is_refused(
    server: FaultyServer, transport: Transport, location: str
) -> None:
    """No Location, a foreign scheme, no URL, a circle: BadAnswer that names it, without retries."""
    server.on("/f", Reply(302, {"Location": location} if location else {}, b"see there"))
    message = failure(BadAnswer, lambda: transport.get_range(f"{server.url}/f?a=1", 0, 10))
    assert BAD_REDIRECTS[location] in message
    assert len(server.requests) <= 2


@pytest.mark.fault(
    "redirects in circles, more than 10, without `Location`, to another scheme, from https to http"
)
def test_a_long_chain_of_redirects_ends(server: FaultyServer, transport: Transport) -> None:
    """Ten redirects are followed and the eleventh is not."""
    for n in range(11):
        server.on(f"/{n}", Reply(302, {"Location": f"/{n + 1}"}, b"moved"))
    server.on("/11", JSON)
    assert transport.get_document(f"{server.url}/1").url == f"{server.url}/11"
    failure(BadAnswer, lambda: transport.get_document(f"{server.url}/0"))
    assert server.connections == 1


def test_a_url_that_is_none_is_said_to_be(transport: Transport) -> None:
    """Garbage from a catalog gives BadAnswer and no request."""
    for url in ("", "x", "ftp://h/x", "http://", "http://h:99999/", "http://[x/", "s3:///k"):
        assert "not a usable URL" in failure(BadAnswer, lambda url=url: transport.get_document(url))


# --- statuses, retries, deadlines


@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [
        (400, Rejected, 1),
        (401, Denied, 1),
        (403, Denied, 1),
        (404, NotFound, 1),
        (410, NotFound, 1),
        (408, TimedOut, retry.TRANSIENT),
        (429, Busy, retry.TRANSIENT),
        (500, Unavailable, retry.TRANSIENT),
        (502, Unavailable, retry.TRANSIENT),
        (503, Unavailable, retry.TRANSIENT),
        (504, Unavailable, retry.TRANSIENT),
        (501, Rejected, 1),
    ],
)
def test_each_status_has_its_error_and_its_number_of_tries(
    server: FaultyServer,
    transport: Transport,
    status: int,
    kind: type[MlhubfsError],
    tries: int,
) -> None:
    """What the server means is said at once; what may pass is tried again; none leaks the body."""
    server.on("/f", Reply(status, HTML, b"no /f?key=" + KEY.encode()))
    message = failure(kind, lambda: transport.get_range(f"{server.url}/f{SIGNED}", 0, 10))
    assert str(status) in message
    assert f"{server.url}/f" in message
    assert len(server.requests) == tries
    assert server.connections == 1


def test_a_refusal_says_what_to_do(
    server: FaultyServer, other: FaultyServer, opened: Callable[..., Transport]
) -> None:
    """401 from the root without a key, with one, and from a storage have each their remedy."""
    server.on("/x", Reply(401))
    other.on("/x", Reply(403))
    keyless, keyed = opened(api_key=None), opened()
    assert "set MLHUB_API_KEY" in failure(Denied, lambda: keyless.get_document(f"{server.url}/x"))
    assert "check the API key" in failure(Denied, lambda: keyed.get_document(f"{server.url}/x"))
    assert "link has expired" in failure(Denied, lambda: keyed.get_document(f"{other.url}/x"))


FLAWS = {
    "503": Reply(503),
    "429": Reply(429, {"Retry-After": "0"}),
    "reset": Asset(DATA, reset=True),
    "cut": Asset(DATA, cut=500),
    "cut at 0": Asset(DATA, cut=0),
    "cut in a chunk": Asset(DATA, cut=500, chunked=True),
    "cut with 200": Asset(DATA, ranges=False, cut=500),
    "longer than it is": Asset(DATA, ranges=False, length=10_001, close=True),
    "a lie": Asset(DATA, headers={"Content-Range": "bytes 0-1/2"}),
    "two lengths": Reply(200, {"Content-Length": "5, 6"}, b"garbage"),
    "no status": Reply(99_999),
}


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS.keys())
def test_a_flaw_that_passes_is_not_seen(
    server: FaultyServer, transport: Transport, flaw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad answer followed by a good one gives the right bytes, and one warning in the log."""
    server.on("/f", flaw, Asset(DATA))
    assert transport.get_range(f"{server.url}/f{SIGNED}", 0, 1000).data == DATA[:1000]
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert [r.name for r in warnings] == ["mlhubfs.transport"]


def test_a_flaw_that_stays_is_reported(server: FaultyServer, transport: Transport) -> None:
    """A body that is cut every time ends in Unavailable, never in short data."""
    for flaw in ("reset", "cut", "cut in a chunk", "cut with 200", "longer than it is"):
        server.on("/f", FLAWS[flaw])
        failure(Unavailable, lambda: transport.get_range(f"{server.url}/f{SIGNED}", 0, 1000))


def test_nobody_listening_is_reported_after_a_few_tries(
    server: FaultyServer, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused connection says so, and names what was wanted."""
    server.kill()
    message = failure(Unavailable, lambda: transport.get_range(f"{server.url}/f{SIGNED}", 0, 10))
    assert "connection refused" in message
    assert f"tried {retry.REFUSED} times" in message


def test_a_server_that_restarts_is_survived(
    server: FaultyServer, opened: Callable[..., Transport]
) -> None:
    """Killed in the middle of a body and started again on its port, it gives the right bytes."""
    transport = opened(backoff=retry.BACKOFF)
    server.on("/f", Asset(DATA, cut=500, hold=server.hold()), Asset(DATA))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(transport.get_range, f"{server.url}/f", 0, 1000)
        server.wait_for("/f")
        server.kill()
        server.restart()
        assert future.result().data == DATA[:1000]


def test_a_name_without_address_is_reported(transport: Transport) -> None:
    """A host that the resolver does not know is tried a few times."""
    message = failure(Unavailable, lambda: transport.get_document(f"http://h.invalid/x{SIGNED}"))
    assert "no address" in message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        ("-7", 0),
        ("soon", 0),
        ("1.5", 0),
        ("Sat, 01 Jul 2017 10:20:30 GMT", 0),
        ("Sat, 01 Jul 99999 10:20:30 GMT", 0),
        ("9" * 5000, 0),
    ],
)
def test_retry_after_is_read_as_seconds(value: str | None, seconds: float) -> None:
    """Garbage, negative numbers and dates in the past ask for no pause."""
    assert retry.retry_after(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    """A date asks for the time until then."""
    assert 3000 < retry.retry_after(formatdate(time.time() + 3600, usegmt=True)) <= 3600


@pytest.mark.parametrize(("status", "kind"), [(429, Busy), (503, Unavailable)])
@pytest.mark.parametrize(
    "wish", ["3600", formatdate(time.time() + 3600, usegmt=True)], ids=["seconds", "date"]
)
@pytest.mark.fault("429, with `Retry-After` as seconds or a date")
def test_a_wish_beyond_the_deadline_fails_at_once(
    server: FaultyServer, transport: Transport, status: int, kind: type[MlhubfsError], wish: str
) -> None:
    """A server that asks to come back later than there is time for is not waited for."""
    server.on("/f", Reply(status, {"Retry-After": wish}))
    message = failure(kind, lambda: transport.get_document(f"{server.url}/f{SIGNED}"))
    assert "come back" in message
    assert len(server.requests) == 1


def test_a_wish_within_the_deadline_is_granted() -> None:
    """The pause before the next try is at least what the server asked for."""
    pauses: list[float] = []
    failures = [retry.Failed(Busy, "busy", tries=9, after=7), retry.Failed(Busy, "busy", tries=9)]

    def attempt() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    assert retry.persist(attempt, deadline=math.inf, pause=pauses.append) == "done"
    assert pauses[0] >= 7
    assert 0 <= pauses[1] <= 2 * retry.BACKOFF


def test_pauses_grow_and_are_spread() -> None:
    """A pause is anywhere between nothing and a bound that doubles, up to its limit."""
    for tried in range(1, 12):
        drawn = [retry.jitter(tried, 0.5) for _ in range(2000)]
        bound = min(retry.PAUSE_LIMIT, 0.5 * 2 ** (tried - 1))
        assert 0 <= min(drawn) < bound / 10 < bound * 9 / 10 < max(drawn) <= bound


STALLS: dict[str, dict[str, Any]] = {
    "before the headers": {"hold": True},
    "in the body": {"hold": True, "cut": 10},
    "a byte at a time": {"trickle": 0.01},
    "a byte of a chunk at a time": {"trickle": 0.01, "chunked": True},
    "a byte of the headers at a time": {"trickle_headers": 0.01},
}


@pytest.mark.fault("silence before the answer or within it, or a byte now and then")
@pytest.mark.parametrize("faults", STALLS.values(), ids=STALLS.keys())
def test_the_deadline_holds_against_a_server_that_is_slow(
    server: FaultyServer, opened: Callable[..., Transport], faults: dict[str, Any]
) -> None:
    """Silence and trickles, which no socket timeout notices, end in TimedOut at the deadline."""
    if "hold" in faults:
        faults = {**faults, "hold": server.hold()}
    server.on("/f", Asset(DATA, **faults))
    transport = opened(read_timeout=3600)
    failure(
        TimedOut,
        lambda: transport.get_range(
            f"{server.url}/f{SIGNED}", 0, 9_000, deadline=time.monotonic() + 0.3
        ),
    )
    assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["before the headers", "in the body"])
def test_silence_is_noticed_before_the_deadline(
    server: FaultyServer, opened: Callable[..., Transport], where: str
) -> None:
    """Nothing for as long as the read timeout, and the request is made anew."""
    server.on("/f", Asset(DATA, **{**STALLS[where], "hold": server.hold()}), Asset(DATA))
    transport = opened(read_timeout=0.2, timeout=3600)
    assert transport.get_range(f"{server.url}/f", 0, 100).data == DATA[:100]


def test_a_deadline_that_has_passed_asks_nobody(server: FaultyServer, transport: Transport) -> None:
    """No request is made for an operation that is over."""
    past = time.monotonic() - 1
    failure(TimedOut, lambda: transport.get_document(f"{server.url}/x{SIGNED}", deadline=past))
    assert server.requests == []


def test_one_slow_request_does_not_cut_another(
    server: FaultyServer, opened: Callable[..., Transport]
) -> None:
    """Deadlines are each request's own: a later one outlives an earlier one's cut."""
    release = server.hold()
    server.on("/slow", Asset(DATA, hold=server.hold()))
    server.on("/f", Asset(DATA, hold=release))
    transport = opened()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(transport.get_range, f"{server.url}/f", 0, 10)
        server.wait_for("/f")
        deadline = time.monotonic() + 0.1
        with pytest.raises(TimedOut):
            transport.get_range(f"{server.url}/slow", 0, 10, deadline=deadline)
        release.set()
        assert future.result().data == DATA[:10]


# --- threads, closing, logging, TLS


def test_many_threads_share_one_transport(server: FaultyServer, transport: Transport) -> None:
    """Thirty-two threads reading at random get their own bytes, over a bounded number of wires."""
    server.on("/f", Asset(DATA))

    def read(seed: int) -> bool:
        start = random.Random(seed).randrange(9_000)
        part = transport.get_range(f"{server.url}/f", start, start + 777)
        return part.data == DATA[start : start + 777]

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(read, range(600)))
    assert server.connections <= 32


@pytest.mark.parametrize("where", ["before the headers", "in the body"])
def test_closing_lets_calls_under_way_go(
    server: FaultyServer, transport: Transport, where: str
) -> None:
    """A call that waits for a silent server ends with Interrupted, and so does any later one."""
    server.on("/f", Asset(DATA, **{**STALLS[where], "hold": server.hold()}))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(transport.get_range, f"{server.url}/f{SIGNED}", 0, 100)
        server.wait_for("/f")
        transport.close()
        failure(Interrupted, future.result)
    failure(Interrupted, lambda: transport.get_document(f"{server.url}/f"))
    transport.close()


def test_closing_ends_a_pause(server: FaultyServer, opened: Callable[..., Transport]) -> None:
    """A call that waits for its next try is let go too."""
    server.on("/f", Reply(503, {"Retry-After": "3000"}))
    transport = opened(timeout=36_000)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(transport.get_document, f"{server.url}/f")
        server.wait_for("/f")
        transport.close()
        failure(Interrupted, future.result)


def test_each_request_has_one_line_in_the_log(
    server: FaultyServer, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, place, status, range, bytes and time, for each hop; the libraries say nothing."""
    server.on("/download/TOKEN-77ab", Reply(302, {"Location": f"/f{SIGNED}"}))
    server.on("/f", Asset(DATA))
    transport.get_range(f"{server.url}/download/TOKEN-77ab", 0, 10)
    lines = [r.getMessage().rpartition(",")[0] for r in caplog.records]
    assert lines == [
        f"GET {server.url}/download/... 302 bytes=0-9, 0 bytes",
        f"GET {server.url}/f 206 bytes=0-9, 10 bytes",
    ]
    assert {r.name for r in caplog.records} == {"mlhubfs.transport"}


def test_broken_headers_are_not_logged_with_their_url(
    server: FaultyServer, transport: Transport
) -> None:
    """urllib3's own warning, which holds the whole URL, is silenced."""
    server.on("/d", Reply(200, {"X-A": "1\r\nno colon here\r\nX-B: 2"}, b"{}"))
    transport.get_document(f"{server.url}/d{SIGNED}")


def test_a_transport_does_not_show_its_key(opened: Callable[..., Transport]) -> None:
    """Neither repr nor str say more than the root."""
    transport = opened(root_url=f"https://u:{KEY}@h.org/v1?x={KEY}")
    assert repr(transport) == str(transport) == "Transport(https://h.org/v1)"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed, which makes the certificate of this test")
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    subprocess.run(
        [*command.split(), "-addext", names, "-out", files[0], "-keyout", files[1]],
        check=True,
        capture_output=True,
    )
    return files


@pytest.mark.fault("TLS that fails, a certificate that is not trusted")
def test_a_certificate_that_is_not_trusted_is_refused_at_once(
    certificate: tuple[str, str], opened: Callable[..., Transport]
) -> None:
    """A self-signed certificate gives Unavailable that says so, without a request or a retry."""
    with FaultyServer(tls=certificate) as secure:
        transport = opened(root_url=secure.url)
        message = failure(Unavailable, lambda: transport.get_document(f"{secure.url}/d{SIGNED}"))
        assert "certificate" in message
        assert "REQUESTS_CA_BUNDLE" in message
        assert secure.connections == 1
        assert secure.requests == []


def test_the_environments_certificates_are_believed(
    certificate: tuple[str, str],
    opened: Callable[..., Transport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """REQUESTS_CA_BUNDLE and `ca_bundle` both make an own authority trusted."""
    with FaultyServer(tls=certificate) as secure:
        secure.on("/f", Asset(DATA))
        explicit = opened(root_url=secure.url, ca_bundle=certificate[0])
        assert explicit.get_range(f"{secure.url}/f", 3, 9).data == DATA[3:9]
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[0])
        implicit = opened(root_url=secure.url)
        assert implicit.get_range(f"{secure.url}/f", 3, 9).data == DATA[3:9]
        assert [r.headers["authorization"] for r in secure.requests] == [f"Bearer {KEY}"] * 2
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
        assert "/nowhere.pem" in failure(
            ConfigError, lambda: opened().get_document(f"{secure.url}/f")
        )


@pytest.mark.parametrize("faults", STALLS.values(), ids=STALLS.keys())
def test_the_deadline_holds_over_tls(
    certificate: tuple[str, str], opened: Callable[..., Transport], faults: dict[str, Any]
) -> None:
    """A secure connection is cut as an open one, and gives no byte of what was under way."""
    with FaultyServer(tls=certificate) as secure:
        if "hold" in faults:
            faults = {**faults, "hold": secure.hold()}
        secure.on("/f", Asset(DATA, **faults))
        transport = opened(root_url=secure.url, ca_bundle=certificate[0], read_timeout=3600)
        deadline = time.monotonic() + 0.5
        failure(
            TimedOut,
            lambda: transport.get_range(f"{secure.url}/f{SIGNED}", 0, 9_000, deadline=deadline),
        )


def test_plain_http_to_a_secure_port_and_back(
    certificate: tuple[str, str], opened: Callable[..., Transport], server: FaultyServer
) -> None:
    """A server that speaks the other protocol is Unavailable, and no secret is told."""
    transport = opened(ca_bundle=certificate[0])
    secure_url = server.url.replace("http:", "https:")
    failure(Unavailable, lambda: transport.get_document(f"{secure_url}/d{SIGNED}"))
    with FaultyServer(tls=certificate) as secure:
        plain_url = secure.url.replace("https:", "http:")
        failure(Unavailable, lambda: transport.get_document(f"{plain_url}/d{SIGNED}"))
