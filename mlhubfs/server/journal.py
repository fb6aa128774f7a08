"""One line about each request, and the traceback of what went wrong in it.

Owns what may be said of a request: never its query, which can hold the key, nor a download token.

*Threading.* Each event loop has its own `Journal`; `record` and `log` may be shared.
"""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class RequestLine:
    """A request that was answered. `range` is the header as it was sent."""

    method: str
    path: str
    status: int
    range: str | None = None


class Journal:
    """ASGI middleware around `app`.

    `record` is called before the first byte of the answer is sent, so that who has an answer also
    finds its line; `log` when all is sent.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        log: Callable[[str], None],
        record: Callable[[RequestLine], None] = lambda _line: None,
    ) -> None:
        self._app = app
        self._log = log
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let `app` answer, on the path as it was sent, without a trailing slash."""
        if scope["type"] != "http":
            return  # nothing here speaks WebSocket
        path = scope["raw_path"].decode("latin-1")
        scope["path"] = path.rstrip("/") or "/"
        asked = dict(scope["headers"]).get(b"range")
        start = time.monotonic()
        line: RequestLine | None = None

        async def noting(message: Message) -> None:
            nonlocal line
            if message["type"] == "http.response.start":
                line = RequestLine(
                    scope["method"],
                    _without_token(path),
                    message["status"],
                    asked.decode("latin-1") if asked else None,
                )
                self._record(line)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:  # noqa: BLE001 - whatever it is, the next request is to be answered
            # Starlette has answered 500, if an answer had not begun; then uvicorn cuts it.
            self._log(traceback.format_exc().rstrip())
        if line:
            spent = (time.monotonic() - start) * 1000
            extent = f" {line.range}" if line.range else ""
            self._log(f"{line.method} {line.path} {line.status}{extent} {spent:.0f} ms")


def _without_token(path: str) -> str:
    before, download, _token = path.partition("/download/")
    return f"{before}{download}..." if download else path
