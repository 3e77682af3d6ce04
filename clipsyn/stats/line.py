"""A straight line through points, with how sure it is."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.intervals import LEVEL, check_level

_FEWEST = 3  # two points are always on a line
_CONSTANT = 1e-12  # of the largest value: what rounding makes of no difference


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
