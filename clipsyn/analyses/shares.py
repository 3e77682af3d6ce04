"""Numbers over samples, with 95 % intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.evaluation.results.frame import Measured
from clipsyn.methods.numerics.metrics import Score
from clipsyn.stats.bootstrap import bootstrap_difference
from clipsyn.stats.intervals import percentiles, wilson_interval


def share(metric: str, hits: int, n: int) -> Measured:
    """``hits / n`` with Wilson's interval; NaN for n = 0."""
    return Measured(metric, Score(hits / n if n else math.nan, n), wilson_interval(hits, n))


def gain(metric: str, correct: NDArray[np.bool_], right: NDArray[np.bool_]) -> Measured:
    """How much more often a choice is correct than another, or than the best of several.

    correct: (sample,); right: (other, sample), of the same samples, which decide which other is the
    best; of equals the first. The interval is a paired bootstrap's; NaN without samples.
    """
    n = len(correct)
    best = right[right.sum(axis=1).argmax()]
    value = float(correct.mean() - best.mean()) if n else math.nan
    return Measured(metric, Score(value, n), bootstrap_difference(correct, best))


def mean(values: NDArray[Any]) -> Score:
    """Of values (sample,); NaN without samples."""
    n = len(values)
    return Score(float(values.mean(dtype=np.float64)) if n else math.nan, n)


def estimate(
    metric: str,
    value: float | NDArray[np.float64],
    n: int,
    draws: NDArray[np.float64] | None = None,
) -> Measured:
    """A number with the interval of its resamples, without those in which it is not finite."""
    score = Score(float(value), n)
    if draws is None:
        return Measured(metric, score, None)
    return Measured(metric, score, percentiles(draws[np.isfinite(draws) & np.isfinite(value)]))
