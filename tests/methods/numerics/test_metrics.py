"""Against scikit-learn, hand-computed cases and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import recall_score

from clipsyn.methods.numerics import metrics
from clipsyn.methods.numerics.logits import NO_PREDICTION
from clipsyn.methods.numerics.metrics import (
    accuracy,
    calibration_floor,
    expected_calibration_error,
    judge,
    mean_per_class_recall,
    reliability_bins,
    scored,
    true_class_rank,
)


def uint16(*values: int) -> np.ndarray:
    return np.array(values, np.uint16)


def int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are right two times in three, and labels: 500 samples, 9 classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, 500).astype(np.int32)
    guesses = rng.integers(0, 9, 500)
    return np.where(rng.random(500) < 0.66, labels, guesses).astype(np.uint16), labels


def test_hand_computed():
    predictions, labels = uint16(0, 1, 1, 2, NO_PREDICTION, 0), int32(0, 1, 0, 2, 2, -1)
    assert scored(predictions, labels).tolist() == [True, True, True, True, False, False]
    assert accuracy(predictions, labels) == (0.75, 4)
    # class 0: one of two, class 1: one of one, class 2: one of one, class 3: no sample
    assert mean_per_class_recall(predictions, labels, 4) == ((0.5 + 1 + 1) / 3, 4)


def test_mean_per_class_recall_is_scikit_learns_macro_recall(drawn):
    predictions, labels = drawn
    expected = recall_score(labels, predictions, average="macro")
    found = mean_per_class_recall(predictions, labels, 9)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.n == 500
    assert mean_per_class_recall(predictions, labels, 40).value == found.value


def test_judgements_are_those_of_a_plain_loop_over_a_column_of_a_pool():
    """300 samples of three backbones, a row at a time in double precision; 40 are unlabelled."""
    rng = np.random.default_rng(31)
    pool = rng.normal(scale=4, size=(300, 3, 17)).astype(np.float32)
    labels = np.where(np.arange(300) % 8, rng.integers(0, 17, 300), -1).astype(np.int32)
    pool[5, 1, 3] = np.nan
    judged = judge(pool[:, 1], labels)
    for row, label, prediction, nll, brier, confidence in zip(
        pool[:, 1].astype(float), labels, *judged, strict=True
    ):
        p = [math.exp(score) for score in row]
        p = [one / sum(p) for one in p]
        if math.isnan(p[0]):
            assert prediction == NO_PREDICTION
            assert np.isnan([nll, brier, confidence]).all()
            continue
        assert prediction == p.index(max(p))
        assert confidence == pytest.approx(max(p), rel=1e-5)
        if label < 0:
            assert np.isnan([nll, brier]).all()
            continue
        squares = [(one - (c == label)) ** 2 for c, one in enumerate(p)]
        assert nll == pytest.approx(-math.log(p[label]), rel=1e-5, abs=1e-6)
        assert brier == pytest.approx(sum(squares), rel=1e-5, abs=1e-6)


@settings(max_examples=80)
@given(
    st.integers(1, 6).flatmap(
        lambda c: st.lists(
            st.tuples(
                st.lists(st.sampled_from([0.0, 0.5, 1.0, math.nan]), min_size=c, max_size=c),
                st.integers(-1, c - 1),
            ),
            min_size=1,
            max_size=9,
        )
    )
)
def test_ranks_match_a_plain_loop_with_ties_to_the_lowest_index(rows):
    def rank(row: list[float], label: int) -> int:
        if label < 0 or any(map(math.isnan, row)):
            return -1
        return sorted(range(len(row)), key=lambda c: (-row[c], c)).index(label)

    logits = np.array([row for row, _ in rows], np.float32)
    labels = np.array([label for _, label in rows], np.int32)
    assert true_class_rank(logits, labels).tolist() == [rank(*row) for row in rows]


def test_nothing_to_score_is_nan_over_none():
    predictions, labels = uint16(NO_PREDICTION, 1), int32(0, -1)
    for score in (
        accuracy(predictions, labels),
        mean_per_class_recall(predictions, labels, 3),
        accuracy(uint16(), int32()),
    ):
        assert math.isnan(score.value)
        assert score.n == 0


def test_calibration_by_hand():
    confidence = np.array([0.9, 0.92, 0.95, 0.55])  # two bins of ten: 0.9 closes the one below
    correct = np.array([True, False, True, False])
    # (0.8, 0.9]: |0.9 - 1| * 1/4; (0.9, 1]: |0.935 - 0.5| * 2/4; (0.5, 0.6]: 0.55 * 1/4
    expected = 0.1 / 4 + (0.935 - 0.5) * 2 / 4 + 0.55 / 4
    assert expected_calibration_error(confidence, correct, bins=10).value == pytest.approx(expected)
    assert math.isnan(expected_calibration_error(confidence[:0], correct[:0]).value)


def test_bins_of_equal_size_equal_tenths_of_the_sorted_samples():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(120).astype(np.float32), rng.random(120) < 0.5
    order = np.argsort(confidence).reshape(10, 12)
    for number, (found, rows) in enumerate(
        zip(reliability_bins(confidence, correct), order, strict=True)
    ):
        assert found[:3] == (number, 12, correct[rows].sum())
        assert found.confidence == pytest.approx(confidence[rows].mean())
        assert set(found.rows) == {*rows}


def test_samples_of_one_confidence_are_in_one_bin():
    sure = np.array([0.2, 0.4] + [1.0] * 8, np.float32)
    assert [(it.number, it.n) for it in reliability_bins(sure, sure > 0)] == [
        (0, 1),
        (1, 1),
        (2, 8),
    ]
    assert reliability_bins(sure[:0], sure[:0] > 0) == []


def test_judgements_of_blocks_are_those_of_the_whole(monkeypatch):
    scores = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, -1, 0, 1, 2, 0, 1, 2], np.int32)
    scores[4] = np.nan
    whole = judge(scores, labels)
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._CACHED_VALUES", 3 * 3)
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", 15)
    for one, other in zip(judge(scores, labels), whole, strict=True):
        assert np.array_equal(one, other, equal_nan=True)
    assert whole.prediction[4] == NO_PREDICTION
    assert np.isnan(whole.nll[[3, 4]]).all()
    assert len(judge(scores[:0], labels[:0]).nll) == 0


@pytest.mark.parametrize(("n", "bins"), [(1, 15), (60, 15), (60, 3), (2000, 15)])
def test_the_calibration_error_of_a_perfectly_calibrated_model(n, bins):
    """Against labels that are drawn with the confidences."""
    rng = np.random.default_rng(0)
    confidence = rng.beta(2, 2, n)
    drawn = [
        expected_calibration_error(confidence, rng.uniform(size=n) < confidence, bins).value
        for _ in range(4000)
    ]
    spread = np.std(drawn) / np.sqrt(len(drawn))
    # in a bin of width 1/3 not all confidences are their mean, which makes it a few percent less
    slack = 0.05 * np.mean(drawn) if bins == 3 else 0.02 * np.mean(drawn)
    found = calibration_floor(confidence, bins)
    assert found.value == pytest.approx(np.mean(drawn), abs=slack + 4 * spread)
    assert found.n == n


def test_a_coin_that_is_tossed_four_times():
    """Six of sixteen ways are even, eight are off by one, two by two."""
    assert calibration_floor(np.full(4, 0.5), 1).value == pytest.approx((8 + 2 * 2) / 16 / 4)


@pytest.mark.parametrize("sure", [0.0, 1.0])
def test_what_is_sure_is_not_off_by_chance(sure):
    assert calibration_floor(np.full(9, sure)).value == 0


def test_no_sample_has_no_calibration_floor():
    assert np.isnan(calibration_floor(np.zeros(0)).value)


def test_a_ratio_to_nothing_is_nan():
    ratios = metrics.ratio(np.array([0.2, 0.0, 0.3, 0.0]), np.array([0.8, 0.5, 0.0, 0.0]))
    np.testing.assert_array_equal(ratios, [0.25, 0, np.nan, np.nan])
