"""Intervals of proportions against scipy, publications and their own coverage."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, t

from clipsyn.stats import intervals
from clipsyn.stats.images import Images


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (81, 263), (7, 20)])
def test_wilson_is_scipys(successes, n):
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert intervals.wilson_interval(successes, n) == pytest.approx((expected.low, expected.high))


def test_wilson_as_published():
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81 of 263
    assert intervals.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize("n", [20, 60, 200, 1000])
def test_a_share_is_covered_however_rare(n):
    """Of every outcome with its probability: Wilson's own covers 84 % where 0.18 are expected."""
    shares = np.geomspace(0.02 / n, 0.5, 400)
    low, high = np.array([intervals.wilson_interval(k, n) for k in range(n + 1)]).T
    held = (low[:, None] <= shares) & (shares <= high[:, None])
    covered = (binom.pmf(np.arange(n + 1)[:, None], n, shares) * held).sum(axis=0)
    assert covered.min() >= 0.92
    assert covered.mean() <= 0.975
    plain = [binomtest(k, n).proportion_ci(0.95, "wilson") for k in range(4, n - 3)]
    assert low[4:-4] == pytest.approx([it.low for it in plain])


def test_a_mean_of_rare_shares_is_covered():
    """Of ten pairs of backbones one to four differ, on an image of a hundred."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(1500):
        values = (rng.random(150) < 0.03) * rng.integers(1, 5, 150) / 10
        low, high = intervals.mean_share_interval([values], [Images.distinct(150)])
        hits += low <= 0.03 * 0.25 <= high
    assert 0.93 <= hits / 1500 <= 0.99
    assert intervals.mean_share_interval(
        [np.zeros(9)], [Images.distinct(9)]
    ) == intervals.wilson_interval(0, 9)


@pytest.mark.parametrize("rate", [0.04, 0.3])
def test_a_mean_loss_is_covered_where_it_has_an_interval(rate):
    rng, shown, misses = np.random.default_rng(2), 0, 0
    for _ in range(1500):
        right = rng.random(120) >= rate
        losses = np.where(right, 0.05, 1.5) * rng.exponential(size=120)
        low, high = intervals.mean_loss_interval(losses, right, Images.distinct(120))
        assert math.isnan(low) == (np.count_nonzero(~right) < 5)
        shown += not math.isnan(low)
        misses += not math.isnan(low) and not low <= 0.05 * (1 - rate) + 1.5 * rate <= high
    assert misses / shown <= 0.07
    assert shown > 400


@pytest.mark.parametrize("freedom", [1, 3, 4, 5, 10, 30, 500])
def test_quantiles_of_student_are_scipys(freedom):
    assert intervals.student(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-3)


def test_a_mean_loss_by_hand():
    low, high = intervals.loss_interval(0.2, 0.05, 11)
    assert (low, high) == pytest.approx(
        (0.2 / math.exp(2.2281 / 4), 0.2 * math.exp(2.2281 / 4)), 1e-4
    )
    for value, error, wrong in ((0.2, 0.05, 4), (0.0, 0.0, 9), (math.nan, math.nan, 9)):
        assert all(map(math.isnan, intervals.loss_interval(value, error, wrong)))


def test_percentiles_are_the_middle():
    values = np.random.default_rng(0).permutation(np.arange(101.0))
    assert intervals.percentiles(values) == pytest.approx((2.5, 97.5))


def test_nothing_and_nan_have_no_interval():
    for interval in (
        intervals.wilson_interval(0, 0),
        intervals.percentiles(np.empty(0)),
        intervals.percentiles(np.array([0.5, np.nan])),
    ):
        assert all(map(math.isnan, interval))


@pytest.mark.parametrize(("successes", "n"), [(5, 4), (-1, 4), (0, -1)])
def test_bad_input_is_refused(successes, n):
    with pytest.raises(ValueError):
        intervals.wilson_interval(successes, n)


def test_the_jackknife_error_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=intervals.GROUPS)
    without = (values.sum() - values) / (intervals.GROUPS - 1)
    expected = values.std(ddof=1) / math.sqrt(intervals.GROUPS)
    assert intervals.standard_error(without) == pytest.approx(expected)
    low, high = intervals.jackknife_interval(values.mean(), without)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(2.0930 * expected, rel=1e-4)  # Student's t for 19


def test_groups_are_of_whole_images_and_as_large():
    images = Images.of(np.random.default_rng(1).integers(0, 400, 1000))
    group = intervals.groups_of(images, seed=3)
    assert set(group) == set(range(intervals.GROUPS))
    assert all(len(set(group[images.number == one])) == 1 for one in range(images.count))
    sizes = [len(set(images.number[group == at])) for at in range(intervals.GROUPS)]
    assert max(sizes) - min(sizes) <= 1
    assert (np.diff(group[np.argsort(images.number)]) != 0).sum() > 100  # in no order of theirs
    assert (intervals.groups_of(images, seed=4) != group).any()


def test_fewer_than_two_groups_say_nothing():
    assert intervals.groups_of(Images.distinct(3)).tolist() != [0, 0, 0]
    assert len(intervals.groups_of(Images.distinct(0))) == 0
    assert all(map(math.isnan, intervals.jackknife_interval(0.5, np.array([0.5]))))
    assert all(map(math.isnan, intervals.jackknife_interval(0.5, np.array([]))))
