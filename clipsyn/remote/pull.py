"""Groups that are published at a URL are copied into a local store.

    .wip/pull-<id>/    the files of a group that have arrived, each whole and compared with its
                       manifest; renamed into place when all are there

An interrupted pull finds them again. Several processes may pull the same group: files appear by
rename, and the first to have all of them wins.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.names import fingerprint
from clipsyn.remote.index import MANIFEST, Entry, Index, Manifest
from clipsyn.remote.publishing import (
    address_of,
    differing,
    not_published,
    read_index,
)
from clipsyn.remote.transfer import Meter, bring, is_there, lanes
from clipsyn.remote.transport import Remote
from clipsyn.show.progress import Progress
from clipsyn.store import arrays, files
from clipsyn.store.drafts import make_groups, scratch
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import is_store, is_vacant
from clipsyn.store.groups import Group
from clipsyn.store.merge import made_in_two_ways
from clipsyn.store.schema import ANSWERS, KINDS, ORDER
from clipsyn.store.select import Filters, choose
from clipsyn.text import advised


@dataclass(frozen=True)
class Pull:
    """What is pulled from a URL into a store, decided before anything is brought."""

    remote: Remote
    index: Index
    path: Path
    new: Sequence[Entry]
    there: Sequence[Entry]  # in the store already

    @classmethod
    def plan(cls, url: str, path: Path, filters: Filters) -> Pull:
        """Compare the chosen groups with those of the store at `path`, which need not be there.

        Raises StoreError where nothing is published, StaleCell, with the fields that differ, where
        the store has other content under a name.
        """
        remote = Remote(address_of(url))
        index, _ = read_index(remote)
        if index is None:
            raise not_published(remote)
        places = choose(index.entries, filters, remote.shown)
        chosen = [entry for place, entry in sorted(index.entries.items()) if place in places]
        new = _missing(remote, path, chosen)
        names = {entry.place for entry in new}
        there = [entry for entry in chosen if entry.place not in names]
        return cls(remote, index, path, new, there)

    @property
    def size(self) -> int:
        """Bytes of the groups that are brought."""
        return sum(entry.bytes for entry in self.new)

    def carry_out(self, progress: Progress) -> None:
        """Bring everything; a group is seen when it is whole.

        Raises StoreError, before anything is brought, where the disk has not the room for it.
        """
        _check_room(self.path, self.size)
        store = FeatureStore.create(self.path, int(self.index.store["chunk_rows"]))
        meter = Meter(progress, "bringing", self.size)
        with lanes() as (groups, pool):
            bringing = _Bringing(self.remote, store, meter, pool)
            for kind in ORDER:
                some = [entry for entry in self.new if entry.kind == kind]
                list(groups.map(bringing.bring, some))
        meter.finish()


def _check_room(path: Path, size: int) -> None:
    there = next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())
    if size > (free := shutil.disk_usage(there).free):
        raise StoreError(
            f"{size / 1e6:,.1f} MB are to be brought, and {there} has room for {free / 1e6:,.1f}: "
            "make room there, or choose fewer cells"
        )


def _missing(remote: Remote, path: Path, chosen: Sequence[Entry]) -> list[Entry]:
    """Those that the store lacks; raises StaleCell for one that it has with other content."""
    if not is_store(path) and is_vacant(path):
        return list(chosen)
    store = FeatureStore.open(path)
    missing = []
    for entry in chosen:
        if not files.exists(path / entry.name):
            missing.append(entry)
        elif (group := store.group(path / entry.name)).content != entry.content:
            raise _conflict(remote, group, entry)
    _check_cells(remote, store, missing)
    return missing


def _check_cells(remote: Remote, store: FeatureStore, missing: Sequence[Entry]) -> None:
    """Raise StaleCell for a cell that would be there twice, made in different ways."""
    cells = {entry.place[1:5] for entry in missing}
    ours = [
        ((kind, *names), store.is_imported(path))
        for kind in ("features", *ANSWERS)
        for names, path in store.groups(kind)
        if names[:4] in cells
    ]
    if both := made_in_two_ways(((entry.place, entry.imported) for entry in missing), ours):
        raise StaleCell(
            f"{both}: pull from {remote.shown} into another store than {store.path}, or give one "
            "of the two another name",
            ("kind",),
        )


def _conflict(remote: Remote, group: Group, entry: Entry) -> StaleCell:
    field = differing(group, entry)
    flags = {"prompts": "--prompts"} | {name: f"-{name[0]}" for name in KINDS["features"]}
    named = zip(KINDS[entry.kind], entry.place[1:], strict=True)
    filters = [word for dimension, name in named for word in (flags[dimension], name)]
    return StaleCell(
        f"{group.name} in {group.store} has other content than at {remote.shown} ({field}): pull "
        f"into another store, or remove yours with `{advised('rm', group.store, *filters)}` first",
        (field,),
    )


@dataclass(frozen=True)
class _Bringing:
    """Brings groups; several threads share it."""

    remote: Remote
    store: FeatureStore
    meter: Meter
    pool: ThreadPoolExecutor

    def bring(self, entry: Entry) -> None:
        """Bring what is missing of a group, and rename it into place when it is whole."""
        target = self.store.path / entry.name
        folder = self._folder(entry)
        with files.writing(self.store.path):
            try:
                self._fill(folder, entry)
                self._check(folder, target, entry)
                make_groups(self.store.path, target.parent)
                folder.rename(target)
                files.sync(target.parent)
            except (OSError, DamagedStore) as error:
                if files.exists(target):
                    self._check_faster(target, entry)
                    shutil.rmtree(folder, ignore_errors=True)
                elif isinstance(error, FileNotFoundError):
                    raise StoreError(
                        f"what was brought of {entry.name} into {self.store.path} is gone: run "
                        "the same command again"
                    ) from error
                else:
                    raise

    def _folder(self, entry: Entry) -> Path:
        """The same for all who bring this group."""
        followed = fingerprint({"of": entry.manifest, "at": entry.name})[:20]
        return scratch(self.store.path) / f"pull-{followed}"

    def _fill(self, folder: Path, entry: Entry) -> None:
        path = f"{entry.folder}/{MANIFEST}"
        manifest = Manifest.parse(self.remote.get(path).data, self.remote.shown, entry)
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)

        def fetch(name: str) -> None:
            """Bring one file, unless it is there."""
            file, stamp = folder / name, manifest.files[name]
            if not is_there(file, stamp):
                bring(self.remote, f"{entry.folder}/{name}", stamp, file, scratch(self.store.path))
                files.sync(file)
                files.sync(file.parent)
            self.meter.advance(stamp[0])

        list(self.pool.map(fetch, manifest.files))

    def _check(self, folder: Path, target: Path, entry: Entry) -> None:
        """Raise DamagedStore for a group that is not the one which the index names."""
        group = Group(self.store.path, target, arrays.read_attributes(folder), None)
        if group["fingerprint"] != entry.fingerprint:
            raise DamagedStore(
                f"{entry.name} at {self.remote.shown} has another fingerprint than its index says"
            )

    def _check_faster(self, target: Path, entry: Entry) -> None:
        """Raise StaleCell unless another process has brought the same group."""
        if self.store.group(target).content != entry.content:
            raise StaleCell(
                f"another command has written other content to {entry.name} in {self.store.path} "
                "meanwhile: run the same command again to see what differs"
            )
