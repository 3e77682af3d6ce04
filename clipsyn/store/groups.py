"""A group of a store as readers see it, trusted by its attributes.

Every reader gets groups and their arrays here. So it never gets a group that was moved,
attributes that were altered, or a chunk that belongs to another group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, StaleCell
from clipsyn.specs import fingerprint
from clipsyn.store import arrays
from clipsyn.store.folders import below, folder_name, place, place_said
from clipsyn.store.layout import Layout, Listed
from clipsyn.store.tree import ON_DISK, Seen, Tree

_SEALED = ("place", "arrays", "digest")  # what a group has since format 1.1: all or nothing


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with a digest over them, by which a reader sees that they are complete."""
    return {**attributes, "digest": _digest(attributes)}


def _digest(attributes: Mapping[str, Any]) -> str:
    """A digest over all attributes but the identity, which has the fingerprint."""
    covered = {name: attributes[name] for name in attributes.keys() - {"identity", "digest"}}
    return fingerprint(covered)


def replaced_meanwhile(store: Path, what: str) -> StaleCell:
    """The error for a group that another command replaces while it is being read."""
    return StaleCell(
        f"{what} in {store} was replaced while it was read: run the same command again"
    )


@dataclass(frozen=True)
class StoredGroup:
    """One published group with complete attributes that belongs where it is."""

    store: Path
    path: Path
    attributes: arrays.Attributes  # shared: read only
    seen: Seen | None  # which file they were read from
    tree: Tree = ON_DISK

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    @property
    def name(self) -> str:
        return str(self.path.relative_to(self.store))

    @property
    def kind(self) -> str:
        """Of the folder that it lies in; `self["kind"]` says which import it is, too."""
        return below(self.store, self.path)[0]

    @property
    def is_sealed(self) -> bool:
        """Whether it has a digest; groups of format 1.0 have none."""
        return "digest" in self.attributes

    def listed(self, array: str) -> Listed | None:
        """The group's entry for one of its arrays; None where the group has no digest."""
        if not self.is_sealed:
            return None
        if array not in self["arrays"]:
            raise DamagedStore(f"{self.name} in {self.store} lists no array {array}")
        return Listed.parse(self["arrays"][array])

    def read(self, array: str, rows: range | None = None) -> NDArray[Any]:
        """An array, or some rows of it.

        Raises DamagedStore if they are not those that were published, StaleCell if another command
        has replaced the group since it was opened.
        """
        try:
            return self.tree.read(self.path, array, rows, self.listed(array))
        except DamagedStore:
            if self.tree.seen(self.path) != self.seen:
                raise replaced_meanwhile(self.store, self.name) from None
            raise

    def layout(self, array: str) -> Layout:
        return self.tree.layout(self.path, array, self.listed(array))

    def check(self) -> None:
        """Raise DamagedStore for attributes that were altered or belong elsewhere."""
        try:
            altered = self._altered()
            said = place_said(place(self.store, self.path), self.attributes)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            altered = f"its attributes cannot be ({error})"
        if altered:
            raise DamagedStore(f"{self.path / arrays.METADATA} is damaged: {altered}")
        belongs = (said[0], *map(folder_name, said[1:]))
        if belongs != below(self.store, self.path):
            raise DamagedStore(
                f"{self.name} in {self.store} is what belongs in {Path(*belongs)}: move it back "
                f"there, or remove it with `clipsyn rm` and make it again"
            )

    def _altered(self) -> str | None:
        """In words, which attributes were altered; None if none was."""
        if fingerprint(self["identity"]) != self["fingerprint"]:
            return "its identity does not match its fingerprint"
        there = [name in self.attributes for name in _SEALED]
        if any(there) and not (all(there) and _digest(self.attributes) == self["digest"]):
            return "its attributes do not match their digest"
        return None
