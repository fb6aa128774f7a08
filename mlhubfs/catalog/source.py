"""Where a catalog comes from, as the catalog needs it."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from mlhubfs.catalog.models import Archive, Collection, Dataset, Item, Listed, Page
from mlhubfs.transport.client import Body, Stream

T = TypeVar("T")


class Source(Protocol):
    """Where a catalog comes from; see `api.Api` for the meaning of each method."""

    root: str

    @property
    def top(self) -> str | None:
        """The id of the document that all others hang from; None where there is no such thing."""

    def datasets(self) -> list[Dataset] | None:
        """Return all datasets, or None where the source has no such thing."""

    def dataset(self, id_or_doi: str) -> Dataset:
        """Return the dataset with that id or DOI."""

    def collections(
        self, query: Mapping[str, str] | None = None, *, deadline: float | None = None
    ) -> list[Collection]:
        """Return all collections, or those that `query` describes."""

    def any_collection_id(self) -> str | None:
        """Return the id of a collection, if there is one, without listing all."""

    def collection(self, collection_id: str) -> Collection:
        """Return the collection with that id."""

    def children(self, collection_id: str) -> list[Collection]:
        """Return the catalogs and collections directly below one; an API has none."""

    def item(self, collection_id: str, item_id: str) -> Item:
        """Return the item with that id."""

    def settled(self, collection_id: str, item: Item) -> Item:
        """Return an item of a page with absolute hrefs of assets."""

    def page(
        self,
        collection_id: str,
        following: str | None = None,
        *,
        limit: int | None = None,
        deadline: float | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Page:
        """Return the first page of a collection's items, or the one that `following` links to."""

    def filters(self) -> frozenset[str]:
        """Return the parameters of a `query` that the source says it honours."""

    def archive(self, collection_id: str) -> Archive:
        """Return what is known of a collection's archive; raises NotFound where there is none."""

    def queryables(self, collection_id: str) -> dict[str, str]:
        """Return property -> type of what the parameter `filter` may name, where that is known."""

    def has_catalog_file(self, dataset_id: str) -> bool:
        """Say whether all items of a dataset can be had in one file."""

    def pour_catalog_file(
        self, dataset_id: str, into: Callable[[Body], T], *, deadline: float
    ) -> T:
        """Return what `into` makes of that file."""

    def pour(self, url: str, into: Callable[[Stream], T], *, limit: int) -> T:
        """Return what `into` makes of the first `limit` bytes of the file at `url`; tried once."""

    def adopter(self, collection_id: str) -> Callable[[Listed], Listed]:
        """Return what makes an item of a mirror the one that `page` has."""
