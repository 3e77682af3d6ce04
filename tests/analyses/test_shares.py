import numpy as np

from clipsyn.evaluation.results.frame import gain, oracle_gain
from clipsyn.stats.differences import difference_interval
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import wilson_interval


def test_a_gain_is_over_the_best_single_backbone():
    right = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]], bool)
    images = Images.of(np.arange(4))
    metric, score, interval = gain("gain", right.any(axis=0), right, images)
    assert (metric, score.value, score.n) == ("gain", 1 / 4, 4)
    lead = right.any(axis=0).astype(int) - right[1]  # the first of equals
    assert interval == difference_interval([lead], [images])
    assert oracle_gain(right, images).interval == wilson_interval(1, 4)
