"""Which samples a fit leaves out, so that it can be judged, or used, on samples it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stratified_folds(
    labels: NDArray[np.int32],
    count: int,
    *,
    random_state: int | None = None,
    keep_classes: bool = False,
) -> Iterator[NDArray[np.bool_]]:
    """(sample,) which samples are held out, fold by fold; at most `count` folds, none empty.

    Each sample is held out once. The samples of a class go to one fold after the other, and the
    next class goes on where it ended: sizes of folds differ by at most one.

    random_state: shuffles the samples of a class first. keep_classes: no fold holds out all of a
    class. Then every class starts at the first fold, and its only sample is never held out.
    """
    order = by_class(labels, random_state)
    position = np.arange(len(labels))
    if keep_classes:
        ordered = labels[order]
        position -= np.searchsorted(ordered, ordered, side="left")
    fold = np.empty(len(labels), np.intp)
    fold[order] = position % count
    if keep_classes:
        fold[np.bincount(labels)[labels] == 1] = -1
    for number in range(fold.max(initial=-1) + 1):
        yield fold == number


def held_out(labels: NDArray[np.int32], share: float, random_state: int) -> NDArray[np.bool_]:
    """(sample,) which samples to hold out: `share` of those whose class has two or more.

    They are spread evenly over the classes, and every class keeps at least one sample. None where
    all classes have one sample, else at least one. share: above 0 and at most 0.5.
    """
    order = by_class(labels, random_state)
    order = order[np.bincount(labels)[labels[order]] > 1]
    position = np.arange(len(order))
    out = np.zeros(len(labels), np.bool_)
    out[order[np.floor(position * share) > np.floor((position - 1) * share)]] = True
    return out


def by_class(labels: NDArray[Any], random_state: int | None = None) -> NDArray[np.intp]:
    """Row numbers, class after class; in random order within each if there is a random state."""
    if random_state is None:
        return np.argsort(labels, kind="stable")
    order = np.random.default_rng(random_state).permutation(len(labels))
    return order[np.argsort(labels[order], kind="stable")]
