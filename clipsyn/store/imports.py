"""Cells that were made elsewhere: what they hold, and how they are read.

    imports/<dataset>/<split>/<perturbation>/<backbone>/              no prompt set is known
    prompted/<dataset>/<split>/<perturbation>/<backbone>/<prompts>/   those of one prompt set

A cell holds predictions (perhaps with their confidences), logits (which bring their predictions) or
embeddings, so a reader may ask for what is not there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipsyn.errors import MissingCell, StaleCell
from clipsyn.schema import GROUPS
from clipsyn.specs import FeatureKey
from clipsyn.store import files
from clipsyn.store.folders import name_of_folder
from clipsyn.store.groups import StoredGroup

PROMPTS = "imported"  # what stands for a prompt set where nothing beside them has one
KINDS = ("predictions", "logits", "embeddings")
FOLDERS = ("imports", "prompted")
ELSEWHERE = "shown under another condition"  # why most rows of a condition have no value
_HOLDERS = {
    "prediction": "predictions",
    "confidence": "confidences",
    "logit": "logits",
    "image_embedding": "embeddings",
}


def content_digest(values: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the arrays of a cell, sorted by name: name, type, shape, bytes."""
    hasher = hashlib.sha256()
    for name, array in sorted(values.items()):
        little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        hasher.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        hasher.update(little.reshape(-1).view("u1").data)
    return hasher.hexdigest()


def prompt_sets_in(folder: Path) -> list[str]:
    """Those with a cell in the folder `prompted/…/<backbone>/`, sorted; [] if there is none."""
    return sorted(map(name_of_folder, files.folders(folder)))


def chosen_of(key: FeatureKey, prompts: str | None, there: list[str]) -> str:
    """The prompt set that is asked for, or the first; MissingCell where it is not there."""
    if prompts in (None, *there):
        return prompts or there[0]
    raise MissingCell(f"{key} was imported with the prompts {', '.join(there)}, not '{prompts}'")


@dataclass(frozen=True)
class Imported:
    """One imported cell, where the sample table of its split is, and how both are opened."""

    key: FeatureKey
    path: Path
    samples: Path
    opened: Callable[[Path], StoredGroup]

    @property
    def group(self) -> StoredGroup:
        return self.opened(self.path)

    @property
    def kind(self) -> str:
        return str(self.group["identity"]["kind"])

    @property
    def has_predictions(self) -> bool:
        return self.kind != "embeddings"

    @property
    def is_of_prompts(self) -> bool:
        """Whether it was imported with a prompt set: there may be others beside it."""
        return "prompts" in self.group["identity"]

    @property
    def has_confidences(self) -> bool:
        """Whether each prediction has a probability beside it, though there are no logits."""
        return bool(self.group["kind"] == "imported-confidences")

    def holding(self, array: str) -> StoredGroup:
        """The cell; raises MissingCell if it is not of a kind with that array, StaleCell if stale.

        Stale is a cell of other samples or classes than the store lists now.
        """
        group = self.group
        self._check(group)
        if array not in {spec.name for spec in GROUPS[group["kind"]]}:
            raise MissingCell(
                f"{self.key} was imported as {self.kind}, without {_HOLDERS[array]}: choose other "
                f"cells with backbones=…, or import {_HOLDERS[array]} under another name"
            )
        return group

    def _check(self, group: StoredGroup) -> None:
        there = self.opened(self.samples)
        listed = {"samples": there["identity"]["samples"], "class_names": there["class_names"]}
        for field, value in listed.items():
            if group["identity"][field] not in (value, None):
                raise StaleCell(
                    f"{self.key} was imported for other {field.replace('_', ' ')} than the "
                    f"store's sample table lists now ({field}): import it again with "
                    "`clipsyn import --replace`, or choose other cells with backbones=…",
                    (field,),
                )
