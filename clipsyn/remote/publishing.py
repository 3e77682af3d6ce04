"""The index of a published store is read, and written without losing what others have written.

Groups that no index names were sent by killed pushes, or replaced. A push names what it has sent
when all of it is there, so a group without a name may be of one that runs. As in a store on a disk
(`clipsyn.store.inventory`) age tells them apart, by the last time that a file of the group was
written: a push writes to every group that it will name, and looks again when it has named it.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from clipsyn.errors import StaleCell, StoreError, UsageError
from clipsyn.names import MARKER, Address, Location, is_url
from clipsyn.remote.index import INDEX, MANIFEST, MOST_INDEX, Entry, Index
from clipsyn.remote.transfer import GROUPS
from clipsyn.remote.transport import Changed, Denied, MissingObject, Object, Remote
from clipsyn.store import inventory
from clipsyn.store.files import PARTIAL
from clipsyn.store.groups import Group
from clipsyn.store.inventory import Leftover
from clipsyn.store.schema import KINDS
from clipsyn.text import advised

_TRIES = 50
_MOST_PAUSE = 2.0  # seconds
_DIGITS = re.compile(r"[0-9a-f]{16}")  # with which the folder of a published group ends


Sent = dict[str, list[Object]]  # the folder of a published group -> what a listing says of it


def is_whole(sent: Sent, entry: Entry) -> bool:
    """Whether a listing has the manifest of a group, and all bytes of its files."""
    found = sent.get(entry.folder, [])
    ends = [one.bytes for one in found if one.path.endswith(f"/{MANIFEST}")]
    return len(ends) == 1 and sum(one.bytes for one in found) == entry.bytes + ends[0]


def is_as_sent(sent: Sent, entry: Entry) -> bool:
    """Whether it is whole, and nothing was written after the manifest, which comes last."""
    written = {one.path: one.written for one in sent.get(entry.folder, [])}
    return is_whole(sent, entry) and max(written.values()) <= written[f"{entry.folder}/{MANIFEST}"]


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
    return StoreError(f"there is no published store at {remote.shown}: `clipsyn push` makes one")


def differing(ours: Group, theirs: Entry) -> str:
    """In which field a group and what is published at its place differ."""
    same = ours["fingerprint"] == theirs.fingerprint
    return "labels, terms or numbers of one identity" if same else "identity"


def sent_groups(remote: Remote, below: Iterable[str] = KINDS) -> Sent:
    """What lies where the files of published groups do; below: kinds, or folders below them."""
    found: Sent = {}
    for prefix in below:
        depth = 2 + len(KINDS[prefix.partition("/")[0]])
        for one in remote.list(prefix):
            parts = one.path.split("/")
            if len(parts) > depth and _DIGITS.fullmatch(parts[depth - 1]):
                found.setdefault("/".join(parts[:depth]), []).append(one)
    return found


def sent_of(remote: Remote, entries: Collection[Entry]) -> Sent:
    """As `sent_groups`, of the datasets of these groups alone."""
    return sent_groups(remote, sorted({"/".join(one.name.split("/")[:2]) for one in entries}))


def add_to_index(
    remote: Remote,
    marker: Mapping[str, Any],
    entries: Collection[Entry],
    making_way: Collection[str] = (),
) -> None:
    """Write these groups into the index, in one step, and look whether they are in it.

    Where others write at the same time, what they have written stays. Of two that publish the same
    group the first stays; of two with other content under one name the second raises StaleCell.
    making_way: manifests of groups that others take the place of. marker: the content of
    clipsyn.json, for a store that is new.
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
        "the same time one would lose cells: push to another place, or to a folder, and copy that"
    )


def left_over(location: Location) -> list[Leftover]:
    """Groups that no index names, and in a folder what was being written; read the index last.

    Nothing else is looked at: not what lies beside groups, nor kinds that this clipsyn does not
    know. Raises UsageError for a store behind a web server, StoreError where nothing is published.
    """
    remote = writable(location.url)
    found = {
        folder: Leftover(
            location / folder,
            f"{folder}, which no index names",
            max(one.written for one in objects),
            sum(one.bytes for one in objects),
        )
        for folder, objects in sent_groups(remote).items()
    }
    if not (found or remote.exists(INDEX)):
        raise not_published(remote)
    named = _named(remote) if found else set()
    nameless = [found[folder] for folder in sorted({*found} - named)]
    if not location.is_folder:
        return nameless
    there = inventory.left_over(Address.parse(location.url).folder)
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
    return count + (inventory.collect(Address.parse(location.url).folder, files) if files else 0)
