"""Groups of a published store that no index names: sent by killed pushes, or replaced.

A push names what it has sent when all of it is there, so a group without a name may be of one that
runs. As in a store on a disk (`clipsyn.store.inventory`) age tells them apart, by the last time
that a file of the group was written: a push writes to every group that it will name, and looks
again when it has named it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from clipsyn.errors import StoreError
from clipsyn.names import Location
from clipsyn.remote.index import datasets_in, read_entries, read_index
from clipsyn.remote.manifest import MANIFEST
from clipsyn.remote.transport import FILES, Remote, writable
from clipsyn.store.files import KINDS
from clipsyn.store.inventory import Leftover
from clipsyn.text import advised

_DIGITS = re.compile(r"[0-9a-f]{16}")  # with which the folder of a published group ends


def left_over(location: Location) -> list[Leftover]:
    """Groups that no index names; the index is read last.

    Nothing else is looked at: not what lies beside groups, nor kinds that this clipsyn does not
    know. Raises UsageError for a store behind a web server, StoreError where nothing is published.
    """
    remote = writable(location.url)
    found: dict[str, list[tuple[int, float]]] = {}
    for path, about in remote.list("").items():
        parts = path.split("/")
        depth = 2 + len(KINDS.get(parts[0], parts))
        if len(parts) > depth and _DIGITS.fullmatch(parts[depth - 1]):
            found.setdefault("/".join(parts[:depth]), []).append(about)
    if not (found or read_index(remote)):
        raise StoreError(f"there is no published store at {remote.shown}: `clipsyn push` makes one")
    return [
        Leftover(location / folder, f"{folder}, which no index names", max(written), sum(sizes))
        for folder in sorted(found.keys() - _named(remote))
        for sizes, written in [zip(*found[folder], strict=True)]
    ]


def _named(remote: Remote) -> set[str]:
    """The folders of the groups in the index; raises StoreError where a part of it is lost."""
    index, there = read_index(remote), datasets_in(remote)
    if there if index is None else set(index.datasets) - there:
        raise StoreError(
            f"{remote.shown} has lost a part of its index, so what is in use there is not known: "
            f"put it back, or `{advised('push', 'STORE', remote.shown)}` writes a new one"
        )
    return {entry.folder for entry in read_entries(remote, there).values()}


def collect(location: Location, found: Collection[Leftover]) -> int:
    """Remove them; returns how many. What somebody has written to or named meanwhile stays."""
    remote, written = Remote(location.url), {one.path: one.written for one in found}

    def remove(one: Leftover) -> None:
        there = remote.list(one.path.relative_to(location).as_posix())
        for path in sorted(there, key=lambda path: not path.endswith(f"/{MANIFEST}")):
            remote.delete(path)  # the manifest first: no more is it whole

    dead = [one for one in left_over(location) if one.written <= written.get(one.path, 0)]
    with ThreadPoolExecutor(FILES) as threads:
        return len(list(threads.map(remove, dead)))
