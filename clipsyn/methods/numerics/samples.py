"""Which samples are learned from, left out of a fit, or kept for a test.

What is drawn depends on the labels, the number and the seed alone, so every method gets the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics import Array, Labels, Mask, Rows

TRAIN, TEST, UNLABELLED, CONFLICTING = range(4)


def few_shot(labels: Labels, shots: int | None, seed: int) -> Rows:
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
    order, rank, _ = _ranked(labels, seed)
    return np.sort(order[(rank < shots) & (labels[order] >= 0)])


def stratified(labels: Labels, count: int, seed: int) -> Rows:
    """Sorted row numbers of at most `count` labelled samples: of each class about the same share.

    labels: (sample,), negative where there is none. Every class has at least one sample where
    `count` is at least the number of classes.
    """
    order, rank, size = _ranked(labels, seed)
    known = labels[order] >= 0
    order, share = order[known], (rank / size)[known]
    chance = np.random.default_rng(seed).random(len(share))  # between equal shares
    return np.sort(order[np.lexsort((chance, share))[:count]])


def _ranked(labels: Labels, seed: int) -> tuple[Rows, Rows, Rows]:
    """Row numbers by class, at random within it, the rank of each there, and the class's size."""
    order = by_class(labels, seed)
    sorted_labels = labels[order]
    first = np.searchsorted(sorted_labels, sorted_labels, side="left")
    last = np.searchsorted(sorted_labels, sorted_labels, side="right")
    return order, np.arange(len(labels)) - first, last - first


def shortfall(labels: Labels, shots: int | None, classes: int) -> tuple[int, int]:
    """How many classes have fewer samples than `shots` (but some), and how many have none."""
    sizes = np.bincount(labels[labels >= 0], minlength=classes)
    empty = int(np.count_nonzero(sizes == 0))
    return (0 if shots is None else int(np.count_nonzero(sizes < shots)) - empty), empty


def halves(classes: int) -> tuple[Sequence[int], Sequence[int]]:
    """Base and new classes: the first half, rounded up, and the rest (CoOp's base-to-new)."""
    middle = (classes + 1) // 2
    return range(middle), range(middle, classes)


def stratified_folds(
    labels: Labels, count: int, *, random_state: int | None = None, keep_classes: bool = False
) -> Iterator[Mask]:
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


def held_out(labels: Labels, share: float, random_state: int) -> Mask:
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


def by_class(labels: Array, random_state: int | None = None) -> Rows:
    """Row numbers, class after class; in random order within each if there is a random state."""
    if random_state is None:
        return np.argsort(labels, kind="stable")
    order = np.random.default_rng(random_state).permutation(len(labels))
    return order[np.argsort(labels[order], kind="stable")]


def sides(labels: Labels, keys: NDArray[np.bytes_], share: float) -> NDArray[np.int8]:  # (sample,)
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


def _chosen(label: NDArray[np.int64], sizes: Rows, share: float) -> Mask:
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


def _wanted(label: NDArray[np.int64], sizes: Rows, classes: int, share: float) -> Rows:  # (class,)
    """How many samples of each class are to be tested."""
    total = np.bincount(label, weights=sizes, minlength=classes)
    wanted = np.diff(np.rint(share * np.cumsum([0, *total])))
    has_two = np.bincount(label, minlength=classes) > 1
    return np.where(has_two, np.clip(wanted, 1, np.maximum(total - 1, 1)), 0).astype(np.intp)
