"""Correlations and their intervals against scipy, by hand, and coverage."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from clipsyn.stats.intervals import pearson, spearman


@pytest.mark.parametrize("n", [4, 7, 21])
def test_the_value_and_the_interval_are_scipys(n):
    rng = np.random.default_rng(n)
    first, second = rng.normal(0, 2, (2, n))
    expected = pearsonr(first, second + first.round())
    value, interval = pearson(first, second + first.round())
    assert value == pytest.approx(expected.statistic, abs=1e-12)
    assert interval == pytest.approx(expected.confidence_interval(0.95), abs=1e-12)


@pytest.mark.parametrize("digits", [8, 0])  # 0: many ties
@pytest.mark.parametrize("n", [3, 7, 21])
def test_spearmans_value_is_scipys(digits, n):
    first, second = np.random.default_rng(n).normal(0, 2, (2, n)).round(digits)
    second += first.round()
    expected = spearmanr(first, second).statistic
    assert spearman(first, second).value == pytest.approx(expected, abs=1e-12)


def test_spearmans_interval_by_hand():
    """Ranks 1 2 3 4 and 2 3 1 4: r = 0.4, artanh r = 0.4236, variance 1.08 for n = 4."""
    value, interval = spearman(np.array([1, 5, 6, 9]), np.array([0.2, 0.3, 0.1, 7]))
    assert value == pytest.approx(0.4)
    assert interval == pytest.approx(np.tanh(0.42365 + np.array([-1, 1]) * 1.95996 * 1.08**0.5))


def test_a_perfect_correlation_has_no_interval():
    value, interval = pearson(np.arange(6.0), 0.1 + 3 * np.arange(6.0))
    assert value == pytest.approx(1)
    assert all(map(math.isnan, interval))


@pytest.mark.parametrize(
    "second",
    [np.full(5, 0.1), np.array([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3]), np.array([1, 2, np.nan, 3, 4])],
    ids=["constant", "rounded", "NaN"],
)
def test_no_spread_no_correlation(second):
    value, interval = pearson(np.arange(5.0), second)
    assert math.isnan(value)
    assert all(map(math.isnan, interval))


def test_two_points_are_always_on_a_line():
    assert math.isnan(pearson(np.arange(2.0), np.arange(2.0)).value)
    three = pearson(np.arange(3.0), np.array([0.0, 1, 3]))
    assert three.value > 0.9
    assert all(map(math.isnan, three.interval))


def test_single_precision_is_summed_in_double():
    first, second = np.random.default_rng(4).random((2, 50_000), np.float32) + 100
    expected = pearson(first.astype(np.float64), second.astype(np.float64))
    assert pearson(first, second).value == expected.value
