"""What a benchmark reads, and nginx that serves it, here or behind a line with a delay.

Owns the data (on disk, which is the local copy, and once more in memory, where nginx has it, so
that dropping the page cache does not slow the server), the catalog over it in MLHub's form, the
line, and the counting of requests in nginx's access log.

The server's tree: `data/` and `download/` hold the files; in `download/` each is a redirect to
`storage/`; `api/` is the catalog, static JSON. Directories are listed (autoindex) for the peers.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from affine import Affine

COLLECTION = "bench"
DATA, DOWNLOAD = "data", "download"  # the ways to a file: itself, by a redirect
BANDS = ("B02", "B03", "B04")
FILE_SIZE = 64 << 10
CHIP_SIDE = 112  # uint16: 25 kB
_NAMESPACE = Path("/run/netns/mlns")  # net/up.sh makes it
_FAR_HOST, _FAR_PORT = "10.99.0.2", 8080
_PAGE = 100  # items per page of the listing
_BLOCK = 8 << 20

_NGINX = """\
daemon off; user root; worker_processes auto; pid {run}/nginx.pid; error_log {run}/error.log;
events {{ worker_connections 1024; }}
http {{
  log_format bench '$request_length $bytes_sent';
  access_log {run}/access.log bench;
  sendfile on; tcp_nopush on; autoindex on; default_type application/octet-stream;
  types {{ image/tiff tif; }}
  server {{
    listen {address}; root {root}; {more}
    location ~ ^/api/archive/([^/]+)$ {{ return 303 $scheme://$http_host/archives/$1.tar.gz; }}
    location ~ ^/download/(.+\\.tif)$ {{ return 302 $scheme://$http_host/storage/$1; }}
    location /download/ {{ alias {root}/storage/; }}
    location /api/ {{ default_type application/json; try_files $uri$arg_page.json =404; }}
  }}
}}
"""


@dataclass(frozen=True)
class Sizes:
    """How much there is to read."""

    big: int = 1 << 30
    """Bytes of the one big file."""
    scene: int = 10752
    """Pixels a side of the COG: 230 MB with its overviews."""
    files: int = 1000
    chips: int = 1000
    windows: int = 64
    random: int = 500
    """Random reads by one thread; eight do four times as many."""


QUICK = Sizes(big=64 << 20, scene=2048, files=40, chips=20, windows=8, random=40)


class Line(NamedTuple):
    """The way to the server; all zeros is the loopback."""

    rtt_ms: int
    mbit: int = 0

    def __str__(self) -> str:
        """Return what `parse` takes."""
        return f"{self.rtt_ms}@{self.mbit}" if self.mbit else str(self.rtt_ms)

    @classmethod
    def parse(cls, text: str) -> "Line":
        """Return the line that `RTT` or `RTT@MBIT` names."""
        rtt, _, mbit = text.partition("@")
        return cls(int(rtt), int(mbit or 0))


class Traffic(NamedTuple):
    """What crossed the line."""

    requests: int
    bytes: int


class Server:
    """A running server at `url`; `process` is None where it is somebody else's."""

    def __init__(self, url: str, log: Path, process: "subprocess.Popen[bytes] | None") -> None:
        self.url = url.rstrip("/")
        self._log = log
        self._process = process

    @property
    def can_stop(self) -> bool:
        """Say whether `stop` works here."""
        return self._process is not None

    def forget(self) -> None:
        """Count from here on."""
        if self._process:
            os.truncate(self._log, 0)

    def traffic(self) -> Traffic | None:
        """Return what was counted; requests are noted when they end."""
        if not self._process:
            return None
        lines = self._log.read_text().splitlines()
        return Traffic(len(lines), sum(int(n) for line in lines for n in line.split()))

    def stop(self) -> None:
        """Make nginx a black hole: connections are taken by the kernel, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Wake nginx up."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process:
            os.killpg(self._process.pid, number)


@contextlib.contextmanager
def serving(line: Line, root: Path, run: Path, up: Path | None, more: str = "") -> Iterator[Server]:
    """Serve `root` behind `line`, which the script `up` brings up; take all down at the end.

    `more` is what is said to nginx in addition.
    """
    run.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as ending:
        if line == Line(0):
            prefix: list[str] = []
            address = f"127.0.0.1:{_free_port()}"
        else:
            ending.enter_context(_far(line, up))
            prefix = ["ip", "netns", "exec", _NAMESPACE.name]
            address = f"{_FAR_HOST}:{_FAR_PORT}"
        config = run / "nginx.conf"
        config.write_text(_NGINX.format(run=run, root=root, address=address, more=more))
        command = [*prefix, "nginx", "-e", f"{run}/error.log", "-c", os.fspath(config)]
        process = subprocess.Popen(command, start_new_session=True)
        server = Server(f"http://{address}", run / "access.log", process)
        ending.callback(_end, process)
        ending.callback(server.go_on)
        _await_answer(address, process)
        write_catalog(root, server.url)
        yield server


@contextlib.contextmanager
def data(base: Path, sizes: Sizes, *, serve: bool) -> Iterator[tuple[Path, Path]]:
    """Return the folder of the local copy, made if it is not there, and the one to be served."""
    local, served = base / "local", base / "served"
    stamp = base / "local.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != asdict(sizes):
        shutil.rmtree(local, ignore_errors=True)
        _make(local, sizes)
        stamp.write_text(json.dumps(asdict(sizes)))
    if not serve:
        yield local, local
        return
    served.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "bench", os.fspath(served)], check=True)
    try:
        shutil.copytree(local, served, dirs_exist_ok=True)
        yield local, served
    finally:
        subprocess.run(["umount", "-l", os.fspath(served)], check=True)
        served.rmdir()


def write_catalog(root: Path, url: str) -> None:
    """Write the catalog of the files in `root`, which are at `url`, in MLHub's form."""
    api = root / "api"
    items = []
    for folder in sorted([*(root / "data").iterdir(), *(root / "storage").iterdir()]):
        way = DOWNLOAD if folder.parent.name == "storage" else DATA
        hrefs = {one.stem: f"{url}/{way}/{folder.name}/{one.name}" for one in folder.iterdir()}
        items.append(_item(folder.name, hrefs))
    dataset = {"id": COLLECTION, "title": "Benchmark", "collections": [{"id": COLLECTION}]}
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": COLLECTION,
        "description": "What is read",
        "license": "MIT",
        "links": [],
        "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [[None, None]]}},
    }
    _write(api / "datasets.json", [dataset])
    _write(api / "datasets" / f"{COLLECTION}.json", dataset)
    _write(api / "collections.json", {"collections": [collection], "links": []})
    _write(api / "collections" / f"{COLLECTION}.json", collection)
    below = api / "collections" / COLLECTION
    for item in items:
        _write(below / "items" / f"{item['id']}.json", item)
    for page, start in enumerate(range(0, len(items), _PAGE)):
        more = start + _PAGE < len(items)
        links = [{"rel": "next", "href": f"items?page={page + 1}"}] if more else []
        features = items[start : start + _PAGE]
        body = {"type": "FeatureCollection", "features": features, "links": links}
        _write(below / f"items{page or ''}.json", body)


def _item(name: str, hrefs: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": COLLECTION,
        "geometry": None,
        "properties": {"datetime": "2026-01-01T00:00:00Z"},
        "links": [],
        "assets": {
            key: {"href": href, **({"type": "image/tiff"} if href.endswith(".tif") else {})}
            for key, href in sorted(hrefs.items())
        },
    }


def _write(path: Path, body: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body))


def _make(local: Path, sizes: Sizes) -> None:
    print(f"making the data in {local} ...")
    random = np.random.default_rng(1)
    # nginx lists `download` only if it is there.
    for item in ("data/big", "data/files", "data/scene", "storage", "download"):
        (local / item).mkdir(parents=True)
    with (local / "data/big/big.bin").open("wb") as file:
        for _ in range(sizes.big // _BLOCK):
            file.write(random.bytes(_BLOCK))
    for number in range(sizes.files):
        (local / f"data/files/f{number:04}.bin").write_bytes(random.bytes(FILE_SIZE))
    # Twelve bits of noise: tiles of some 400 kB, as real scenes have.
    pixels = random.integers(0, 4096, (sizes.scene, sizes.scene), dtype=np.uint16)
    options = {"blocksize": 512, "compress": "deflate", "level": 1, "num_threads": "all_cpus"}
    _write_raster(local / "data/scene/scene.tif", pixels, driver="COG", **options)
    for number in range(sizes.chips):
        (local / f"storage/c{number:04}").mkdir()
        for band in BANDS:
            pixels = random.integers(0, 4096, (CHIP_SIDE, CHIP_SIDE), dtype=np.uint16)
            path = local / f"storage/c{number:04}/{band}.tif"
            _write_raster(path, pixels, driver="GTiff")


def _write_raster(path: Path, pixels: Any, **options: Any) -> None:
    height, width = pixels.shape
    placed = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    shape = {"width": width, "height": height, "count": 1, "dtype": "uint16"}
    with rasterio.open(path, "w", **shape, **placed, **options) as target:
        target.write(pixels, 1)


@contextlib.contextmanager
def _far(line: Line, up: Path | None) -> Iterator[None]:
    if up is None:
        raise RuntimeError("no script brings the line up: give it with --net")
    if _NAMESPACE.exists():
        raise RuntimeError(f"the line is in use by somebody else ({_NAMESPACE} exists)")
    command = [os.fspath(up), str(line.rtt_ms), str(line.mbit)]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield
    finally:
        subprocess.run([os.fspath(up.with_name("down.sh"))], check=False)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_answer(address: str, process: "subprocess.Popen[bytes]") -> None:
    host, _, port = address.partition(":")
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"nginx does not answer at {address}")
