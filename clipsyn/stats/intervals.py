"""What an interval is, and that of a proportion."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


class Interval(NamedTuple):
    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


def wilson_interval(successes: float, n: int, level: float = LEVEL) -> Interval:
    """Wilson (1927) score interval for a proportion; NaN for n = 0.

    Unlike the normal one it stays inside 0..1 and has a width at 0 % and 100 %.
    """
    check_level(level)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return UNKNOWN
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def percentiles(values: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """The middle `level` of the values; NaN where one of them is NaN, or there is none."""
    check_level(level)
    if len(values) == 0:
        return UNKNOWN
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level is between 0 and 1, not {level}")
