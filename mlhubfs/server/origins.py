"""The two origins, each an ASGI application in an event loop of its own.

Owns what is put together for them, and uvicorn: how its loops run and how they end. Binds nothing.

*Threading.* An `Origin` is a daemon thread with an event loop; `end` and `wait` may be called from
any other.
"""

import secrets
import socket
import threading
from collections.abc import Callable, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from mlhubfs.server.api import Api
from mlhubfs.server.holdings import Holdings
from mlhubfs.server.journal import Journal, RequestLine
from mlhubfs.server.pack import Packer
from mlhubfs.server.storage import Storage
from mlhubfs.server.tokens import Tokens

_GRACE_SECONDS = 1  # for a handler whose caller was cut off to notice it
_WAIT_SECONDS = 5  # then the thread is left behind: it is packing an archive that nobody will get


class Origin:
    """Answers on `listening`, with `app`, from construction until `end`."""

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="critical",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="local-mlhub", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Ask the loop to end."""
        self._server.should_exit = True

    def wait(self) -> None:
        """Return when the loop has ended."""
        self._thread.join(_WAIT_SECONDS)


class _Server(uvicorn.Server):
    """A uvicorn that cuts its connections when it ends, where uvicorn waits for slow readers."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport:
                connection.transport.abort()
        await super().shutdown(sockets)


def open_origins(
    holdings: Holdings,
    packer: Packer,
    sockets: Sequence[socket.socket],
    *,
    root_path: str,
    address: str,
    api_key: str | None,
    token_seconds: float,
    log: Callable[[str], None],
    record: Callable[[RequestLine], None],
) -> list[Origin]:
    """Answer as the API on the first of `sockets`, as the storage on the second."""
    # Without a key all is open anyway, and URLs that stay the same are easier to work with.
    word = "mlhub" if api_key is None else secrets.token_urlsafe(16)
    storage = Storage(holdings, packer, word)
    api = Api(
        holdings,
        packer,
        storage,
        Tokens(token_seconds),
        root_path=root_path,
        address=address,
        storage_port=sockets[1].getsockname()[1],
        api_key=api_key,
    )
    files = Starlette(routes=[Route("/{path:path}", storage.serve)])
    return [
        Origin(Journal(app, log=log, record=record), listening)
        for app, listening in zip((api.app(), files), sockets, strict=True)
    ]
