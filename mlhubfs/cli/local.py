"""The commands around the local server: serve, demo."""

import contextlib
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO, cast

import click

from mlhubfs import config as settings
from mlhubfs import mount as mounts
from mlhubfs import mountpoint
from mlhubfs.cli.options import log_path_of, word
from mlhubfs.errors import MlhubfsError, MountError
from mlhubfs.server.run import LocalServer

_PORT = 7462
_DEMO_MOUNTPOINT = Path("mlhub-demo")
_DEMO_COLLECTION = Path("bigearthnet_v1/bigearthnet_v1_source")
_BRANCHES = 4  # names shown per directory: the whole tour fits a screen


@click.command()
@click.argument("paths", nargs=-1, type=word, metavar="[DIR|ARCHIVE]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="Port of the API; 0 takes a free one.",
)
@click.option(
    "--storage-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the storage; 0, the default, is a free one.",
)
@click.option(
    "--api-key", envvar="MLHUBFS_SERVER_KEY", help="Ask for this key.  [env: MLHUBFS_SERVER_KEY]"
)
@click.option("--quiet", is_flag=True, help="Do not log requests.")
@click.option("--until-eof", is_flag=True, hidden=True)
def serve(
    paths: tuple[str, ...],
    host: str,
    port: int,
    storage_port: int,
    api_key: str | None,
    *,
    quiet: bool,
    until_eof: bool,
) -> None:
    """Serve MLHub's API over archives on this machine; without any, over the bundled sample.

    An ARCHIVE is a collection archive (.tar.gz) of MLHub's; a DIR is such an archive unpacked, a
    dataset as `cp -r` takes it from a mount, or a folder of these.
    """
    server = LocalServer(
        tuple(map(Path, paths)),
        host=host,
        port=port,
        storage_port=storage_port,
        api_key=api_key,
        cache_dir=settings.load({**os.environ, "MLHUB_PROFILE": settings.ANONYMOUS}).cache_dir
        / "server",
        log=None if quiet else lambda line: click.echo(line, err=True),
    )
    with server:
        click.echo(server.root_url)
        if until_eof:
            sys.stdin.buffer.read()
            return
        click.echo(f"mount it with: mlhubfs mount {server.root_url} DIRECTORY", err=True)
        server.run_forever()


@click.command()
@click.argument(
    "where", default=_DEMO_MOUNTPOINT, type=click.Path(path_type=Path), metavar="[MOUNTPOINT]"
)
def demo(where: Path) -> None:
    """Serve the bundled sample and mount it on MOUNTPOINT, by default ./mlhub-demo.

    The sample is synthetic; nothing is downloaded. `mlhubfs umount MOUNTPOINT` ends both the mount
    and the server.
    """
    if not (mountpoint.is_served(where) and (where / _DEMO_COLLECTION).is_dir()):
        made = _make(where)
        try:
            mountpoint.prepare(where)
            _mount_sample(where)
        except MlhubfsError:
            if made:
                where.rmdir()
            raise
    _tour(where)


def _make(where: Path) -> bool:
    """Make the directory if nothing is there; whether what is there will do is the mount's word."""
    try:
        where.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise MountError(
            f"{where} cannot be made: {error.strerror}: give another directory"
        ) from None
    return True


def _mount_sample(where: Path) -> None:
    """Start the server on the sample as a process of its own, which lives as long as the mount.

    The server reads its stdin until the end, and the daemon holds the other end of that pipe: it
    ends when the daemon does, however that may be.
    """
    log_path = log_path_of(where)
    log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log_path.with_suffix(".server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlhubfs", "serve", "--port=0", "--until-eof"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    told, kept_open = cast("IO[bytes]", server.stdout), cast("IO[bytes]", server.stdin)
    root_url = told.readline().decode().strip()
    if not root_url:
        said = Path(log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = said[-1].removeprefix("mlhubfs: ") if said else f"see {log.name}"
        raise MountError(f"the local server did not start: {reason}")

    def end_server() -> None:
        # Closing our end of its stdin would do, if the parent did not hold another one while it
        # waits for the word of the daemon that ends before it has mounted.
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGTERM)
        kept_open.close()
        told.read()

    environ = {**os.environ, "MLHUB_PROFILE": settings.ANONYMOUS}
    config = settings.load(environ, source=root_url)
    mounts.mount({"": config}, where, foreground=False, log_path=log_path, at_end=end_server)


def _tour(where: Path) -> None:
    """Show what a newcomer sees first: the tree, and an asset opened."""
    collection = where / _DEMO_COLLECTION
    item = min(one for one in collection.iterdir() if one.name.startswith(collection.name))
    opened = item / "B04.tif"
    click.echo(f"the sample is mounted:\n\n{where}/")
    _branches(where, towards=opened)
    click.echo(f"\n{opened.name}: {_describe_tiff(opened)}\n")
    click.echo("Try next:")
    command = "mlhubfs" if shutil.which("mlhubfs") else sys.argv[0]
    click.echo(f"  cat {_quoted(where / 'README.txt')}")
    click.echo(f"  gdalinfo {_quoted(opened)}   # or open it in QGIS")
    click.echo(f"  cp -r --no-preserve=mode {_quoted(item)} .")
    click.echo(f"To end:\n  {command} umount {_quoted(where)}")


def _quoted(path: Path) -> str:
    return shlex.quote(os.fspath(path))


def _branches(directory: Path, *, towards: Path, depth: int = 1) -> None:
    """Print some names in `directory`, and go on below the one that leads to `towards`."""
    names = sorted(directory.iterdir(), key=lambda one: (one.is_dir(), one.name))
    way = {towards, *towards.parents}
    shown = [one for index, one in enumerate(names) if index < _BRANCHES or one in way]
    for one in shown:
        click.echo(f"{'    ' * depth}{one.name}{'/' if one.is_dir() else ''}")
        if one in way and one.is_dir():
            _branches(one, towards=towards, depth=depth + 1)
    if len(shown) < len(names):
        click.echo(f"{'    ' * depth}... and {len(names) - len(shown)} more")


def _describe_tiff(path: Path) -> str:
    """Return what a TIFF's first directory (TIFF 6.0, section 2) says, read through the mount."""
    data = path.read_bytes()
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    tags: dict[int, int] = {}
    for index in range(count):
        entry = start + 2 + 12 * index
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        (tags[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + 8)
    width, height, bits = (tags[tag] for tag in (256, 257, 258))
    return f"a TIFF of {width} x {height} pixels, {bits} bits each, {len(data)} bytes"
