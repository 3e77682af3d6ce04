"""The union of several stores: looked at as a whole first, so that a refusal leaves all as it was.

A group is known by its place. Equal fingerprints at one place are the same thing, different ones
are a conflict. The group that was there first is kept: the same identity may have other numbers,
from another device, and labels of the same images may have been corrected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clipsyn.errors import StaleCell, UsageError
from clipsyn.names import Location, differences
from clipsyn.show.progress import Progress
from clipsyn.store import files
from clipsyn.store.copies import GroupCopy
from clipsyn.store.drafts import describe_changes
from clipsyn.store.features import FeatureStore
from clipsyn.store.folders import ANSWERS, ORDER, PROMPTS, Place
from clipsyn.store.groups import Group
from clipsyn.store.marker import is_store, place_of, written_at
from clipsyn.store.samples import changed_samples
from clipsyn.store.select import Filters, names_meant, nothing_matches, with_sources
from clipsyn.store.tree import ON_DISK
from clipsyn.text import advised, counted, few

_THREADS = 8  # they wait for the disk, which takes what several have written in one go


@dataclass(frozen=True)
class Conflict:
    """A name under which two stores have what is not the same, and the fields that differ."""

    said: str
    fields: tuple[str, ...]


@dataclass
class StoreDiff:
    """What one store adds to those before it."""

    store: Path
    take: list[Group] = field(default_factory=list)
    there: int = 0  # groups that are there already
    other_numbers: list[str] = field(default_factory=list)  # groups that are there, but for numbers
    left_out: list[str] = field(default_factory=list)  # what was made from such numbers
    corrected: list[str] = field(default_factory=list)  # sample tables, and what differs

    @property
    def size(self) -> int:
        """Bytes to take."""
        return sum(files.size(group.path) for group in self.take)

    def counts(self) -> Counter[str]:
        """Groups to take, by kind."""
        return Counter(group.kind for group in self.take)

    def notes(self) -> Iterator[str]:
        """Sentences about what will not be as it is in the store."""
        yield from self.corrected
        if names := self.other_numbers:
            be = "is" if len(names) == 1 else "are"
            yield (
                f"{counted(len(names), 'group')} of {self.store} {be} there with other numbers of "
                "the same identity, as another device makes them: those that are there stay "
                f"({few(names)})"
            )
        if names := self.left_out:
            yield (
                f"{len(names):,} groups of {self.store} follow from numbers that do not come along "
                f"({few(names)}): they are left out, and computed when they are read"
            )


class MergedStores:
    """The first group at each place of all stores that were added."""

    def __init__(self) -> None:
        self.conflicts: list[Conflict] = []
        self._there: dict[Place, tuple[FeatureStore, Path]] = {}
        self._cells: dict[Place, tuple[str, FeatureStore]] = {}  # how each cell was made
        self._names: dict[str, tuple[FeatureStore, list[str]]] = {}  # classes of each dataset
        self._other: set[tuple[Path, str]] = set()  # datasets of a store that are others than here
        self._fitting: set[tuple[Path, Place]] = set()  # whose numbers are the first ones

    def add(self, store: FeatureStore, wanted: Collection[Place] | None = None) -> StoreDiff:
        """Compare a store, or what is wanted of it, with those before.

        Raises DamagedStore for one that is not whole.
        """
        offer = StoreDiff(store.path)
        for kind in ORDER:
            for names, path in store.groups(kind):
                place = (kind, *names)
                is_wanted = wanted is None or place in wanted
                if is_wanted and (store.path, names[0]) not in self._other:
                    self._look_at(store, place, store.group(path), offer)
        return offer

    def _look_at(self, store: FeatureStore, place: Place, group: Group, offer: StoreDiff) -> None:
        if conflict := self._conflict(store, place, group):
            self.conflicts.append(conflict)
            if place[0] == "samples":  # all else of the dataset would be said to differ, too
                self._other.add((store.path, place[1]))
        elif place in self._there:
            self._compare(store, place, group, offer)
        elif place[0] in ANSWERS and not group.imported and not self._follows(store, place):
            offer.left_out.append(group.name)
        elif place[0] in ANSWERS and not group.imported and self._answers(store, place):
            offer.there += 1
        else:
            offer.take.append(group)
            self._there[place] = store, group.path
            self._fitting.add((store.path, place))

    # What cannot be in one store

    def _conflict(self, store: FeatureStore, place: Place, group: Group) -> Conflict | None:
        kind, *names = place
        if place in self._there:
            first, path = self._there[place]
            if changes := list(differences(first.group(path)["identity"], group["identity"])):
                fields = tuple(name for name, _, _ in changes)
                how = _how(first, store, place, changes)
                return Conflict(f"{group.name} is {how}", fields)
        if kind == "samples":
            return self._other_classes(store, names, group["class_names"])
        for cell, how in _made(place, group.imported):
            made, first = self._cells.setdefault(cell, (how, store))
            if made != how and first.path != store.path:
                both = f"{made} in {first.path} and {how} in {store.path}"
                return Conflict(f"{' · '.join(cell)} was {both}", ("kind",))
        return None

    def _other_classes(
        self, store: FeatureStore, names: Sequence[str], classes: list[str]
    ) -> Conflict | None:
        """The splits of a dataset have the same classes."""
        first, there = self._names.setdefault(names[0], (store, classes))
        if there == classes or first.path == store.path:
            return None
        how = f"{len(there)} classes in {first.path}, {len(classes)} in {store.path}"
        for number, (one, other) in enumerate(zip(there, classes, strict=False)):
            if one != other:
                how = f"class {number} is '{one}' in {first.path}, '{other}' in {store.path}"
                break
        return Conflict(f"{'/'.join(names)} has other class names: {how}", ("class_names",))

    # What is there already

    def _compare(self, store: FeatureStore, place: Place, group: Group, offer: StoreDiff) -> None:
        """Note whether the group has the numbers of the first one at its place."""
        first, path = self._there[place]
        there = first.group(path)
        if place[0] == "samples":
            offer.there += 1
            if differing := list(_corrections(first, store, place)):
                offer.corrected.append(
                    f"{'/'.join(place[1:])}: {store.path} has other {' and '.join(differing)} than "
                    f"{first.path}, which stay"
                )
        elif same_numbers(there, group):
            offer.there += 1
            self._fitting.add((store.path, place))
        else:
            offer.other_numbers.append(group.name)

    def _follows(self, store: FeatureStore, place: Place) -> bool:
        """Whether logits or predictions come along with what they were made from."""
        _, dataset, split, perturbation, backbone, prompts = place
        features = ("features", dataset, split, perturbation, backbone)
        needed = [features, ("classes", dataset, prompts, backbone)]
        return all((store.path, one) in self._fitting for one in needed)

    def _answers(self, store: FeatureStore, place: Place) -> bool:
        """Whether the other kind of the same answers has come from another store."""
        for kind in ANSWERS:
            there = self._there.get((kind, *place[1:]))
            if there and there[0].path != store.path:
                return True
        return False


def made_in_two_ways(
    there: Iterable[tuple[Place, bool]], more: Iterable[tuple[Place, bool]]
) -> str | None:
    """In words, a cell that would be both extracted and imported, or imported twice; None if none.

    there, more: the groups of a store and those that join them, each with whether it was imported.
    """
    made: dict[Place, str] = {}
    for place, imported in there:
        made |= _made(place, imported)
    for place, imported in more:
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


def _how(
    first: FeatureStore, store: FeatureStore, place: Place, changes: list[tuple[str, Any, Any]]
) -> str:
    """How two groups at one place differ, in words."""
    if place[0] == "samples":
        one, other = first.samples(*place[1:]), store.samples(*place[1:])
        what = changed_samples(one, other)
        return f"of other images in {store.path} than in {first.path}: {what}"
    how = describe_changes(changes)
    return f"made from something else in {store.path} than in {first.path} ({how})"


def _corrections(first: FeatureStore, store: FeatureStore, place: Place) -> Iterator[str]:
    """What was corrected in one of two tables of the same images."""
    one, other = first.samples(*place[1:]), store.samples(*place[1:])
    if count := int(np.count_nonzero(one.labels != other.labels)):
        yield f"labels of {count:,} of {len(one):,} images"
    if one.metric != other.metric:
        yield f"metric ({other.metric}, not {one.metric})"
    if one.licence != other.licence:
        yield f"terms ({other.licence or 'unknown'}, not {one.licence or 'unknown'})"


def same_numbers(one: Group, other: Group) -> bool:
    """Whether two groups of one identity have equal arrays, however these are cut into chunks."""
    return all(_equal(one, other, spec.name) for spec in one.specs)


def _equal(one: Group, other: Group, name: str) -> bool:
    ours, theirs = one.arrays[name], other.arrays[name]
    if ours.rows == theirs.rows:
        return ours == theirs
    left, right = one.read(name), other.read(name)
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and left.tobytes() == right.tobytes()
    )


@dataclass(frozen=True)
class Plan:
    """What a merge will do, or why it will not."""

    into: Path
    chunk_rows: int  # of the store, if it has to be made
    offers: Sequence[StoreDiff]
    conflicts: Sequence[Conflict]

    def check(self) -> None:
        """Raise StaleCell where one name stands for two things."""
        if not self.conflicts:
            return
        first, more = self.conflicts[0], len(self.conflicts) - 1
        others = f" (and {more:,} more)" if more else ""
        raise StaleCell(
            f"nothing was merged into {self.into}: {first.said}{others}; give one of the two "
            "another name when you make it, or remove one with `clipsyn rm`",
            first.fields,
        )

    def carry_out(self, progress: Progress, *, link: bool = False) -> None:
        """Copy or link all groups, sources before what is made from them; again after a kill."""
        self.check()
        store = FeatureStore.create(self.into, self.chunk_rows)
        groups = [group for offer in self.offers for group in offer.take]
        counter = progress.add("merging", len(groups))

        def publish(group: Group) -> None:
            GroupCopy(group, store.path, link).publish()

        with ThreadPoolExecutor(_THREADS) as pool:
            for kind in ORDER:
                for _ in pool.map(publish, [group for group in groups if group.kind == kind]):
                    progress.advance(counter, 1)
        progress.finish(counter)


def plan_merge(into: Path, paths: Sequence[Path], filters: Filters | None = None) -> Plan:
    """Compare the stores at `paths` with the one at `into`, if there is one, and with one another.

    filters: which cells of these stores come along, with what they are made from. No numbers are
    read but labels, and where one identity was made twice. Raises UsageError for a store that would
    be merged into itself, StoreError for one that is missing or damaged, UnknownName or MissingCell
    for filters that nothing passes.
    """
    into = place_of(into)
    if isinstance(into, Location):
        raise written_at(into)
    stores = [_on_disk(into, path) for path in paths]
    union = MergedStores()
    if is_store(into):
        for store in stores:
            if store.path.samefile(into):
                raise UsageError(f"{store.path} cannot be merged into itself: name other stores")
        union.add(FeatureStore.open(into))
    chosen = _chosen(stores, filters or {})
    offers = [union.add(store, some) for store, some in zip(stores, chosen, strict=True)]
    return Plan(into, stores[0].chunk_rows, offers, union.conflicts)


def _chosen(stores: Sequence[FeatureStore], filters: Filters) -> list[set[Place]]:
    """What comes along of each store. A name that one of them has is known."""
    places = [
        {(kind, *names) for kind in ORDER for names, _ in store.groups(kind)} for store in stores
    ]
    where = str(stores[0].path) if len(stores) == 1 else "STORE"
    meant = names_meant(set().union(*places), filters, where)
    chosen = [with_sources(some, meant) for some in places]
    if not any(chosen) and any(places):
        raise nothing_matches(where)
    return chosen


def _on_disk(into: Path, path: Path) -> FeatureStore:
    store = FeatureStore.open(place_of(path))
    if store.tree is not ON_DISK:
        line = advised("pull", path, into)
        raise UsageError(f"{path} is a published store: run `{line}` instead")
    return store
