"""The commands that prepare: configure, doctor."""

import configparser
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from mlhubfs import config as settings
from mlhubfs.errors import ConfigError, MlhubfsError
from mlhubfs.fuse.binding import available


@click.command()
@click.option("--profile", default="default", show_default=True, help="The profile to write.")
def configure(profile: str) -> None:
    """Write an API key into a profile; it is asked for, and not shown."""
    if profile in {settings.ANONYMOUS, ""} or "]" in profile or "\n" in profile:
        raise ConfigError(f"{profile!r} cannot be a profile's name: give another one")
    if sys.stdin.isatty():
        key = click.prompt("API key", hide_input=True, err=True)
    else:
        key = sys.stdin.readline()
    key = key.strip()
    if not key or len(key.split()) != 1 or not key.isprintable():
        raise ConfigError("that is no API key: it is one word; nothing was written")
    path = settings.profile_path(os.environ)
    _write_profile(path, profile, key)
    click.echo(f"wrote the profile {profile!r} to {path}")


def _write_profile(path: Path, profile: str, key: str) -> None:
    """Put the key into the file without losing the other profiles, or ever showing it to others."""
    profiles = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        profiles.read(path, encoding="utf-8")
        if not profiles.has_section(profile):
            profiles.add_section(profile)
        profiles.set(profile, "api_key", key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            profiles.write(file)
        new.replace(path)
    except (configparser.Error, UnicodeError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{path} cannot be read, so it was left alone: {first}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


class _Finding(NamedTuple):
    subject: str
    is_found: bool
    detail: str
    """What was found, or the remedy."""
    is_needed: bool = True


@click.command()
def doctor() -> None:
    """Say for each prerequisite whether it is here, and what to do if it is not."""
    findings = list(_examine())
    for one in findings:
        mark = "ok     " if one.is_found else "MISSING" if one.is_needed else "not    "
        click.echo(f"{mark} {one.subject}: {one.detail}")
    if not all(one.is_found for one in findings if one.is_needed):
        raise MlhubfsError("mounting will not work here until what is MISSING is mended")


def _examine() -> Iterator[_Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield _Finding("Python", is_found=True, detail=version)
    yield _device()
    bindings = available()
    for one in bindings:
        # One of the two libraries will do.
        is_needed = all(other.problem for other in bindings)
        yield _Finding(
            f"binding {one.name}",
            not one.problem,
            one.problem or f"libfuse {one.library}",
            is_needed,
        )
    tool = shutil.which("fusermount3") or shutil.which("fusermount")
    remedy = "install the package fuse3"
    yield _Finding("fusermount", tool is not None, tool or remedy, is_needed=os.geteuid() != 0)
    yield _cache()
    allows = _allows_others()
    yield _Finding(
        "allow_other",
        allows,
        "may be used" if allows else "for that option, put user_allow_other into /etc/fuse.conf",
        is_needed=False,
    )
    has_server = all(importlib.util.find_spec(name) for name in ("starlette", "uvicorn"))
    yield _Finding(
        "local server",
        has_server,
        "installed" if has_server else "for `serve` and `demo`: pip install 'mlhubfs[server]'",
        is_needed=False,
    )


def _device() -> _Finding:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except FileNotFoundError:
        remedy = "load the module (modprobe fuse); in a container, --device /dev/fuse"
    except OSError as error:
        remedy = f"{error.strerror}: in a container, --device /dev/fuse --cap-add SYS_ADMIN"
    else:
        return _Finding("/dev/fuse", is_found=True, detail="can be opened")
    return _Finding("/dev/fuse", is_found=False, detail=remedy)


def _cache() -> _Finding:
    folder = settings.load({**os.environ, "MLHUB_PROFILE": settings.ANONYMOUS}).cache_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = f"{folder}: {error.strerror}; give another with -o cache_dir=DIR"
        return _Finding("cache folder", is_found=False, detail=remedy, is_needed=False)
    if not os.access(folder, os.W_OK):
        remedy = f"{folder} cannot be written; give another with -o cache_dir=DIR"
        return _Finding("cache folder", is_found=False, detail=remedy, is_needed=False)
    return _Finding("cache folder", is_found=True, detail=f"{folder}, {free >> 30} GiB free")


def _allows_others() -> bool:
    if os.geteuid() == 0:
        return True
    try:
        lines = Path("/etc/fuse.conf").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)
