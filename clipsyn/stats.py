"""Intervals for the numbers in the tables.

The bootstrap resamples *patterns*: samples that contribute the same are interchangeable, so a
resample is a multinomial draw of how often each distinct contribution occurs. That is exact and
needs no (resample, sample) array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 1000
_DRAWS_AT_ONCE = 4_000_000  # resamples x patterns held in memory: 32 MB


class Interval(NamedTuple):
    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


def wilson_interval(successes: float, n: int, level: float = LEVEL) -> Interval:
    """Wilson (1927) score interval for a proportion; NaN for n = 0.

    Unlike the normal one it stays inside 0..1 and has a width at 0 % and 100 %.
    """
    _check_level(level)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return UNKNOWN
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def bootstrap_mean(
    values: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Percentile bootstrap interval of the mean of `values` (n,); NaN for n = 0."""
    _check_level(level)
    if values.ndim != 1:
        raise ValueError(f"values are one number a sample, not {values.shape}")
    if len(values) == 0:
        return UNKNOWN
    distinct, counts = np.unique(values, return_counts=True)
    means = [draw @ distinct / len(values) for draw in _resampled(counts, resamples, seed)]
    return percentiles(np.concatenate(means), level)


def bootstrap_difference(
    first: NDArray[Any], second: NDArray[Any], *, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Paired bootstrap interval of ``mean(first) - mean(second)`` over the same samples (n,)."""
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, not {first.shape} and {second.shape}")
    difference = first.astype(np.float64) - second.astype(np.float64)
    return bootstrap_mean(difference, seed=seed, level=level)


def bootstrap_mean_per_class(
    correct: NDArray[np.bool_],
    labels: NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Percentile bootstrap interval of the mean per-class recall; NaN for n = 0.

    correct: (n,), labels: (n,) >= 0. Samples are drawn, not classes; a class that a resample
    misses is left out of that resample's mean.
    """
    _check_level(level)
    if correct.ndim != 1 or correct.shape != labels.shape:
        raise ValueError(f"one label a sample, not {correct.shape} and {labels.shape}")
    if len(labels) == 0:
        return UNKNOWN
    _, group = np.unique(labels, return_inverse=True)  # classes without samples drop out here
    classes = int(group.max()) + 1
    counts = np.bincount(2 * group + correct, minlength=2 * classes)
    means = []
    for draw in _resampled(counts, resamples, seed):
        wrong, right = draw[:, 0::2], draw[:, 1::2]
        size = wrong + right
        recall = np.divide(right, size, out=np.zeros(size.shape), where=size > 0)
        means.append(recall.sum(axis=1) / np.count_nonzero(size, axis=1))
    return percentiles(np.concatenate(means), level)


class Resamples:
    """Bootstrap resamples of `n` samples, drawn once: what is averaged over them is paired.

    Differences and ratios between methods on the same samples are taken resample by resample.
    Holds (count, n) numbers of 2 bytes.
    """

    def __init__(self, n: int, count: int = RESAMPLES, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.n = n
        self._times = np.empty((count, n), np.uint16)  # how often each sample is drawn
        for row in self._times:
            row[:] = np.bincount(rng.integers(0, n, n), minlength=n) if n else 0

    def means(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(resample, m): mean of each column of `values` (n, m) or (n,) in each resample."""
        columns = np.asarray(values, np.float32).reshape(self.n, -1)
        step = max(1, _DRAWS_AT_ONCE // max(1, self.n))
        parts = [
            self._times[start : start + step].astype(np.float32) @ columns
            for start in range(0, len(self._times), step)
        ]
        return np.concatenate(parts).astype(np.float64) / max(1, self.n)

    def interval(self, values: NDArray[Any], level: float = LEVEL) -> Interval:
        """Percentile interval of the mean of `values` (n,); NaN for n = 0."""
        return percentiles(self.means(values)[:, 0], level) if self.n else UNKNOWN


def _resampled(counts: NDArray[Any], resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each pattern occurs in each resample: arrays (some resamples, pattern)."""
    rng = np.random.default_rng(seed)
    n = int(counts.sum())
    step = max(1, _DRAWS_AT_ONCE // len(counts))
    for start in range(0, resamples, step):
        yield rng.multinomial(n, counts / n, size=min(step, resamples - start))


def percentiles(values: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """The middle `level` of the values."""
    _check_level(level)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level is between 0 and 1, not {level}")
