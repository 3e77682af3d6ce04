"""The index of a published store is read, and written without losing what others have written.

Groups that no index names were sent by killed pushes, or replaced. A push names what it has sent
when all of it is there, so a group without a name may be of one that runs. As in a store on a disk
(`clipsyn.store.unfinished`) age tells them apart, by the last time that a file of the group was
written: a push writes to every group that it will name, and looks again when it has named it.
"""

from __future__ import annotations

import random
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsyn.errors import DamagedStore, StaleCell, StoreError, UsageError
from clipsyn.names import (
    MARKER,
    Address,
    Location,
    canonical_json,
    differences,
    fingerprint,
    is_url,
)
from clipsyn.remote.folder import Changed, Denied, MissingObject, Object
from clipsyn.remote.index import INDEX, MANIFEST, MOST_INDEX, Entry, Index
from clipsyn.remote.transfer import GROUPS
from clipsyn.remote.transport import Remote
from clipsyn.store import unfinished
from clipsyn.store.files import METADATA, PARTIAL
from clipsyn.store.folders import KINDS
from clipsyn.store.groups import Group
from clipsyn.store.unfinished import Leftover
from clipsyn.text import advised, parse_json

_TRIES = 50
_MOST_PAUSE = 2.0  # seconds
_FACTS = ("class_names", "metric", "licence", "logit_scale")  # read beside the arrays
_COMPARED = ("kind", "fingerprint", "arrays", *_FACTS)
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

    def is_as_sent(self, entry: Entry) -> bool:
        """Whether it is whole, and nothing was written after the manifest, which comes last."""
        last = self.manifest.written if self.manifest else 0
        return self.has_all_of(entry) and self.written <= last


def address_of(place: str) -> str:
    """The URL of a published store, which may also be named by the path of its folder."""
    return place if is_url(place) else Path(place).resolve().as_uri()


def writable(place: str) -> Remote:
    """A destination, which may be a folder, too; raises UsageError for a web server."""
    url = address_of(place)
    if (address := Address.parse(url)).is_http:
        raise UsageError(
            f"{address.shown} can only be read, and HTTP lists no files: give s3://, gs://, az:// "
            "or the folder that is served there"
        )
    return Remote(url)


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
            f"{remote.shown} holds a store that was not published: give its path where it "
            "is a folder here, or publish it by `clipsyn push`"
        )
    return StoreError(f"there is no published store at {remote.shown}: `clipsyn push` makes one")


def published_attributes(remote: Remote, entry: Entry) -> Mapping[str, Any]:
    """The attributes of a published group."""
    path = f"{entry.folder}/{METADATA}"
    answer = remote.get(path)
    try:
        attributes = parse_json(answer.data)["attributes"]
        canonical_json(attributes)  # or they could not be compared: JSON has no NaN
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{remote.shown}/{path} is damaged: {error}") from error
    return attributes if isinstance(attributes, dict) else {}


