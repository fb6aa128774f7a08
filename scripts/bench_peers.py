"""Ways to the bytes that a benchmark compares: mlhubfs, others' mounts, GDAL's /vsicurl/, a copy.

Each is a `Peer`, whose `ready` brings it up over a server's tree and takes it down again, also when
its server is deaf. Run as a program, this mounts `fsspec.fuse` (see `_mount_fsspec`).
"""

import contextlib
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench_server import COLLECTION, DATA, DOWNLOAD, Server

SEQUENTIAL, RANDOM = "sequential", "random"
_START_SECONDS = 30.0
_END_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PROGRAM = [sys.executable, "-m", "mlhubfs"]
_RCLONE = "--read-only --no-checksum --no-modtime --config= "
_RCLONE_PROFILES = {
    SEQUENTIAL: "--vfs-read-ahead 256M --buffer-size 64M --vfs-read-chunk-size 32M",
    RANDOM: "--vfs-read-ahead 0 --buffer-size 0 --vfs-read-chunk-size 64K",
}


class Ready(NamedTuple):
    """A peer that is up."""

    ways: dict[str, str]
    """A way on the server (data, download) -> what it is here, before a file's name."""
    environ: dict[str, str] = {}  # noqa: RUF012 - never changed
    """For the process that reads."""
    pid: int | None = None
    """The daemon's."""

    def cpu_seconds(self) -> float | None:
        """Return what the daemon has taken until now, user and system."""
        if not self.pid:
            return None
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def peak_mib(self) -> float | None:
        """Return the daemon's largest resident size until now."""
        if not self.pid:
            return None
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(one.split()[1]) for one in lines if one.startswith("VmHWM")) / 1024


@dataclass(frozen=True, eq=False)
class Peer:
    """A way to the bytes."""

    name: str
    ready: Callable[[Server, Path, str], AbstractContextManager[Ready]]
    """Given a server, a folder for mount and cache, and a profile, sequential or random."""
    version: list[str]
    """The command that tells it."""
    needs: str = ""
    """What to install, if it is not here."""
    settings: str = ""
    rows: frozenset[str] | None = None
    """The workloads that it takes part in; None is all."""
    is_mount: bool = False
    keeps: bool = False
    """Whether it has bytes after its end, so that there is a warm run to measure."""

    def describe(self) -> str:
        """Return version and settings."""
        done = subprocess.run(self.version, capture_output=True, text=True, check=False)
        said = (done.stdout.splitlines() or ["unknown"])[0].split(" (")[0]
        return f"{said} {self.settings}".strip()


def peers(local: Path, options: str) -> list[Peer]:
    """Return all peers, ourselves first, the limits last; `needs` is set for those not here."""
    rclone = "" if shutil.which("rclone") else "apt-get install rclone"
    modules = all(importlib.util.find_spec(one) for one in ("fsspec", "aiohttp", "fuse"))
    fsspec = "" if modules else "pip install fsspec aiohttp fusepy"
    gdal = [sys.executable, "-c", "import rasterio as r; print('GDAL', r.__gdal_version__)"]
    tuned = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
    rasters = frozenset({"cog", "chips"})
    return [
        Peer(
            "mlhubfs",
            partial(_mlhubfs, options),
            [*_PROGRAM, "--version"],
            settings=options,
            is_mount=True,
            keeps=True,
        ),
        *(
            Peer(
                f"rclone-{mode}",
                partial(_rclone, mode),
                ["rclone", "version"],
                rclone,
                f"--vfs-cache-mode {mode}",
                is_mount=True,
                keeps=mode == "full",
            )
            for mode in ("full", "off")
        ),
        Peer(
            "fsspec",
            _fsspec,
            [sys.executable, "-c", "import fsspec; print(fsspec.__version__)"],
            fsspec,
            "threads=False",
            is_mount=True,
        ),
        Peer("vsicurl", partial(_vsicurl, {}), gdal, rows=rasters),
        Peer("vsicurl-tuned", partial(_vsicurl, tuned), gdal, settings=str(tuned), rows=rasters),
        Peer(
            "curl",
            _curl,
            ["curl", "--version"],
            "" if shutil.which("curl") else "apt-get install curl",
            rows=frozenset({"sequential"}),
        ),
        Peer("local", partial(_local, local), ["echo", "a copy on the disk"], keeps=True),
    ]


