from __future__ import annotations

import math

import numpy as np
import pytest

from clipsyn.analyses.shares import gain, share
from clipsyn.stats import bootstrap_difference, wilson_interval


def test_a_share_has_wilsons_interval():
    metric, score, interval = share("acc1", 3, 8)
    assert (metric, score.value, score.n) == ("acc1", 3 / 8, 8)
    assert interval == wilson_interval(3, 8)


def test_a_gain_is_over_the_best_single_backbone():
    right = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]], bool)
    metric, score, interval = gain("gain", right.any(axis=0), right)
    assert (metric, score.value, score.n) == ("gain", 1 / 4, 4)
    assert interval == bootstrap_difference(right.any(axis=0), right[1])  # the first of equals


def test_nothing_is_known_without_samples():
    nothing = np.zeros((2, 0), bool)
    for measured in (share("acc1", 0, 0), gain("gain", nothing[0], nothing)):
        assert measured.score.n == 0
        assert math.isnan(measured.score.value)
        assert measured.interval == pytest.approx((math.nan, math.nan), nan_ok=True)
