"""Intervals against published values, scipy, brute force, and their own coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from clipsyn import stats
from clipsyn.stats import (
    Resamples,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_mean_per_class,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "n", "level"), [(0, 10, 0.95), (10, 10, 0.95), (81, 263, 0.95), (7, 20, 0.9)]
)
def test_wilson_is_scipys(successes, n, level):
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson_interval(successes, n, level) == pytest.approx((expected.low, expected.high))


def test_wilson_as_published():
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81 of 263
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@settings(max_examples=60)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_and_mirrors(case):
    successes, n = case
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_holds_what_it_promises():
    rng, p, n = np.random.default_rng(0), 0.8, 60
    intervals = [wilson_interval(int(k), n) for k in rng.binomial(n, p, 2000)]
    assert np.mean([low <= p <= high for low, high in intervals]) == pytest.approx(0.95, abs=0.02)


def naive_bootstrap(statistic, n: int, resamples: int = 4000) -> tuple[float, float]:
    """Draw row numbers with replacement, compute, sort."""
    rng = np.random.default_rng(99)
    values = [statistic(rng.integers(0, n, n)) for _ in range(resamples)]
    return tuple(np.quantile(values, [0.025, 0.975]))


@pytest.mark.parametrize("n", [40, 400])
def test_the_mean_agrees_with_the_naive_bootstrap(n):
    values = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], n, p=[0.1, 0.6, 0.3])
    expected = naive_bootstrap(lambda rows: values[rows].mean(), n)
    assert bootstrap_mean(values, resamples=4000) == pytest.approx(expected, abs=0.6 / n + 0.008)


def test_the_mean_of_values_that_all_differ():
    values = np.random.default_rng(2).normal(size=300)
    expected = naive_bootstrap(lambda rows: values[rows].mean(), 300)
    assert bootstrap_mean(values, resamples=4000) == pytest.approx(expected, abs=0.015)


def test_the_difference_is_paired():
    """Two backbones that nearly always agree differ by less than unpaired resampling says."""
    rng = np.random.default_rng(3)
    first = rng.random(500) < 0.6
    second = first ^ (rng.random(500) < 0.02)
    low, high = bootstrap_difference(first, second)
    expected = naive_bootstrap(lambda rows: first[rows].mean() - second[rows].mean(), 500)
    assert (low, high) == pytest.approx(expected, abs=0.003)
    assert high - low < 0.05
    mirrored = bootstrap_difference(second, first)
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), abs=0.003)


def test_equal_backbones_differ_by_exactly_nothing():
    right = np.random.default_rng(4).random(100) < 0.5
    assert bootstrap_difference(right, right) == (0.0, 0.0)


def test_mean_per_class_agrees_with_the_naive_bootstrap():
    rng = np.random.default_rng(5)
    labels = rng.choice(5, 300, p=[0.5, 0.3, 0.1, 0.08, 0.02])
    correct = rng.random(300) < np.array([0.9, 0.7, 0.5, 0.4, 0.5])[labels]

    def mean_per_class(rows: np.ndarray) -> float:
        y, right = labels[rows], correct[rows]
        return float(np.mean([right[y == c].mean() for c in np.unique(y)]))

    expected = naive_bootstrap(mean_per_class, 300)
    found = bootstrap_mean_per_class(correct, labels, resamples=4000)
    assert found == pytest.approx(expected, abs=0.012)


def test_class_numbers_do_not_matter():
    rng = np.random.default_rng(6)
    labels, correct = rng.integers(0, 4, 100), rng.random(100) < 0.5
    assert bootstrap_mean_per_class(correct, labels) == bootstrap_mean_per_class(
        correct, 1000 * labels + 7
    )


def test_one_seed_one_interval():
    values = np.random.default_rng(7).random(50)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values)
    assert bootstrap_mean(values, level=0.5).low > bootstrap_mean(values).low


def test_memory_is_bounded_without_a_change_in_the_result(monkeypatch):
    values = np.random.default_rng(8).random(200)
    labels, correct = np.arange(200) % 50, values < 0.5
    whole = bootstrap_mean(values), bootstrap_mean_per_class(correct, labels)
    monkeypatch.setattr(stats, "_DRAWS_AT_ONCE", 1000)
    assert (bootstrap_mean(values), bootstrap_mean_per_class(correct, labels)) == whole


def test_no_sample_no_interval():
    nothing = np.zeros(0)
    for interval in (
        wilson_interval(0, 0),
        bootstrap_mean(nothing),
        bootstrap_difference(nothing, nothing),
        bootstrap_mean_per_class(nothing.astype(bool), nothing.astype(int)),
    ):
        assert all(map(math.isnan, interval))


def test_one_sample_has_an_interval_without_width():
    assert bootstrap_mean(np.ones(1)) == (1.0, 1.0)
    assert bootstrap_mean_per_class(np.ones(1, bool), np.zeros(1, int)) == (1.0, 1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson_interval(5, 4),
        lambda: wilson_interval(-1, 4),
        lambda: wilson_interval(0, -1),
        lambda: wilson_interval(1, 4, level=1.0),
        lambda: bootstrap_mean(np.zeros((2, 2))),
        lambda: bootstrap_mean(np.zeros(3), level=0),
        lambda: bootstrap_difference(np.zeros(3), np.zeros(2)),
        lambda: bootstrap_mean_per_class(np.zeros(3, bool), np.zeros(2, int)),
        lambda: bootstrap_mean_per_class(np.zeros((2, 2), bool), np.zeros((2, 2), int)),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()


def test_resamples_are_paired_and_exact_for_a_constant():
    resamples = Resamples(50, count=200, seed=1)
    values = np.random.default_rng(0).normal(size=(50, 2))
    means = resamples.means(values)
    assert means.shape == (200, 2)
    difference = resamples.means(values[:, 0] - values[:, 1])[:, 0]
    assert np.allclose(difference, means[:, 0] - means[:, 1], atol=1e-6)
    assert resamples.interval(np.full(50, 3.0)) == (3, 3)


def test_resampled_means_are_those_of_drawn_indices():
    rng = np.random.default_rng(4)
    values = np.random.default_rng(0).normal(size=20)
    drawn = [values[rng.integers(0, 20, 20)].mean() for _ in range(30)]
    assert np.allclose(Resamples(20, count=30, seed=4).means(values)[:, 0], drawn, atol=1e-6)


def test_resamples_in_blocks_are_the_same(monkeypatch):
    resamples, values = Resamples(40, count=25, seed=2), np.arange(40.0)
    whole = resamples.means(values)
    monkeypatch.setattr("clipsyn.stats._DRAWS_AT_ONCE", 100)
    assert np.allclose(resamples.means(values), whole, rtol=1e-6)


def test_resamples_of_nothing_are_unknown():
    assert all(map(math.isnan, Resamples(0).interval(np.empty(0))))
