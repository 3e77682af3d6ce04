from __future__ import annotations

import math

import numpy as np
import pytest

from clipsyn.analyses.predicted import estimate, gain, share
from clipsyn.stats.bootstrap import bootstrap_difference
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import percentiles, wilson_interval


def test_a_share_has_wilsons_interval():
    metric, score, interval = share("acc1", 3, Images.of(np.arange(8)))
    assert (metric, score.value, score.n) == ("acc1", 3 / 8, 8)
    assert interval == wilson_interval(3, 8)


def test_a_gain_is_over_the_best_single_backbone():
    right = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]], bool)
    metric, score, interval = gain("gain", right.any(axis=0), right, Images.of(np.arange(4)))
    assert (metric, score.value, score.n) == ("gain", 1 / 4, 4)
    assert interval == bootstrap_difference(right.any(axis=0), right[1])  # the first of equals


def test_nothing_is_known_without_samples():
    nothing, none = np.zeros((2, 0), bool), Images.of(np.arange(0))
    for measured in (share("acc1", 0, none), gain("gain", nothing[0], nothing, none)):
        assert measured.score.n == 0
        assert math.isnan(measured.score.value)
        assert measured.interval == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_an_estimate_leaves_out_draws_that_are_not_finite():
    draws = np.array([0.1, np.nan, 0.3, np.inf, 0.2])
    metric, score, interval = estimate("gain", 0.2, 5, draws)
    assert (metric, score.value, score.n) == ("gain", 0.2, 5)
    assert interval == percentiles(draws[[0, 2, 4]])
    assert estimate("gain", 0.2, 5).interval is None


def test_an_estimate_that_is_nan_has_no_interval():
    assert estimate("gain", math.nan, 0, np.ones(3)).interval == pytest.approx(
        (math.nan, math.nan), nan_ok=True
    )
