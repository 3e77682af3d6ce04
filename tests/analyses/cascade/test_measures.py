"""Cascades against four images by hand and against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsyn.analyses.cascade.measures import (
    NEVER,
    average_predictions,
    cascade_curve,
    exit_stages,
    most_accurate,
    pareto_front,
    smallest_threshold,
)

# Three stages, four images.                A     B     C     D
CONFIDENCE = np.array([[0.9, 0.4, 0.6, 0.1], [0.2, 0.7, 0.5, 0.3], [0.1, 0.2, 0.3, 0.1]])
CORRECT = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]], bool)
COSTS = np.array([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("threshold", "leaves", "accuracy", "cost"),
    [
        (0.0, [0, 0, 0, 0], 1 / 4, 1.0),
        (0.1, [0, 0, 0, 0], 1 / 4, 1.0),  # D's 0.1 reaches it
        (0.3, [0, 0, 0, 1], 1 / 4, (1 + 1 + 1 + 3) / 4),
        (0.5, [0, 1, 0, 2], 2 / 4, (1 + 3 + 1 + 7) / 4),
        (0.65, [0, 1, 2, 2], 3 / 4, (1 + 3 + 7 + 7) / 4),
        (0.95, [2, 2, 2, 2], 2 / 4, 7.0),
        (1.5, [2, 2, 2, 2], 2 / 4, 7.0),
    ],
)
def test_four_images_by_hand(threshold, leaves, accuracy, cost):
    assert exit_stages(CONFIDENCE, threshold).tolist() == leaves
    curve = cascade_curve(CONFIDENCE, CORRECT, COSTS, np.array([threshold]))
    assert curve.accuracy[0] == accuracy
    assert curve.cost[0] == pytest.approx(cost, abs=1e-15)
    assert curve.shares[0].tolist() == [leaves.count(stage) / 4 for stage in range(3)]


def looped(confidence, correct, costs, threshold):
    """One sample after the other."""
    right = spent = 0.0
    for sample in range(confidence.shape[1]):
        for stage in range(len(confidence)):
            spent += costs[stage]
            if confidence[stage, sample] >= threshold or stage == len(confidence) - 1:
                right += correct[stage, sample]
                break
    return right / confidence.shape[1], spent / confidence.shape[1]


@pytest.mark.parametrize("stages", [1, 2, 5])
def test_all_thresholds_at_once_equal_a_loop_with_ties(stages):
    rng = np.random.default_rng(stages)
    confidence = rng.integers(0, 8, (stages, 60)) / 7  # many are equal, some are 0 and 1
    correct, costs = rng.random((stages, 60)) < 0.6, rng.random(stages)
    thresholds = np.array([0.0, 1 / 7, 0.5, 4 / 7, 1.0, NEVER, 0.2])  # in no order
    curve = cascade_curve(confidence, correct, costs, thresholds)
    for row, threshold in enumerate(thresholds):
        accuracy, cost = looped(confidence, correct, costs, threshold)
        assert curve.accuracy[row] == pytest.approx(accuracy, abs=1e-12)
        assert curve.cost[row] == pytest.approx(cost, abs=1e-12)
    assert curve.shares.sum(axis=1) == pytest.approx(1, abs=1e-12)


def test_thresholds_are_compared_in_double_precision():
    """0.9 is not a float32: as one it would be 0.89999998, as a double it is not reached."""
    confidence = np.array([[0.9], [0.9]], np.float32)
    correct = np.array([[True], [False]])
    assert exit_stages(confidence, 0.9).tolist() == [1]
    assert cascade_curve(confidence, correct, np.ones(2), np.array([0.9])).cost.tolist() == [2]


def test_a_threshold_that_is_good_enough_by_luck_is_not_taken():
    # first stage: right, wrong, right by falling confidence; the second is right but for one
    confidence = np.array([[0.9, 0.8, 0.7], [0.5, 0.5, 0.5]])
    correct = np.array([[True, False, True], [True, True, False]])
    accuracy = [looped(confidence, correct, np.ones(2), t)[0] for t in (0.0, 0.8, 0.9, NEVER)]
    assert accuracy == pytest.approx([2 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert smallest_threshold(confidence, correct, within=0.0) == 0.9


@given(seed=st.integers(0, 10_000), within=st.sampled_from([0.0, 0.05, 0.1, 0.3]))
def test_the_smallest_threshold_against_trying_all(seed, within):
    rng = np.random.default_rng(seed)
    confidence, correct = rng.integers(0, 6, (3, 12)) / 5, rng.random((3, 12)) < 0.5
    tried = sorted({0.0, NEVER, *np.maximum(confidence[0], confidence[1]), *confidence[0]})
    full = correct[-1].mean()
    good = [looped(confidence, correct, COSTS, t)[0] >= full - within - 1e-9 for t in tried]
    expected = next(t for t, rest in zip(tried, range(len(tried)), strict=True) if all(good[rest:]))
    assert smallest_threshold(confidence, correct, within) == expected


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_the_front_against_every_pair(points):
    costs, values = np.array(points, float).reshape(-1, 2).T
    expected = [
        not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
        for cost, value in points
    ]
    assert pareto_front(costs, values).tolist() == expected


def test_a_confidence_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="a confidence is NaN"):
        cascade_curve(
            np.where(CONFIDENCE > 0.8, np.nan, CONFIDENCE), CORRECT, COSTS, np.array([0.5])
        )


def test_the_best_single_is_the_cheapest_of_equals():
    gflops = {"a": 3.0, "b": 2.0, "c": 1.0}
    assert most_accurate({"a": 0.5, "b": 0.5, "c": 0.4}, gflops) == "b"
    assert most_accurate({"a": 0.6, "b": 0.5, "c": 0.4}, gflops) == "a"


@pytest.mark.parametrize("shape", [(1, 1, 2), (300, 3, 5), (40, 4, 1000), (0, 3, 4)])
def test_averages_of_every_subset_against_a_loop(shape):
    logits = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    predicted = average_predictions(logits)
    assert predicted.shape == (2 ** shape[1], shape[0])
    for subset in range(1, 2 ** shape[1]):
        chosen = [b for b in range(shape[1]) if subset >> b & 1]
        expected = logits[:, chosen].mean(axis=1).argmax(axis=1)
        assert predicted[subset].tolist() == expected.tolist()
