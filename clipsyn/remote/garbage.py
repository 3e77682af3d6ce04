"""Groups of a published store that no index names: sent by killed pushes, or replaced.

A push names what it has sent when all of it is there, so a group without a name may be of one that
runs, and one that was replaced may be read still. As in a store on a disk (`clipsyn.store.garbage`)
age tells them apart, by the last time that a file of the group was written: a push writes to every
group that it will name, and to every group that makes way.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from clipsyn.command import advised
from clipsyn.errors import StoreError, UsageError
from clipsyn.remote.index import INDEX
from clipsyn.remote.publishing import delete_group, not_published, read_index, sent_groups
from clipsyn.remote.transfer import GROUPS
from clipsyn.remote.transport import Remote
from clipsyn.specs import MARKER
from clipsyn.store import garbage
from clipsyn.store.files import PARTIAL
from clipsyn.store.garbage import Leftover
from clipsyn.urls import Address, Location

_WHY = "which no index names"


def left_over(location: Location) -> list[Leftover]:
    """Groups that no index names, and in a folder what was being written; read the index last.

    Nothing else is looked at: not what lies beside groups, nor kinds that this clipsyn does not
    know. Raises UsageError for a store behind a web server, StoreError where nothing is published.
    """
    if Address.parse(location.url).is_http:
        raise UsageError(
            f"{location} can only be read, and HTTP lists no files: give gc the bucket or the "
            "folder that is served there"
        )
    remote = Remote(location.url)
    found = {
        folder: Leftover(location / folder, f"{folder}, {_WHY}", sent.written, sent.bytes)
        for folder, sent in sent_groups(remote).items()
    }
    if not (found or remote.exists(INDEX)):
        raise not_published(remote)
    named = _named(remote) if found else set()
    return [found[folder] for folder in sorted({*found} - named)] + _partial(location)


def _named(remote: Remote) -> set[str]:
    """The folders of the groups in the index; raises StoreError where it is lost."""
    index, _ = read_index(remote)
    if index is None and remote.exists(MARKER):
        raise StoreError(
            f"{remote.shown} has no {INDEX}, so what is in use there is not known: put it back, or "
            f"`{advised('push', 'STORE', remote.shown)}` writes a new one"
        )
    return {entry.folder for entry in index.entries.values()} if index else set()


def _partial(location: Location) -> list[Leftover]:
    """Files that were being written to a folder; locks stay, for others may hold them."""
    if not location.is_folder:
        return []
    there = garbage.left_over(Address.parse(location.url).folder)
    return [one for one in there if one.path.name.endswith(PARTIAL)]


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
        delete_group(remote, folder)
        return True

    with ThreadPoolExecutor(GROUPS) as threads:
        count = sum(threads.map(remove, groups))
    files = [one for one in found if one not in groups]
    return count + (garbage.collect(Address.parse(location.url).folder, files) if files else 0)
