"""Near copies: images whose 64-bit hashes of what they look like differ in few bits.

`clipsyn.images.decode` makes these hashes. 0 is none: nothing is known of such an image. Plain
pictures, as of clothes on black, have near hashes though they are no copies. That shows in images
of different classes, which are none: only so many bits are allowed, 4 at most, that at most one
image in 200 looks like one of another class.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FARTHEST = 4  # bits in which near copies differ, at most
_CHANCE = 200  # of so many images one may look like one of another class
_PAIRS = 1 << 21  # compared at a time
_ONES = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


Ints = NDArray[np.int32]


def near(
    looks: NDArray[np.uint64], labels: Ints, others: NDArray[np.uint64], theirs: Ints
) -> NDArray[np.bool_]:
    """(sample,) whether an image is a near copy of one of the others, whose labels are `theirs`."""
    found = np.zeros(len(looks), np.bool_)
    most = allowed_bits(looks, labels, others, theirs)
    for rows, _, bits in near_pairs(looks, others):
        found[rows[bits <= most]] = True
    return found


def allowed_bits(
    looks: NDArray[np.uint64], labels: Ints, others: NDArray[np.uint64], theirs: Ints
) -> int:
    """In how many bits near copies may differ; -1 where hashes say nothing. A label of -1: none."""
    nearest = np.full(len(looks), FARTHEST + 1)  # of another class
    for rows, columns, bits in near_pairs(looks, others):
        one, other = labels[rows], theirs[columns]
        differ = (one != other) & (one >= 0) & (other >= 0)
        np.minimum.at(nearest, rows[differ], bits[differ])
    by_chance = [int(np.count_nonzero(nearest <= bits)) for bits in range(FARTHEST + 1)]
    return sum(count <= max(1, len(looks) // _CHANCE) for count in by_chance) - 1


def near_pairs(
    looks: NDArray[np.uint64], others: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
    """Row numbers of all pairs that differ in at most 4 bits, and in how many, some at a time.

    A pair may come more than once. Hashes that differ in 4 bits are equal in one of 5 parts. Each
    part has every fifth bit, so that what is empty in most images makes no part equal.
    """
    mine, theirs = np.flatnonzero(looks), np.flatnonzero(others)
    for part in range(FARTHEST + 1):
        mask = np.uint64(sum(1 << bit for bit in range(part, 64, FARTHEST + 1)))
        theirs = theirs[np.argsort(others[theirs] & mask, kind="stable")]
        keys, wanted = others[theirs] & mask, looks[mine] & mask
        start, stop = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, side="right")
        before = np.append(0, np.cumsum(stop - start))  # candidates of the rows before
        cuts = np.unique(np.searchsorted(before, np.arange(0, before[-1], _PAIRS)))
        for first, last in pairwise([*cuts.tolist(), len(mine)]):
            counts = (stop - start)[first:last]
            step = np.arange(counts.sum()) + before[first]
            place = step + np.repeat(start[first:last] - before[first:last], counts)
            rows, columns = np.repeat(mine[first:last], counts), theirs[place]
            bits = _distance(looks[rows], others[columns])
            alike = bits <= FARTHEST
            yield rows[alike], columns[alike], bits[alike]


def _distance(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.intp]:
    """In how many bits numbers differ, pair by pair."""
    ones = _ONES[(one ^ other).view(np.uint16)].reshape(-1, 4)
    return np.asarray(ones.sum(axis=1, dtype=np.intp))
