"""Pages for the tests of walking, from a script or from a made-up catalog that misbehaves.

`Script` answers each cursor with what was written down. `Shelf` is a collection behind a server
with keyset paging, whose items may change and whose faults are switched on one by one.
"""

import json
import time

from mlhubfs.catalog.models import Listed, Page
from mlhubfs.errors import NotFound, Rejected, TimedOut, Unavailable


def listed(identifier, modified=7.0, **more):
    """Return an item as a page brings it."""
    return Listed(identifier, modified, json.dumps({"id": identifier, **more}).encode())


def page(ids, link=None, matched=None):
    """Return a page of these ids."""
    return Page(tuple(listed(one) for one in ids), link, matched, time.monotonic(), 100 * len(ids))


class Script:
    """Pages by cursor: (ids, next link, matched), an error, or a list of these in turn."""

    def __init__(self, pages):
        self.pages = pages
        self.asked = []
        self.limits = []

    def __call__(self, cursor, limit, deadline):
        self.asked.append(cursor)
        self.limits.append(limit)
        found = self.pages[cursor] if isinstance(self.pages, dict) else self.pages(cursor)
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        return page(*found)


class Shelf:
    """A collection whose cursors are "after this id"; `faults` are what goes wrong next, in turn.

    "down", "slow": the request fails. "forget": the cursor is refused, and all that were given out
    before. "ill": this page is not found, once. "empty": an empty page with a link comes between.
    """

    def __init__(self, ids, most=3, *, counts=True):
        self.ids = list(ids)
        self.most = most
        self.counts = counts
        self.faults = []
        self.epoch = 0
        self.empties = 0

    def __call__(self, cursor, limit, deadline):
        epoch, after = (self.epoch, None) if not cursor else json.loads(cursor)
        fault = self.faults.pop(0) if self.faults else None
        match fault:
            case "down":
                raise Unavailable("down")
            case "slow":
                raise TimedOut("slow")
            case "ill" if cursor:
                raise NotFound("no such page")
            case "forget":
                self.epoch += 1
        if epoch != self.epoch and cursor:
            raise Rejected("what cursor?")
        matched = len(self.ids) if self.counts else None
        if fault == "empty":
            self.empties += 1
            return page((), json.dumps([self.epoch, after, self.empties][:2]) + " " * self.empties,
                        matched)  # fmt: skip
        rest = [one for one in sorted(self.ids) if after is None or one > after]
        here = rest[: min(limit, self.most)]
        link = json.dumps([self.epoch, here[-1]]) if len(rest) > len(here) else None
        return page(here, link, matched)
