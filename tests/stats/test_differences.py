"""Differences against an analysis of variance by loops, published intervals, and simulations."""

import math

import numpy as np
import pytest
from scipy.stats import t

from clipsyn.stats import differences
from clipsyn.stats.differences import difference_interval, ratio_interval
from clipsyn.stats.images import Images


def crossed(values, images=None, drawn=None):
    """Every image is its own and of one set, and all rows are draws, unless it is said."""
    apart, before = [], 0
    for rows in values:
        apart.append(Images(np.arange(before, before + rows.shape[-1]), 10_000))
        before += rows.shape[-1]
    return differences.crossed(values, images or apart, drawn or [True] * len(values))


def by_loops(values):
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
    images = images * (40 / 42) ** 2 + 2 / 42**2  # with two more, of 1 and -1
    found = crossed([values])
    assert found.mean == pytest.approx(values.sum() / 4 / 42)
    assert found.variance == pytest.approx(images + max(draws - both, 0))
    freedom = found.variance**2 / (images**2 / 39 + draws**2 / 3)
    assert found.freedom == pytest.approx(freedom)
    half = t.ppf(0.975, freedom) * math.sqrt(found.variance)
    assert found.interval() == pytest.approx(
        (found.mean - half, found.mean + half), abs=1e-3 * half
    )
    expected = 2 * t.sf(abs(found.mean) / math.sqrt(found.variance), freedom)
    assert found.p_value() == pytest.approx(expected)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (4, 0), (7, 2), (30, 25)])
def test_of_one_draw_it_is_the_interval_of_bonett_and_price(only_first, only_second):
    """Journal of Educational and Behavioral Statistics 37 (2012), with Student's t."""
    n = 100
    lead = np.repeat([1, -1, 0], [only_first, only_second, n - only_first - only_second])
    p, q = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = t.ppf(0.975, n - 1) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    expected = p - q - half, p - q + half
    found = difference_interval([lead], [Images.distinct(n)])
    assert found == pytest.approx(expected, abs=0.006 * half)  # theirs divides by n, ours by n - 1


@pytest.mark.parametrize(("shares", "copies"), [((0.01, 0.005), 1), ((0.2, 0.1), 3)])
@pytest.mark.parametrize("n", [60, 200])
def test_differences_and_ratios_are_covered_where_errors_are_rare(n, shares, copies):
    rng, times, hits = np.random.default_rng(7), 800, [0, 0]
    images = [Images.of(np.repeat(np.arange(n), copies))]
    for _ in range(times):
        kind = np.repeat(rng.choice(3, n, p=[*shares, 1 - sum(shares)]), copies)
        first, second = kind != 1, kind != 0  # right
        low, high = difference_interval([first.astype(int) - second], images)
        hits[0] += low <= shares[0] - shares[1] <= high
        low, high = ratio_interval([first], [second], images)
        hits[1] += low <= (1 - shares[1]) / (1 - shares[0]) <= high
    assert min(hits) / times >= 0.93
    assert max(hits) / times <= (0.975 if copies > 1 else 1)


def test_a_ratio_is_nan_where_nothing_is_right_or_there():
    nothing = np.zeros(5)
    for second in (nothing, np.zeros(0)):
        images = [Images.distinct(len(second))]
        assert all(map(math.isnan, ratio_interval([second], [second], images)))
    assert all(map(math.isnan, difference_interval([np.zeros(0)], [Images.distinct(0)])))


def test_draws_make_it_wider_never_narrower():
    rng = np.random.default_rng(3)
    for spread in (0.0, 0.1, 1.0):
        values = [rng.normal(size=50) + spread * rng.normal(size=(3, 1)) for _ in range(2)]
        alone = crossed(values, drawn=[False, False])
        assert crossed(values).variance >= alone.variance
    assert crossed(values).variance > 3 * alone.variance


def test_one_draw_says_nothing_of_others():
    found = crossed([np.ones((1, 5)), np.zeros((2, 5))])
    assert found.mean == pytest.approx(5 / 7 / 2)
    assert math.isnan(found.p_value())
    assert np.isnan(found.interval()).all()
    assert crossed([np.ones((1, 5)), np.eye(2, 5)], drawn=[False, True]).variance > 0


def test_no_difference_of_shares_is_beyond_one():
    assert crossed([np.array([[1, 1, 1, 0], [0, 0, 0, 0]])]).interval() == (-1, 1)


def test_one_image_says_nothing_of_others():
    assert math.isnan(crossed([np.ones((1, 1)), np.ones((1, 9))], drawn=[False, False]).p_value())


def test_what_never_differs_is_no_difference_and_what_always_does_is_one():
    assert crossed([np.zeros((3, 90))]).p_value() == 1
    assert crossed([np.ones((3, 90))]).p_value() < 1e-12


def test_images_of_several_sets_count_once():
    """The same images in two sets: as sure as one set, not as two."""
    values = np.random.default_rng(4).normal(size=(1, 400))
    numbers = Images.of(np.arange(400))
    one = crossed([values], drawn=[False])
    twice = crossed([values, values], [numbers, numbers], drawn=[False, False])
    assert twice.variance == pytest.approx(one.variance)
    apart = crossed([values, values], drawn=[False, False])
    assert apart.variance == pytest.approx(one.variance / 2)


def test_shared_images_have_the_variance_of_a_bootstrap_that_draws_them_together():
    rng = np.random.default_rng(5)
    values = [rng.normal(size=300), rng.normal(size=200)]
    images = [Images(np.arange(300), 400), Images(np.arange(200, 400), 400)]
    values[1][:100] = values[0][200:] + 0.2 * values[1][:100]  # of the shared images
    means = []
    for _ in range(4000):
        times = np.bincount(rng.integers(0, 400, 400), minlength=400)
        shown = [times[of.number] for of in images]
        means.append(np.mean([w @ v / w.sum() for w, v in zip(shown, values, strict=True)]))
    rows = [of_set[None] for of_set in values]
    found = crossed(rows, images, drawn=[False, False])
    assert found.variance == pytest.approx(np.var(means), rel=0.08)
    assert found.variance > 1.1 * crossed(rows, drawn=[False, False]).variance


@pytest.mark.parametrize("values", [[], [np.zeros(3)], [np.zeros((2, 0))]])
def test_bad_input_is_refused(values):
    with pytest.raises(ValueError, match="values are"):
        crossed(values)
