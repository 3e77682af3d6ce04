"""Which samples are for fitting and which for testing, where nobody has said so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TRAIN, TEST, UNLABELLED, CONFLICTING = range(4)


def sides(
    labels: NDArray[np.int32], keys: NDArray[np.bytes_], share: float
) -> NDArray[np.int8]:  # (sample,)
    """TRAIN, TEST, UNLABELLED (a label below 0) or CONFLICTING for each sample.

    `share` of the samples of each class is TEST, those of its lowest keys. Sizes are rounded so
    that the share of all samples together is right, too. Samples of one key are copies: they are on
    one side, or CONFLICTING where they have several labels. A class with two keys and more has
    samples on both sides, whatever the share; one with a single key has all in TRAIN.
    """
    is_labelled = labels >= 0
    side = np.where(is_labelled, TRAIN, UNLABELLED).astype(np.int8)
    content = np.unique(keys, return_inverse=True)[1]  # numbers in the order of the keys
    low = np.full(content.max(initial=-1) + 1, np.iinfo(np.int32).max)
    high = np.full_like(low, -1)
    np.minimum.at(low, content[is_labelled], labels[is_labelled])
    np.maximum.at(high, content[is_labelled], labels[is_labelled])
    side[is_labelled & (low < high)[content]] = CONFLICTING
    sizes = np.bincount(content[side == TRAIN], minlength=len(low))
    side[(side == TRAIN) & _chosen(high, sizes, share)[content]] = TEST
    return side


def _chosen(label: NDArray[np.int64], sizes: NDArray[np.intp], share: float) -> NDArray[np.bool_]:
    """(content,) which contents are tested; label and number of samples of each, 0 if it is out."""
    present = np.flatnonzero(sizes)
    classes = int(label[present].max(initial=-1)) + 1
    wanted = _wanted(label[present], sizes[present], classes, share)
    taken = np.zeros(classes, np.intp)
    chosen = np.zeros(len(sizes), np.bool_)
    for number in present:
        if taken[label[number]] + sizes[number] <= wanted[label[number]]:
            taken[label[number]] += sizes[number]
            chosen[number] = True
    for number in present[np.argsort(sizes[present], kind="stable")]:
        if taken[label[number]] == 0 < wanted[label[number]]:  # even its smallest is too many
            taken[label[number]] = sizes[number]
            chosen[number] = True
    return chosen


def _wanted(
    label: NDArray[np.int64], sizes: NDArray[np.intp], classes: int, share: float
) -> NDArray[np.intp]:  # (class,)
    """How many samples of each class are to be tested."""
    total = np.bincount(label, weights=sizes, minlength=classes)
    wanted = np.diff(np.rint(share * np.cumsum([0, *total])))
    has_two = np.bincount(label, minlength=classes) > 1
    return np.where(has_two, np.clip(wanted, 1, np.maximum(total - 1, 1)), 0).astype(np.intp)
