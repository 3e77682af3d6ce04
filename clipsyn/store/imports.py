"""Cells that were made elsewhere: what they hold, and how they are read.

    imports/<dataset>/<split>/<perturbation>/<backbone>/              no prompt set is known
    prompted/<dataset>/<split>/<perturbation>/<backbone>/<prompts>/   those of one prompt set

A cell holds predictions (perhaps with their confidences), logits (which bring their predictions) or
embeddings, so a reader may ask for what is not there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipsyn.errors import MissingCell, StaleCell
from clipsyn.schema import GROUPS
from clipsyn.specs import FeatureKey
from clipsyn.store import arrays
from clipsyn.store.folders import name_of_folder

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
    found = folder.glob(f"*/{arrays.METADATA}")
    return sorted(name_of_folder(file.parent.name) for file in found)


def chosen_of(key: FeatureKey, prompts: str | None, there: list[str]) -> str:
    """The prompt set that is asked for, or the first; MissingCell where it is not there."""
    if prompts in (None, *there):
        return prompts or there[0]
    raise MissingCell(f"{key} was imported with the prompts {', '.join(there)}, not '{prompts}'")


@dataclass(frozen=True)
class Imported:
    """One imported cell, and where the sample table of its split is."""

    key: FeatureKey
    path: Path
    samples: Path

    @property
    def kind(self) -> str:
        return str(self._attributes["identity"]["kind"])

    @property
    def has_predictions(self) -> bool:
        return self.kind != "embeddings"

    @property
    def has_confidences(self) -> bool:
        """Whether each prediction has a probability beside it, though there are no logits."""
        return bool(self._attributes["kind"] == "imported-confidences")

    def array(self, name: str) -> Path:
        """Where an array is; raises MissingCell if the cell lacks it, StaleCell if it is stale."""
        self.check()
        if not self._holds(name):
            raise MissingCell(
                f"{self.key} was imported as {self.kind}, without {_HOLDERS[name]}: choose other "
                f"cells with --backbones, or import {_HOLDERS[name]} under another name"
            )
        return self.path / name

    def _holds(self, name: str) -> bool:
        return any(spec.name == name for spec in GROUPS.get(self._attributes["kind"], ()))

    def check(self) -> None:
        """Refuse a cell of other samples or classes than the store lists now."""
        identity, there = self._attributes["identity"], arrays.read_attributes(self.samples)
        listed = {"samples": there["identity"]["samples"], "class_names": there["class_names"]}
        for field, value in listed.items():
            if identity[field] not in (value, None):
                raise StaleCell(
                    f"{self.key} was imported for other {field.replace('_', ' ')} than the "
                    f"store's sample table lists now ({field}): import it again with --replace, or "
                    "choose other cells with --backbones",
                    (field,),
                )

    @property
    def _attributes(self) -> dict[str, Any]:
        return arrays.read_attributes(self.path)
