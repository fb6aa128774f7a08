"""The server as a whole: two listening sockets, two event loops, started and stopped.

Owns the sockets and the settings, and runs without Starlette and uvicorn up to the point where it
says that they are missing. Knows no route.

*Threading.* `start` and `stop` are for one thread; the API and the storage each run an event loop
in a thread of their own.
"""

import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Self

from mlhubfs.errors import ConfigError
from mlhubfs.server.holdings import Holdings
from mlhubfs.server.pack import Packer

if TYPE_CHECKING:
    from mlhubfs.server.journal import RequestLine
    from mlhubfs.server.origins import Origin

ROOT_PATH = "/mlhub/v1"
TOKEN_SECONDS = 4 * 3600
_BACKLOG = 2048
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


class LocalServer:
    """Serves MLHub's API over `paths`, and their files on a second port; a context manager.

    Without `paths`, the bundled sample. Port 0 takes a free one. With `api_key`, items, archives
    and catalogs are for those who have it. `log` gets a line for each request and for what was
    left out; with `record`, `requests` keeps them. `ConfigError` where Starlette or uvicorn are
    missing, a path holds no collection, an archive is refused, or, at `start`, a port is taken.
    """

    def __init__(
        self,
        paths: Sequence[Path] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        storage_port: int = 0,
        api_key: str | None = None,
        cache_dir: Path,
        token_seconds: float = TOKEN_SECONDS,
        root_path: str = ROOT_PATH,
        log: Callable[[str], None] | None = None,
        record: bool = False,
    ) -> None:
        try:
            from mlhubfs.server.origins import open_origins  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            raise ConfigError(
                f"the local server needs {error.name}: pip install 'mlhubfs[server]'"
            ) from error
        self._open_origins = open_origins
        self.requests: list[RequestLine] = []
        """The requests answered so far by both origins, in their order, if they are recorded."""
        self._record: Callable[[RequestLine], None] = (
            self.requests.append if record else lambda _line: None
        )
        self._host = host
        self._ports = (port, storage_port)
        self._api_key = api_key
        self._root_path = "/" + root_path.strip("/") if root_path.strip("/") else ""
        self._log = log or (lambda _line: None)
        self._holdings = Holdings(paths, cache_dir, self._log)
        self._packer = Packer(self._holdings, cache_dir)
        self._token_seconds = token_seconds
        self._sockets: list[socket.socket] = []
        self._running: list[Origin] = []

    @property
    def root_url(self) -> str:
        """The root of the API, without a trailing slash."""
        return self._origin(0) + self._root_path

    @property
    def storage_url(self) -> str:
        """The origin of the storage."""
        return self._origin(1)

    def start(self) -> None:
        """Listen, and answer from now on."""
        try:
            for port in self._ports:
                self._sockets.append(_listen(self._host, port))
        except ConfigError:
            self._close_sockets()
            raise
        self._running = self._open_origins(
            self._holdings,
            self._packer,
            self._sockets,
            root_path=self._root_path,
            address=self._origin(0).removeprefix("http://"),
            api_key=self._api_key,
            token_seconds=self._token_seconds,
            log=self._log,
            record=self._record,
        )

    def stop(self) -> None:
        """Stop listening and cut what is under way; returns when nothing is left."""
        for origin in self._running:
            origin.end()
        for origin in self._running:
            origin.wait()
        self._running = []
        self._close_sockets()

    def run_forever(self) -> None:
        """Serve from the main thread until SIGINT or SIGTERM."""
        ended = threading.Event()

        def end(_number: int, _frame: FrameType | None) -> None:
            ended.set()

        before = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            if not self._running:
                self.start()
            ended.wait()
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _origin(self, index: int) -> str:
        host = _ANY.get(self._host, self._host)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._port(index)}"

    def _port(self, index: int) -> int:
        if not self._sockets:
            raise RuntimeError("the server has no address before it is started")
        return int(self._sockets[index].getsockname()[1])

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets = []


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket: callers who come before the event loop runs are kept waiting."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(
            f"{host} cannot be listened on ({error}): try --host 127.0.0.1"
        ) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port {port} of {host} cannot be listened on ({error.strerror}): "
            "stop what uses it, or try another --port, or --port 0 for any that is free"
        ) from error
    return listening
