"""The command that downloads: archives, or assets one by one."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from tqdm import tqdm

from mlhubfs.catalog.conditions import condition
from mlhubfs.catalog.where import Where
from mlhubfs.cli.places import one_place
from mlhubfs.cli.table import counted
from mlhubfs.download.archives import (
    archive_path,
    archived_collections,
    find_path,
    wanted_archive,
)
from mlhubfs.download.downloader import CONNECTIONS, Downloader, IfExists, Wanted
from mlhubfs.download.geometry import touching
from mlhubfs.download.selection import Missing, Selection, Selector, Text
from mlhubfs.errors import InUse, MlhubfsError, NotFound, NotWritten
from mlhubfs.session import Session, open_session
from mlhubfs.tree.nodes import File


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="DATASET|COLLECTION|PATH...")
@click.option(
    "-s",
    "--source",
    help="Root URL of the API; else that of the mount that PATH is inside, else $MLHUB_ROOT_URL, "
    "else MLHub's own.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    default=".",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to; by default here.",
)
@click.option(
    "--if-exists",
    type=click.Choice([one.value for one in IfExists]),
    default=IfExists.RESUME.value,
    show_default=True,
    help="What is done about files that are there: resume fetches those anew that are not what "
    "catalog or storage tells, skip asks no server for them.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be downloaded, and how large it is; asks storage for nothing.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=CONNECTIONS,
    show_default=True,
    help="Most connections at once; as many are used as make it faster.",
)
@click.option("--assets", is_flag=True, help="Single files instead of archives; as do all below.")
@click.option(
    "--collection",
    "collections",
    multiple=True,
    metavar="ID[=ASSET,...]",
    help="Only this collection, only these assets of it.",
)
@click.option("--bbox", metavar="W,S,E,N", help="Only items that touch this box, in degrees.")
@click.option(
    "--intersects",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Only items whose bbox touches the GeoJSON geometry in FILE.",
)
@click.option("--datetime", "when", metavar="TIME[/TIME]", help="Only items of this time.")
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="NAME=VALUE",
    help="Only items with this property; also != < <= > >=, and | between values.",
)
@click.option("--catalog-only", is_flag=True, help="The JSON alone, no assets.")
@click.option("--option", "texts", multiple=True, metavar="OPT[=VALUE]", help="As -o of `mount`.")
def download(
    *,
    words: tuple[str, ...],
    source: str | None,
    folder: Path,
    if_exists: str,
    jobs: int,
    collections: tuple[str, ...],
    bbox: str | None,
    intersects: Path | None,
    when: str | None,
    conditions: tuple[str, ...],
    texts: tuple[str, ...],
    dry_run: bool,
    assets: bool,
    catalog_only: bool,
) -> None:
    """Download the archives of datasets and collections, or their files one by one.

    What is interrupted, even by a crash, goes on where it stopped when the same command is given
    again. A name that has appeared in DIR is complete; its path is printed. PATH is one inside the
    source, or inside a mount.
    """
    where = _parse_where(conditions, bbox, when, intersects)
    selection = Selection(_parse_collections(collections), where, catalog_only)
    by_assets = assets or selection != Selection()
    exists = IfExists(if_exists)
    if exists is IfExists.SKIP and not by_assets and not dry_run:
        words = tuple(word for word in words if not _said(archive_path(folder, word)))
    if not words:
        return
    if "" in words:
        raise NotFound("'' means nothing: give a dataset, collection or path, or / for all")
    config, inner = one_place(words, source, texts)
    with open_session(config) as session:
        run = _Run(session, folder, exists, jobs)
        found = [_find(session, *both) for both in zip(inner, words, strict=True)]
        ids = () if by_assets else tuple(dict.fromkeys(one for _, some in found for one in some))
        paths = _distinct(session, [path for path, some in found if by_assets or not some])
        selector = Selector(session.tree, session.catalog, selection, folder)
        with _interruptible():
            (run.tell_archives if dry_run else run.fetch_archives)(ids)
            (run.tell_files if dry_run else run.fetch_files)(selector, paths)
        sys.exit(run.end(selector.unknown_assets()))


def _find(session: Session, inner: str, word: str) -> tuple[str, tuple[str, ...]]:
    """Return the path that a word means, and the collections whose archives are meant by it.

    It means `inner`, as `one_place` has it; whoever is inside a mount may name an id all the same.
    """
    for meant in dict.fromkeys((inner, word)):
        with contextlib.suppress(NotFound):
            path = find_path(session.around, meant)
            return path, archived_collections(session.catalog, session.tree.node(path))
    raise NotFound(f"there is no dataset, collection or path {word!r}")


def _distinct(session: Session, paths: list[str]) -> list[str]:
    """Return the paths without what is named twice: with a directory comes what is below it.

    Not with it come some files, such as an archive: they stay, see `_Run._files`.
    """
    above = tuple(f"{path.rstrip('/')}/" for path in paths)
    return [
        path
        for path in dict.fromkeys(paths)
        if path == "/" or not path.startswith(above) or isinstance(session.tree.node(path), File)
    ]


class _Run:
    """What one command does, and what goes wrong meanwhile."""

    def __init__(self, session: Session, folder: Path, if_exists: IfExists, jobs: int) -> None:
        self._session = session
        self._folder = folder
        self._if_exists = if_exists
        self._downloader = Downloader(session.transport, session.network, connections=jobs)
        self._failed: list[tuple[Path, MlhubfsError]] = []
        self._absent: list[str] = []
        self._documents = 0

    def tell_archives(self, ids: tuple[str, ...]) -> None:
        """Print the size of each archive that is not there, and of all these."""
        known = list(self._archives(ids))
        wanted = [
            one
            for one in known
            if not self._downloader.is_there(one.target, one.size, self._if_exists)
        ]
        for one in wanted:
            click.echo(f"{one.size:>15}  {one.target.name}")
        if len(ids) > 1:
            click.echo(f"{sum(one.size or 0 for one in wanted):>15}  in all")
        if len(known) > len(wanted):
            there = counted(len(known) - len(wanted), "archive", ">15")
            click.echo(f"{there} there already")

    def fetch_archives(self, ids: tuple[str, ...]) -> None:
        """Fetch archives one after the other, each by all connections."""
        wanted = list(self._archives(ids))
        if len(wanted) > 1 and sys.stderr.isatty():
            size = sum(one.size or 0 for one in wanted)
            click.echo(f"{len(wanted)} archives, {size:,} bytes", err=True)
        for one in wanted:
            try:
                with _bar(one) as progress:
                    self._downloader.fetch(
                        one.asset,
                        one.target,
                        size=one.size,
                        if_exists=self._if_exists,
                        progress=progress,
                    )
            except NotWritten:
                raise
            except MlhubfsError as error:
                self._failed.append((one.target, error))
            else:
                click.echo(one.target)

    def tell_files(self, selector: Selector, paths: list[str]) -> None:
        """Print how many files are to come to each directory of a collection, and in all."""
        counts: dict[str, int] = {}
        told, there, is_all = 0, 0, True
        for one in self._files(selector, paths, write=False):
            if self._downloader.is_there(one.target, one.size, self._if_exists):
                there += 1
                continue
            place = "/".join(one.target.parent.relative_to(self._folder).parts[:2])
            counts[place] = counts.get(place, 0) + 1
            told += one.size or 0
            is_all &= one.size is not None
        for place, count in counts.items():
            click.echo(f"{counted(count, 'file', '>9')}  {place}")
        if paths:
            count = sum(counts.values())
            unknown = f"{'its size is' if count == 1 else 'sizes are'} known when fetched"
            sizes = f"{told} bytes" if is_all else unknown
            click.echo(f"{counted(count, 'file', '>9')} in all; {sizes}")
            click.echo(f"{counted(self._documents, 'document', '>9')} of the catalog")
        if there:
            click.echo(f"{counted(there, 'file', '>9')} there already")

    def fetch_files(self, selector: Selector, paths: list[str]) -> None:
        """Fetch files side by side, while the catalog is being searched for more."""
        done = 0
        with tqdm(total=0, unit=" files", leave=False, disable=None) as bar:

            def wanted() -> Iterator[Wanted]:
                for one in self._files(selector, paths, write=True):
                    bar.total += 1
                    yield one

            for one, error in self._downloader.fetch_all(wanted(), if_exists=self._if_exists):
                bar.update()
                if isinstance(error, NotWritten):
                    raise error
                if error:
                    self._failed.append((one.target, error))
                else:
                    done += 1
        if paths:
            documents = counted(self._documents, "document")
            click.echo(f"{counted(done, 'file')} and {documents} in {self._folder}")

    def end(self, unknown: list[str]) -> int:
        """Print what has failed, and what was `unknown`; return the exit code."""
        for line in (*self._absent, *unknown):
            click.echo(f"mlhubfs: {line}", err=True)
        for target, error in self._failed:
            click.echo(f"mlhubfs: {target}: {error}", err=True)
        if self._failed:
            click.echo(f"{len(self._failed):,} failed: the same command tries again", err=True)
        return 1 if self._failed or self._absent or unknown else 0

    def _archives(self, ids: tuple[str, ...]) -> Iterator[Wanted]:
        for one in ids:
            target = archive_path(self._folder, one)
            if self._if_exists is IfExists.SKIP and _said(target):
                continue
            try:
                yield wanted_archive(self._session.around, self._session.tree, one, self._folder)
            except NotFound as error:
                self._absent.append(f"{target}: {error}; --assets downloads the files one by one")

    def _files(self, selector: Selector, paths: list[str], *, write: bool) -> Iterator[Wanted]:
        named = {self._folder / path.lstrip("/") for path in paths}
        seen: set[Path] = set()
        for path in paths:
            for one in selector.files(path):
                if one.target in seen:
                    continue
                if one.target in named:  # a set of all would hold a whole catalog
                    seen.add(one.target)
                if isinstance(one, Wanted):
                    yield one
                elif isinstance(one, Missing):
                    self._failed.append(one)
                elif write:
                    self._write(one)
                else:
                    self._documents += self._is_news(one)

    def _write(self, text: Text) -> None:
        try:
            if self._is_news(text):
                self._downloader.put(text.target, text.content)
        except InUse as error:
            self._failed.append((text.target, error))
        else:
            self._documents += 1

    def _is_news(self, text: Text) -> bool:
        there = self._downloader.is_there(text.target, len(text.content), self._if_exists)
        is_same = there and text.target.read_bytes() == text.content
        return not (is_same or (there and self._if_exists is IfExists.SKIP))


@contextlib.contextmanager
def _bar(one: Wanted) -> Iterator["_Progress"]:
    with tqdm(
        total=one.size, unit="B", unit_scale=True, desc=one.target.name, leave=False, disable=None
    ) as bar:
        yield _Progress(bar)


class _Progress:
    """Moves a bar; what was there before, which is told first, does not count for the rate."""

    def __init__(self, bar: "tqdm[None]") -> None:
        self._bar = bar
        self._has_begun = False

    def __call__(self, came: int) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._bar.initial = came
        self._bar.update(came)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo("mlhubfs: interrupted; the same command goes on where it stopped", err=True)
        sys.exit(130)


def _said(target: Path) -> bool:
    """Print the path of a file that is there; say whether it is."""
    if target.is_file():
        click.echo(target)
        return True
    return False


def _parse_where(
    texts: tuple[str, ...], bbox: str | None, when: str | None, intersects: Path | None
) -> Where:
    more = [condition("bbox", [bbox])] if bbox else []
    more += [condition("datetime", [when])] if when else []
    more += touching(intersects) if intersects else []
    return Where((*Where.parse(texts).conditions, *more))


def _parse_collections(texts: tuple[str, ...]) -> dict[str, frozenset[str]]:
    parsed: dict[str, frozenset[str]] = {}
    for text in texts:
        identifier, _, listed = text.partition("=")
        keys = frozenset(filter(None, listed.split(",")))
        before = parsed.get(identifier, keys)
        parsed[identifier] = before | keys if before and keys else frozenset()
    return parsed
