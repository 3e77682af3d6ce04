"""Whether two methods differ, and which of many differences hold together: exact tests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-12  # p-value that a Fourier transform tells from 0
_FAR = 9  # standard deviations, beyond which a sum of signs is with less than 1e-17 (Hoeffding)


def paired(sums: NDArray[np.integer[Any]]) -> float:
    """Exact two-sided p-value that two methods are right equally often on the same images.

    sums: (image,) how much more often the first is right, over the copies of an image and over
    draws, which go together. `mcnemar`, or `flipped` where a sum is above 1.
    """
    if np.abs(sums).max(initial=0) > 1:
        return flipped(sums)
    return mcnemar(int((sums > 0).sum()), int((sums < 0).sum()))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that two methods are right equally often on the same samples.

    only_first, only_second: samples that one of them alone gets right. Given their sum they are
    binomial with one half (McNemar 1947, in its exact form); 1 where there is none.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts of samples, not {only_first} and {only_second}")
    n, fewer = only_first + only_second, min(only_first, only_second)
    log_factorial = np.concatenate([[0.0], np.log(np.arange(1, n + 1)).cumsum()])
    k = np.arange(fewer + 1)
    log_choose = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    return min(1.0, 2 * float(np.exp(log_choose - n * np.log(2)).sum()))


def flipped(sums: NDArray[np.integer[Any]]) -> float:
    """Exact two-sided p-value that whole numbers (n,) are as often above 0 as below, all sizes.

    The distribution of their sum is that of all 2^n signs. Of two methods' correctness, summed over
    several draws for each image and one less the other, it is McNemar's test with the draws of an
    image kept together; with one draw it is `mcnemar`. By a discrete Fourier transform, so that
    values below 1e-12 are given as that.
    """
    if sums.ndim != 1 or not np.issubdtype(sums.dtype, np.integer):
        raise ValueError("sums are a whole number for each sample")
    sizes = np.bincount(np.abs(sums))
    numbers = np.arange(len(sizes))
    distance, spread = int(abs(sums.sum())), math.sqrt(sizes @ numbers**2)
    reach = min(int(sizes @ numbers), math.ceil(_FAR * spread))
    if distance == 0 or distance > reach:
        return 1.0 if distance == 0 else _LEAST
    angles = 2 * np.pi * np.arange(2 * reach + 1) / (2 * reach + 1)
    waves = np.ones(len(angles))
    for size in numbers[1:]:
        waves *= np.cos(size * angles) ** sizes[size]
    share = np.fft.fft(waves).real / len(waves)  # of the signs that give a sum of 0, 1, …, -1
    return float(np.clip(2 * share[distance : reach + 1].sum(), _LEAST, 1.0))


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p-values (m,): below a level, they hold together at that level.

    The k-th smallest times m + 1 - k, never below a smaller one's and at most 1. NaN stays NaN
    and counts as no test.
    """
    if p_values.ndim != 1 or ((p_values < 0) | (p_values > 1)).any():
        raise ValueError("p-values are one row of numbers between 0 and 1")
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * factors))
    return adjusted
