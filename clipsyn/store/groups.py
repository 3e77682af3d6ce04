"""A group of a store as readers see it, trusted by its attributes.

Every reader gets groups and their arrays here. So it never gets a group that was moved,
attributes that were altered or are not what the schema says, or a chunk that belongs to another
group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, StaleCell
from clipsyn.names import fingerprint
from clipsyn.store import arrays
from clipsyn.store.attributes import misfit
from clipsyn.store.folders import ANSWERS, below, folder_name
from clipsyn.store.layout import Listed
from clipsyn.store.schema import HELD, IMPORTED, LOOK, ArraySpec, arrays_of
from clipsyn.store.tree import ON_DISK, FileStamp, Tree

ELSEWHERE = "shown under another condition"  # why most rows of a condition have no value
_SIZES = {"byte": 32}  # of a SHA-256; all other dimensions may have any length


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
class Group:
    """One published group with complete attributes that belongs where it is.

    Making one raises DamagedStore for attributes that were altered, are not what the schema says of
    their kind, or belong elsewhere.
    """

    store: Path
    path: Path
    attributes: Mapping[str, Any]  # shared: read only
    seen: FileStamp | None  # which file they were read from
    tree: Tree = ON_DISK

    def __post_init__(self) -> None:
        try:
            wrong = self._altered() or misfit(self.attributes, self.kind) or self._inconsistent()
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            wrong = f"its attributes cannot be ({error})"
        if wrong:
            raise DamagedStore(f"{self.path / arrays.METADATA} is damaged: {wrong}")
        kind, *names = self["place"]
        belongs = (kind, *map(folder_name, names))
        if belongs != below(self.store, self.path):
            raise DamagedStore(
                f"{self.name} in {self.store} is what belongs in {Path(*belongs)}: move it back "
                f"there, or remove it with `clipsyn rm` and make it again"
            )

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    @property
    def name(self) -> str:
        return str(self.path.relative_to(self.store))

    @property
    def kind(self) -> str:
        """Of the folder that it lies in."""
        return below(self.store, self.path)[0]

    @property
    def imported(self) -> bool:
        """Whether it was made elsewhere."""
        return bool(self["identity"].get("source") == IMPORTED)

    @cached_property
    def specs(self) -> tuple[ArraySpec, ...]:
        """What its arrays should be."""
        specs = arrays_of(self.kind, self["identity"])
        return tuple(spec for spec in specs if spec.name != LOOK or LOOK in self["arrays"])

    @cached_property
    def arrays(self) -> Mapping[str, Listed]:
        """Its arrays, as it lists them."""
        return {spec.name: Listed.parse(self["arrays"][spec.name]) for spec in self.specs}

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """The length of each dimension."""
        return {
            dim: length
            for spec in self.specs
            for dim, length in zip(spec.dims, self.arrays[spec.name].shape, strict=True)
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What a table of cells shows of it; an index has them, so that it need not be opened.

        Of the rows that an import leaves empty, those of other conditions count as no images.
        """
        if self.kind == "samples":
            return {"images": self.sizes["sample"], "classes": len(self["class_names"])}
        if self.kind == "classes" or (self.kind in ANSWERS and not self.imported):
            return {"imported": "embeddings"} if self.imported else {}
        invalid = dict(self.attributes.get("invalid") or {})
        images = self.sizes["sample"] - invalid.pop(ELSEWHERE, 0)
        bad = sum(invalid.values()) + len(self.attributes.get("errors") or {})
        width = {"embed": self.sizes["embed"]} if self.kind == "features" else {}
        held = {"imported": HELD[self.kind]} if self.imported else {}
        return {"images": images, "bad": bad, **width, **held}

    def read(self, array: str, rows: range | None = None) -> NDArray[Any]:
        """An array, or some rows of it.

        Raises DamagedStore if they are not those that were published, StaleCell if another command
        has replaced the group since it was opened.
        """
        try:
            values = self.tree.read(self.path, array, rows, self.arrays[array])
        except DamagedStore:
            if self.tree.seen(self.path) != self.seen:
                raise replaced_meanwhile(self.store, self.name) from None
            raise
        if array == "class_embedding" and not np.isfinite(values).all():
            raise DamagedStore(
                f"{self.name} in {self.store} has class embeddings that are no numbers"
            )
        return values

    def _altered(self) -> str | None:
        """In words, which attributes were altered; None if none was."""
        if fingerprint(self["identity"]) != self["fingerprint"]:
            return "its identity does not match its fingerprint"
        if _digest(self.attributes) != self["digest"]:
            return "its attributes do not match their digest"
        return None

    def _inconsistent(self) -> str | None:
        """In words, which arrays are not of the type and the dimensions that the schema says."""
        specs = {spec.name: spec for spec in self.specs}
        if self["arrays"].keys() != specs.keys():
            return f"it lists other arrays than {', '.join(specs)}"
        sizes = dict(_SIZES)
        if self.kind == "classes":
            sizes["class"] = len(self["identity"]["class_names"])
        for name, spec in specs.items():
            there = self.arrays[name]
            expected = tuple(
                sizes.setdefault(dim, length)
                for dim, length in zip(spec.dims, there.shape, strict=False)
            )
            if (there.shape, there.dtype, len(expected)) != (expected, spec.dtype, len(spec.dims)):
                return f"array {name} is {there.dtype} {there.shape}, not {spec.dtype} {spec.dims}"
        return None
