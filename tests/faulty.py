"""An HTTP server that does what it is told: fail, stall, cut, and lie. For the tests of every room.

    with FaultyServer() as server:
        server.on("/a.tif", Asset(data, etag='"1"'))               # ranges, validators, 416
        server.on("/flaky", Reply(503), Reply(503), Asset(data))   # a queue; the last one repeats
        server.on("/slow", Asset(data, hold=server.hold()))        # until the event is set
        server.on("/cut", Asset(data, cut=100), Asset(data))       # broken off after 100 bytes
        server.on("/a", Reply(302, {"Location": "/b"}))
        server.on("/odd", lambda request: Reply(200, body=request.query.encode()))
        ...
        assert [r.headers["range"] for r in server.to("/a.tif")] == ["bytes=0-99"]

What answers a path is a script of `Reply`, `Asset` or any callable from `Request` to `Reply`. The
faults are fields of the reply; `Asset` takes them too. Unscripted paths answer 404. Bodies need not
be in memory: `Pattern(5 << 30)` is five GiB of known bytes.

*Threading.* A thread for each connection. `requests` grows as requests arrive, before they are
answered; `wait_for` waits for that, so that tests need no sleep.
"""

import array
import contextlib
import gzip
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, Self

MODIFIED = "Sat, 01 Jul 2017 10:20:30 GMT"
PIECE = 1 << 20


class Content(Protocol):
    """The bytes of a body: bytes, or something that is sliced and measured like them."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> bytes: ...


class Pattern:
    """`size` bytes of which each is known by its offset, so that any shift is seen."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: slice) -> bytes:
        start, stop, _ = index.indices(self.size)
        first, last = start // 8, -(-stop // 8)
        words = array.array("Q", (n * 0x9E3779B97F4A7C15 % (1 << 64) for n in range(first, last)))
        return words.tobytes()[start - first * 8 : stop - first * 8] if start < stop else b""


class Request(NamedTuple):
    """What arrived. Names of headers are in lower case; `connection` counts from 1."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    connection: int
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong with a reply, and how it is framed."""

    hold: threading.Event | None = None
    """Wait for it before the status line; with `cut`, before what follows the cut."""
    cut: int | None = None
    """Send so many bytes of the body, then reset the connection; with `hold`, stall there."""
    reset: bool = False
    """Reset the connection instead of answering."""
    trickle: float = 0.0
    """Seconds between each byte of the body."""
    trickle_headers: float = 0.0
    """Seconds between each byte of the headers."""
    length: int | None = None
    """Lie so in Content-Length; -1 leaves it out, so that the end of the body is the end of all."""
    chunked: bool = False
    compressed: bool = False
    """gzip the body and say so."""
    close: bool = False
    """Close the connection after the reply."""


