"""The commands that mount and unmount."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mlhubfs import mount as mounts
from mlhubfs import mountpoint
from mlhubfs.cli import sources
from mlhubfs.cli.options import load, log_path_of, mountpoint_of, takes_options
from mlhubfs.config import OPTIONS, Config
from mlhubfs.log import log_to

_ENVIRONMENT = """\b
Environment:
  MLHUB_ROOT_URL     the source, where none is given
  MLHUB_API_KEY      the API key; sent to the source's own host only
  MLHUB_PROFILE      the profile to take the key from (`mlhubfs configure`)
  MLHUB_HOME         where the profiles are, instead of ~/.mlhub
  MLHUBFS_CACHE_DIR  where listings and blocks are kept between mounts
"""


def _options_help() -> str:
    lines = [
        f"  {name:<16} {option.metadata['help']} [{option.metadata['shown']}]"
        for name, option in OPTIONS.items()
    ]
    lines += [
        f"  {'profile':<16} the profile to take the API key from; __anonymous__ sends none",
        f"  {'api_key_file':<16} a file that holds the API key",
    ]
    return (
        "\b\nOptions of -o, as in `-o ttl=1h,allow_other`; `--ttl 1h --allow-other` is the same:\n"
        + "\n".join(lines)
    )


def _takes_long_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each setting that `-o` takes, hidden: the epilog lists them."""
    for name, option in reversed(OPTIONS.items()):
        long = f"--{name.replace('_', '-')}"
        command = click.option(long, name, is_flag=option.default is False, hidden=True)(command)
    return command


@click.command(epilog=f"{_options_help()}\n\n{_ENVIRONMENT}")
@click.argument("words", nargs=-1, required=True, metavar="[SOURCE | NAME=SOURCE...] MOUNTPOINT")
@takes_options
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Mount the sources that a TOML file names.",
)
@click.option("-f", "--foreground", is_flag=True, help="Stay, and log to the terminal.")
@_takes_long_options
def mount(
    words: tuple[str, ...],
    texts: tuple[str, ...],
    *,
    file: Path | None,
    foreground: bool,
    **long: str | bool | None,
) -> None:
    """Mount SOURCE on the empty directory MOUNTPOINT.

    SOURCE is the root URL of MLHub's API or a STAC API, the URL of a static catalog's first
    document (catalog.json, collection.json, items), or a folder, document or tarball of one here.
    Several, each NAME=SOURCE, or named in a file, become directories of those names.
    SOURCE is $MLHUB_ROOT_URL where it is left out, else MLHub's own root, which was switched off.
    Returns when the mount answers; a daemon serves it from then on, until `mlhubfs umount`.
    """
    if not all(words):
        raise click.UsageError("SOURCE and MOUNTPOINT must not be empty")
    where = Path(words[-1])
    given = [
        name if value is True else f"{name}={value}"
        for name, value in long.items()
        if value not in {None, False}
    ]
    options = (*texts, *given)
    several = _several(words[:-1], file, options)
    if len(words) > 2 and not several:
        raise click.UsageError(f"expected [SOURCE] MOUNTPOINT, got {len(words)} words")
    source = words[0] if len(words) == 2 else None
    mounted = several or {"": load(source, options)}
    debug = next(iter(mounted.values())).debug
    log_path = log_path_of(where)
    if foreground:
        log_to(logging.StreamHandler(), debug=debug)
    notices = mounts.mount(mounted, where, foreground=foreground, log_path=log_path)
    for notice in notices:
        click.echo(f"mlhubfs: {notice}", err=True)
    if not foreground:
        click.echo(f"mounted {mounts.title(mounted)} on {where}; the log is {log_path}")


def _several(
    words: tuple[str, ...], file: Path | None, options: tuple[str, ...]
) -> dict[str, Config] | None:
    """Return the sources by name, None where there is one without a name."""
    if file and words:
        raise click.UsageError("give sources on the command line or with --config, not both")
    if file is None and not words and not os.environ.get("MLHUB_ROOT_URL"):
        file = sources.default_file()
        file = file if file.exists() else None
    return sources.from_file(file, options) if file else sources.from_words(words, options)


@click.command()
@click.argument("where", type=mountpoint_of, metavar="MOUNTPOINT")
@click.option("--lazy", is_flag=True, help="Detach it now even if it is in use.")
def umount(where: Path, *, lazy: bool) -> None:
    """Take the mount on MOUNTPOINT away; returns when its daemon has ended."""
    mountpoint.unmount(where, lazy=lazy)
