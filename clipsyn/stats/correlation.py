"""Correlations over datasets, with intervals.

The percentile bootstrap is too narrow for so few pairs: with 7, its 95 % intervals of Pearson's r
hold the truth in 88 % of draws, those here in 94 % (normal values, correlated by 0.6).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.intervals import LEVEL, UNKNOWN, Interval, check_level
from clipsyn.stats.significance import DIGITS, double_ranks

_FEWEST = 3  # two points are always on a line
_CONSTANT = 1e-12  # of the largest value: what rounding makes of no difference


class Correlation(NamedTuple):
    value: float
    interval: Interval


def pearson(first: NDArray[Any], second: NDArray[Any], *, level: float = LEVEL) -> Correlation:
    """Pearson's r of two arrays (n,), with Fisher's (1921) interval: artanh r has variance
    1 / (n - 3).

    NaN where n < 3, or an array is constant or has a NaN. No interval for n = 3 or |r| = 1. The
    interval assumes values that are about normal; a few far outside make it too narrow.
    """
    value = _pearson(*_checked(first, second))
    return Correlation(value, _interval(value, len(first), 1.0, level))


def spearman(first: NDArray[Any], second: NDArray[Any], *, level: float = LEVEL) -> Correlation:
    """Spearman's: `pearson` of the ranks, equal values sharing the mean of theirs.

    Artanh r has variance (1 + r^2 / 2) / (n - 3) (Bonett and Wright, Psychometrika 65, 2000).
    """
    pair = _checked(first, second)
    ranked = pair if np.isnan(pair).any() else np.stack([_ranks(values) for values in pair])
    value = _pearson(*ranked)
    return Correlation(value, _interval(value, len(first), 1 + value**2 / 2, level))


def _checked(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """(2, n)"""
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, not {first.shape} and {second.shape}")
    return np.stack([first, second]).astype(np.float64)


def _pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    if len(first) < _FEWEST:
        return math.nan
    for values in (first, second):
        if not np.ptp(values) > _CONSTANT * np.abs(values).max():  # nor is it with a NaN
            return math.nan
    one, other = first - first.mean(), second - second.mean()
    return float(np.clip(one @ other / math.sqrt((one @ one) * (other @ other)), -1, 1))


def _interval(value: float, n: int, variance: float, level: float) -> Interval:
    """variance: of artanh r, times n - 3."""
    check_level(level)
    if n <= _FEWEST or math.isnan(value) or abs(value) > 1 - _CONSTANT:
        return UNKNOWN
    centre = math.atanh(value)
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance / (n - 3))
    return Interval(math.tanh(centre - half), math.tanh(centre + half))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rank of each value among all; rounded, or the last bit would break ties."""
    return double_ranks(values.round(DIGITS)) / 2
