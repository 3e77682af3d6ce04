"""What looks like two and may be one: classes of a backbone, and backbones of a store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import StoreError
from clipsyn.names import CLEAN
from clipsyn.store.features import FeatureStore
from clipsyn.store.layout import Listed
from clipsyn.text import few

_EQUAL = 1e-5  # of elements of unit-norm embeddings: how far rounding alone can move them
_DIRECTIONS = 4


def alike(embeddings: NDArray[Any]) -> list[tuple[int, int]]:
    """Pairs of rows that are equal to 1e-5: embeddings (class, embed), unit norm.

    Each class that equals an earlier one is paired with the first such class. Only rows that are
    close in a few random directions are compared, so thousands of classes take milliseconds.
    """
    values = np.asarray(embeddings, np.float64)
    directions = np.random.default_rng(0).normal(size=(values.shape[1], _DIRECTIONS))
    along = values @ directions
    order = np.argsort(along[:, 0], kind="stable")
    within = _EQUAL * np.abs(directions).sum(axis=0)  # the most by which equal rows can differ
    first = np.arange(len(values))
    for step in range(1, len(values)):
        left, right = order[:-step], order[step:]
        if not (along[right, 0] - along[left, 0] <= within[0]).any():
            break
        near = (np.abs(along[right] - along[left]) <= within).all(axis=1)
        left, right = left[near], right[near]
        equal = (np.abs(values[left] - values[right]) <= _EQUAL).all(axis=1)
        low, high = np.minimum(left, right)[equal], np.maximum(left, right)[equal]
        np.minimum.at(first, high, low)
    return [(int(one), other) for other, one in enumerate(first) if one != other]


def alike_notes(
    store: FeatureStore, dataset: str, prompts: str, backbones: Sequence[str]
) -> Iterator[str]:
    """Sentences about backbones that are one, and about classes that some cannot tell apart.

    Accuracies on such classes depend on how ties are broken. Backbones without class embeddings,
    such as imported ones, are passed over there.
    """
    yield from twin_notes(store, dataset, backbones)
    pairs: dict[tuple[int, int], list[str]] = {}
    names: Sequence[str] = ()
    for backbone in backbones:
        path = store.classes_path(dataset, prompts, backbone)
        if store.tree.exists(path):
            for pair in alike(store.class_embeddings(dataset, prompts, backbone)[0]):
                pairs.setdefault(pair, []).append(backbone)
            names = names or store.group(path)["identity"]["class_names"]
    if pairs:
        concerned = len({index for pair in pairs for index in pair})
        unsure = sorted({backbone for by in pairs.values() for backbone in by})
        shown = few([f"{names[one]} = {names[other]}" for one, other in pairs])
        yield (
            f"{dataset} (prompts {prompts}): {concerned} of {len(names)} classes cannot be told "
            f"apart by {', '.join(unsure)}, whose class embeddings are equal ({shown}): accuracies "
            "depend on which of them comes first; other class names or prompts would tell them "
            "apart"
        )


def twin_notes(
    store: FeatureStore, dataset: str, backbones: Collection[str] | None = None
) -> list[str]:
    """A sentence for each set of backbones with equal numbers for all images of a split.

    Embeddings are compared, or imported predictions, by their checksums. None: of all backbones.
    """
    same: dict[tuple[str, str, Listed], list[str]] = {}
    shown: dict[str, str] = {}  # the perturbation that is looked at, by split: clean, if there
    keys = store.keys(dataset=[dataset], backbone=backbones)
    for key in sorted(keys, key=lambda key: key.perturbation != CLEAN.label):
        if shown.setdefault(key.split, key.perturbation) == key.perturbation:
            with suppress(StoreError):  # who reads the cell is told what is wrong with it
                group = store.cell(key).group()
                array = "image_embedding" if group.kind == "features" else "prediction"
                same.setdefault((key.split, array, group.arrays[array]), []).append(key.backbone)
    twins = {tuple(names): what for what, names in same.items() if len(names) > 1}
    return [
        f"{dataset}: {' and '.join(names)} have the same {array.replace('_', ' ')} for every image "
        f"of {split}, as one backbone under two names has: their agreement says nothing, and they "
        "count twice where backbones are combined"
        for names, (split, array, _) in twins.items()
    ]
