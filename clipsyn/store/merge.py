"""The union of several stores: looked at as a whole first, so that a refusal leaves all as it was.

A group is known by its place. Equal fingerprints at one place are the same thing, different ones
are a conflict. The group that was there first is kept: the same identity may have other numbers,
from another device, and labels of the same images may have been corrected.

A copy is made under `.wip`, compared chunk by chunk with the list of its group, and renamed into
place: the first of several processes wins. One that was interrupted is left to `clipsyn gc`.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path

from clipsyn.errors import DamagedStore, StaleCell, StoreError, UsageError
from clipsyn.names import Location, differences
from clipsyn.show.progress import Progress
from clipsyn.store import arrays, files
from clipsyn.store.drafts import describe_changes, make_groups, new_folder
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import ANSWERS, ORDER, PROMPTS, Place, is_store, place_of, written_at
from clipsyn.store.groups import Group
from clipsyn.store.select import Filters, datasets_meant, names_meant, nothing_matches, with_sources
from clipsyn.text import advised, counted, few

_THREADS = 8
_SMALL, _BATCH = 1 << 20, 1 << 28  # bytes: of a batch a kill loses all
Groups = Mapping[Place, Group]
Conflict = tuple[str, tuple[str, ...]]  # two things of one name, and the fields that differ


@dataclass
class StoreDiff:
    """What one store adds to those before it."""

    store: Path
    take: list[Group] = field(default_factory=list)
    there: int = 0  # groups that are there already
    notes: list[str] = field(default_factory=list)  # on what will not be as it is in the store

    @property
    def size(self) -> int:
        """Bytes to take."""
        return sum(group.tree.size(group.path) for group in self.take)


def _compare(store: FeatureStore, groups: Groups, first: dict[Place, Group]) -> StoreDiff:
    """What a store adds to the groups before it, which stand at their places already."""
    offer, same = StoreDiff(store.path), set[Place]()
    other_numbers, left_out = list[str](), list[str]()
    for place, group in groups.items():
        there = first.get(place)
        if there and there.content != group.content:
            other_numbers.append(group.name)
        elif not (there or same.issuperset(_sources(place, group))):
            left_out.append(group.name)
        else:
            same.add(place)
            offer.there += bool(there)
            offer.take += [] if there else [group]
            first[place] = group
    for names, what in (
        (other_numbers, "with other numbers, labels, terms or chunks than are there: those stay"),
        (left_out, "made from numbers that do not come along: computed when they are read"),
    ):
        if names:
            offer.notes.append(
                f"{counted(len(names), 'group')} of {store.path} {what} ({few(names)})"
            )
    return offer


def _groups(store: FeatureStore, wanted: Collection[Place], first: Groups) -> Groups:
    """The wanted groups of a store; of what a published one has in common, those before it."""
    places = store.places({place[1] for place in wanted})
    paths = {place: store.at(*place) for place in places if place in wanted}
    known = {}
    for place in paths.keys() & first.keys():
        facts = store.tree.facts(paths[place])
        if facts and facts.get("content") == first[place].content:
            known[place] = first[place]
    store.tree.expect(path for place, path in paths.items() if place not in known)
    return {place: known.get(place) or store.group(path) for place, path in paths.items()}


def _conflicts(groups: Groups, first: Groups) -> Iterator[Conflict]:
    """Names that stand for two things; class names are those of all splits of a dataset."""
    tables = {place[1]: group for place, group in first.items() if place[0] == "samples"}
    for place, group in groups.items():
        there = first.get(place, group)
        if changes := list(differences(there["identity"], group["identity"])):
            yield (
                f"{group.name} is made from something else in {group.store} than in "
                f"{there.store} ({describe_changes(changes)})",
                tuple(name for name, _, _ in changes),
            )
        if place[0] == "samples":
            table = tables.setdefault(place[1], group)  # of any split
            if table["class_names"] != group["class_names"]:
                yield (
                    f"{group.name} has other class names in {group.store} than {table.name} in "
                    f"{table.store}",
                    ("class_names",),
                )
    made = [{place: group.imported for place, group in some.items()} for some in (first, groups)]
    if both := made_in_two_ways(*made):
        yield both, ("kind",)


def _sources(place: Place, group: Group) -> list[Place]:
    """What logits or predictions were made from, and so come along with."""
    if place[0] not in ANSWERS or group.imported:
        return []
    _, *names, prompts = place
    return [("features", *names), ("classes", names[0], prompts, names[-1])]


def made_in_two_ways(there: Mapping[Place, bool], more: Mapping[Place, bool]) -> str | None:
    """In words, a cell that would be both extracted and imported, or imported twice; None if none.

    there, more: the groups of a store and those that join them, each with whether it was imported.
    """
    made = {cell: how for place in there for cell, how in _made(place, there[place])}
    for place, imported in more.items():
        for cell, how in _made(place, imported):
            if (was := made.setdefault(cell, how)) != how:
                return f"{' · '.join(cell)} was {was} there and {how} here"
    return None


def _made(place: Place, imported: bool) -> Iterator[tuple[Place, str]]:
    """How a cell was made, and what was imported under a prompt set."""
    kind = place[0]
    if kind == "features":
        yield place[1:5], "imported as embeddings" if imported else "extracted"
    elif imported and kind in ANSWERS:
        if place[5] == PROMPTS:
            yield place[1:5], f"imported as {kind}"
        else:
            yield place[1:5], "imported with prompt sets"
            yield place[1:], f"imported as {kind}"


def copy_groups(groups: Sequence[Group], store: Path) -> None:
    """Copy groups of other stores, unless they have come to their places meanwhile.

    All are written before any is synced, since a disk takes many files in one go, and synced before
    any is seen. Raises DamagedStore where a group is not, or no longer, what it was said to be, and
    StaleCell where other content has come to the place, when the others are copied.
    """
    work = new_folder(store)
    copies = [(group, work / f"{number}", store) for number, group in enumerate(groups)]
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            tasks = [pool.submit(_copy, *copy) for copy in copies]
        for folder in {(store / group.name).parent for group in groups}:
            make_groups(store, folder, synced=False)
        files.sync_all(store)
        for copy, task in zip(copies, tasks, strict=True):
            if not task.exception():
                _publish(*copy)
        for task in tasks:
            task.result()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copy(group: Group, copy: Path, store: Path) -> None:
    with _told(group, copy, store), files.locked(group.path, shared=True):  # labels may change
        for name in group.arrays:
            (copy / name).mkdir(parents=True)
        group.tree.copy(group.path, copy, group.files)
        damage = [arrays.damage(copy / name, listed) for name, listed in group.arrays.items()]
        if arrays.read_attributes(copy) != group.attributes or any(damage):
            raise _altered(group)


def _publish(group: Group, copy: Path, store: Path) -> None:
    target = store / group.name
    with _told(group, copy, store):
        if files.rename_unless_taken(copy, target):
            return
        there = arrays.read_attributes(target)["identity"]
        if changes := list(differences(there, group["identity"])):
            raise StaleCell(
                f"{target} has come from something else meanwhile "
                f"({describe_changes(changes)}): run the same command again",
                tuple(name for name, _, _ in changes),
            )


@contextmanager
def _told(group: Group, copy: Path, store: Path) -> Iterator[None]:
    """Say which group is lost, and where."""
    try:
        yield
    except FileNotFoundError as error:
        if files.exists(copy):
            raise _altered(group) from error
        raise StoreError(
            f"{group.name} was taken away while it was copied into {store} (did `clipsyn gc` "
            "run?): run the same command again"
        ) from error


def _altered(group: Group) -> DamagedStore:
    return DamagedStore(
        f"{group.name} in {group.store} is not as it was written, or was replaced while it was "
        f"copied: `{advised('verify', group.store)}` says what is damaged"
    )


@dataclass(frozen=True)
class Plan:
    """What a merge will do."""

    into: Path
    chunk_rows: int  # of the store, if it has to be made
    offers: Sequence[StoreDiff]

    def carry_out(self, progress: Progress) -> None:
        """Copy all groups, sources before what is made from them; again after a kill."""
        store = FeatureStore.create(self.into, self.chunk_rows)
        groups = [group for offer in self.offers for group in offer.take]
        counter = progress.add("merging", len(groups))
        for some in _batches(groups):
            copy_groups(some, store.path)
            progress.advance(counter, len(some))
        files.sync_all(store.path)
        progress.finish(counter)


def _batches(groups: Sequence[Group]) -> Iterator[list[Group]]:
    """Groups of one kind that are copied together, sources before what is made from them."""
    for kind in ORDER:
        some = [group for group in groups if group.kind == kind]
        ends = accumulate(max(group.tree.size(group.path), _SMALL) for group in some)
        for _, batch in groupby(zip(some, ends, strict=True), lambda it: it[1] // _BATCH):
            yield [group for group, _ in batch]


def plan_merge(into: Path, paths: Sequence[Path | str], filters: Filters | None = None) -> Plan:
    """Compare the stores at `paths` with the one at `into`, if there is one, and with one another.

    filters: which cells of these stores come along, with what they are made from. No numbers are
    read. Raises StaleCell where one name stands for two things, UsageError for a store that would
    be merged into itself, StoreError for one that is missing or damaged, UnknownName or MissingCell
    for filters that nothing passes.
    """
    into = place_of(into)
    if isinstance(into, Location):
        raise written_at(into)
    stores = [FeatureStore.open(path) for path in paths]
    wanted, first = _chosen(stores, filters or {}), dict[Place, Group]()
    if is_store(into):
        for store in stores:
            if not isinstance(store.path, Location) and store.path.samefile(into):
                raise UsageError(f"{store.path} cannot be merged into itself: name other stores")
        ours = FeatureStore.open(into)
        first = {place: ours.group(ours.at(*place)) for place in ours.places()}
    offers, conflicts = list[StoreDiff](), list[Conflict]()
    for store, places in zip(stores, wanted, strict=True):
        groups = _groups(store, places, first)
        tables = {place: group for place, group in groups.items() if place[0] == "samples"}
        # of other images all differs that was made from them, too
        conflicts += [*_conflicts(tables, first)] or [*_conflicts(groups, first)]
        offers.append(_compare(store, groups, first))
    if conflicts:
        raise StaleCell(
            f"nothing was merged into {into}, for {counted(len(conflicts), 'conflict')}: "
            f"{few([what for what, _ in conflicts])}; give one of the two another name when you "
            "make it, or remove one with `clipsyn rm`",
            conflicts[0][1],
        )
    return Plan(into, stores[0].chunk_rows, offers)


def _chosen(stores: Sequence[FeatureStore], filters: Filters) -> list[set[Place]]:
    """What comes along of each store. A name that one of them has is known."""
    places = [set(store.places(datasets_meant(store, filters))) for store in stores]
    where = str(stores[0].path) if len(stores) == 1 else "STORE"
    meant = names_meant(set().union(*places), filters, where)
    chosen = [with_sources(some, meant) for some in places]
    if not any(chosen) and any(places):
        raise nothing_matches(where)
    return chosen
