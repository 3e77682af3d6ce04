"""Copies of an image are one piece of evidence, against loops and against images without copies."""

import itertools

import numpy as np
import pytest

from clipsyn.stats.differences import crossed, difference_interval, mcnemar, paired
from clipsyn.stats.images import Images, variance_of_mean
from clipsyn.stats.intervals import (
    mean_loss_interval,
    mean_per_class_interval,
    mean_share_interval,
    share_interval,
    wilson_interval,
)

RNG = np.random.default_rng(0)
SHOWN = np.array([4, 7, 4, 1, 7, 7, 0, 2, 2, 9])  # ten samples of six images
IMAGES = Images.of(SHOWN)


def test_images_of_equal_keys_are_one():
    assert (len(IMAGES), IMAGES.count, IMAGES.shown) == (10, 6, 6)
    assert IMAGES.number.tolist() == [3, 4, 3, 1, 4, 4, 0, 2, 2, 5]
    assert IMAGES.take(np.array([0, 2, 3])).shown == 2
    assert IMAGES.effective == pytest.approx(10**2 / (1 + 1 + 4 + 4 + 9 + 1))
    values = RNG.normal(size=(10, 2))
    expected = [values[np.unique(SHOWN)[at] == SHOWN].sum(axis=0) for at in range(6)]
    assert IMAGES.sums(values) == pytest.approx(np.array(expected))


def test_everything_twice_is_as_sure_as_once():
    """And without copies nothing changes."""
    rows, labels = RNG.random((80, 3)) < [0.5, 0.7, 0.9], RNG.integers(0, 4, 80)
    alone, twice = Images.of(np.arange(80)), Images.of(np.repeat(np.arange(80), 2))
    double = np.repeat(rows, 2, axis=0)
    losses, again = RNG.random(80), np.repeat(np.arange(80), 2)
    for interval in (mean_share_interval, difference_interval):
        once = interval([losses], [alone])
        assert interval([losses[again]], [twice]) == pytest.approx(once)
    once = mean_loss_interval(losses, rows[:, 0], alone)
    assert mean_loss_interval(losses[again], double[:, 0], twice) == pytest.approx(once)
    assert share_interval(2 * 44, twice) == share_interval(44, alone) == wilson_interval(44, 80)
    once = mean_per_class_interval(rows[:, 1], labels, alone)
    again = mean_per_class_interval(double[:, 1], np.repeat(labels, 2), twice)
    assert again == pytest.approx(once)
    lead = rows[:, 1].astype(int) - rows[:, 0]
    expected = mcnemar(int((lead > 0).sum()), int((lead < 0).sum()))
    assert paired(lead) == expected
    assert paired(twice.sums(np.repeat(lead, 2)[:, None])[:, 0].astype(int)) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("draws", [1, 4])
def test_crossed_means_of_everything_twice_have_the_variance_of_once(draws):
    values = RNG.normal(size=60) + 0.3 * RNG.normal(size=(draws, 1))
    values = values + RNG.normal(size=(draws, 60))
    twice = [Images.of(np.repeat(np.arange(60), 2))]
    once = crossed([values], [Images.distinct(60)], drawn=[draws > 1])
    again = crossed([np.repeat(values, 2, axis=1)], twice, drawn=[draws > 1])
    assert again == pytest.approx(once)


def test_the_variance_over_images_is_that_of_their_sums():
    values = RNG.normal(size=10)
    apart = values - values.mean()
    sums = [apart[IMAGES.number == image].sum() for image in range(6)]
    expected = 6 / 5 * np.square(sums).sum() / 10**2
    assert variance_of_mean([values], [IMAGES]) == pytest.approx(expected)


def test_the_test_changes_the_methods_of_whole_images():
    sums = np.array([3, -1, 1, 2, 0, 1])
    signs = np.array(list(itertools.product([-1, 1], repeat=6)))
    assert paired(sums) == pytest.approx((abs(signs @ sums) >= sums.sum()).mean())


@pytest.mark.parametrize(("classes", "size"), [(30, 1), (30, 2), (12, 5), (40, "mixed")])
@pytest.mark.parametrize("copied", [False, True])
def test_mean_recall_is_covered_as_promised(classes, size, copied):
    """Also where classes have one image, of which a bootstrap knows nothing."""
    rng, hits, times = np.random.default_rng(5), 0, 1500
    for _ in range(times):
        right = rng.beta(8, 2, classes)
        sizes = rng.choice([1, 2, 3, 8], classes) if size == "mixed" else np.full(classes, size)
        labels = np.repeat(np.arange(classes), sizes)
        correct = rng.random(len(labels)) < right[labels]
        copies = rng.choice([1, 1, 3], len(labels)) if copied else np.ones(len(labels), int)
        images = Images.of(np.repeat(np.arange(len(labels)), copies))
        low, high = mean_per_class_interval(
            np.repeat(correct, copies), np.repeat(labels, copies), images
        )
        hits += low <= right.mean() <= high
    assert 0.925 <= hits / times <= 0.985
    if size == 1 and not copied:
        assert (low, high) == pytest.approx(wilson_interval(int(correct.sum()), classes))