def content_of(group: Group) -> str:
    """A digest of what readers see of a group.

    It is the same wherever and whenever the same numbers were made: dates, devices, versions and
    the names of imported files are no part of it.
    """
    seen = {name: group[name] for name in _COMPARED if name in group.attributes}
    return fingerprint(seen)


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of the fields in which the attributes of two groups of one place differ.

    Of groups of one identity these are facts, and arrays with other values.
    """
    fields = [name for name, _, _ in differences(ours.get("identity"), theirs.get("identity"))]
    if fields:
        return fields
    fields = [name for name in _FACTS if ours.get(name) != theirs.get(name)]
    changes = differences(ours.get("arrays"), theirs.get("arrays"))
    return fields + sorted({f"values of {name.partition('.')[0]}" for name, _, _ in changes})


def sent_groups(remote: Remote, below: Iterable[str] = KINDS) -> defaultdict[str, Sent]:
    """What lies where the files of published groups do, by the folder of each group.

    below: kinds, or folders below them.
    """
    found: defaultdict[str, Sent] = defaultdict(Sent)
    for prefix in below:
        depth = 2 + len(KINDS[prefix.partition("/")[0]])
        for one in remote.list(prefix):
            parts = one.path.split("/")
            if len(parts) > depth and _DIGITS.fullmatch(parts[depth - 1]):
                found["/".join(parts[:depth])].add(one)
    return found


def sent_of(remote: Remote, entries: Collection[Entry]) -> defaultdict[str, Sent]:
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
            raise StoreError(
                f"{remote.shown}/{INDEX} has lost what was written into it, for another push has "
                "overwritten it: run the same command again when nobody else pushes"
            )
        old = [there.entries[entry.place] for entry in added if entry.place in there.entries]
        if other := next((entry for entry in old if entry.manifest not in making_way), None):
            raise StaleCell(
                f"{other.name} in {remote.shown} was published with other content meanwhile: "
                "run the same command again to see what differs"
            )
        data = there.with_entries(added).dumps()
        try:
            write(remote, INDEX, data, etag, single_writer=single_writer)
            written = True
        except Changed:
            time.sleep(random.uniform(0, min(_MOST_PAUSE, 0.02 * 2**attempt)))
    raise StoreError(
        f"{remote.shown}/{INDEX} was changed by others {_TRIES} times in a row: run the same "
        "command again, what was sent is kept"
    )


def write(remote: Remote, path: str, data: bytes, etag: str | None, *, single_writer: bool) -> None:
    """As `Remote.put_if`, but for a single writer without a condition."""
    if single_writer:
        remote.put(path, data)
    else:
        remote.put_if(path, data, etag)


def _is_there(index: Index, entry: Entry, making_way: Collection[str]) -> bool:
    there = index.entries.get(entry.place)
    same = there and there.content == entry.content and there.manifest not in making_way
    return there == entry or bool(same)


def check_conditions(remote: Remote) -> None:
    """Raise StoreError for a place where publishers would overwrite one another's index.

    It is asked for two writes that it has to refuse, and that would change nothing.
    """
    data, etag = remote.get(MARKER)
    if etag is None:
        raise _unconditional(remote, "it gives no ETags")
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


def left_over(location: Location) -> list[Leftover]:
    """Groups that no index names, and in a folder what was being written; read the index last.

    Nothing else is looked at: not what lies beside groups, nor kinds that this clipsyn does not
    know. Raises UsageError for a store behind a web server, StoreError where nothing is published.
    """
    remote = writable(location.url)
    found = {
        folder: Leftover(
            location / folder, f"{folder}, which no index names", sent.written, sent.bytes
        )
        for folder, sent in sent_groups(remote).items()
    }
    if not (found or remote.exists(INDEX)):
        raise not_published(remote)
    named = _named(remote) if found else set()
    nameless = [found[folder] for folder in sorted({*found} - named)]
    if not location.is_folder:
        return nameless
    there = unfinished.left_over(Address.parse(location.url).folder)
    # locks stay, for others may hold them
    return nameless + [one for one in there if one.path.name.endswith(PARTIAL)]


def _named(remote: Remote) -> set[str]:
    """The folders of the groups in the index; raises StoreError where it is lost."""
    index, _ = read_index(remote)
    if index is None and remote.exists(MARKER):
        raise StoreError(
            f"{remote.shown} has no {INDEX}, so what is in use there is not known: put it back, or "
            f"`{advised('push', 'STORE', remote.shown)}` writes a new one"
        )
    return {entry.folder for entry in index.entries.values()} if index else set()


def collect(location: Location, found: Collection[Leftover]) -> int:
    """Remove them; returns how many. What somebody has written to or named meanwhile stays."""
    remote = Remote(location.url)
    groups = [one for one in found if isinstance(one.path, Location)]
    named = _named(remote) if groups else set()

    def remove(one: Leftover) -> bool:
        folder = one.path.relative_to(location).as_posix()
        written = max((there.written for there in remote.list(folder)), default=None)
        if folder in named or written is None or written > one.written:
            return False
        remote.delete([f"{folder}/{MANIFEST}"])  # first: no more is it whole
        remote.delete(one.path for one in remote.list(folder))
        return True

    with ThreadPoolExecutor(GROUPS) as threads:
        count = sum(threads.map(remove, groups))
    files = [one for one in found if not isinstance(one.path, Location)]
    return count + (unfinished.collect(Address.parse(location.url).folder, files) if files else 0)
