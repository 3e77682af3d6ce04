"""Near copies: images whose 64-bit hashes of what they look like differ in at most 4 bits.

`clipsyn.images.looks` makes these hashes. 0 is none: nothing is known of such an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FARTHEST = 4  # bits in which near copies differ
_PAIRS = 1 << 21  # compared at a time
_ONES = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


def near(looks: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(sample,) whether an image looks like one of the others."""
    mine, number = np.unique(looks, return_inverse=True)
    found = np.zeros(len(mine), np.bool_)
    for rows, _ in near_pairs(mine, np.unique(others)):
        found[rows] = True
    return np.asarray(found[number])


def near_pairs(
    looks: NDArray[np.uint64], others: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Row numbers of all pairs that look alike, some at a time; a pair may come more than once.

    Hashes that differ in 4 bits are equal in one of 5 parts. Each part has every fifth bit, so that
    a part of the image that is empty in most images makes no part equal.
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
            alike = _distance(looks[rows], others[columns]) <= FARTHEST
            yield rows[alike], columns[alike]


def _distance(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.intp]:
    """In how many bits numbers differ, pair by pair."""
    ones = _ONES[(one ^ other).view(np.uint16)].reshape(-1, 4)
    return np.asarray(ones.sum(axis=1, dtype=np.intp))
