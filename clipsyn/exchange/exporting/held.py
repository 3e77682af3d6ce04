"""What a cell holds, in memory, on its way out of a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable

_NAMES = {  # of the arrays, by what a cell holds; not every prediction has a confidence
    "embeddings": ("image_embedding",),
    "logits": ("logit",),
    "predictions": ("prediction", "confidence"),
}


@dataclass(frozen=True, eq=False)
class Held:
    """The rows of one cell, in the order of its samples.

    arrays: by their names in the store, beside `valid`. prompts: of logits and predictions.
    """

    key: FeatureKey
    samples: SampleTable
    kind: str
    prompts: str | None
    fingerprint: str
    valid: NDArray[np.bool_]
    arrays: dict[str, NDArray[Any]]

    @property
    def captions(self) -> list[str | None]:
        """The class name of each image, None where it has no label."""
        names = self.samples.class_names
        return [names[label] if label >= 0 else None for label in self.samples.labels]


def held(store: FeatureStore, key: FeatureKey) -> Iterator[Held]:
    """What the cell holds: once, or for each prompt set that it was imported with."""
    cell, samples = store.cell(key), store.samples(key.dataset, key.split)
    for prompts in cell.known_sets or (None,):
        group = cell.group(prompts)
        kind = cell.imported_as or "embeddings"
        yield Held(
            key,
            samples,
            kind,
            prompts,
            str(group["fingerprint"]),
            cell.valid(prompts),
            {name: group.read(name) for name in _NAMES[kind] if name in group["arrays"]},
        )
