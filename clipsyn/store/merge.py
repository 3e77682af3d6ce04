"""The union of several stores: looked at as a whole first, so that a refusal leaves all as it was.

A group is known by its place. Equal fingerprints at one place are the same thing, different ones
are a conflict. The group that was there first is kept: the same identity may have other numbers,
from another device, and labels of the same images may have been corrected.

A copy is made under `.wip`, compared chunk by chunk with the list of its group, and renamed into
place: the first of several processes wins. One that was interrupted is left to `clipsyn gc`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from clipsyn.errors import DamagedStore, StaleCell, StoreError, UsageError
from clipsyn.names import Location, differences
from clipsyn.show.progress import Progress
from clipsyn.store import arrays, files
from clipsyn.store.drafts import describe_changes, make_groups, new_folder
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import is_store, place_of, written_at
from clipsyn.store.groups import Group, replaced_meanwhile
from clipsyn.store.schema import ANSWERS, ORDER, PROMPTS, Place
from clipsyn.store.select import Filters, names_meant, nothing_matches, with_sources
from clipsyn.text import advised, counted, few

_THREADS = 8  # they wait for the disk, which takes what several have written in one go


class Conflict(NamedTuple):
    """A name under which two stores have what is not the same, and the fields that differ."""

    said: str
    fields: tuple[str, ...]


@dataclass
class StoreDiff:
    """What one store adds to those before it."""

    store: Path
    take: list[Group] = field(default_factory=list)
    there: int = 0  # groups that are there already
    other_numbers: list[str] = field(default_factory=list)  # of these, what is not the same there
    left_out: list[str] = field(default_factory=list)  # what was made from such numbers

    @property
    def size(self) -> int:
        """Bytes to take."""
        return sum(group.tree.size(group.path) for group in self.take)

    def counts(self) -> Counter[str]:
        """Groups to take, by kind."""
        return Counter(group.kind for group in self.take)

    def notes(self) -> Iterator[str]:
        """Sentences about what will not be as it is in the store."""
        if names := self.other_numbers:
            yield (
                f"{counted(len(names), 'group')} of {self.store} with other numbers, labels, terms "
                f"or chunks than are there already: those stay ({few(names)})"
            )
        if names := self.left_out:
            yield (
                f"{counted(len(names), 'group')} of {self.store} made from numbers that do not "
                f"come along ({few(names)}): left out, and computed when they are read"
            )


class _Union:
    """The first group at each place of all stores that were added."""

    def __init__(self) -> None:
        self.conflicts: list[Conflict] = []
        self._first: dict[Place, Group] = {}
        self._classes: dict[str, Group] = {}  # a sample table of each dataset

    def add(self, store: FeatureStore, wanted: Collection[Place] | None = None) -> StoreDiff:
        """Compare a store, or what is wanted of it, with those before.

        Raises DamagedStore for one that is not whole.
        """
        groups = self._groups(store, wanted)
        tables = {place: group for place, group in groups.items() if place[0] == "samples"}
        # of other images all differs that was made from them, too
        self.conflicts += [*self._conflicts(tables)] or [*self._conflicts(groups)]
        offer, same = StoreDiff(store.path), set[Place]()
        for place, group in groups.items():
            first = self._first.get(place)
            if first and first.content != group.content:
                offer.other_numbers.append(group.name)
            elif not (first or same.issuperset(_sources(place, group))):
                offer.left_out.append(group.name)
            else:
                same.add(place)
                offer.there += bool(first)
                offer.take += [] if first else [group]
                self._first[place] = group
        return offer

    def _groups(self, store: FeatureStore, wanted: Collection[Place] | None) -> dict[Place, Group]:
        """The groups of a store; of what a published one has in common, those that are there."""
        paths = {
            (kind, *names): path
            for kind in ORDER
            for names, path in store.groups(kind)
            if wanted is None or (kind, *names) in wanted
        }
        facts = {place: store.tree.facts(path) or {} for place, path in paths.items()}
        known = {
            place: first
            for place, first in self._first.items()
            if place in paths and facts[place].get("content") == first.content
        }
        store.tree.expect(path for place, path in paths.items() if place not in known)
        return {place: known.get(place) or store.group(path) for place, path in paths.items()}

    def _conflicts(self, groups: Mapping[Place, Group]) -> Iterator[Conflict]:
        for place, group in groups.items():
            first = self._first.get(place, group)
            if changes := list(differences(first["identity"], group["identity"])):
                yield Conflict(
                    f"{group.name} is made from something else in {group.store} than in "
                    f"{first.store} ({describe_changes(changes)})",
                    tuple(name for name, _, _ in changes),
                )
            if place[0] == "samples":
                table = self._classes.setdefault(place[1], group)  # of any split
                if table["class_names"] != group["class_names"]:
                    yield Conflict(
                        f"{group.name} has other class names in {group.store} than {table.name} in "
                        f"{table.store}",
                        ("class_names",),
                    )
        there = ((place, group.imported) for place, group in self._first.items())
        if both := made_in_two_ways(there, ((p, group.imported) for p, group in groups.items())):
            yield Conflict(both, ("kind",))


def _sources(place: Place, group: Group) -> list[Place]:
    """What logits or predictions were made from, and so come along with."""
    if place[0] not in ANSWERS or group.imported:
        return []
    _, dataset, split, perturbation, backbone, prompts = place
    features = ("features", dataset, split, perturbation, backbone)
    return [features, ("classes", dataset, prompts, backbone)]


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


def copy_group(group: Group, store: Path) -> None:
    """Copy a group of another store, unless it has come to its place meanwhile.

    Raises DamagedStore or StaleCell where the group is not, or no longer, what it was said to be,
    and StaleCell where other content is at the place.
    """
    target = store / group.name
    with files.writing(store):
        copy = new_folder(store)
        try:
            with files.locked(group.path, shared=True):  # labels may be being corrected
                _fill(copy, group)
            make_groups(store, target.parent)
            if not files.rename_unless_taken(copy, target):
                _check_same(group, target)
            files.sync(target.parent)
        except FileNotFoundError as error:
            raise StoreError(
                f"what was being copied of {group.name} into {store} is gone, as `clipsyn gc` does "
                "it: run the same command again"
            ) from error
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _fill(copy: Path, group: Group) -> None:
    """Raise for a group that is not, or no longer, as it was written."""
    sizes = {arrays.METADATA: files.MOST_METADATA}  # the most that each file has
    for name, listed in group.arrays.items():
        (copy / name).mkdir()
        sizes[f"{name}/{arrays.METADATA}"] = files.MOST_METADATA
        sizes |= {f"{name}/{file}": listed.file_bytes for file in listed.files()}
    try:
        group.tree.copy(group.path, copy, sizes)
        is_same = arrays.read_attributes(copy) == group.attributes
    except (FileNotFoundError, DamagedStore):
        if files.exists(copy):
            raise _fault(group) from None
        raise
    damage = (arrays.damage(copy / name, listed) for name, listed in group.arrays.items())
    if not is_same or any(damage):
        raise _fault(group)
    _sync(copy)


def _fault(group: Group) -> StoreError:
    """The error for a group that is not what it was said to be."""
    try:
        if group.tree.attributes(group.path) != group.attributes:
            return replaced_meanwhile(group.store, group.name)
    except DamagedStore:
        return replaced_meanwhile(group.store, group.name)
    return DamagedStore(
        f"{group.name} in {group.store} is not as it was written: "
        f"`{advised('verify', group.store)}` says what is damaged, and how to make it again"
    )


def _check_same(group: Group, target: Path) -> None:
    """Raise StaleCell unless what came to the place meanwhile was made from the same."""
    there = arrays.read_attributes(target)["identity"]
    if changes := list(differences(there, group["identity"])):
        raise StaleCell(
            f"{target} has come from something else meanwhile ({describe_changes(changes)}): run "
            "the same command again",
            tuple(name for name, _, _ in changes),
        )


def _sync(folder: Path) -> None:
    """Make a folder and what lies in it survive a power cut."""
    for entry in files.entries(folder):
        (_sync if entry.is_dir() else files.sync)(Path(entry))
    files.sync(folder)


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

    def carry_out(self, progress: Progress) -> None:
        """Copy all groups, sources before what is made from them; again after a kill."""
        self.check()
        store = FeatureStore.create(self.into, self.chunk_rows)
        groups = [group for offer in self.offers for group in offer.take]
        counter = progress.add("merging", len(groups))
        copy = partial(copy_group, store=store.path)
        with ThreadPoolExecutor(_THREADS) as pool:
            for kind in ORDER:
                for _ in pool.map(copy, [group for group in groups if group.kind == kind]):
                    progress.advance(counter, 1)
        progress.finish(counter)


def plan_merge(into: Path, paths: Sequence[Path | str], filters: Filters | None = None) -> Plan:
    """Compare the stores at `paths` with the one at `into`, if there is one, and with one another.

    filters: which cells of these stores come along, with what they are made from. No numbers are
    read. Raises UsageError for a store that would be merged into itself, StoreError for one that is
    missing or damaged, UnknownName or MissingCell for filters that nothing passes.
    """
    into = place_of(into)
    if isinstance(into, Location):
        raise written_at(into)
    stores = [FeatureStore.open(path) for path in paths]
    union = _Union()
    if is_store(into):
        for store in stores:
            if not isinstance(store.path, Location) and store.path.samefile(into):
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
