"""Bringing whole directories into the cache on disk.

Owns the walk through the tree, and the order of the work: so many requests at a time, parts of
large files beside small files. Does not print, and does not decide what is missing: `content`.

A walk holds one name of each directory that it is in, however many there are; and the work is asked
of it as it is done. Bytes that are on disk already cost no request, so that an interrupted run is
simply run again.

*Threading.* One thread walks, plans and counts, so that it can be interrupted; workers fetch.
"""

import posixpath
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from mlhubfs.content.plan import Plan
from mlhubfs.errors import CacheFull, MlhubfsError, Unavailable
from mlhubfs.tree.item import AssetFile
from mlhubfs.tree.nodes import Directory, Node, Symlink
from mlhubfs.tree.root import Tree
from mlhubfs.tree.where import WhereDirectory

_STEP_SECONDS = 0.2  # between two looks at the bar while nothing comes
_IN_VAIN = 20  # files in a row that the server did not answer for: it is down
_TOLD = 100  # failures whose reason is kept

Found = tuple[str, AssetFile | MlhubfsError]


class Walk:
    """The assets' files at and below `paths` of a tree, or why they cannot be reached.

    Links are followed, so that a view's path means what it shows; below other paths no view is
    entered, for it would bring the same files again. Nor are the conditions that `@where` suggests:
    most files fulfil several of them.
    """

    def __init__(self, tree: Tree, paths: Sequence[str]) -> None:
        self._tree = tree
        self._paths = paths
        self._inside: list[_Inside] = []

    def __iter__(self) -> Iterator[Found]:
        here = self._enter()
        here.count = len(self._paths)
        for path in self._paths:
            here.number += 1
            yield from self._at(path, lambda path=path: self._tree.node(path))  # type: ignore[misc]
        self._inside.pop()

    def share(self) -> float | None:
        """Return how far it has come, from 0 to 1, where the directories tell how many they hold.

        Directories side by side are taken for equally large.
        """
        share = 1.0
        for here in reversed(self._inside):
            if here.count is None or here.number == here.documents:
                return None
            number, count = here.number - here.documents, here.count - here.documents
            share = (number - 1 + share) / max(number, count)
        return share

    def _at(self, path: str, find: Callable[[], Node]) -> Iterator[Found]:
        try:
            node = find()
            if isinstance(node, AssetFile):
                yield path, node
            elif isinstance(node, Directory):
                yield from self._below(path, node)
            elif isinstance(node, Symlink):
                yield from self._at(path, lambda: self._tree.followed(path))
            else:
                self._inside[-1].documents += 1
        except MlhubfsError as error:
            yield path, error

    def _below(self, path: str, directory: Directory) -> Iterator[Found]:
        here = self._enter()
        try:
            children = directory.children()
            for entry in children(0):
                here.number += 1
                here.count = children.count()
                is_condition = isinstance(directory, WhereDirectory) and entry.is_directory
                if is_condition or entry.name.startswith("@"):  # as no id's name does
                    here.documents += 1
                    continue
                below = posixpath.join(path, entry.name)
                yield from self._at(below, lambda name=entry.name: directory.child(name))  # type: ignore[misc]
        finally:
            self._inside.remove(here)

    def _enter(self) -> "_Inside":
        here = _Inside()
        self._inside.append(here)
        return here


@dataclass(eq=False)
class _Inside:
    """Where the walk is in one directory."""

    number: int = 0
    count: int | None = None
    documents: int = 0
    """Of the names so far, those of files that are not fetched."""


@dataclass(eq=False)
class _File:
    path: str
    left: int = 1
    """Tasks that have not ended."""
    has_failed: bool = False


class Prefetch:
    """The bringing of what `walk` finds, by `submit`, with at most `jobs` requests at a time.

    `limit` is how many bytes the cache may hold of it. `asks_sizes_only` finds out no more.
    """

    def __init__(
        self,
        walk: Walk,
        submit: Callable[[Callable[[], Any]], Future[Any]],
        *,
        jobs: int,
        limit: int,
        asks_sizes_only: bool = False,
    ) -> None:
        self.files = 0
        """Files that are on disk by now."""
        self.bytes = 0
        """Of files, and of parts of files, that are on disk by now."""
        self.local_files = 0
        """Those among `files` of which the cache holds nothing."""
        self.local_bytes = 0
        """Of those."""
        self.failed = 0
        """Files and directories that could not be had."""
        self.failures: list[tuple[str, MlhubfsError]] = []
        """The first of those, and why."""
        self._walk = walk
        self._found = iter(walk)
        self._submit = submit
        self._jobs = jobs
        self._limit = limit
        self._asks_sizes_only = asks_sizes_only
        self._tasks: deque[tuple[_File, Callable[[], Any]]] = deque()
        self._coming: dict[Future[Any], _File] = {}
        self._size = 0
        self._in_vain = 0

    @property
    def total(self) -> int | None:
        """How many bytes it will be in all, by what was seen so far, where that can be told."""
        share = self._walk.share()
        return round(self._size / share) if share else None

    def run(self) -> Iterator[None]:
        """Do it, and yield from time to time.

        Raises CacheFull where it is more than `limit`, and Unavailable where the server is down.
        """
        while True:
            while len(self._coming) < self._jobs and (task := self._next()):
                self._coming[self._submit(task[1])] = task[0]
            if not self._coming:
                return
            done, _ = wait(self._coming, _STEP_SECONDS, FIRST_COMPLETED)
            for future in done:
                self._take(self._coming.pop(future), future)
            yield

    def _next(self) -> tuple[_File, Callable[[], Any]] | None:
        while self._tasks:
            file, task = self._tasks.popleft()
            if not file.has_failed:
                return file, task
        for path, found in self._found:
            if isinstance(found, AssetFile):
                return _File(path), found.plan
            self._fail(_File(path), found)
        return None

    def _take(self, file: _File, future: Future[Any]) -> None:
        try:
            outcome = future.result()
        except MlhubfsError as error:
            if not file.has_failed:
                self._fail(file, error)
            return
        self._in_vain = 0
        file.left -= 1
        if isinstance(outcome, Plan):
            self._begin(file, outcome)
        else:
            self.bytes += outcome
        self.files += not file.left and not file.has_failed

    def _begin(self, file: _File, plan: Plan) -> None:
        self._size += plan.size
        if plan.is_local:
            self.local_files += 1
            self.local_bytes += plan.size
        kept = self._size - self.local_bytes
        if kept > self._limit:
            raise CacheFull(
                f"it is at least {kept:,} bytes, of which the cache may hold "
                f"{self._limit:,}: give less, or -o cache_size="
            )
        if self._asks_sizes_only:
            return
        file.left = len(plan.tasks)
        self._tasks.extend((file, task) for task in plan.tasks)
        self.bytes += plan.size - plan.lacking

    def _fail(self, file: _File, error: MlhubfsError) -> None:
        file.has_failed = True
        self.failed += 1
        if len(self.failures) < _TOLD:
            self.failures.append((file.path, error))
        self._in_vain = self._in_vain + 1 if isinstance(error, Unavailable) else 0
        if self._in_vain == max(_IN_VAIN, self._jobs):
            raise Unavailable(f"{self._in_vain} files in a row could not be had: {error}")
