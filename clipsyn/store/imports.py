"""Cells that were made elsewhere: what they hold, and how they are read.

    imports/<dataset>/<split>/<perturbation>/<backbone>/    predictions, logits or embeddings

A cell of that folder holds one of the three (logits bring their predictions), so a reader may ask
for what is not there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipsyn.errors import MissingCell, StaleCell
from clipsyn.specs import FeatureKey
from clipsyn.store import arrays

PROMPTS = "imported"  # what stands for a prompt set where nothing beside them has one
KINDS = ("predictions", "logits", "embeddings")
ELSEWHERE = "shown under another condition"  # why most rows of a condition have no value
_HOLDERS = {
    "prediction": "predictions",
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

    def array(self, name: str) -> Path:
        """Where an array is; raises MissingCell if the cell lacks it, StaleCell if it is stale."""
        self.check()
        if not (self.path / name).exists():
            raise MissingCell(
                f"{self.key} was imported as {self.kind}, without {_HOLDERS[name]}: choose other "
                f"cells with --backbones, or import {_HOLDERS[name]} under another name"
            )
        return self.path / name

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
