"""Variances of crossed means against an analysis of variance by loops, and against simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from clipsyn.stats.bootstrap import bootstrap_sets
from clipsyn.stats.crossed import crossed
from clipsyn.stats.images import Images


def by_loops(values: np.ndarray) -> tuple[float, float, float]:
    """Variance of the mean by the mean squares of a two-way layout: images, draws, both."""
    draws, n = values.shape
    grand = sum(values.ravel().tolist()) / values.size
    rows = [sum(row) / n for row in values.tolist()]
    columns = [sum(column) / draws for column in values.T.tolist()]
    images = draws * sum((c - grand) ** 2 for c in columns) / (n - 1)
    between = n * sum((r - grand) ** 2 for r in rows) / (draws - 1)
    rest = sum(
        (values[i, j] - rows[i] - columns[j] + grand) ** 2 for i in range(draws) for j in range(n)
    ) / ((draws - 1) * (n - 1))
    return images / values.size, between / values.size, rest / values.size


@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_the_variance_is_that_of_the_mean_squares(spread):
    rng = np.random.default_rng(1)
    values = rng.normal(size=40) + rng.normal(0, spread, (4, 1)) + rng.normal(0, 0.5, (4, 40))
    images, draws, both = by_loops(values)
    found = crossed([values])
    assert found.mean == pytest.approx(values.mean())
    assert found.variance == pytest.approx(images + max(draws - both, 0))
    freedom = found.variance**2 / (images**2 / 39 + draws**2 / 3)
    assert found.freedom == pytest.approx(freedom)
    half = t.ppf(0.975, freedom) * math.sqrt(found.variance)
    assert found.interval() == pytest.approx((found.mean - half, found.mean + half))
    expected = 2 * t.sf(abs(found.mean) / math.sqrt(found.variance), freedom)
    assert found.p_value() == pytest.approx(expected)


def test_without_draws_it_is_a_t_test_over_images():
    values = np.random.default_rng(2).normal(0.2, 1, (1, 30))
    found = crossed([values], drawn=[False])
    expected = ttest_1samp(values[0], 0)
    assert found.p_value() == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert found.interval() == pytest.approx((interval.low, interval.high))


def test_draws_make_it_wider_never_narrower():
    rng = np.random.default_rng(3)
    for spread in (0.0, 0.1, 1.0):
        values = [rng.normal(size=50) + spread * rng.normal(size=(3, 1)) for _ in range(2)]
        alone = crossed(values, drawn=[False, False])
        assert crossed(values).variance >= alone.variance
    assert crossed(values).variance > 3 * alone.variance


def test_one_draw_says_nothing_of_others():
    found = crossed([np.ones((1, 5)), np.zeros((2, 5))])
    assert found.mean == 0.5
    assert math.isnan(found.p_value())
    assert np.isnan(found.interval()).all()
    assert crossed([np.ones((1, 5)), np.eye(2, 5)], drawn=[False, True]).variance > 0


def test_one_image_says_nothing_of_others():
    assert math.isnan(crossed([np.ones((1, 1)), np.ones((1, 9))], drawn=[False, False]).p_value())


def test_what_never_differs_is_no_difference_and_what_always_does_is_one():
    assert crossed([np.zeros((3, 9))]).p_value() == 1
    assert crossed([np.ones((3, 9))]).p_value() == 0


def test_images_of_several_sets_count_once():
    """The same images in two sets: as sure as one set, not as two."""
    values = np.random.default_rng(4).normal(size=(1, 400))
    numbers = Images.of(np.arange(400))
    one = crossed([values], drawn=[False])
    twice = crossed([values, values], [numbers, numbers], drawn=[False, False])
    assert twice.variance == pytest.approx(one.variance)
    apart = crossed([values, values], drawn=[False, False])
    assert apart.variance == pytest.approx(one.variance / 2)


def test_shared_images_have_the_variance_of_the_bootstrap_that_draws_them_together():
    rng = np.random.default_rng(5)
    values = [rng.normal(size=300), rng.normal(size=200)]
    images = [Images(np.arange(300), 400), Images(np.arange(200, 400), 400)]
    values[1][:100] = values[0][200:] + 0.2 * values[1][:100]  # of the shared images
    drawn = bootstrap_sets([one[:, None] for one in values], images, resamples=4000)
    means = np.mean([one[:, 0] for one in drawn], axis=0)
    found = crossed([one[None] for one in values], images, drawn=[False, False])
    assert found.variance == pytest.approx(means.var(), rel=0.08)
    apart = crossed([one[None] for one in values], drawn=[False, False])
    assert found.variance > 1.1 * apart.variance


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.2])
def test_intervals_hold_the_truth_as_often_as_they_say(spread):
    rng, hits, alone, times = np.random.default_rng(6), 0, 0, 600
    for _ in range(times):
        values = rng.normal(0, 0.5, 100) + rng.normal(0, spread, (3, 1))
        values = [values + rng.normal(0, 0.4, (3, 100))]
        for drawn in ([True], [False]):
            low, high = crossed(values, drawn=drawn).interval()
            hits += (low <= 0 <= high) and drawn[0]
            alone += (low <= 0 <= high) and not drawn[0]
    assert 0.91 <= hits / times <= 0.985
    assert (alone / times < 0.7) == (spread == 0.2)


@pytest.mark.parametrize("values", [[], [np.zeros(3)], [np.zeros((2, 0))]])
def test_bad_input_is_refused(values):
    with pytest.raises(ValueError, match="values are"):
        crossed(values)
