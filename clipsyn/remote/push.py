"""Groups of a local store are published at a URL: data first, then their manifest, the index last.

The files of a group lie in a folder that is named by their digest. So two who publish at the same
time write the same bytes or into different folders, and what was sent before an interruption is
found again.

A push writes to every group that it will name, though all of it may lie there, and looks for its
files again at the end: `clipsyn.remote.garbage` removes what is old and has no name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path

from clipsyn.errors import DamagedStore, StaleCell, UsageError
from clipsyn.remote.index import (
    Entry,
    add_to_index,
    check_conditions,
    dump_part,
    name_of,
    read_entries,
    read_if_there,
    read_index,
)
from clipsyn.remote.manifest import MANIFEST, Manifest, Stamp, stamp_of
from clipsyn.remote.transport import FILES, Remote, writable
from clipsyn.show.progress import Progress
from clipsyn.store import files
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import METADATA, Place
from clipsyn.store.groups import Group, replaced_meanwhile
from clipsyn.store.inventory import damage, debris
from clipsyn.store.merge import made_in_two_ways
from clipsyn.store.select import Filters, choose
from clipsyn.text import advised

_LARGE = 1 << 22  # bytes of a group
_FEW = 4  # at a time of what takes memory: large groups that are looked at, and their objects
_FEW_LISTS = 16
_LONGEST = Entry((), "0" * 64, 1 << 60, "0" * 64, "0" * 64, dict.fromkeys("abcd", 1 << 40))


@dataclass(frozen=True)
class Push:
    """What is pushed from a store to a URL, decided before anything is sent."""

    store: FeatureStore
    remote: Remote
    groups: Sequence[Place]  # all that is sent
    there: int  # groups that are published already
    published: Mapping[Place, Entry]  # of the same datasets
    replace: bool

    @classmethod
    def plan(cls, store: FeatureStore, url: str, filters: Filters, *, replace: bool) -> Push:
        """Compare the chosen groups with those that are published.

        With `replace` all are sent. Else raises StaleCell, with the fields that differ, for one
        that is published with other content; DamagedStore for a store that is not whole.
        """
        remote = writable(url)
        index = read_index(remote)
        if index is None and read_if_there(remote, METADATA)[0]:
            raise UsageError(
                f"{remote.shown} holds a store that was not published: give another place, or use "
                "`clipsyn pull` to add to one in a folder"
            )
        places = store.places()
        if problem := next(debris(store, places), None):
            raise _unsound(store, problem)
        chosen = choose(places, filters, str(store.path))
        published = read_entries(remote, {place[1] for place in chosen})
        named, sent, there = set(index.datasets if index else ()), [], 0
        for place in chosen:
            entry = published.get(place)
            if entry and not replace:
                group = store.group(store.at(*place))
                if entry.content != group.content:
                    raise _conflict(remote, group, entry)
                if place[1] in named:  # else a push was killed before it
                    there += 1
                    continue
            sent.append(place)
        kept = published.keys() - {*sent}
        theirs = {place: "imported" in published[place].facts for place in kept}
        ours = {place: store.is_imported(store.at(*place)) for place in sent} if theirs else {}
        if both := made_in_two_ways(theirs, ours):
            raise StaleCell(
                f"{both}: push to another place than {remote.shown}, or give one of the two "
                "another name",
                ("kind",),
            )
        return cls(store, remote, sent, there, published, replace)

    @property
    def datasets(self) -> set[str]:
        """Those whose groups are sent."""
        return {place[1] for place in self.groups}

    def is_all(self, dataset: str) -> bool:
        """Whether what will be published of a dataset is what the store has of it."""
        published = {place for place in (*self.published, *self.groups) if place[1] == dataset}
        return published == {*self.store.places({dataset})}

    @property
    def making_way(self) -> set[str]:
        """Manifests of what the groups take the place of."""
        replaced = self.groups if self.replace else ()
        return {self.published[it].manifest for it in replaced if it in self.published}

    @property
    def size(self) -> int:
        """Bytes of the groups, some of which an interrupted push may have sent."""
        return sum(self.store.tree.size(self.store.at(*it)) for it in self.groups)

    def carry_out(self, progress: Progress) -> None:
        """Send everything and write the index; what it replaced is left to `clipsyn gc`."""
        check_conditions(self.remote)  # before anything else
        self._check_room()
        lying = set() if self.replace else self._listed()
        sent = list[tuple[Entry, list[str]]]()
        counter = progress.add("sending", len(self.groups), unit="groups")
        with ThreadPoolExecutor(_FEW) as few, ThreadPoolExecutor(FILES) as threads:
            for one in threads.map(lambda it: self._send(it, lying, few), self.groups):
                sent.append(one)
                progress.advance(counter, 1)
        progress.finish(counter)
        marker = self.store.tree.marker(self.store.path)
        add_to_index(self.remote, marker, [entry for entry, _ in sent], self.making_way)
        there = self._listed()
        if lost := next((entry for entry, paths in sent if not there.issuperset(paths)), None):
            raise DamagedStore(
                f"{self.remote.shown}/{lost.folder} lost files while it was pushed (did "
                "`clipsyn gc` run?): send them again with replace=True"
            )

    def _check_room(self) -> None:
        """Raise StoreError for a part of the index that readers would not take."""
        every = {**self.published, **{it: replace(_LONGEST, place=it) for it in self.groups}}
        for dataset in self.datasets:
            dump_part(entry for place, entry in every.items() if place[1] == dataset)

    def _listed(self) -> set[str]:
        """What lies where the groups will, of a split or of a kind: a request lists thousands."""
        depth = 3 if len({place[:3] for place in self.groups}) <= _FEW_LISTS else 1
        near: dict[Place, list[str]] = {}
        for place in self.groups:
            near.setdefault(place[:depth], []).append(name_of(place))
        with ThreadPoolExecutor(FILES) as threads:
            return set().union(*threads.map(self.remote.list, map(commonpath, near.values())))

    def _send(self, place: Place, lying: Collection[str], few: Executor) -> tuple[Entry, list[str]]:
        """Send what is not lying there of a group, then its manifest; what it is, and the paths.

        The manifest in any case: `gc` removes groups that are old and have no name.
        """
        entry, manifest, listed = few.submit(self._describe, place).result()
        path, run = self.store.at(*place), few.map if manifest.size > _LARGE else map

        def put(name: str) -> None:
            parts = [
                manifest.inline.get(it) or self._read(path / it, manifest.files[it])
                for it in manifest.objects[name]
            ]
            self.remote.put(f"{entry.folder}/{name}", b"".join([*parts, manifest.end_of(name)]))

        list(run(put, [it for it in manifest.objects if f"{entry.folder}/{it}" not in lying]))
        self.remote.put(f"{entry.folder}/{MANIFEST}", listed)
        return entry, [f"{entry.folder}/{name}" for name in (*manifest.objects, MANIFEST)]

    def _read(self, file: Path, stamp: Stamp) -> bytes:
        data = files.read_file(file, stamp[0])
        if stamp_of(data) != stamp:
            raise replaced_meanwhile(self.store.path, str(file.relative_to(self.store.path)))
        return data

    def _describe(self, place: Place) -> tuple[Entry, Manifest, bytes]:
        """Entry and manifest of a group that is whole, and stayed as it is while it was read."""
        path = self.store.at(*place)
        if problems := damage(self.store, place):
            raise _unsound(self.store, problems[0])
        stored = self.store.group(path)
        manifest = Manifest.of_group(stored)
        if files.file_at(path / METADATA) != stored.seen:
            raise replaced_meanwhile(self.store.path, stored.name)
        digest = hashlib.sha256(listed := manifest.dumps()).hexdigest()
        about = stored["fingerprint"], stored.content, stored.facts
        return Entry(place, digest, manifest.size, *about), manifest, listed


def _unsound(store: FeatureStore, problem: str) -> DamagedStore:
    return DamagedStore(
        f"{problem}: it is not pushed; `{advised('verify', store.path)}` names all that is damaged"
    )


def _conflict(remote: Remote, group: Group, entry: Entry) -> StaleCell:
    """The error for a group that is published with other content; it says how that differs."""
    same = group["fingerprint"] == entry.fingerprint
    field = "labels, terms or numbers of one identity" if same else "identity"
    return StaleCell(
        f"{entry.name} is published at {remote.shown} with other content ({field}): add "
        "replace=True to put yours in its place, or push other cells, as with backbones=…",
        (field,),
    )
