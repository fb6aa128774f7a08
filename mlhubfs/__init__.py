"""A file system of Earth-observation training data, and its Python API.

    import mlhubfs

    with mlhubfs.Catalog("http://127.0.0.1:7462/mlhub/v1") as catalog:
        print(catalog.dataset("bigearthnet_v1").citation)

The API is loaded when it is first named: `import mlhubfs` costs nothing.
"""

from typing import TYPE_CHECKING, Any

from mlhubfs import errors
from mlhubfs.version import __version__

if TYPE_CHECKING:
    from mlhubfs.library import Asset, Band, Catalog, Collection, Dataset, Item, Link

__all__ = [
    "Asset",
    "Band",
    "Catalog",
    "Collection",
    "Dataset",
    "Item",
    "Link",
    "__version__",
    "errors",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mlhubfs import library  # noqa: PLC0415 - see above

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
