"""Shares of samples, and their gain over the best single backbone, with intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from clipsyn.numerics.metrics import Score
from clipsyn.results.frame import Measured
from clipsyn.stats import bootstrap_difference, wilson_interval


def share(metric: str, hits: int, n: int) -> Measured:
    """``hits / n`` with Wilson's 95 % interval; NaN for n = 0."""
    return Measured(metric, Score(hits / n if n else math.nan, n), wilson_interval(hits, n))


def gain(metric: str, correct: NDArray[np.bool_], right: NDArray[np.bool_]) -> Measured:
    """How much more often a choice is correct than the best single backbone.

    correct: (sample,); right: (backbone, sample), of the same samples, which decide which backbone
    is best; of equals the first. The interval is a paired bootstrap's; NaN without samples.
    """
    n = len(correct)
    best = right[right.sum(axis=1).argmax()]
    value = float(correct.mean() - best.mean()) if n else math.nan
    return Measured(metric, Score(value, n), bootstrap_difference(correct, best))
