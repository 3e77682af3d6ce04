"""Correlations and their intervals against scipy, by hand, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from clipsyn.stats.intervals import pearson, spearman

SECOND = {pearson: scipy_stats.pearsonr, spearman: scipy_stats.spearmanr}
both = pytest.mark.parametrize("correlation", SECOND)


@both
@pytest.mark.parametrize("digits", [8, 0])  # 0: many ties
@pytest.mark.parametrize("n", [3, 7, 21])
def test_the_value_is_scipys(correlation, digits, n):
    rng = np.random.default_rng(n)
    first, second = rng.normal(0, 2, (2, n)).round(digits)
    second += first.round()
    expected = SECOND[correlation](first, second).statistic
    assert correlation(first, second).value == pytest.approx(expected, abs=1e-12)


@both
def test_by_hand(correlation):
    first = np.array([1.0, 2, 3, 4])
    assert correlation(first, 10 - 2 * first).value == pytest.approx(-1)
    # deviations -1.5 -.5 .5 1.5 and -.5 .5 -1.5 1.5 (second is its own ranks): 3 / 5
    assert correlation(first, np.array([2.0, 3, 1, 4])).value == pytest.approx(0.4)


def test_pearsons_interval_is_scipys():
    rng = np.random.default_rng(1)
    first = rng.normal(size=15)
    second = first + rng.normal(size=15)
    expected = scipy_stats.pearsonr(first, second).confidence_interval(0.95)
    assert pearson(first, second).interval == pytest.approx(expected, abs=1e-12)


def test_spearmans_interval_by_hand():
    """Ranks 1 2 3 4 and 2 3 1 4: r = 0.4, artanh r = 0.4236, variance 1.08 for n = 4."""
    value, interval = spearman(np.array([1, 5, 6, 9]), np.array([0.2, 0.3, 0.1, 7]))
    assert value == pytest.approx(0.4)
    assert interval == pytest.approx(np.tanh(0.42365 + np.array([-1, 1]) * 1.95996 * 1.08**0.5))


@both
@pytest.mark.parametrize("n", [7, 21])
@pytest.mark.parametrize("truth", [0.0, 0.6])
def test_intervals_cover_as_promised(correlation, n, truth):
    rng = np.random.default_rng(3)
    expected = truth if correlation is pearson else 6 / math.pi * math.asin(truth / 2)
    hits = 0
    for _ in range(2000):
        first, noise = rng.normal(size=(2, n))
        low, high = correlation(first, truth * first + (1 - truth**2) ** 0.5 * noise).interval
        hits += low <= expected <= high
    assert 0.93 <= hits / 2000 <= 0.97


@both
def test_half_the_values_equal(correlation):
    first, second = np.array([0, 0, 0, 0, 1.0]), np.array([1, 2, 3, 4, 9.0])
    value, (low, high) = correlation(first, second)
    assert low < value < high < 1


@both
def test_a_perfect_correlation_has_no_interval(correlation):
    value, interval = correlation(np.arange(6.0), 0.1 + 3 * np.arange(6.0))
    assert value == pytest.approx(1)
    assert all(map(math.isnan, interval))


@both
def test_order_sign_and_scale(correlation):
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 12))
    value, (low, high) = correlation(first, second)
    assert correlation(second, first).value == pytest.approx(value)
    mirrored = correlation(first, 5 - 100 * second)
    assert mirrored.value == pytest.approx(-value)
    assert mirrored.interval == pytest.approx((-high, -low))


@both
@pytest.mark.parametrize(
    "second",
    [np.full(5, 0.1), np.array([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3]), np.array([1, 2, np.nan, 3, 4])],
    ids=["constant", "rounded", "NaN"],
)
def test_no_spread_no_correlation(correlation, second):
    value, interval = correlation(np.arange(5.0), second)
    assert math.isnan(value)
    assert all(map(math.isnan, interval))


@both
def test_two_points_are_always_on_a_line(correlation):
    assert math.isnan(correlation(np.arange(2.0), np.arange(2.0)).value)
    three = correlation(np.arange(3.0), np.array([0.0, 1, 3]))
    assert three.value > 0.9
    assert all(map(math.isnan, three.interval))


@both
def test_bad_input_is_refused(correlation):
    for call in (
        lambda: correlation(np.zeros(3), np.zeros(4)),
        lambda: correlation(np.zeros((2, 2)), np.zeros((2, 2))),
    ):
        with pytest.raises(ValueError):
            call()
