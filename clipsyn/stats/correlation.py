"""Correlations over datasets, with intervals that draw datasets."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.bootstrap import RESAMPLES, Resamples
from clipsyn.stats.intervals import LEVEL, UNKNOWN, Interval, check_level, percentiles

_FEWEST = 3  # two points are always on a line
_CONSTANT = 1e-12  # of the squared range: what rounding leaves of no variance


class Correlation(NamedTuple):
    value: float
    interval: Interval


def pearson(
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Correlation:
    """Pearson's r of two arrays (n,), with a percentile bootstrap interval that draws pairs.

    NaN where n < 3, one of them is constant or has a NaN. Resamples of fewer than three distinct
    pairs, and those in which one is constant, have no r and are left out; with n = 3 there is no
    interval.
    """
    pair = _checked(first, second)
    return _correlation(pair, False, resamples, seed, level)


def spearman(
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Correlation:
    """Spearman's: `pearson` of the ranks, equal values sharing the mean of theirs.

    The ranks are taken anew in every resample.
    """
    pair = _checked(first, second)
    return _correlation(pair, True, resamples, seed, level)


def _checked(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """(2, n)"""
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, not {first.shape} and {second.shape}")
    return np.stack([first, second]).astype(np.float64)


def _correlation(
    pair: NDArray[np.float64], ranked: bool, resamples: int, seed: int, level: float
) -> Correlation:
    check_level(level)
    n = pair.shape[1]
    if n < _FEWEST or np.isnan(pair).any():
        return Correlation(math.nan, UNKNOWN)

    def of(times: NDArray[Any]) -> NDArray[np.float64]:
        return _weighted_pearson(_ranks(pair, times) if ranked else pair[:, None], times)

    value = float(of(np.ones((1, n)))[0])
    if math.isnan(value) or n == _FEWEST:
        return Correlation(value, UNKNOWN)
    times = np.concatenate(list(Resamples(n, resamples, seed).times()))
    found = of(times[np.count_nonzero(times, axis=1) >= _FEWEST].astype(np.float64))
    return Correlation(value, percentiles(found[~np.isnan(found)], level))


def _ranks(pair: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, resample, n): mean rank of each value among those drawn."""
    below = (pair[:, None, :] < pair[:, :, None]) + 0.5 * (pair[:, None, :] == pair[:, :, None])
    ranks: NDArray[np.float64] = times @ below.transpose(0, 2, 1)
    return ranks


def _weighted_pearson(pair: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(resample,) of pairs (2, resample or 1, n) drawn so often; NaN where one has no spread."""
    n = pair.shape[-1]
    centred = pair - (times * pair).sum(axis=-1, keepdims=True) / n
    variance = (times * centred**2).sum(axis=-1) / n
    covariance = (times * centred[0] * centred[1]).sum(axis=-1) / n
    usable = (variance > _CONSTANT * np.ptp(pair, axis=-1) ** 2).all(axis=0)
    product = np.where(usable, variance[0] * variance[1], 1.0)
    return np.where(usable, np.clip(covariance / np.sqrt(product), -1, 1), np.nan)
