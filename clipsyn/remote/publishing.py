"""The index of a published store is read, and written without losing what others have written."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsyn.documents import parse_json
from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.remote.index import INDEX, MANIFEST, MOST_INDEX, MOST_MANIFEST, Entry, Index
from clipsyn.remote.objects import Changed, Denied, MissingObject, Object
from clipsyn.remote.transport import Remote
from clipsyn.specs import MARKER
from clipsyn.store.files import METADATA
from clipsyn.store.folders import KINDS
from clipsyn.urls import is_url

_TRIES = 50
_MOST_PAUSE = 2.0  # seconds
_DIGITS = re.compile(r"[0-9a-f]{16}")  # with which the folder of a published group ends


@dataclass
class Sent:
    """What a listing says of the folder of a published group."""

    bytes: int = 0  # of all files
    written: float = 0.0  # the last time that one was
    manifest: Object | None = None

    def add(self, one: Object) -> None:
        self.bytes += one.bytes
        self.written = max(self.written, one.written)
        if one.path.endswith(f"/{MANIFEST}"):
            self.manifest = one

    def has_all_of(self, entry: Entry) -> bool:
        return self.manifest is not None and self.bytes == entry.bytes + self.manifest.bytes

    @property
    def is_as_sent(self) -> bool:
        """Whether nothing was written after the manifest, which comes last."""
        return self.manifest is not None and self.written <= self.manifest.written


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


def sent_groups(remote: Remote, below: Iterable[str] = KINDS) -> dict[str, Sent]:
    """What lies where the files of published groups do, by the folder of each group.

    below: kinds, or folders below them.
    """
    found: dict[str, Sent] = {}
    for prefix in below:
        depth = 2 + len(KINDS[prefix.partition("/")[0]])
        for one in remote.list(prefix):
            parts = one.path.split("/")
            if len(parts) > depth and _DIGITS.fullmatch(parts[depth - 1]):
                found.setdefault("/".join(parts[:depth]), Sent()).add(one)
    return found


def sent_of(remote: Remote, entries: Collection[Entry]) -> dict[str, Sent]:
    """As `sent_groups`, of the datasets of these groups alone."""
    return sent_groups(remote, sorted({"/".join(one.name.split("/")[:2]) for one in entries}))


def add_to_index(
    remote: Remote,
    marker: Mapping[str, Any],
    entries: Collection[Entry],
    making_way: Collection[str] = (),
    *,
    single_writer: bool = False,
) -> None:
    """Write these groups into the index, in one step, and look whether they are in it.

    Where others write at the same time, what they have written stays. Of two that publish the same
    group the first stays; of two with other content under one name the second raises StaleCell.
    making_way: manifests of groups that others take the place of. marker: the content of
    clipsyn.json, for a store that is new. single_writer: nobody else writes meanwhile.
    """
    written = False
    for attempt in range(_TRIES):
        index, etag = read_index(remote)
        there = index or Index(marker)
        added = [entry for entry in entries if not _is_there(there, entry, making_way)]
        if not added:
            return  # also where it was written, and the answer was lost
        if written:
            raise _overwritten(remote)
        old = [there.entries[entry.place] for entry in added if entry.place in there.entries]
        if other := next((entry for entry in old if entry.manifest not in making_way), None):
            raise StaleCell(
                f"{other.name} in {remote.shown} was published with other content meanwhile: "
                "run the same command again to see what differs"
            )
        for entry in old:
            _make_young(remote, entry)
        data = there.with_entries(added).dumps()
        try:
            if single_writer:
                remote.put(INDEX, data)
            elif index and etag is None:
                raise _unconditional(remote, "it gives no ETags")
            else:
                remote.put_if(INDEX, data, etag)
            written = True
        except Changed:
            time.sleep(random.uniform(0, min(_MOST_PAUSE, 0.02 * 2**attempt)))
    raise StoreError(
        f"{remote.shown}/{INDEX} was changed by others {_TRIES} times in a row: run the same "
        "command again, what was sent is kept"
    )


def _is_there(index: Index, entry: Entry, making_way: Collection[str]) -> bool:
    there = index.entries.get(entry.place)
    if there is None or there == entry:
        return there is not None
    return there.content == entry.content and there.manifest not in making_way


def _make_young(remote: Remote, entry: Entry) -> None:
    """Write the manifest of a group again, which makes way: who reads it has a day to end."""
    path = f"{entry.folder}/{MANIFEST}"
    with suppress(MissingObject):
        remote.put(path, remote.get(path, most=MOST_MANIFEST).data)


def check_conditions(remote: Remote) -> None:
    """Raise StoreError for a place where publishers would overwrite one another's index.

    It is asked for two writes that it has to refuse, and that would change nothing.
    """
    data = remote.get(MARKER).data
    for etag in (None, '"0"'):
        try:
            remote.put_if(MARKER, data, etag)
        except Changed:
            continue
        except Denied:
            raise
        except StoreError as error:
            raise _unconditional(remote, str(error)) from None
        raise _unconditional(remote, "it wrote what it had to refuse")


def _unconditional(remote: Remote, why: str) -> StoreError:
    return StoreError(
        f"{remote.shown} does not heed the conditions of a write ({why}), so of two who push at "
        "the same time one would lose cells: push to another place, or add single_writer=True "
        "while nobody else pushes"
    )


def _overwritten(remote: Remote) -> StoreError:
    return StoreError(
        f"{remote.shown}/{INDEX} has lost what was written into it, for another push has "
        "overwritten it: run the same command again when nobody else pushes"
    )


def delete_group(remote: Remote, folder: str) -> None:
    """Delete the files of a group, its manifest first: no more is it whole."""
    remote.delete([f"{folder}/{MANIFEST}"])
    remote.delete(one.path for one in remote.list(folder))
