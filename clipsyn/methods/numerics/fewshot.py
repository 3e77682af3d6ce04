"""Which labelled samples a method may learn from: k of each class, drawn by seed.

The draw depends on the labels, k and the seed alone, so every method gets the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def few_shot(labels: NDArray[np.int32], shots: int | None, seed: int) -> NDArray[np.intp]:
    """Sorted row numbers of `shots` samples of each class; all that a smaller class has.

    labels: (sample,), negative where there is none. shots None takes every labelled sample.
    A larger `shots` with the same seed contains the smaller one.

    >>> import numpy as np
    >>> from clipsyn import few_shot
    >>> labels = np.array([0, 1, 0, 1, 1, -1])
    >>> rows = few_shot(labels, shots=2, seed=0)
    >>> labels[rows]
    array([0, 0, 1, 1])
    """
    if shots is None:
        return np.flatnonzero(labels >= 0)
    if shots < 1:
        raise ValueError(f"at least one shot, not {shots}")
    by_class, rank, _ = _ranked(labels, seed)
    return np.sort(by_class[(rank < shots) & (labels[by_class] >= 0)])


def stratified(labels: NDArray[np.int32], count: int, seed: int) -> NDArray[np.intp]:
    """Sorted row numbers of at most `count` labelled samples: of each class about the same share.

    labels: (sample,), negative where there is none. Every class has at least one sample where
    `count` is at least the number of classes.
    """
    by_class, rank, size = _ranked(labels, seed)
    known = labels[by_class] >= 0
    by_class, share = by_class[known], (rank / size)[known]
    chance = np.random.default_rng(seed).random(len(share))  # between equal shares
    return np.sort(by_class[np.lexsort((chance, share))[:count]])


def _ranked(
    labels: NDArray[np.int32], seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Row numbers by class, at random within it, the rank of each there, and the class's size."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_class]
    first = np.searchsorted(sorted_labels, sorted_labels, side="left")
    last = np.searchsorted(sorted_labels, sorted_labels, side="right")
    return by_class, np.arange(len(labels)) - first, last - first


def shortfall(labels: NDArray[np.int32], shots: int | None, classes: int) -> tuple[int, int]:
    """How many classes have fewer samples than `shots` (but some), and how many have none."""
    sizes = np.bincount(labels[labels >= 0], minlength=classes)
    empty = int(np.count_nonzero(sizes == 0))
    return (0 if shots is None else int(np.count_nonzero(sizes < shots)) - empty), empty


def halves(classes: int) -> tuple[Sequence[int], Sequence[int]]:
    """Base and new classes: the first half, rounded up, and the rest (CoOp's base-to-new)."""
    middle = (classes + 1) // 2
    return range(middle), range(middle, classes)
