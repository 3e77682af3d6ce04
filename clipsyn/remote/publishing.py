"""The index of a published store is read, and written without losing what others have written."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from clipsyn.documents import parse_json
from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.remote.index import INDEX, MANIFEST, MOST_INDEX, Entry, Index
from clipsyn.remote.objects import Changed, MissingObject
from clipsyn.remote.transport import Remote
from clipsyn.store.arrays import METADATA
from clipsyn.store.folders import Place
from clipsyn.urls import is_url

_TRIES = 50
_MOST_PAUSE = 2.0  # seconds


def address_of(place: str) -> str:
    """The URL of a published store, which may also be named by the path of its folder."""
    return place if is_url(place) else Path(place).resolve().as_uri()


def read_index(remote: Remote) -> tuple[Index | None, str | None]:
    """The index and its ETag; None where nothing is published yet."""
    try:
        answer = remote.get(INDEX, most=MOST_INDEX)
    except MissingObject:
        return None, None
    return Index.parse(answer.data, remote.shown), answer.etag


def not_published(remote: Remote) -> StoreError:
    """The error for a place without an index."""
    if remote.exists(METADATA):
        return StoreError(
            f"{remote.shown} holds a store that was not published: `clipsyn merge` takes one in a "
            "folder, `clipsyn push` publishes it"
        )
    return StoreError(f"there is no published store at {remote.shown}: `clipsyn push` makes one")


def published_attributes(remote: Remote, entry: Entry) -> Mapping[str, Any]:
    """The attributes of a published group."""
    path = f"{entry.folder}/{METADATA}"
    answer = remote.get(path)
    try:
        attributes = parse_json(answer.data)["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{remote.shown}/{path} is damaged: {error}") from error
    return attributes if isinstance(attributes, dict) else {}


def add_to_index(
    remote: Remote, marker: Mapping[str, Any], entries: Collection[Entry], *, replace: bool
) -> list[Entry]:
    """Write these groups into the index, in one step; returns the entries that made way.

    Where others write at the same time, what they have written stays. Of two that publish the same
    group the first stays; of two with other content under one name the second raises StaleCell,
    unless `replace`. marker: the content of clipsyn.json, for a store that is new.
    """
    replaced: dict[Place, Entry] = {}
    for attempt in range(_TRIES):
        index, etag = read_index(remote)
        there = index or Index(marker)
        added = [entry for entry in entries if not _is_there(there, entry)]
        old = [there.entries[entry.place] for entry in added if entry.place in there.entries]
        if old and not replace:
            raise StaleCell(
                f"{old[0].name} in {remote.shown} was published with other content meanwhile: "
                "run the same command again to see what differs"
            )
        replaced |= {entry.place: entry for entry in old}
        if not added:
            return list(replaced.values())  # what was written, the answer being lost, is there
        if index and etag is None:
            raise StoreError(
                f"{remote.shown} gives no ETags, so publishers could overwrite one another's "
                "index: publish to another place"
            )
        try:
            remote.put_if(INDEX, there.with_entries(added).dumps(), etag)
        except Changed:
            time.sleep(random.uniform(0, min(_MOST_PAUSE, 0.02 * 2**attempt)))
        else:
            return list(replaced.values())
    raise StoreError(
        f"{remote.shown}/{INDEX} was changed by others {_TRIES} times in a row: run the same "
        "command again, what was sent is kept"
    )


def delete_group(remote: Remote, folder: str) -> None:
    """Delete the files of a group, its manifest first: no more is it whole."""
    remote.delete([f"{folder}/{MANIFEST}"])
    remote.delete(one.path for one in remote.list(folder))


def _is_there(index: Index, entry: Entry) -> bool:
    there = index.entry(entry.place)
    return there is not None and there.content == entry.content
