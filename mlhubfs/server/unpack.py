"""Archives given to the server, unpacked once into the cache folder.

Owns what an archive may put on disk: files and folders below one folder, up to a size, nothing
else. Does not know what is in the files.

The checks are ours rather than `tarfile.data_filter`, which Python 3.11.2 (Debian 12) lacks and
which makes `/etc/passwd` into `etc/passwd` instead of refusing it. No link is ever made: a link to
a file of the archive becomes a copy of that file, any other link is refused.

*Threading.* A lock on a file lets one process, and one thread, unpack an archive while others wait.
"""

import fcntl
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from mlhubfs.errors import ConfigError
from mlhubfs.tarheader import TarHeader

UNPACKED_LIMIT = 256 << 30  # three times BigEarthNet, the largest archive that MLHub had
_SPARE_SHARE = 0.05  # of the disk, left free
_CHUNK_SIZE = 1 << 20


def unpack(
    archive: Path,
    cache_dir: Path,
    *,
    limit: int = UNPACKED_LIMIT,
    log: Callable[[str], None] = lambda _line: None,
) -> Path:
    """Return the folder that holds what `archive` holds, unpacked now or earlier.

    `ConfigError` if it is no gzipped tar, is hostile, or would expand to more than `limit` bytes or
    to more than the disk can take. What was unpacked until then is removed.
    """
    try:
        facts = archive.stat()
        key = f"{archive.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}"
        digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:24]
        folder = cache_dir / "unpacked" / digest
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                log(f"unpacking {archive} into {folder}")
                _unpack_whole(archive, folder, limit)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, tarfile.TarError) as error:
        raise ConfigError(
            f"{archive} cannot be unpacked ({error}): give a .tar.gz as MLHub made them, "
            "or the folder that it was extracted to"
        ) from error
    return folder


def _unpack_whole(archive: Path, folder: Path, limit: int) -> None:
    """Make `folder` in one step: another name until it is whole, so a crash leaves none."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir(mode=0o700)
    try:
        with tarfile.open(archive, "r:gz", tarinfo=TarHeader) as tar:
            _unpack_members(tar, partial, archive, limit)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _unpack_members(tar: tarfile.TarFile, folder: Path, archive: Path, limit: int) -> None:
    disk = shutil.disk_usage(folder)
    room = int(disk.free - disk.total * _SPARE_SHARE)
    left = min(limit, room)
    for member in tar:
        target = folder / _safe_path(member, archive)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        # The size that the header claims is what tarfile reads, so it can be trusted beforehand.
        content, size = _content(tar, member, archive)
        left -= size
        if left < 0:
            raise ConfigError(
                f"{archive} expands to more than {min(limit, room)} bytes, "
                + (
                    "the limit for an archive"
                    if limit < room
                    else f"the room left in {folder.parent}"
                )
                + ": extract it elsewhere and give the folder"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file, _CHUNK_SIZE)
        os.utime(target, (member.mtime, member.mtime))


def _safe_path(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise ConfigError(f"{archive} is refused: its member {member.name!r} leaves the folder")
    return path


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path) -> tuple[IO[bytes], int]:
    try:
        content = tar.extractfile(member)
        size = 0 if content is None else content.seek(0, os.SEEK_END)
    except (KeyError, RecursionError):
        content, size = None, 0
    if content is None:
        kind = "link to no file in it" if member.issym() or member.islnk() else "device or pipe"
        raise ConfigError(f"{archive} is refused: its member {member.name!r} is a {kind}")
    content.seek(0)
    return content, size
