"""The union of several stores: looked at as a whole first, so that a refusal leaves all as it was.

A group is known by its place. Equal fingerprints at one place are the same thing, different ones
are a conflict. The group that was there first is kept: the same identity may have other numbers,
from another device, and labels of the same images may have been corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clipsyn.errors import StaleCell, UsageError
from clipsyn.names import Location
from clipsyn.show.progress import Progress
from clipsyn.store.choice import Filters, names_meant, nothing_matches, with_sources
from clipsyn.store.copies import GroupCopy
from clipsyn.store.features import FeatureStore
from clipsyn.store.folders import ORDER, Place
from clipsyn.store.groups import Group
from clipsyn.store.marker import is_store, place_of, written_at
from clipsyn.store.tree import ON_DISK
from clipsyn.store.union import Conflict, Offer, Union
from clipsyn.text import advised

_THREADS = 8  # they wait for the disk, which takes what several have written in one go


@dataclass(frozen=True)
class Plan:
    """What a merge will do, or why it will not."""

    into: Path
    chunk_rows: int  # of the store, if it has to be made
    offers: Sequence[Offer]
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
    union = Union()
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