@contextlib.contextmanager
def _mlhubfs(options: str, server: Server, base: Path, profile: str) -> Iterator[Ready]:  # noqa: ARG001
    """Mount the server's catalog as users do."""
    where = _mountpoint(base)
    homes = {f"XDG_{one}_HOME": os.fspath(base / one) for one in ("CACHE", "STATE")}
    environ = {**os.environ, **homes, "MLHUB_PROFILE": "__anonymous__"}
    texts = ["-o", f"cache_dir={base / 'cache'}"] + ["-o", options] * bool(options)
    mount = [*_PROGRAM, "mount", f"{server.url}/api", os.fspath(where), *texts]
    # In a session of its own, for Ctrl-C must not end it half-way: a daemon would be left.
    command = subprocess.Popen(
        mount, env=environ, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        if command.wait():
            raise RuntimeError("mlhubfs does not mount: see above")
        (lock,) = (base / "STATE/mlhubfs/mounts").glob("*.json")
        root = f"{where}/{COLLECTION}/{COLLECTION}/"  # where on the server a file is, is hidden
        yield Ready({DATA: root, DOWNLOAD: root}, pid=json.loads(lock.read_text())["pid"])
    finally:
        command.wait()
        with contextlib.suppress(subprocess.TimeoutExpired):
            umount = [*_PROGRAM, "umount", os.fspath(where)]
            subprocess.run(umount, env=environ, timeout=_END_SECONDS, check=False)
        _unmount(where)


@contextlib.contextmanager
def _rclone(mode: str, server: Server, base: Path, profile: str) -> Iterator[Ready]:
    """Mount the server's listing, with the best flags known for the profile."""
    where = _mountpoint(base)
    flags = (_RCLONE + _RCLONE_PROFILES[profile]).split()
    cache = [f"--vfs-cache-mode={mode}", f"--cache-dir={base / 'cache'}"]
    command = ["rclone", "mount", ":http:", os.fspath(where), f"--http-url={server.url}"]
    with _serving([*command, *flags, *cache], where) as pid:
        yield Ready(_below(f"{where}/"), pid=pid)


@contextlib.contextmanager
def _fsspec(server: Server, base: Path, profile: str) -> Iterator[Ready]:  # noqa: ARG001
    """Mount the server's listing, with one thread as is its default (with more it reads wrong)."""
    where = _mountpoint(base)
    with _serving([sys.executable, __file__, server.url, os.fspath(where)], where) as pid:
        yield Ready(_below(f"{where}/"), pid=pid)


@contextlib.contextmanager
def _vsicurl(
    environ: dict[str, str],
    server: Server,
    base: Path,  # noqa: ARG001
    profile: str,  # noqa: ARG001
) -> Iterator[Ready]:
    """Let GDAL read the URLs itself."""
    yield Ready(_below(f"/vsicurl/{server.url}/"), environ)


@contextlib.contextmanager
def _curl(server: Server, base: Path, profile: str) -> Iterator[Ready]:  # noqa: ARG001
    """Give the URLs, which the reader gives to curl: the line's limit for one connection."""
    yield Ready(_below(f"{server.url}/"))


@contextlib.contextmanager
def _local(folder: Path, server: Server, base: Path, profile: str) -> Iterator[Ready]:  # noqa: ARG001
    """Give the copy: the disk's limit, and the bytes to compare with."""
    yield Ready({DATA: f"{folder}/data/", DOWNLOAD: f"{folder}/storage/"})


def _below(root: str) -> dict[str, str]:
    return {way: f"{root}{way}/" for way in (DATA, DOWNLOAD)}


def _mountpoint(base: Path) -> Path:
    where = base / "mnt"
    where.mkdir(parents=True, exist_ok=True)
    return where


@contextlib.contextmanager
def _serving(command: list[str], where: Path) -> Iterator[int]:
    """Run a program that mounts on `where` and stays; end both."""
    with (where.parent / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _device(where):
            if process.poll() is not None or time.monotonic() > deadline:
                said = (where.parent / "log").read_text(errors="replace").strip()
                raise RuntimeError(f"{command[0]} does not mount: {said[-200:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        _unmount(where)
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _device(where: Path) -> str | None:
    """Return the device number of what is mounted on `where`, without touching it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == os.fspath(where):
            return fields[2]
    return None


def _unmount(where: Path) -> None:
    """Take the mount away, whatever state it is in: what waits for it is let go with an error."""
    for _ in range(20):
        device = _device(where)
        if not device:
            return
        umount = ["umount", os.fspath(where)]
        if subprocess.run(umount, capture_output=True, check=False).returncode:
            time.sleep(0.1)
    connection = Path("/sys/fs/fuse/connections") / str(device).partition(":")[2]
    with contextlib.suppress(OSError):
        (connection / "abort").write_text("1")
    subprocess.run(["umount", "-l", os.fspath(where)], check=False)


def _mount_fsspec(url: str, where: str) -> None:
    """Mount `url`. As it comes, fsspec takes directories for files without a size; help it out."""
    import fsspec  # noqa: PLC0415 - it may be missing
    from fsspec.fuse import FUSEr, run  # noqa: PLC0415

    class Directories(FUSEr):  # type: ignore[misc]
        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if "." in path:
                attributes: dict[str, Any] = super().getattr(path, fh)
                return attributes
            return {"st_mode": stat.S_IFDIR | 0o755, "st_size": 0}

    run(fsspec.filesystem("http"), url, where, ops_class=Directories)


if __name__ == "__main__":
    _mount_fsspec(*sys.argv[1:])
