"""Intervals against published values, scipy, brute force, and their own coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipsyn.stats import bootstrap
from clipsyn.stats.bootstrap import (
    Resamples,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_means,
    bootstrap_sets,
    patterns,
)
from clipsyn.stats.images import Images


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


def test_one_seed_one_interval():
    values = np.random.default_rng(7).random(50)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values)
    assert bootstrap_mean(values, level=0.5).low > bootstrap_mean(values).low


@pytest.mark.parametrize("few", [True, False])
def test_memory_is_bounded_without_a_change_in_the_result(monkeypatch, few):
    monkeypatch.setattr(Resamples, "_few", lambda resamples: few)
    values = np.random.default_rng(8).random(200)
    whole = bootstrap_mean(values)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 1000)
    monkeypatch.setattr(bootstrap, "_DRAWS_KEPT", 0)
    assert np.allclose(bootstrap_mean(values), whole, rtol=1e-12)


def test_no_sample_no_interval():
    nothing = np.zeros(0)
    for interval in (bootstrap_mean(nothing), bootstrap_difference(nothing, nothing)):
        assert all(map(math.isnan, interval))


def test_one_sample_has_an_interval_without_width():
    assert bootstrap_mean(np.ones(1)) == (1.0, 1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_means(np.zeros(3)),
        lambda: bootstrap_mean(np.zeros((2, 2))),
        lambda: bootstrap_mean(np.zeros(3), level=0),
        lambda: bootstrap_difference(np.zeros(3), np.zeros(2)),
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
    assert np.allclose(difference, means[:, 0] - means[:, 1], atol=1e-12)
    assert resamples.interval(np.full(50, 3.0, np.float32)) == (3, 3)


def test_resampled_means_are_those_of_drawn_rows(monkeypatch):
    monkeypatch.setattr(Resamples, "_few", lambda resamples: False)
    rng = np.random.default_rng(4)
    values = np.random.default_rng(0).normal(size=20)
    drawn = [values[rng.integers(0, 20, 20)].mean() for _ in range(30)]
    assert np.allclose(Resamples(20, count=30, seed=4).means(values)[:, 0], drawn, atol=1e-12)


@pytest.mark.parametrize("few", [True, False])
def test_draws_are_the_same_however_often_and_in_what_blocks(monkeypatch, few):
    monkeypatch.setattr(Resamples, "_few", lambda resamples: few)
    resamples, values = Resamples(40, count=25, seed=2), np.arange(40.0)
    whole = resamples.means(values)
    assert np.array_equal(resamples.means(values), whole)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 100)
    monkeypatch.setattr(bootstrap, "_DRAWS_KEPT", 0)
    small = Resamples(40, count=25, seed=2)
    assert np.allclose(small.means(values), whole, rtol=1e-12)
    assert np.array_equal(small.means(values), small.means(values))
    assert len(list(small.times())) == 13


@pytest.mark.parametrize("few", [True, False])
def test_patterns_are_drawn_as_often_as_they_occur(monkeypatch, few):
    """Both ways of drawing: mean and covariance of a multinomial."""
    monkeypatch.setattr(Resamples, "_few", lambda resamples: few)
    sizes = np.array([6, 3, 1])
    (times,) = Resamples(sizes, count=20_000, seed=5).times()
    assert set(times.sum(axis=1).tolist()) == {10}
    share = sizes / 10
    covariance = 10 * (np.diag(share) - np.outer(share, share))
    assert np.allclose(times.mean(axis=0), sizes, atol=0.05)
    assert np.allclose(np.cov(times.T), covariance, atol=0.08)


def test_patterns_are_the_distinct_rows():
    """Four samples, three methods: the first and the third are alike."""
    correct = np.array([[1, 0, 1], [1, 1, 1], [1, 0, 1], [0, 0, 0]], bool)
    found = patterns(correct)
    assert found.first.tolist() == [3, 0, 1]
    assert found.size.tolist() == [1, 2, 1]


@pytest.mark.parametrize("columns", [1, 3, 70, 130])
def test_patterns_are_those_of_numpy(columns):
    rng = np.random.default_rng(columns)
    base = rng.random((6, columns)) < 0.5
    values = base[rng.integers(0, 6, 200)]
    for table in (values, values * rng.normal(size=columns)):
        distinct, sizes = np.unique(table, axis=0, return_counts=True)
        found = patterns(table)
        order = np.lexsort(table[found.first].T[::-1])
        assert np.array_equal(table[found.first][order], distinct)
        assert np.array_equal(found.size[order], sizes)


@pytest.mark.parametrize("few", [True, False])
def test_all_methods_at_once_agree_with_the_naive_bootstrap(monkeypatch, few):
    monkeypatch.setattr(Resamples, "_few", lambda resamples: few)
    rng = np.random.default_rng(9)
    correct = rng.random((300, 4)) < [0.9, 0.7, 0.7, 0.2]
    correct[:, 2] = correct[:, 1] ^ (rng.random(300) < 0.05)
    means = bootstrap_means(correct, resamples=4000)
    gains = means - means[:, 1:2]
    for method in range(4):
        of = correct[:, method].astype(float) - correct[:, 1]
        expected = naive_bootstrap(lambda rows, of=of: of[rows].mean(), 300)
        assert np.quantile(gains[:, method], [0.025, 0.975]) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("kept", [0, 10**8])
@pytest.mark.parametrize("kind", [bool, np.float32, np.float64])
def test_patterns_of_many_sizes_are_counted_in_the_rows_that_are_drawn(monkeypatch, kept, kind):
    """300 patterns of 700 samples, some of which none has; the products go in two blocks."""
    monkeypatch.setattr(Resamples, "_few", lambda resamples: False)
    monkeypatch.setattr(bootstrap, "_DRAWS_KEPT", kept)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 4000)
    of = np.sort(np.random.default_rng(12).integers(0, 300, 700))
    numbers = np.random.default_rng(13).random((300, 3))
    values = numbers < 0.4 if kind is bool else numbers.astype(kind)
    resamples = Resamples(np.bincount(of, minlength=300), count=20, seed=6)
    rng = np.random.default_rng(6)
    drawn = [of[rng.integers(0, 700, 700)] for _ in range(20)]
    times = np.concatenate(list(resamples.times()))
    assert np.array_equal(times, [np.bincount(row, minlength=300) for row in drawn])
    means = [values[row].mean(axis=0, dtype=float) for row in drawn]
    assert resamples.means(values) == pytest.approx(np.array(means), rel=1e-6)


def test_draws_that_others_get_too_cannot_be_changed():
    first = next(Resamples(500, count=10).times())
    with pytest.raises(ValueError, match="read-only"):
        first[:] = 0
    assert np.array_equal(next(Resamples(500, count=10).times()), first)


def test_more_than_65536_samples():
    """Two patterns of half of them each, and one of a single sample."""
    sizes = np.array([40_000, 40_000, 1])
    for few in (True, False):
        resamples = Resamples(sizes, count=3, seed=1)
        resamples._few = lambda few=few: few
        times = np.concatenate(list(resamples.times()))
        assert times.sum(axis=1).tolist() == [80_001] * 3
        assert (abs(times[:, 0].astype(int) - 40_000) < 1000).all()
        means = resamples.means(np.array([1.0, 0.0, 0.0]))
        assert means[:, 0] == pytest.approx(times[:, 0] / 80_001)


def test_resamples_of_nothing_are_unknown():
    assert all(map(math.isnan, Resamples(0).interval(np.empty(0))))
    assert np.isnan(bootstrap_means(np.empty((0, 3)))).all()


def covered(interval_of, draw, truth: float, trials: int = 2000) -> float:
    """Share of the trials whose interval holds the truth."""
    rng = np.random.default_rng(10)
    intervals = (interval_of(draw(rng)) for _ in range(trials))
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def test_the_mean_of_many_values_is_covered_as_promised():
    """Differences of two correlated methods: -1, 0 and 1."""
    share = covered(
        lambda values: bootstrap_mean(values, resamples=600),
        lambda rng: rng.choice([-1.0, 0.0, 1.0], 250, p=[0.1, 0.6, 0.3]),
        truth=0.2,
    )
    assert 0.93 <= share <= 0.97


class TestSetsThatShareImages:
    def test_of_sets_that_are_the_same_every_mean_is_that_of_one(self):
        values = np.random.default_rng(20).random((120, 3)) < [0.3, 0.5, 0.8]
        images = Images.of(np.arange(120))
        alone = bootstrap_means(values, seed=4)
        one, two = bootstrap_sets([values, values], [images, images], seed=4)
        assert one == pytest.approx(alone)
        assert two == pytest.approx(alone)

    def test_the_order_of_rows_is_no_matter(self):
        values = np.random.default_rng(21).random((50, 2))
        images, shuffled = np.arange(50), np.random.default_rng(22).permutation(50)
        shown = [Images(images, 50), Images(images[shuffled], 50)]
        one, two = bootstrap_sets([values, values[shuffled]], shown)
        assert one == pytest.approx(two)

    def test_by_hand(self):
        """Image 9 is right in the first set and twice in the second; 3 is wrong, 5 in none."""
        first, second = np.array([[1.0], [0.0]]), np.array([[1.0], [1.0], [0.0]])
        images = [Images(np.array(rows), 10) for rows in ([9, 3], [9, 9, 5])]
        one, two = bootstrap_sets([first, second], images, resamples=300)
        found = {tuple(pair) for pair in np.nan_to_num(np.hstack([one, two]), nan=-1).round(6)}
        drawn = [(a, b, 3 - a - b) for a in range(4) for b in range(4 - a)]  # of 9, 3 and 5
        share = lambda right, of: round(right / of, 6) if of else -1.0  # noqa: E731
        assert found == {(share(a, a + b), share(2 * a, 2 * a + c)) for a, b, c in drawn}

    @pytest.mark.parametrize("kind", [np.bool_, np.float64])
    def test_a_mean_over_sets_agrees_with_naive_draws_of_images(self, kind):
        """Sets of 90, 60 and 40 of 140 images, overlapping, and one image twice in a set."""
        rng = np.random.default_rng(23)
        skill = rng.random(140)
        images = [rng.choice(140, size, replace=False) for size in (90, 60, 40)]
        images[2][0] = images[2][1]
        values = [(rng.random(len(of)) < skill[of]).astype(kind) for of in images]

        def mean(drawn: np.ndarray) -> float:
            means = []
            for of, right in zip(images, values, strict=True):
                rows = [row for image in drawn for row in np.flatnonzero(of == image)]
                means.append(right[rows].mean())
            return float(np.mean(means))

        union = np.unique(np.concatenate(images))
        expected = naive_bootstrap(lambda rows: mean(union[rows]), len(union), resamples=600)
        shown = [Images(of, 140) for of in images]
        drawn = bootstrap_sets([of[:, None] for of in values], shown, resamples=4000)
        found = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
        assert found == pytest.approx(expected, abs=0.015)
        apart = np.mean([bootstrap_means(of[:, None], seed=n) for n, of in enumerate(values)], 0)
        narrow = np.quantile(apart, [0.025, 0.975])
        assert np.ptp(found) > 1.1 * np.ptp(narrow)
