"""Groups of a local store are published at a URL: data first, then each manifest, the index last.

The files of a group lie in a folder that is named by their digest. So two who publish at the same
time write the same bytes or into different folders, and what was sent before an interruption is
found again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clipsyn.errors import DamagedStore, StaleCell, UsageError
from clipsyn.names import MARKER
from clipsyn.remote.index import MANIFEST, Entry, Manifest
from clipsyn.remote.publishing import (
    add_to_index,
    check_conditions,
    differing,
    is_as_sent,
    is_whole,
    read_index,
    sent_of,
    writable,
)
from clipsyn.remote.transfer import Meter, lanes
from clipsyn.remote.transport import Changed, Remote
from clipsyn.show.progress import Progress
from clipsyn.store import files
from clipsyn.store.arrays import METADATA
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import replaced_meanwhile
from clipsyn.store.inventory import GroupPath, find_groups
from clipsyn.store.merge import made_in_two_ways
from clipsyn.store.select import Filters, choose
from clipsyn.store.verify import damage, debris
from clipsyn.text import advised

CARD = "README.md"


@dataclass(frozen=True)
class Push:
    """What is pushed from a store to a URL, decided before anything is sent."""

    store: FeatureStore
    remote: Remote
    new: Sequence[GroupPath]
    replaced: Sequence[GroupPath]  # there with other content, which makes way
    damaged: Sequence[GroupPath]  # there, but not all of it
    there: Sequence[GroupPath]  # published already
    making_way: Collection[str] = ()  # manifests of what is replaced or damaged

    @classmethod
    def plan(cls, store: FeatureStore, url: str, filters: Filters, *, replace: bool) -> Push:
        """Compare the chosen groups with those that are published.

        Raises StaleCell, with the fields that differ, for one that is published with other content,
        unless `replace`; DamagedStore for a store that is not whole.
        """
        remote = writable(url)
        index, _ = read_index(remote)
        if index is None:
            _refuse_occupied(remote)
        there = index.entries if index else {}
        new, other, same = [], [], []
        for group in _chosen(store, filters):
            if (entry := there.get(group.place)) is None:
                new.append(group)
            elif entry.content == store.group(group.path).content:
                same.append((group, entry))
            else:
                other.append((group, entry))
        if other and not replace:
            raise _conflict(store, remote, other)
        sent = {group.place: group for group in (*new, *(group for group, _ in other))}
        theirs = ((place, it.imported) for place, it in there.items() if place not in sent)
        ours = ((place, store.is_imported(group.path)) for place, group in sent.items())
        if both := made_in_two_ways(theirs, ours):
            raise StaleCell(
                f"{both}: push to another place than {remote.shown}, or give one of the two "
                "another name",
                ("kind",),
            )
        found = sent_of(remote, [entry for _, entry in same])
        bad = [(group, entry) for group, entry in same if not is_as_sent(found, entry)]
        return cls(
            store,
            remote,
            new,
            [group for group, _ in other],
            [group for group, _ in bad],
            [group for group, entry in same if is_as_sent(found, entry)],
            {entry.manifest for _, entry in (*other, *bad)},
        )

    @property
    def groups(self) -> list[GroupPath]:
        """All that is sent."""
        return [*self.new, *self.replaced, *self.damaged]

    @property
    def size(self) -> int:
        """Bytes to send, less what an interrupted push has sent."""
        return sum(self.store.tree.size(group.path) for group in self.groups)

    def carry_out(self, progress: Progress) -> None:
        """Send everything and write the index; what it replaced is left to `clipsyn gc`."""
        meter = Meter(progress, "sending", self.size)
        with lanes() as (groups, pool):
            sending = _Sending(self.store, self.remote, meter, pool)
            entries = list(groups.map(sending.send, self.groups))
        if not self.remote.exists(MARKER):
            with suppress(Changed):  # another publisher was faster
                data = files.read_file(self.store.path / MARKER)
                self.remote.put_if(MARKER, data, None)
        check_conditions(self.remote)
        marker = self.store.tree.marker(self.store.path)
        add_to_index(self.remote, marker, entries, self.making_way)
        found = sent_of(self.remote, entries)
        for entry in entries:
            if not is_whole(found, entry):
                raise DamagedStore(
                    f"{self.remote.shown}/{entry.folder} lost files while it was pushed (did "
                    "`clipsyn gc` run?): run the same command again, which sends them"
                )
        meter.finish()

    def is_all(self) -> bool:
        """Whether what is published now is the store, the whole of it."""
        index, _ = read_index(self.remote)
        return index is not None and set(index.entries) == {
            group.place for group in find_groups(self.store, {})
        }

    def describe(self, card: str) -> None:
        """Write the page that says what is published."""
        self.remote.put(CARD, card.encode())


def _refuse_occupied(remote: Remote) -> None:
    """Raise UsageError where a store lies that was copied there, not published."""
    if remote.exists(METADATA):
        raise UsageError(
            f"{remote.shown} holds a store that was not published: give another place, or use "
            "`clipsyn pull` to add to one in a folder"
        )


def _chosen(store: FeatureStore, filters: Filters) -> list[GroupPath]:
    """The groups that the filters choose; raises for a store of which a part is lost."""
    groups = find_groups(store, {})
    if problem := next(debris(store, groups), None):
        raise DamagedStore(
            f"{problem}: `{advised('verify', store.path)}` names all that is damaged"
        )
    by_place = {group.place: group for group in groups}
    wanted = choose(by_place, filters, str(store.path))
    return [by_place[place] for place in by_place if place in wanted]


def _conflict(
    store: FeatureStore, remote: Remote, other: Sequence[tuple[GroupPath, Entry]]
) -> StaleCell:
    """The error for groups that are published with other content; it says how the first differs."""
    group, entry = other[0]
    field = differing(store.group(group.path), entry)
    more = f", and {len(other) - 1:,} other groups differ, too" if len(other) > 1 else ""
    return StaleCell(
        f"{entry.name} is published at {remote.shown} with other content ({field}){more}: add "
        "replace=True to put yours in its place, or push other cells, as with backbones=…",
        (field,),
    )


@dataclass(frozen=True)
class _Sending:
    """Sends groups; several threads share it."""

    store: FeatureStore
    remote: Remote
    meter: Meter
    pool: ThreadPoolExecutor

    def send(self, group: GroupPath) -> Entry:
        """Send what is missing of a group, is of another size, or was written after its manifest.

        The manifest is sent last, and in any case: it makes the group young, and what is old and
        has no name `gc` removes.
        """
        entry, manifest = self._describe(group)
        found = {one.path: one for one in self.remote.list(entry.folder)}
        end = found.get(f"{entry.folder}/{MANIFEST}")
        missing = []
        for name, (size, _) in sorted(manifest.files.items()):
            one = found.get(f"{entry.folder}/{name}")
            if one and one.bytes == size and not (end and one.written > end.written):
                self.meter.advance(size)
            else:
                missing.append(name)
        list(self.pool.map(partial(self._put, group.path, entry, manifest), missing))
        self.remote.put(f"{entry.folder}/{MANIFEST}", manifest.dumps())
        return entry

    def _describe(self, group: GroupPath) -> tuple[Entry, Manifest]:
        """The entry of a group that is whole, and stays as it is while its files are read."""
        if problem := next(damage(self.store, group), None):
            raise DamagedStore(
                f"{problem}: it is not pushed; `{advised('verify', self.store.path)}` names "
                "all that is damaged"
            )
        stored = self.store.group(group.path)
        manifest = Manifest.of_folder(group.path)
        if files.file_at(group.path / METADATA) != stored.seen:
            raise replaced_meanwhile(self.store.path, stored.name)
        entry = Entry(
            group.place,
            manifest=manifest.digest,
            bytes=manifest.bytes,
            fingerprint=stored["fingerprint"],
            content=stored.content,
            facts=stored.facts,
        )
        return entry, manifest

    def _put(self, folder: Path, entry: Entry, manifest: Manifest, name: str) -> None:
        """Send a file, if it is still the one of the manifest."""
        data = files.read_file(folder / name, manifest.files[name][0])
        if hashlib.sha256(data).hexdigest() != manifest.files[name][1]:
            raise replaced_meanwhile(self.store.path, entry.name)
        self.remote.put(f"{entry.folder}/{name}", data)
        self.meter.advance(len(data))
