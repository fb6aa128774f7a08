"""The Python API: the catalog's things as objects, over the same session that a mount has.

`mlhubfs` itself hands out what stands here, loaded when it is first named.
"""

from mlhubfs.library.asset import Asset, Band
from mlhubfs.library.catalog import Catalog
from mlhubfs.library.collection import Collection
from mlhubfs.library.dataset import Dataset
from mlhubfs.library.item import Item, Link

__all__ = ["Asset", "Band", "Catalog", "Collection", "Dataset", "Item", "Link"]
