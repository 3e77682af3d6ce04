"""The jackknife over groups against a formula, and cases without an interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipsyn.stats.images import Images
from clipsyn.stats.intervals import GROUPS, groups_of, jackknife_interval, standard_error


def test_of_a_mean_over_as_many_groups_as_samples_it_is_the_standard_error():
    values = np.random.default_rng(0).normal(size=GROUPS)
    without = (values.sum() - values) / (GROUPS - 1)
    expected = values.std(ddof=1) / math.sqrt(GROUPS)
    assert standard_error(without) == pytest.approx(expected)
    low, high = jackknife_interval(values.mean(), without)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(2.0930 * expected, rel=1e-4)  # Student's t for 19


def test_groups_are_of_whole_images_and_as_large():
    images = Images.of(np.random.default_rng(1).integers(0, 400, 1000))
    group = groups_of(images, seed=3)
    assert set(group) == set(range(GROUPS))
    assert all(len(set(group[images.number == one])) == 1 for one in range(images.count))
    sizes = [len(set(images.number[group == at])) for at in range(GROUPS)]
    assert max(sizes) - min(sizes) <= 1
    assert (np.diff(group[np.argsort(images.number)]) != 0).sum() > 100  # in no order of theirs
    assert (groups_of(images, seed=4) != group).any()


def test_fewer_than_two_groups_say_nothing():
    assert groups_of(Images.distinct(3)).tolist() != [0, 0, 0]
    assert len(groups_of(Images.distinct(0))) == 0
    assert all(map(math.isnan, jackknife_interval(0.5, np.array([0.5]))))
    assert all(map(math.isnan, jackknife_interval(0.5, np.array([]))))
