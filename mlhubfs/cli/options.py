"""What several commands take: words, `-o`, `--source`, and the Config that comes of them."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import platformdirs

from mlhubfs import config as settings
from mlhubfs.config import Config


def takes_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `-o`."""
    return click.option(
        "-o",
        "texts",
        metavar="OPT[=VALUE],...",
        multiple=True,
        help="Settings, as mount(8) writes them; `mlhubfs mount --help` lists them.",
    )(command)


def takes_source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--source`."""
    return click.option(
        "-s",
        "--source",
        type=word,
        metavar="SOURCE",
        help="As for `mlhubfs mount`; else $MLHUB_ROOT_URL, else MLHub's own.",
    )(command)


def word(text: str) -> str:
    """Return a word of the command line; an empty one is what a variable left that was not set."""
    if not text:
        raise click.BadParameter("it must not be empty")
    return text


def mountpoint_of(text: str) -> Path:
    """Return a mount point; not as `click.Path`, which looks at it and hangs with its daemon."""
    return Path(word(text))


def load(source: str | None, texts: tuple[str, ...]) -> Config:
    """Return the Config of a source, `-o` texts and the environment."""
    return settings.load(os.environ, source=source, **settings.parse_options(texts))


def log_path_of(where: Path) -> Path:
    """Return where the daemon of a mount logs to."""
    name = re.sub(r"[^\w.-]+", "-", os.fspath(where.absolute())).strip("-")[-120:]
    return Path(platformdirs.user_log_path("mlhubfs")) / f"{name or 'root'}.log"
