"""The jackknife over groups of images, for what has no variance by a formula (Tukey 1958)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.images import Images
from clipsyn.stats.intervals import UNKNOWN, Interval, student

GROUPS = 20  # more take longer, fewer make the interval unsure


def groups_of(images: Images, seed: int = 0) -> NDArray[np.intp]:
    """(sample,) from 0, the group of its image: random ones, as samples often come by class."""
    order = np.random.default_rng(seed).permutation(images.count)
    place = np.argsort(order)[images.number]
    return np.asarray(place * min(GROUPS, images.count) // max(1, images.count))


def standard_error(without: NDArray[Any]) -> NDArray[np.float64]:
    """without: (…, group), a number over all samples but those of each group; NaN for one."""
    groups = without.shape[-1]
    if groups < 2:
        return np.full(without.shape[:-1], math.nan)
    spread = without - without.mean(axis=-1, keepdims=True)
    return np.asarray(np.sqrt((groups - 1) / groups * (spread**2).sum(axis=-1)))


def jackknife_interval(value: float, without: NDArray[np.float64]) -> Interval:
    """Student's t interval. without: (group,)."""
    error = float(standard_error(without))
    if math.isnan(error):
        return UNKNOWN
    half = student(len(without) - 1) * error
    return Interval(value - half, value + half)
