"""What a PATH on the command line is: one of a source, or one inside a mount.

A command that works on the cache, downloads or reads takes both. It does not read through the
mount: that would go through the kernel's memory, tell errors by number, and read all that is there
already. It opens a session of its own with the source, the cache folder and its limit that the
daemon tells of. The daemon keeps its API key to itself; the command looks for it as every command
does.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from mlhubfs import config as settings
from mlhubfs import mountpoint
from mlhubfs import status as statuses
from mlhubfs.cli.options import load, takes_options, word
from mlhubfs.cli.sources import keyless
from mlhubfs.config import ANONYMOUS, Config
from mlhubfs.errors import ConfigError
from mlhubfs.mountpoint import Mount

Place = tuple[Config, list[str]]
"""A source, and absolute paths in it."""


def takes_places(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command PATHs, and the options that say where they are, as a list of places.

    Without PATHs it is one place without paths: the cache folder is still told.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.argument(
            "paths",
            nargs=-1,
            type=word,
            required=required,
            metavar="PATH..." if required else "[PATH]...",
        )
        @click.option(
            "-s",
            "--source",
            type=word,
            metavar="SOURCE",
            help="Root URL of the API, where PATH is not inside a mount.",
        )
        @takes_options
        @wraps(command)
        def run(
            paths: tuple[str, ...], source: str | None, texts: tuple[str, ...], **more: Any
        ) -> None:
            if source and not paths:
                raise click.UsageError("--source needs PATHs: all of a source is /")
            command(_places(paths, source, texts) or [(load(source, texts), [])], **more)

        return run

    return decorate


def one_place(words: Sequence[str], source: str | None, texts: tuple[str, ...]) -> Place:
    """Return the source that all words are of, and the words as they are meant in it.

    A path inside a mount becomes one inside its source, and any other word stays as it is.
    """
    if source or not any(mountpoint.place_of(Path(word)) for word in words):
        return load(source, texts), [*words]
    places = _places(words, source, texts)
    if len(places) > 1:
        raise ConfigError(
            "the words are of more than one source: give paths inside one mount and one source of "
            "it, or name the source of all with -s"
        )
    return places[0]


def absolute(path: str) -> str:
    """Return a path inside a source as the tree takes it."""
    return "/" + "/".join(part for part in path.split("/") if part not in {"", "."})


def mounted(mount: Mount, path: str, texts: tuple[str, ...]) -> tuple[Config, str]:
    """Return the source that a mount shows at `path`, from its root, and the path in that source.

    Options of the command come before the mount's. Raises MountError where its daemon tells none.
    """
    report, inner = _within(statuses.ask(Path(mount.path)), path)
    options = report["options"] | {"cache_dir": Path(report["options"]["cache_dir"])}
    chosen = options | settings.parse_options(texts)
    environ: Mapping[str, str] = os.environ
    if report.get("is_one_of_several"):
        environ, chosen = keyless(os.environ), {"profile": ANONYMOUS} | chosen
    return settings.load(environ, source=report["source"], **chosen), inner


def _places(paths: Sequence[str], source: str | None, texts: tuple[str, ...]) -> list[Place]:
    """Return the paths by the source that they are of."""
    found: dict[Config, list[str]] = {}
    for path in paths:
        inside = None if source else mountpoint.place_of(Path(path))
        config, inner = mounted(*inside, texts) if inside else (load(source, texts), path)
        found.setdefault(config, []).append(absolute(inner))
    return list(found.items())


def _within(report: statuses.Report, path: str) -> tuple[statuses.Report, str]:
    """Return what is told of the source that has a path of a mount, and the path in that."""
    if "sources" not in report:
        return report, path
    name, _, inner = path.strip("/").partition("/")
    if name not in report["sources"]:
        known = ", ".join(report["sources"])
        raise ConfigError(f"the mount has several sources, {known}: {name!r} is none")
    return report["sources"][name] | {"is_one_of_several": True}, f"/{inner}"
