"""Correlations over datasets and lines through them, with intervals.

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

_FEWEST = 3  # two points are always on a line
_DIGITS = 12  # decimals that values are rounded to before they are ranked
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
    return double_ranks(values.round(_DIGITS)) / 2


def double_ranks(values: NDArray[Any]) -> NDArray[np.int64]:
    """Twice the rank of each value, equal ones sharing the mean: whole numbers."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    up_to = np.searchsorted(ordered, values, side="right")
    return np.asarray(below + up_to + 1, np.int64)


class Line(NamedTuple):
    """Its height at some places, with an interval at each."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def least_squares(
    x: NDArray[Any], y: NDArray[Any], at: NDArray[Any], *, level: float = LEVEL
) -> Line:
    """The line of least squares through points (x, y), at other places.

    The interval is that of the mean of y at each place (Draper and Smith, Applied Regression
    Analysis, 3rd ed., 1998, section 3.1):

        y_at +- t s sqrt(1 / n + (at - mean x)^2 / sum (x - mean x)^2)

    with s^2 the sum of squared residuals over n - 2, and t the quantile of Student's distribution
    with n - 2 degrees of freedom. It assumes residuals that are about normal and alike everywhere.
    NaN where n < 3, x is constant, or a value is NaN.
    """
    from scipy.special import stdtrit

    check_level(level)
    n = len(x)
    if n < _FEWEST or not np.ptp(x) > _CONSTANT * np.abs(x).max() or np.isnan(y).any():
        unknown = np.full(len(at), math.nan)
        return Line(unknown, unknown, unknown)
    apart = x - x.mean()
    spread = float(apart @ apart)
    slope = float(apart @ (y - y.mean())) / spread
    value = y.mean() + slope * (at - x.mean())
    residuals = y - y.mean() - slope * apart
    variance = float(residuals @ residuals) / (n - 2)
    t = float(stdtrit(n - 2, (1 + level) / 2))
    half = t * np.sqrt(variance * (1 / n + (at - x.mean()) ** 2 / spread))
    return Line(value, value - half, value + half)
