"""Sockets that can be cut: at a deadline, and when the transport is closed.

Owns the deadline of an operation as far as a socket is concerned. A socket's own timeout starts
anew with every byte, so that a server which sends one byte a second is never late: not in the body,
and not in the headers either, where no code of ours runs between the bytes. So one thread keeps
the deadlines of all requests under way and shuts down the socket of each that has passed its own.
The reader then finds the stream at its end. (The alternative, `read1` in small pieces with a look
at the clock between them, costs twice the time per byte and does not help with headers.)

What cannot be cut: the resolver (its own limits apply, /etc/resolv.conf), and making a connection,
which takes at most the connect timeout for each address of the host.

*Threading.* `Watch` may be used from any thread; a `Lifeline` belongs to the thread that made it,
and the watch cuts it from its own. The lifeline reaches the connection classes, which urllib3
creates, through a context variable.
"""

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from mlhubfs.errors import Interrupted


class Lifeline:
    """One request under way: its deadline, and its socket as soon as there is one."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.is_cut = False
        self._socket: socket.socket | None = None

    def attach(self, sock: Any) -> None:
        """Put `sock`, which the request has been sent on, under the deadline."""
        while not isinstance(sock, socket.socket):
            sock = sock.socket  # TLS inside of TLS, towards an https proxy, is wrapped by urllib3
        self._socket = sock
        # If the watch came between, it saw no socket; then it has set the flag before this line.
        if self.is_cut:
            self._shut_down()

    def cut(self) -> None:
        """End the stream under whoever reads it."""
        self.is_cut = True
        self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown: it takes the TLS layer away first, and the reader could
                # be given what is left in the kernel's buffer, still encrypted, as the body.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_lifeline: ContextVar[Lifeline | None] = ContextVar("lifeline", default=None)


class Watch:
    """The deadlines of all requests under way, and the thread that keeps them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: set[Lifeline] = set()
        self._wakes = math.inf  # when the thread means to look next
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextlib.contextmanager
    def until(self, deadline: float) -> Iterator[Lifeline]:
        """Cut the requests that this thread makes in the block once `deadline` has passed."""
        line = Lifeline(deadline)
        with self._changed:
            if self._closed:
                raise Interrupted("the file system is being unmounted")
            self._lines.add(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="watch", daemon=True)
                self._thread.start()
            elif deadline < self._wakes:
                self._changed.notify()
        token = _lifeline.set(line)
        try:
            yield line
        finally:
            _lifeline.reset(token)
            with self._changed:
                self._lines.discard(line)

    def close(self) -> None:
        """Cut everything under way, and let nothing new begin."""
        with self._changed:
            self._closed = True
            for line in self._lines:
                line.cut()
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _keep(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for line in self._lines:
                    if line.deadline <= now and not line.is_cut:
                        line.cut()
                self._wakes = min(
                    (line.deadline for line in self._lines if not line.is_cut), default=math.inf
                )
                # A request that ends does not wake the thread: it finds out at its next look.
                self._changed.wait(None if math.isinf(self._wakes) else self._wakes - now)


Admit = Callable[[str, int | None, str], None]
"""Given host, port and the address that was connected to; raises where it may not be spoken to."""


class _Cut:
    """What both kinds of connection do more than urllib3's."""

    def __init__(self, *args: Any, admit: Admit, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admit = admit

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        connection: Any = self
        if not connection.proxy:
            try:
                self._admit(connection.host, connection.port, sock.getpeername()[0])
            except BaseException:
                sock.close()
                raise
        return sock

    def getresponse(self) -> Any:
        connection: Any = self
        _attach(connection.sock)
        return super().getresponse()  # type: ignore[misc]


class _Connection(_Cut, HTTPConnection):
    pass


class _SecureConnection(_Cut, HTTPSConnection):
    pass


def _attach(sock: Any) -> None:
    line = _lifeline.get()
    if line is not None and sock is not None:
        line.attach(sock)


def pools(admit: Admit) -> dict[str, type[HTTPConnectionPool]]:
    """Return pools of connections that can be cut, and are made only where `admit` lets them.

    For `PoolManager.pool_classes_by_scheme`, urllib3's own way to say what connections are.
    """

    class Pool(HTTPConnectionPool):
        ConnectionCls = partial(_Connection, admit=admit)  # type: ignore[assignment]

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = partial(_SecureConnection, admit=admit)  # type: ignore[assignment]

    return {"http": Pool, "https": SecurePool}
