"""`@archive.tar.gz` of a collection: its whole archive, as the server has it, read by ranges."""

import time
from collections.abc import Callable

from mlhubfs.content.asset import AssetRef, Location
from mlhubfs.tree.item import AssetFile
from mlhubfs.tree.surroundings import Surroundings

ARCHIVE = "@archive.tar.gz"


def archive_file(
    around: Surroundings, collection_id: str, modified: Callable[[], float]
) -> AssetFile:
    """Return the archive of a collection as a file; raises NotFound where there is none."""
    archive = around.catalog.archive(collection_id)

    def locate(_after: float) -> Location:
        return Location(archive.url, time.monotonic())

    # One part more than an asset's: none can have the same identity.
    identity = (around.catalog.root, collection_id, "", "", "archive.tar.gz")
    return AssetFile(
        around.content, AssetRef(identity, locate), size=archive.size, modified=modified()
    )
