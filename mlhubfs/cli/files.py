"""The commands that read the tree themselves, without a mount or beside one: ls, cat, stat.

Their messages and exit codes are those of coreutils.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click

from mlhubfs.cli.options import takes_options, takes_source, word
from mlhubfs.cli.places import absolute, one_place
from mlhubfs.errors import MlhubfsError
from mlhubfs.log import log_to
from mlhubfs.session import open_session
from mlhubfs.tree.nodes import Attributes, Directory, File, Symlink
from mlhubfs.tree.root import Tree

_PIECE = 1 << 20  # bytes that `cat` reads at once
_Path = tuple[str, str]  # as it was written, and inside the source


def _reads_tree(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command PATHs, the source, and an exit code."""

    @click.argument("paths", nargs=-1, type=word, metavar="PATH...")
    @takes_source
    @takes_options
    @wraps(command)
    def run(
        paths: tuple[str, ...], source: str | None, texts: tuple[str, ...], **more: Any
    ) -> None:
        if not paths and command.__name__ != "ls":
            raise click.UsageError("Missing argument 'PATH...'.")
        config, inner = one_place(paths, source, texts)
        if config.debug:
            log_to(logging.StreamHandler(), debug=True)
        with open_session(config) as session:
            found = list(zip(paths, map(absolute, inner), strict=True)) or [("/", "/")]
            sys.exit(command(session.tree, found, **more))

    return run


@click.command()
@click.option("-l", "--long", is_flag=True, help="With type, size and time.")
@_reads_tree
def ls(tree: Tree, paths: list[_Path], *, long: bool) -> int:
    """List PATHs of a source, without a mount; names come in the server's order.

    PATH is one inside the source or inside a mount; the source's root is `/`, which is listed if
    none is given.
    """
    code = 0
    for path, inner in paths:
        with _told("ls: cannot access", path) as outcome:
            node = tree.followed(inner)
            if len(paths) > 1:
                click.echo(f"{path}:")
            if isinstance(node, File):
                _show(path, node.attributes() if long else None)
            else:
                _list(node, long=long)
        # coreutils: 2 for a word of the command line, 1 for what is found below
        code = max(code, 2 * outcome[0])
    return code


@click.command()
@_reads_tree
def cat(tree: Tree, paths: list[_Path]) -> int:
    """Write the bytes of the files PATH, inside the source or a mount, to stdout."""
    code = 0
    for path, inner in paths:
        with _told("cat:", path) as outcome:
            opened, offset = tree.file(inner).open(), 0
            while piece := opened.read(offset, _PIECE):
                sys.stdout.buffer.write(piece)
                offset += len(piece)
            sys.stdout.buffer.flush()
        code = max(code, outcome[0])
    return code


@click.command()
@_reads_tree
def stat(tree: Tree, paths: list[_Path]) -> int:
    """Show type, size and time of PATHs, inside the source or a mount."""
    code = 0
    for path, inner in paths:
        with _told("stat: cannot statx", path) as outcome:
            found = tree.node(inner).attributes()
            kind = "directory" if found.is_directory else "regular file"
            kind = "symbolic link" if found.is_link else kind
            click.echo(f"  File: {path}\n  Size: {found.size:<15} {kind}")
            click.echo(f"Access: ({_mode(found)})\nModify: {_time(found)}")
        code = max(code, outcome[0])
    return code


@contextmanager
def _told(prefix: str, path: str) -> Iterator[list[int]]:
    """Turn an error into coreutils' words and an exit code, the one element of what is given."""
    outcome = [0]
    try:
        yield outcome
    except MlhubfsError as error:
        outcome[0] = 1
        name = path if prefix.endswith("cat:") else f"'{path}'"
        click.echo(f"{prefix} {name}: {os.strerror(error.errno)}", err=True)
        if error.errno not in {2, 20, 21}:
            click.echo(f"mlhubfs: {error}", err=True)


def _list(directory: Directory, *, long: bool) -> None:
    for entry in directory.children()(0):
        attributes = entry.attributes
        if long and attributes is None:
            attributes = directory.child(entry.name).attributes()
        name = entry.name
        if long and attributes and attributes.is_link:
            node = directory.child(name)
            name += f" -> {node.target}" if isinstance(node, Symlink) else ""
        _show(name, attributes if long else None)


def _show(name: str, attributes: Attributes | None) -> None:
    if attributes is None:
        click.echo(name)
    else:
        click.echo(f"{_mode(attributes)} {attributes.size:>12} {_time(attributes)} {name}")


def _mode(attributes: Attributes) -> str:
    if attributes.is_link:
        return "lrwxrwxrwx"
    return "dr-xr-xr-x" if attributes.is_directory else "-r--r--r--"


def _time(attributes: Attributes) -> str:
    return datetime.fromtimestamp(attributes.modified, UTC).strftime("%Y-%m-%d %H:%M:%S +0000")
