"""How many bytes cells take on disk."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from clipsyn.specs import CLEAN, Perturbation


class CellBytes(NamedTuple):
    """Bytes on disk of cells, by what they store; NaN where a number is not known."""

    embeddings: float = 0
    logits: float = 0
    predictions: float = 0

    @classmethod
    def of(cls, images: float, width: float, classes: float, has_logits: bool) -> CellBytes:
        """One cell: without embeddings if `width` is 0, without predictions if `classes` is 0."""
        embeddings = images * (2 * width + 1) if width else 0  # float16, and whether it is valid
        logits = images * 4 * classes if has_logits and classes else 0
        return cls(embeddings, logits, images * 2 if classes else 0)

    @classmethod
    def sum(cls, cells: Iterable[CellBytes]) -> CellBytes:
        return cls(*map(sum, zip(cls(), *cells, strict=True)))

    def columns(self) -> dict[str, float | None]:
        """For tables."""
        return {
            f"{kind} MB": None if math.isnan(size) else size / 1e6
            for kind, size in self._asdict().items()
        }

    def __str__(self) -> str:
        if math.isnan(sum(self)):
            return "an unknown number of MB to store"
        sizes = ", ".join(f"{kind} {size / 1e6:,.1f}" for kind, size in self._asdict().items())
        return f"{sum(self) / 1e6:,.1f} MB to store ({sizes})"


def stores_logits(perturbation: Perturbation, logits: str) -> bool:
    """Whether cells of a perturbation store logits by that setting: clean, all or none."""
    return logits == "all" or (logits == "clean" and perturbation.name == CLEAN.name)
