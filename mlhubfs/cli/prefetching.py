"""The command that fills the cache: prefetch."""

import sys

import click
from tqdm import tqdm

from mlhubfs.cli.places import Place, takes_places
from mlhubfs.errors import MlhubfsError
from mlhubfs.session import open_session
from mlhubfs.tree.prefetch import Prefetch, Walk

_FLUSH_SECONDS = 60.0


@click.command()
@takes_places
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 64), default=16, show_default=True,
    help="Most requests at a time.",
)  # fmt: skip
def prefetch(places: list[Place], *, jobs: int) -> None:
    """Bring the files PATH, and all below the directories PATH, into the cache on disk.

    PATH is inside a mount, or one of a source as `mlhubfs ls` takes it. What is there costs no
    request: after an interruption the same command goes on.
    """
    if not places:
        raise click.UsageError("Missing argument 'PATH...'.")
    failed = [fill(place, jobs) for place in places]
    sys.exit(1 if any(failed) else 0)


def fill(place: Place, jobs: int) -> int:
    """Bring what is at a place into the cache, and tell of it; return how many files failed."""
    config, paths = place
    with open_session(config, fills_cache=True) as session:
        if session.cache is None:
            raise MlhubfsError(f"{config.cache_dir} cannot be used: give another, -o cache_dir=DIR")
        work = Prefetch(
            Walk(session.tree, paths), session.network.submit, jobs, limit=config.cache_size
        )
        try:
            _run(work)
        except KeyboardInterrupt:
            click.echo(f"interrupted: {_summary(work)}; the same command goes on", err=True)
            sys.exit(130)
        finally:
            _tell(work)
        click.echo(f"{_summary(work)}; {session.transport.requests:,} requests")
        if not session.cache.flush(_FLUSH_SECONDS) or session.cache.problem:
            raise MlhubfsError(f"not all of it could be kept: {session.cache.problem}")
    return work.failed


def _run(work: Prefetch) -> None:
    with tqdm(
        unit="B", unit_scale=True, unit_divisor=1000, leave=False, disable=None, smoothing=0.1
    ) as bar:
        for _ in work.run():
            bar.total = work.total
            bar.set_postfix_str(f"{work.files:,} files", refresh=False)
            bar.update(work.bytes - bar.n)


def _tell(work: Prefetch) -> None:
    for path, error in work.failures:
        click.echo(f"mlhubfs: {path}: {error}", err=True)
    if work.failed > len(work.failures):
        click.echo(f"mlhubfs: {work.failed:,} failed in all", err=True)


def _summary(work: Prefetch) -> str:
    return f"{work.files:,} files, {work.bytes / 1e6:,.1f} MB, are in the cache"