@dataclass(frozen=True)
class Reply(Faults):
    """One answer. `headers` come on top of Content-Length and Date."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Content = b""

    def __call__(self, request: Request) -> "Reply":
        return self


@dataclass(frozen=True)
class Asset(Faults):
    """A file with ranges, as storage serves it. `headers` replace what it would say."""

    content: Content = b""
    etag: str | None = '"v1"'
    modified: str | None = MODIFIED
    ranges: bool = True
    conditional: bool = False
    """Answer 304 to an If-None-Match that names the ETag."""
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, request: Request) -> Reply:
        size = len(self.content)
        said = {"Content-Type": "application/octet-stream"}
        if self.etag:
            said["ETag"] = self.etag
        if self.modified:
            said["Last-Modified"] = self.modified
        opaque = (self.etag or "").removeprefix("W/")
        if self.conditional and opaque and request.headers.get("if-none-match") == opaque:
            return Reply(304, {"ETag": self.etag})
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        status, body = 200, self.content
        if match and self.ranges:
            start, stop = int(match[1]), min(size, int(match[2] or size) + 1)
            status, body = 206, _Slice(self.content, start, stop)
            said["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            if start >= size:
                status, body = 416, b""
                said["Content-Range"] = f"bytes */{size}"
        faults = {name: getattr(self, name) for name in Faults.__dataclass_fields__}
        return Reply(status, {**said, **self.headers}, body, **faults)


class _Slice:
    """A range of some content, itself content."""

    def __init__(self, content: Content, start: int, stop: int) -> None:
        self.content, self.start, self.stop = content, start, stop

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __getitem__(self, index: slice) -> bytes:
        start, stop, _ = index.indices(len(self))
        return self.content[self.start + start : self.start + stop]


Behaviour = Callable[[Request], Reply]


class FaultyServer:
    """The server. Give it `tls` (certificate file, key file) to speak https."""

    def __init__(self, *, tls: tuple[str, str] | None = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
        self._scripts: dict[str, list[Behaviour]] = {}
        self._holds: list[threading.Event] = []
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._serving: list[threading.Thread] = []
        self._stopping = threading.Event()
        self.port = 0
        self.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`, without a slash at the end."""
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    def on(self, path: str, *behaviours: Behaviour) -> None:
        """Answer `path` with these, one after the other, and with the last from then on."""
        with self._changed:
            self._scripts[path] = list(behaviours)

    def to(self, path: str) -> list[Request]:
        """Return the requests of `path` so far."""
        with self._changed:
            return [request for request in self.requests if request.path == path]

    def wait_for(self, path: str, count: int = 1) -> None:
        """Wait until `path` has been requested `count` times."""
        with self._changed:
            came = self._changed.wait_for(
                lambda: sum(r.path == path for r in self.requests) >= count, timeout=30
            )
        assert came, f"{path} was not requested {count} times in 30 s"

    def hold(self) -> threading.Event:
        """Return an event to stall on; killing the server releases it."""
        event = threading.Event()
        self._holds.append(event)
        return event

    def kill(self) -> None:
        """Stop listening and break all connections off, as a crash does. `restart` may follow."""
        with self._changed:
            self._stopping.set()
            for connection in self._open:
                _reset(connection)
                _shut_down(connection)
        _shut_down(self._listener)
        self._accepting.join()
        self._listener.close()
        for event in self._holds:
            event.set()
        for thread in self._serving:
            thread.join()
        self._serving.clear()

    def restart(self) -> None:
        """Listen again, on the same port."""
        self._stopping.clear()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._stopping.is_set():
                    connection.close()
                    return
                self.connections += 1
                self._open.add(connection)
                thread = threading.Thread(
                    target=self._serve, args=(connection, self.connections), daemon=True
                )
                self._serving.append(thread)
            thread.start()

    def _serve(self, wire: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context:
                wire = self._secure(wire, self._context)
                wire.do_handshake()
            with wire.makefile("rb") as incoming:
                while request := _read(incoming, number):
                    if not self._answer(wire, request):
                        break
        with self._changed:
            self._open.discard(wire)
            wire.close()

    def _secure(self, wire: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        secure = context.wrap_socket(wire, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self._open.remove(wire)  # it lives on in `secure`
            self._open.add(secure)
        return secure

    def _answer(self, wire: socket.socket, request: Request) -> bool:
        """Answer one request; return whether the connection goes on."""
        with self._changed:
            self.requests.append(request)
            script = self._scripts.get(request.path, [Reply(404, body=b"not found")])
            behaviour = script.pop(0) if len(script) > 1 else script[0]
            self._changed.notify_all()
        reply = behaviour(request)
        if reply.hold and reply.cut is None:
            reply.hold.wait()
        if reply.reset:
            _reset(wire)
            return False
        if reply.compressed:
            body = gzip.compress(reply.body[0 : len(reply.body)])
            reply = replace(reply, body=body, headers={**reply.headers, "Content-Encoding": "gzip"})
        self._send(wire, _head(reply), reply.trickle_headers)
        if request.method == "HEAD":
            return not reply.close
        stop = len(reply.body) if reply.cut is None else min(reply.cut, len(reply.body))
        for offset in range(0, stop, PIECE):
            self._send_piece(wire, reply, reply.body[offset : min(offset + PIECE, stop)])
        if reply.cut is not None:
            if reply.hold:
                reply.hold.wait()
            _reset(wire)
            return False
        if reply.chunked:
            wire.sendall(b"0\r\n\r\n")
        return not (reply.close or reply.length is not None)

    def _send_piece(self, wire: socket.socket, reply: Reply, piece: bytes) -> None:
        if reply.chunked:
            piece = b"%x\r\n%s\r\n" % (len(piece), piece)
        self._send(wire, piece, reply.trickle)

    def _send(self, wire: socket.socket, data: bytes, seconds: float) -> None:
        if not seconds:
            wire.sendall(data)
            return
        for offset in range(len(data)):
            wire.sendall(data[offset : offset + 1])
            if self._stopping.wait(seconds):
                return


def _read(incoming: Any, number: int) -> Request | None:
    """Return the next request of a connection, None at its end."""
    line = incoming.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers: dict[str, str] = {}
    while (text := incoming.readline().decode("latin-1").strip()) != "":
        name, _, value = text.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = incoming.read(int(headers.get("content-length", "0")))
    path, _, query = line[1].partition("?")
    return Request(line[0], path, query, headers, number, body)


def _head(reply: Reply) -> bytes:
    said = {"Date": formatdate(time.time(), usegmt=True)}
    if reply.chunked:
        said["Transfer-Encoding"] = "chunked"
    elif reply.length is None:
        said["Content-Length"] = str(len(reply.body))
    elif reply.length >= 0:
        said["Content-Length"] = str(reply.length)
    phrases = {status.value: status.phrase for status in HTTPStatus}
    lines = [f"HTTP/1.1 {reply.status} {phrases.get(reply.status, 'Odd')}"]
    lines += [f"{name}: {value}" for name, value in {**said, **reply.headers}.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def _reset(connection: socket.socket) -> None:
    """Have the connection end with RST, whatever is unsent, when it is closed."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _shut_down(connection: socket.socket) -> None:
    """Wake whoever waits on the socket."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
