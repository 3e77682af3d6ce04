"""The line of least squares by hand, by matrices, and how often its interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress, t

from clipsyn.stats.correlation import least_squares


def test_by_hand():
    # slope 1/2 through (1, 1); residuals -1/2, 1, -1/2, so that s^2 = 3/2; t of one degree: 12.706
    line = least_squares(np.array([0.0, 1, 2]), np.array([0.0, 2, 1]), np.array([1.0, 2]))
    assert line.value == pytest.approx([1, 1.5])
    half = 12.7062 * np.sqrt(1.5 * np.array([1 / 3, 1 / 3 + 1 / 2]))
    assert line.low == pytest.approx(line.value - half, rel=1e-4)
    assert line.high == pytest.approx(line.value + half, rel=1e-4)


def test_points_on_a_line_leave_no_doubt():
    x = np.array([1.0, 2, 4])
    line = least_squares(x, 3 - 2 * x, np.array([0.0, 10]))
    for heights in line:
        assert heights == pytest.approx([3, -17], abs=1e-9)


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_by_matrices(level):
    rng = np.random.default_rng(3)
    x, y, at = rng.normal(5, 2, 12), rng.normal(size=12), np.array([-1.0, 4, 9])
    design, there = (np.column_stack([np.ones(len(it)), it]) for it in (x, at))
    inverse = np.linalg.inv(design.T @ design)
    variance = ((y - design @ inverse @ design.T @ y) ** 2).sum() / 10
    spread = np.sqrt(variance * np.einsum("ai,ij,aj->a", there, inverse, there))
    half = t.ppf((1 + level) / 2, 10) * spread
    line = least_squares(x, y, at, level=level)
    assert line.value == pytest.approx(linregress(x, y).intercept + linregress(x, y).slope * at)
    assert line.high - line.value == pytest.approx(half)
    assert line.value - line.low == pytest.approx(half)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(2000):
        x = rng.uniform(size=7)
        line = least_squares(x, 2 * x + rng.normal(size=7), np.array([0.3]))
        held += line.low[0] <= 0.6 <= line.high[0]
    assert 0.935 < held / 2000 < 0.965


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        ([1.0, 2], [1.0, 2]),
        ([0.3, 0.1 + 0.2, 0.3], [1.0, 2, 3]),
        ([0.0, 0, 0], [1.0, 2, 3]),
        ([1.0, 2, 3], [1.0, np.nan, 3]),
    ],
)
def test_no_line_is_known(x, y):
    line = least_squares(np.array(x), np.array(y), np.array([1.0, 2]))
    assert all(np.isnan(heights).all() and len(heights) == 2 for heights in line)
