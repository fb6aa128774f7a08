"""`@where`: directories of links to what fulfils the conditions that their path is made of.

    /@where/tags=agriculture/tags=sentinel-2/<dataset>
    <collection>/@where/labels=Pastures|Rice fields/datetime=2017-07-01..2017-07-31/<item>

Owns the way from such a path to links; what there is to choose from is a `Choice`, in `choices`.
`@where` itself lists conditions that are known to be of use, the directories below it members. A
link is called what it leads to, but for `=`, `!`, `<` and `>`, which make a name a condition:
there they are percent-encoded.
"""

import logging
import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from mlhubfs.catalog.conditions import Condition, parse
from mlhubfs.catalog.where import Where
from mlhubfs.errors import BadCondition
from mlhubfs.tree.names import LONGEST
from mlhubfs.tree.nodes import (
    Attributes,
    Children,
    Directory,
    Entry,
    Node,
    Symlink,
    directory_attributes,
    numbered,
)

WHERE = "@where"
_log = logging.getLogger("mlhubfs.tree")
_OPERATOR = re.compile("[=!<>]")
_ENCODED = re.compile("%(3D|21|3C|3E)")

MakeEntry = Callable[[str, str, float], Entry]
"""(name, path from the mount's root, POSIX time) -> the entry of the link that leads there."""


class Choice(ABC):
    """What conditions choose from."""

    @abstractmethod
    def modified(self) -> float:
        """Return the POSIX time of the directories."""

    @abstractmethod
    def check(self, condition: Condition) -> None:
        """Raise BadCondition where it cannot be asked for here."""

    @abstractmethod
    def suggestions(self) -> Iterable[Condition]:
        """Return conditions that something here is known to fulfil."""

    @abstractmethod
    def children(self, where: Where, entry: MakeEntry) -> Children:
        """Return the entries of what fulfils the conditions."""

    @abstractmethod
    def find(self, where: Where, name: str) -> tuple[str, float]:
        """Return path and POSIX time of what has that name; raises NotFound unless it fulfils."""


class WhereDirectory(Directory):
    """What of `choice` fulfils the conditions `where`; at `path`, from the mount's root."""

    def __init__(self, choice: Choice, path: str, where: Where | None = None) -> None:
        self._choice = choice
        self._path = path
        self._where = where or Where()

    def attributes(self) -> Attributes:
        """Return the time of what is chosen from."""
        return directory_attributes(self._choice.modified())

    def children(self) -> Children:
        """Return links, as they are found; in `@where` itself, conditions."""
        if self._where.conditions:
            return self._choice.children(self._where, self._entry)
        attributes = self.attributes()
        names = dict.fromkeys(map(str, self._choice.suggestions()))
        return numbered(
            [
                Entry(name, is_directory=True, attributes=attributes)
                for name in names
                if len(name.encode(errors="replace")) <= LONGEST
            ]
        )

    def child(self, name: str) -> Node:
        """Return the directory of one more condition, or a link: one request at most."""
        if self._where.conditions and not _OPERATOR.search(name):
            path, modified = self._choice.find(self._where, _ENCODED.sub(_decode, name))
            return self._link(path, modified)
        path = posixpath.join(self._path, name)
        try:
            condition = parse(name)
            self._choice.check(condition)
        except BadCondition as error:
            _log.info("%r: %s", path, error)
            raise
        return WhereDirectory(self._choice, path, Where((*self._where.conditions, condition)))

    def _entry(self, name: str, path: str, modified: float) -> Entry:
        encoded = _OPERATOR.sub(lambda match: f"%{ord(match[0]):02X}", name)
        attributes = self._link(path, modified).attributes()
        return Entry(
            encoded if len(encoded.encode()) <= LONGEST else name,
            is_directory=False,
            attributes=attributes,
        )

    def _link(self, path: str, modified: float) -> Symlink:
        return Symlink(posixpath.relpath(path, self._path), modified)


def _decode(match: re.Match[str]) -> str:
    return unquote(match[0])
