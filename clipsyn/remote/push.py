"""Groups of a local store are published at a URL: data first, then each manifest, the index last.

The files of a group lie in a folder that is named by their digest. So two who publish at the same
time write the same bytes or into different folders, and what was sent before an interruption is
found again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic

from clipsyn.errors import DamagedStore, StaleCell, UsageError
from clipsyn.progress import Progress
from clipsyn.remote.content import content_of, differing
from clipsyn.remote.index import MANIFEST, Entry, Manifest
from clipsyn.remote.objects import Changed
from clipsyn.remote.publishing import (
    add_to_index,
    address_of,
    delete_group,
    published_attributes,
    read_index,
)
from clipsyn.remote.transfer import Meter, lanes
from clipsyn.remote.transport import Remote
from clipsyn.store import files
from clipsyn.store.arrays import METADATA
from clipsyn.store.choice import Filters, choose
from clipsyn.store.facts import facts_of
from clipsyn.store.features import FeatureStore
from clipsyn.store.folders import Place
from clipsyn.store.groups import replaced_meanwhile
from clipsyn.store.inventory import Group, find_groups
from clipsyn.store.marker import MARKER
from clipsyn.store.verify import damage, debris
from clipsyn.urls import Address

CARD = "README.md"
_FRESH = 12 * 3600  # seconds: what was sent before that may soon be old enough for `clipsyn gc`


@dataclass(frozen=True)
class Push:
    """What is pushed from a store to a URL, decided before anything is sent."""

    store: FeatureStore
    remote: Remote
    new: Sequence[Group]
    replaced: Sequence[Group]  # there with other content, which makes way
    there: Sequence[Group]  # published already

    @classmethod
    def plan(cls, store: FeatureStore, url: str, filters: Filters, *, replace: bool) -> Push:
        """Compare the chosen groups with those that are published.

        Raises StaleCell, with the fields that differ, for one that is published with other content,
        unless `replace`; DamagedStore for a store that is not whole.
        """
        remote = Remote(writable(url))
        index, _ = read_index(remote)
        if index is None:
            _refuse_occupied(remote)
        new, other, there = [], [], []
        for group in _chosen(store, filters):
            entry = index.entry(group.place) if index else None
            if entry is None:
                new.append(group)
            elif entry.content == content_of(store.group(group.path)):
                there.append(group)
            else:
                other.append((group, entry))
        if other and not replace:
            raise _conflict(store, remote, other)
        return cls(store, remote, new, [group for group, _ in other], there)

    @property
    def groups(self) -> list[Group]:
        """All that is sent."""
        return [*self.new, *self.replaced]

    @property
    def size(self) -> int:
        """Bytes to send, less what an interrupted push has sent."""
        return sum(group.size for group in self.groups)

    def carry_out(self, progress: Progress) -> None:
        """Send everything and write the index; what it replaced is deleted then."""
        meter = Meter(progress, "sending", self.size)
        with lanes() as (groups, pool):
            sending = _Sending(self.store, self.remote, meter, pool)
            start = monotonic()
            entries = list(groups.map(sending.send, self.groups))
            if monotonic() - start > _FRESH:
                list(groups.map(sending.send, self.groups))
            self._write_marker()
            marker = self.store.marker()
            old = add_to_index(self.remote, marker, entries, replace=bool(self.replaced))
            # what was found may have been deleted: by a publisher who had replaced it, or by `gc`
            list(groups.map(sending.send, [*self.replaced, *sending.found_of(self.new)]))
        meter.finish()
        _delete(self.remote, old)

    def _write_marker(self) -> None:
        if not self.remote.exists(MARKER):
            with suppress(Changed):  # another publisher was faster
                self.remote.put_if(MARKER, (self.store.path / MARKER).read_bytes(), None)

    def is_all(self) -> bool:
        """Whether what is published now is the store, the whole of it."""
        index, _ = read_index(self.remote)
        return index is not None and set(index.entries) == {
            group.place for group in find_groups(self.store, {})
        }

    def describe(self, card: str) -> None:
        """Write the page that says what is published."""
        self.remote.put(CARD, card.encode())


def writable(url: str) -> str:
    """The URL of a destination, which may be a folder, too; raises UsageError for one over HTTP."""
    url = address_of(url)
    address = Address.parse(url)
    if address.is_http:
        raise UsageError(
            f"{address.shown} can only be read: push to s3://, gs://, az:// or a folder, which "
            "a web server may serve"
        )
    return url


def _refuse_occupied(remote: Remote) -> None:
    """Raise UsageError where a store lies that was copied there, not published."""
    if remote.exists(METADATA):
        raise UsageError(
            f"{remote.shown} holds a store that was not published: give another place, or use "
            "`clipsyn merge` for one in a folder"
        )


def _chosen(store: FeatureStore, filters: Filters) -> list[Group]:
    """The groups that the filters choose; raises for a store of which a part is lost."""
    groups = find_groups(store, {})
    if problem := next(debris(store, groups), None):
        raise DamagedStore(f"{problem}: `clipsyn verify {store.path}` names all that is damaged")
    by_place = {group.place: group for group in groups}
    wanted = choose(by_place, filters, str(store.path))
    return [by_place[place] for place in by_place if place in wanted]


def _conflict(
    store: FeatureStore, remote: Remote, other: Sequence[tuple[Group, Entry]]
) -> StaleCell:
    """The error for groups that are published with other content; it says how the first differs."""
    group, entry = other[0]
    theirs = published_attributes(remote, entry)
    fields = differing(theirs, store.group(group.path).attributes)
    more = f", and {len(other) - 1:,} other groups differ, too" if len(other) > 1 else ""
    return StaleCell(
        f"{entry.name} is published at {remote.shown} with other content "
        f"({', '.join(fields)}){more}: add replace=True to put yours in its place, or push other "
        "cells, as with backbones=…",
        tuple(fields),
    )


@dataclass(frozen=True)
class _Sending:
    """Sends groups; several threads share it."""

    store: FeatureStore
    remote: Remote
    meter: Meter
    pool: ThreadPoolExecutor
    _described: dict[Place, tuple[Entry, Manifest]] = field(default_factory=dict)
    _found: set[Place] = field(default_factory=set)  # of which something was there

    def found_of(self, groups: Iterable[Group]) -> list[Group]:
        """Those of which something was there before it was sent."""
        return [group for group in groups if group.place in self._found]

    def send(self, group: Group) -> Entry:
        """Send what is missing of a group, and its manifest last.

        The manifest is sent in any case: it makes the group young, and what is old `gc` removes.
        """
        if group.place not in self._described:
            self._described[group.place] = self._describe(group)
        entry, manifest = self._described[group.place]
        there = {
            one.path.removeprefix(f"{entry.folder}/") for one in self.remote.list(entry.folder)
        }
        if there:
            self._found.add(group.place)
        self.meter.advance(sum(manifest.files[name][0] for name in there & manifest.files.keys()))
        missing = manifest.files.keys() - there
        put = partial(self._put, group.path, entry, manifest)
        for _ in self.pool.map(put, sorted(missing)):
            pass
        self.remote.put(f"{entry.folder}/{MANIFEST}", manifest.dumps())
        return entry

    def _describe(self, group: Group) -> tuple[Entry, Manifest]:
        """The entry of a group that is whole, and stays as it is while its files are read."""
        if problem := next(damage(self.store, group), None):
            raise DamagedStore(
                f"{problem}: it is not pushed; `clipsyn verify {self.store.path}` names all that "
                "is damaged"
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
            content=content_of(stored),
            facts=facts_of(stored),
        )
        return entry, manifest

    def _put(self, folder: Path, entry: Entry, manifest: Manifest, name: str) -> None:
        """Send a file, if it is still the one of the manifest."""
        data = (folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest.files[name][1]:
            raise replaced_meanwhile(self.store.path, entry.name)
        self.remote.put(f"{entry.folder}/{name}", data)
        self.meter.advance(len(data))


def _delete(remote: Remote, entries: Sequence[Entry]) -> None:
    """Delete groups that have made way, unless another publisher has put them back."""
    index, _ = read_index(remote)
    used = {entry.folder for entry in index.entries.values()} if index else set()
    for entry in entries:
        if entry.folder not in used:
            delete_group(remote, entry.folder)
