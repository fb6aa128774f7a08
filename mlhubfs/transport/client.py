"""One HTTP request done properly: its redirects, retries, deadline, authentication and errors.

Owns the operation: from a URL to a `Document` or a `Part`, or to one error of the tree. The rooms
above see neither requests nor a status code. What an answer must look like is said in `document`
and `ranges`, what is tried again in `retry`, what is sent in `session`, what ends a request that
does not end by itself in `watch`.

*Secrets.* URLs hold permissions: tokens in the path, signatures in the query. They come in as
arguments and go out as results, and nowhere else. Errors and log lines name `describe(url)`; the
errors of the libraries, whose texts hold URLs, are not chained to ours.

*Threading.* A `Transport` is shared by all threads. Its methods block the thread that calls, at
most until the deadline and the little that `watch` tells of; `close` from any thread lets all go.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import requests
from urllib3.util import Timeout

from mlhubfs.config import Permission
from mlhubfs.errors import BadAnswer, Denied, Interrupted, MlhubfsError, NotFound, Offline, TimedOut
from mlhubfs.transport import retry
from mlhubfs.transport.body import Body
from mlhubfs.transport.buckets import over_http
from mlhubfs.transport.document import Document, document
from mlhubfs.transport.failure import CAUGHT, network_failure, status_failure
from mlhubfs.transport.local import Files, is_local
from mlhubfs.transport.origin import describe, followed, origin, without_key
from mlhubfs.transport.ranges import Part, part, unless
from mlhubfs.transport.retry import Failed
from mlhubfs.transport.session import Session
from mlhubfs.transport.signing import Signer, Unsigned
from mlhubfs.transport.stream import FileStream, Stream
from mlhubfs.transport.watch import Lifeline, Watch

__all__ = ["Body", "Document", "Part", "Stream", "Transport", "describe", "without_key"]

log = logging.getLogger("mlhubfs.transport")
T = TypeVar("T")
REDIRECTS = frozenset({301, 302, 303, 307, 308})
UNSIGNED = frozenset({301, 400, 401, 403})  # what S3 and Azure answer to a signature that is off
BODILESS = frozenset({304, 416})  # their headers say it all
REDIRECT_LIMIT = 10  # MLHub's chains had three: http to https, the token, the storage
POUR_SECONDS = 24 * 3600.0  # for a body on a slow line; a silence ends it long before
DRAINED = 64 << 10  # bytes of an error page that are cheaper to read than a new connection to make
JSON = {"Accept": "application/json, */*;q=0.5", "Accept-Encoding": "gzip"}


class Question(NamedTuple):
    """What is sent along with a URL: a GET, or where there is a body, a POST of JSON."""

    headers: Mapping[str, str]
    body: bytes | None = None

    def as_get(self) -> "Question":
        """Return the same question without its body."""
        kept = {name: one for name, one in self.headers.items() if name != "Content-Type"}
        return Question(kept)


class Transport:
    """The way to all servers: the API's, the storage's.

    Times are seconds: `connect_timeout` for one connection, `read_timeout` for the longest silence,
    `timeout` for one call in all, unless it brings its own `deadline`. `ca_bundle` is a file or
    folder of certificates, else REQUESTS_CA_BUNDLE counts, else certifi's. `backoff` is the most
    that the first pause takes. `is_offline`: every call raises Offline, except for what `files`
    has: those of the local catalog that is the source, which are on no server. `allow_private`:
    whatever the catalog names is asked, private and metadata addresses too (see `reach`). `signer`
    makes the URLs that storage answers; `permissions` are headers and query parameters by host.
    """

    def __init__(
        self,
        *,
        root_url: str,
        api_key: str | None = None,
        connect_timeout: float = 10,
        read_timeout: float = 20,
        timeout: float = 60,
        ca_bundle: str | None = None,
        pool_size: int = 64,
        backoff: float = retry.BACKOFF,
        is_offline: bool = False,
        files: Files | None = None,
        allow_private: bool = False,
        signer: Signer | None = None,
        permissions: Sequence[Permission] = (),
    ) -> None:
        self.requests = 0
        """Requests sent so far, those of redirects and retries included."""
        self.errors = 0
        """Calls that failed so far; that something does not exist is an answer."""
        self._is_offline = is_offline
        self._files = files
        self._signer = signer or Unsigned()
        self._root = describe(root_url)
        self._api_key = api_key
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._timeout = timeout
        self._backoff = backoff
        self._closed = threading.Event()
        self._watch = Watch()
        self._session = Session(
            root_url=root_url,
            api_key=api_key,
            ca_bundle=ca_bundle,
            pool_size=pool_size,
            allow_private=allow_private,
            permissions=permissions,
        )

    def __repr__(self) -> str:
        return f"Transport({self._root})"

    def may_ask(self, url: str) -> bool:
        """Say whether `url` is an http(s) URL that a catalog may name, as far as it shows that."""
        try:
            self._session.check_name(origin(url))
        except (ValueError, Failed):
            return False
        return True

    def get_document(
        self,
        url: str,
        params: Sequence[tuple[str, object]] = (),
        headers: Mapping[str, str] | None = None,
        *,
        deadline: float | None = None,
    ) -> Document:
        """Return the JSON at `url`, at most 256 MiB of it.

        `deadline` is a `time.monotonic()`. Raises NotFound, Denied, BadAnswer, Unavailable and its
        kinds, Interrupted.
        """
        if is_local(url):
            return self._local(url).document(url)
        if params:
            url += ("&" if "?" in url else "?") + urlencode(params, quote_via=quote)
        return self._ask(url, Question({**(headers or {}), **JSON}), document, deadline)

    def post_document(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        deadline: float | None = None,
    ) -> Document:
        """Return the JSON that `url` answers to `body`, which is a question and changes nothing.

        Asked like `get_document`, and as often; redirects are followed with the body, but for 303,
        which says that the answer is to be had elsewhere by GET.
        """
        sent = {**(headers or {}), **JSON, "Content-Type": "application/json"}
        return self._ask(url, Question(sent, body), document, deadline)

    def get_range(
        self,
        url: str,
        start: int,
        stop: int,
        *,
        expect_html: bool = False,
        known: Part | None = None,
        deadline: float | None = None,
    ) -> Part:
        """Return the bytes [start, stop) of the asset at `url`, fewer where it ends before `stop`.

        `expect_html` says that the asset is a web page, which otherwise is taken for a portal's.
        `known` is what is returned, with its new URL, where the server says that the asset has
        its validator still. Raises as `get_document`; NotFound and Denied may mean that the link
        has expired.
        """
        if is_local(url):
            return self._local(url).range(url, start, stop)
        condition = unless(known.validator) if known else {}
        if not condition:
            known = None
        return self._ask(
            url,
            Question(_range_headers(start, stop) | condition),
            lambda response: part(response, start, stop, expect_html=expect_html, known=known),
            deadline,
        )

    def pour(self, url: str, into: Callable[[Body], T], *, deadline: float) -> T:
        """Return what `into` makes of the body at `url`, which it reads piece by piece.

        Tried once: what was read cannot be taken back. Raises as `get_document`, and what `into`
        raises.
        """
        self._raise_if_offline(url)
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        try:
            question = Question(headers)
            return self._attempt(url, question, lambda response: into(Body(response)), deadline)
        except Failed as failed:
            kind, message = failed.kind, failed.message
        self.errors += 1
        raise kind(message)

    def pour_range(
        self,
        url: str,
        start: int,
        stop: int,
        into: Callable[[Stream], T],
        *,
        expect_html: bool = False,
        once: bool = False,
    ) -> T:
        """Return what `into` makes of the bytes [start, stop) at `url`, fewer where it ends before.

        Tried again, but for `once`, until `into` is called: what that has read it cannot be given
        again, so who wants the rest asks for the rest. Raises as `get_document`, and what `into`
        raises.
        """
        if is_local(url):
            return into(FileStream(self._local(url), url, start, stop))
        question = Question(_range_headers(start, stop))
        has_begun = False

        def take(response: requests.Response) -> T:
            nonlocal has_begun
            stream = Stream(response, start, stop, expect_html=expect_html)
            has_begun = True
            return into(stream)

        def attempt() -> T:
            try:
                return self._attempt(url, question, take, time.monotonic() + POUR_SECONDS)
            except Failed as failed:
                if has_begun or once:
                    failed.tries = retry.NEVER
                raise

        return self._persist(url, attempt, time.monotonic() + self._timeout)

    def close(self) -> None:
        """Let all calls under way go with Interrupted, and close all connections."""
        self._closed.set()
        self._watch.close()
        self._session.close()

    def _local(self, url: str) -> Files:
        if self._files is None:
            raise Denied(f"{describe(url)} is a file of this machine, and the catalog is not")
        return self._files

    def _ask(
        self,
        url: str,
        question: Question,
        take: Callable[[requests.Response], T],
        deadline: float | None,
    ) -> T:
        until = time.monotonic() + self._timeout if deadline is None else deadline
        return self._persist(url, lambda: self._attempt(url, question, take, until), until)

    def _persist(self, url: str, attempt: Callable[[], T], until: float) -> T:
        self._raise_if_offline(url)
        try:
            return retry.persist(attempt, deadline=until, pause=self._pause, backoff=self._backoff)
        except NotFound:
            raise
        except MlhubfsError:
            self.errors += 1
            raise

    def _raise_if_offline(self, url: str) -> None:
        if self._is_offline:
            raise Offline(f"offline: {describe(url)} is not asked, and it is not kept here")

    def _pause(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise Interrupted("the file system is being unmounted")

    def _attempt(
        self,
        url: str,
        question: Question,
        take: Callable[[requests.Response], T],
        deadline: float,
    ) -> T:
        """Make the request once. If its line was cut, that is the reason for whatever came out."""
        outcome: T | Failed
        with self._watch.until(deadline) as line:
            try:
                outcome = self._follow(url, question, take, line)
            except Failed as failed:
                # Without its past: that holds URLs, and sockets open until garbage is collected.
                failed.__context__ = None
                outcome = failed.with_traceback(None)
        if self._closed.is_set():
            raise Interrupted("the file system is being unmounted")
        if line.is_cut:
            raise Failed(TimedOut, f"{describe(url)} did not answer in full before the deadline")
        if isinstance(outcome, Failed):
            raise outcome
        return outcome

    def _follow(
        self,
        url: str,
        question: Question,
        take: Callable[[requests.Response], T],
        line: Lifeline,
    ) -> T:
        """Take the answer at the end of the redirects that begin at `url`."""
        try:
            here = over_http(url)
            origin(here)
        except ValueError:
            raise Failed(BadAnswer, f"{describe(url)} is not a usable URL") from None
        been = {here}
        is_renewed = False
        while True:
            signed = self._signed(here, question, line)
            with self._exchange(here, question, line, signed) as response:
                status = response.status_code
                if signed != here and status in UNSIGNED and not is_renewed:
                    _drain(response)
                    is_renewed = True
                    if self._signer.renew(signed, response.headers):
                        continue
                if status not in REDIRECTS:
                    if status >= 400 and status != 416:
                        raise self._refusal(response)
                    if status in BODILESS:
                        _drain(response)
                    return take(response)
                _drain(response)
                if status == 303 and question.body is not None:
                    question = question.as_get()
                    been.clear()  # the answer may be at the URL that was posted to
                there = followed(here, response.headers.get("Location"))
            here = without_key(there, self._api_key) if self._api_key else there
            if here in been or len(been) > REDIRECT_LIMIT:
                raise Failed(BadAnswer, f"{describe(url)} redirects in circles")
            been.add(here)

    def _signed(self, url: str, question: Question, line: Lifeline) -> str:
        """Return what is to be asked for `url`; a signature crosses no network in the clear."""
        whose = origin(url)
        url = self._session.with_query(url)
        if question.body is not None or not whose.confidential():
            return url

        def ask(service: str) -> bytes:
            return bytes(self.get_document(service, deadline=line.deadline).body)

        return self._signer.sign(url, ask)

    def _refusal(self, response: requests.Response) -> Failed:
        _drain(response)
        url = str(response.url)
        wants_key = self._session.asks_for_key(url)
        return status_failure(url, response.status_code, response.headers, wants_key=wants_key)

    @contextlib.contextmanager
    def _exchange(
        self, url: str, question: Question, line: Lifeline, signed: str
    ) -> Iterator[requests.Response]:
        """Send one request; close its answer afterwards; translate what fails on the way.

        The answer is that of `url`: whoever reads it does not see what was signed.
        """
        self.requests += 1
        started = time.monotonic()
        left = line.deadline - started
        if left <= 0:
            raise Failed(TimedOut, f"{describe(url)} was not asked: the deadline has passed")
        timeout = Timeout(
            connect=min(self._connect_timeout, left), read=min(self._read_timeout, left)
        )
        try:
            with contextlib.closing(self._session.send(signed, *question, timeout)) as response:
                response.url = url
                try:
                    yield response
                finally:
                    log.debug(
                        "%s %s %d %s, %d bytes, %.0f ms",
                        "GET" if question.body is None else "POST",
                        describe(url),
                        response.status_code,
                        question.headers.get("Range", "whole"),
                        response.raw.tell(),
                        (time.monotonic() - started) * 1000,
                    )
        except CAUGHT as error:
            raise network_failure(url, error) from None


def _range_headers(start: int, stop: int) -> dict[str, str]:
    if not 0 <= start < stop:
        raise ValueError(f"[{start}, {stop}) is not a range of bytes")
    return {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Range": f"bytes={start}-{stop - 1}",
    }


def _drain(response: requests.Response) -> None:
    """Read a short body to its end, so that the connection can be used again."""
    with contextlib.suppress(*CAUGHT):
        response.raw.read(DRAINED)
