"""The index of a store at a URL, and the cells that it lists: nothing here needs numpy."""

from __future__ import annotations

from typing import Any

from clipsyn.command import advised
from clipsyn.errors import StoreError
from clipsyn.remote.cache import Cache
from clipsyn.remote.index import INDEX, MOST_INDEX, Index
from clipsyn.remote.objects import MissingObject
from clipsyn.remote.transport import Remote
from clipsyn.store.listed import Listing
from clipsyn.urls import Location


def rows_at(location: Location) -> list[dict[str, Any]]:
    """`clipsyn.store.inventory.cell_rows` of the store at a URL, in one request."""
    index = index_at(location, Remote(location.url), Cache.of_user())
    return Listing(index.entries.values()).rows()


def index_at(location: Location, remote: Remote, cache: Cache) -> Index:
    """The index of a store; raises StoreError where there is none."""
    try:
        return read_index(remote, cache, location.url)
    except MissingObject:
        raise StoreError(
            f"{location} is no published store, for it has no {INDEX}: make it one with "
            f"`{advised('push', 'STORE', location)}`"
        ) from None


def read_index(remote: Remote, cache: Cache, url: str) -> Index:
    """The one in the cache, if that is current."""
    etag, data = cache.index(url) or (None, b"")
    answer = remote.get(INDEX, known=etag, most=MOST_INDEX)
    if answer is None:
        return Index.parse(data, remote.shown)
    index = Index.parse(answer.data, remote.shown)
    if answer.etag:
        cache.keep_index(url, answer.etag, answer.data)
    return index
