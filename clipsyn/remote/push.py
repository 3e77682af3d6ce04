"""Groups of a local store are published at a URL: data first, then their manifest, the index last.

The files of a group lie in a folder that is named by their digest. So two who publish at the same
time write the same bytes or into different folders, and what was sent before an interruption is
found again.

Groups that no index names were sent by killed pushes, or replaced. A push names what it has sent
when all of it is there, so a group without a name may be of one that runs. As in a store on a disk
(`clipsyn.store.inventory`) age tells them apart, by the last time that a file of the group was
written: a push writes to every group that it will name, and looks again when it has named it.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path
from typing import Any

from clipsyn.errors import DamagedStore, StaleCell, StoreError, UsageError
from clipsyn.names import Address, Location, is_url
from clipsyn.remote.index import (
    MOST_INDEX,
    PART,
    PARTS,
    Entry,
    Index,
    dump_part,
    name_of,
    parse_part,
    part_path,
)
from clipsyn.remote.manifest import MANIFEST, Manifest, Stamp, stamp_of
from clipsyn.remote.published import FILES
from clipsyn.remote.transport import Changed, MissingObject, Remote
from clipsyn.show.progress import Progress
from clipsyn.store import files
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import INDEX, KINDS, METADATA, Place, name_of_folder
from clipsyn.store.groups import Group, replaced_meanwhile
from clipsyn.store.inventory import Leftover, damage, debris
from clipsyn.store.merge import made_in_two_ways
from clipsyn.store.select import Filters, choose
from clipsyn.text import advised

_TRIES = 50
_LARGE = 1 << 22  # bytes of a group
_FEW = 4  # at a time of what takes memory: large groups that are looked at, and their objects
_FEW_LISTS = 16
_MOST_PAUSE = 2.0  # seconds
_PROBE = f"{PARTS}/probe.json"
_DIGITS = re.compile(r"[0-9a-f]{16}")  # with which the folder of a published group ends
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
        remote = _writable(url)
        index = _index(remote)
        if index is None and _read(remote, METADATA)[0]:
            raise UsageError(
                f"{remote.shown} holds a store that was not published: give another place, or use "
                "`clipsyn pull` to add to one in a folder"
            )
        places = store.places()
        if problem := next(debris(store, places), None):
            raise _unsound(store, problem)
        chosen = choose(places, filters, str(store.path))
        published = _entries(remote, {place[1] for place in chosen})
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
        theirs = {
            place: "imported" in it.facts for place, it in published.items() if place not in sent
        }
        ours = {place: store.is_imported(store.at(*place)) for place in sent}
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
        """Bytes to send, less what an interrupted push has sent."""
        return sum(self.store.tree.size(self.store.at(*it)) for it in self.groups)

    def carry_out(self, progress: Progress) -> None:
        """Send everything and write the index; what it replaced is left to `clipsyn gc`."""
        _check_conditions(self.remote)  # before anything else
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
        path = self.store.at(*place)
        run = few.map if self.store.tree.size(path) > _LARGE else map
        ((entry, manifest, listed),) = run(self._describe, [place])

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


def address_of(place: str) -> str:
    """The URL of a published store, which may also be named by the path of its folder."""
    return place if is_url(place) else Path(place).resolve().as_uri()


def _writable(place: str) -> Remote:
    """A destination, which may be a folder, too; raises UsageError for a web server."""
    url = address_of(place)
    if (address := Address.parse(url)).is_http:
        raise UsageError(
            f"{address.shown} can only be read, and HTTP lists no files: give s3://, gs://, az:// "
            "or the folder that is served there"
        )
    return Remote(url)


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


# The index


def _read(remote: Remote, path: str) -> tuple[bytes | None, str | None]:
    """The index or a part of it, and its ETag; None where there is none yet."""
    try:
        return remote.get(path, most=MOST_INDEX)
    except MissingObject:
        return None, None


def _index(remote: Remote) -> Index | None:
    data, _ = _read(remote, INDEX)
    return Index.parse(data, remote.shown) if data else None


def _entries(remote: Remote, datasets: Iterable[str]) -> dict[Place, Entry]:
    def read(dataset: str) -> dict[Place, Entry]:
        return parse_part(_read(remote, part_path(dataset))[0], remote.shown, dataset)

    with ThreadPoolExecutor(FILES) as threads:
        return {place: it for part in threads.map(read, datasets) for place, it in part.items()}


def add_to_index(
    remote: Remote,
    marker: Mapping[str, Any],
    entries: Collection[Entry],
    making_way: Collection[str] = (),
) -> None:
    """Write groups into the parts of their datasets.

    A dataset that is new is named when its part is there. Where others write at the same time,
    what they have written stays. Of two that publish the same group the first stays; of two with
    other content under one name the second raises StaleCell. marker: of a store that is new.
    making_way: manifests of groups that others take the place of.
    """
    datasets = {entry.place[1] for entry in entries}

    def add(dataset: str) -> None:
        def change(data: bytes | None) -> bytes | None:
            there = parse_part(data, remote.shown, dataset)
            merged = dict(there)
            for entry in (it for it in entries if it.place[1] == dataset):
                old = merged.setdefault(entry.place, entry)
                if old.manifest in making_way:
                    merged[entry.place] = entry
                elif old.content != entry.content:
                    raise StaleCell(
                        f"{entry.name} in {remote.shown} was published with other content "
                        "meanwhile: run the same command again to see what differs"
                    )
            return None if merged == there else dump_part(merged.values())

        _change(remote, part_path(dataset), change)

    def name(data: bytes | None) -> bytes | None:
        there = Index.parse(data, remote.shown) if data else Index(marker)
        if datasets <= set(there.datasets):
            return None
        return Index(there.store, sorted({*there.datasets, *_datasets_in(remote)})).dumps()

    with ThreadPoolExecutor(FILES) as threads:
        list(threads.map(add, datasets))
    _change(remote, INDEX, name)


def _change(remote: Remote, path: str, change: Callable[[bytes | None], bytes | None]) -> None:
    """Write an object as `change` makes it of what is there, unless that has nothing to change.

    That is so, too, where it was written, and the answer was lost.
    """
    for attempt in range(_TRIES):
        there, etag = _read(remote, path)
        if (new := change(there)) is None:
            return
        with suppress(Changed):
            remote.put_if(path, new, etag)
            return
        time.sleep(random.uniform(0, min(_MOST_PAUSE, 0.02 * 2**attempt)))
    raise StoreError(
        f"{remote.shown}/{path} was changed by others {_TRIES} times in a row: run the same "
        "command again, what was sent is kept"
    )


def _check_conditions(remote: Remote) -> None:
    """Raise StoreError for a place that writes although the condition of a write is not met."""
    with suppress(Changed):  # it was tried before
        remote.put_if(_PROBE, b"{}", None)
    for etag in (None, '"0"'):
        try:
            remote.put_if(_PROBE, b"{}", etag)
        except Changed:
            continue
        raise StoreError(
            f"{remote.shown} does not heed the conditions of a write, so of two who push at the "
            "same time one would lose cells: push to another place, or to a folder, and copy that"
        )


# What no index names


def left_over(location: Location) -> list[Leftover]:
    """Groups that no index names; the index is read last.

    Nothing else is looked at: not what lies beside groups, nor kinds that this clipsyn does not
    know. Raises UsageError for a store behind a web server, StoreError where nothing is published.
    """
    remote = _writable(location.url)
    found: dict[str, list[tuple[int, float]]] = {}
    for path, about in remote.list("").items():
        parts = path.split("/")
        depth = 2 + len(KINDS.get(parts[0], parts))
        if len(parts) > depth and _DIGITS.fullmatch(parts[depth - 1]):
            found.setdefault("/".join(parts[:depth]), []).append(about)
    if not (found or _index(remote)):
        raise StoreError(f"there is no published store at {remote.shown}: `clipsyn push` makes one")
    return [
        Leftover(location / folder, f"{folder}, which no index names", max(written), sum(sizes))
        for folder in sorted(found.keys() - _named(remote))
        for sizes, written in [zip(*found[folder], strict=True)]
    ]


def _named(remote: Remote) -> set[str]:
    """The folders of the groups in the index; raises StoreError where a part of it is lost."""
    index, there = _index(remote), _datasets_in(remote)
    if there if index is None else set(index.datasets) - there:
        raise StoreError(
            f"{remote.shown} has lost a part of its index, so what is in use there is not known: "
            f"put it back, or `{advised('push', 'STORE', remote.shown)}` writes a new one"
        )
    return {entry.folder for entry in _entries(remote, there).values()}


def _datasets_in(remote: Remote) -> set[str]:
    """The datasets that have a part of the index, whether it is named yet or not."""
    folders = (path.split("/")[1] for path in remote.list(PARTS) if path.endswith(f"/{PART}"))
    return set(map(name_of_folder, folders))


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
