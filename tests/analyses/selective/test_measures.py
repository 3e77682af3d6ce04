"""Measures of withheld answers against scikit-learn's curves, plain loops and cases by hand."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import auc, roc_auc_score, roc_curve

from clipsyn.analyses.selective.measures import (
    agreement,
    confidences,
    kept_of,
    risk_coverage,
    smallest_threshold,
    told_apart,
)

GRID = np.arange(1, 21) / 20


def areas(confidence, correct, coverages=GRID):
    return risk_coverage(np.asarray(confidence, float), np.asarray(correct, bool), coverages)


def naive(confidence, correct):
    """AURC, AUGRC and errors after k answers, of one order: a loop over the ranks."""
    order = sorted(range(len(correct)), key=lambda row: -confidence[row])
    errors = [0]
    for row in order:
        errors.append(errors[-1] + (not correct[row]))
    n = len(correct)
    aurc = sum(errors[k] / k for k in range(1, n + 1)) / n
    augrc = sum((errors[k - 1] + errors[k]) / 2 for k in range(1, n + 1)) / n**2
    return aurc, augrc, errors


def random(n, seed=0, levels=None):
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    correct = rng.random(n) < 0.2 + 0.7 * confidence
    return (confidence if levels is None else np.round(confidence * levels) / levels), correct


class TestRiskCoverage:
    @pytest.mark.parametrize("n", [1, 2, 7, 300])
    def test_against_a_loop(self, n):
        confidence, correct = random(n, seed=n)
        aurc, augrc, errors = naive(confidence, correct)
        found = areas(confidence, correct)
        assert found.aurc == pytest.approx(aurc)
        assert found.augrc == pytest.approx(augrc)
        best, _, _ = naive(correct.astype(float), correct)
        assert found.e_aurc == pytest.approx(aurc - best)
        accuracies = [1 - errors[k] / k for k in kept_of(n, GRID)]
        assert found.accuracy == pytest.approx(accuracies)

    @given(
        st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans()), min_size=1, max_size=6)
    )
    def test_ties_are_the_mean_over_all_orders(self, samples):
        confidence, correct = map(np.array, zip(*samples, strict=True))
        orders = [np.array(order) for order in permutations(range(len(samples)))]
        # a stable sort keeps equal ones in the order given
        each = [naive(confidence[order], correct[order]) for order in orders]
        aurc, augrc = np.mean([one[:2] for one in each], axis=0)
        errors = np.mean([one[2] for one in each], axis=0)
        found = areas(confidence, correct)
        assert found.aurc == pytest.approx(aurc)
        assert found.augrc == pytest.approx(augrc)
        kept = kept_of(len(samples), GRID)
        assert found.accuracy == pytest.approx(1 - errors[kept] / kept)

    @pytest.mark.parametrize("levels", [None, 7])
    def test_augrc_against_scikit_learn(self, levels):
        """The identity of Traub et al., and the area under the generalised curve."""
        confidence, correct = random(150, seed=3, levels=levels)
        accuracy = correct.mean()
        auroc = roc_auc_score(correct, confidence)
        found = areas(confidence, correct).augrc
        expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
        assert found == pytest.approx(expected)
        ends = [np.count_nonzero(confidence >= level) for level in np.unique(confidence)[::-1]]
        order = np.argsort(-confidence, kind="stable")
        risks = [np.count_nonzero(~correct[order][:end]) / 150 for end in ends]
        coverages = np.array([0, *ends]) / 150
        assert found == pytest.approx(auc(coverages, [0, *risks]))

    def test_no_sample(self):
        found = areas([], [])
        assert all(np.isnan(part).all() for part in found)

    def test_a_fraction_of_the_samples_is_rounded_up(self):
        assert kept_of(10, np.array([0.05, 0.1, 0.7, 0.71, 1])).tolist() == [1, 1, 7, 8, 10]
        assert kept_of(3, GRID).max() == 3

    @pytest.mark.parametrize(
        ("confidence", "correct", "message"),
        [
            ([0.1, math.nan], [True, True], "NaN"),
            ([0.1], [True, True], "a confidence for each sample"),
            ([[0.1]], [[True]], "a confidence for each sample"),
        ],
    )
    def test_bad_input(self, confidence, correct, message):
        with pytest.raises(ValueError, match=message):
            risk_coverage(np.array(confidence), np.array(correct), GRID)


class TestToldApart:
    @pytest.mark.parametrize("levels", [None, 6, 1])
    def test_against_scikit_learn(self, levels):
        own, others = random(90, levels=levels)[0], random(70, seed=9, levels=levels)[0] * 0.8
        if levels:
            others = np.round(others * levels) / levels
        truth, values = np.repeat([1, 0], [90, 70]), np.concatenate([own, others])
        auroc, fpr = told_apart(own, others)
        assert auroc == pytest.approx(roc_auc_score(truth, values))
        false, true, _ = roc_curve(truth, values, drop_intermediate=False)
        assert fpr == pytest.approx(false[np.argmax(true >= 0.95 - 1e-12)])

    def test_one_of_twenty_own_images_may_be_missed(self):
        own, others = np.array([0.0, *np.linspace(0.5, 1, 19)]), np.array([0.1, 0.6])
        assert told_apart(own, others)[1] == 0.5
        assert told_apart(own[:-1], others)[1] == 1


class TestThreshold:
    def test_by_hand(self):
        """Thirty right answers, then ten of twenty: Wilson's lower bounds are 91.7 and 69.3 %."""
        confidence = np.linspace(0.9, 0.1, 50)
        correct = np.arange(50) < 30
        correct[31::2] = True
        assert smallest_threshold(confidence, correct, 0.69) == 0
        assert smallest_threshold(confidence, correct, 0.7) > 0
        assert smallest_threshold(confidence, correct, 0.91) == confidence[29]
        for wished in (0.92, 1):
            assert math.isnan(smallest_threshold(confidence, correct, wished))

    def test_fewer_than_twenty_answers_choose_none(self):
        for n, found in ((19, math.nan), (20, 0.0)):
            right = np.ones(n, bool)
            threshold = smallest_threshold(np.arange(1, n + 1) / n, right, 0.5)
            assert threshold == pytest.approx(found, nan_ok=True)
        assert math.isnan(smallest_threshold(np.array([]), np.array([], bool), 0.6))

    @given(
        st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=15, max_size=90),
        st.integers(0, 1000),
    )
    def test_against_every_threshold(self, samples, thousandths):
        wished = thousandths / 1000
        confidence, correct = map(np.array, zip(*samples, strict=True))
        confidence = (confidence + 1) / 10
        found = smallest_threshold(confidence, correct, wished)
        good = []
        for level in np.unique(confidence):
            given = correct[confidence >= level]
            test = binomtest(int(given.sum()), len(given))
            bound = test.proportion_ci(0.9, method="wilson").low
            good += [level] if len(given) >= 20 and bound >= wished - 1e-12 else []
        if not good:
            assert math.isnan(found)
        else:
            assert found == (0 if good[0] == confidence.min() else good[0])


class TestConfidences:
    def test_against_scipy(self):
        scores = np.random.default_rng(0).normal(scale=3, size=(50, 9)).astype(np.float32)
        probabilities = np.exp(scores.astype(float))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        first, second = np.sort(probabilities)[:, :-3:-1].T
        found = confidences(scores)
        assert found["max-softmax"] == pytest.approx(first, rel=1e-6)
        assert found["margin"] == pytest.approx(first - second, abs=1e-6)
        expected = 1 - scipy_entropy(probabilities, axis=1) / math.log(9)
        assert found["entropy"] == pytest.approx(expected, abs=1e-6)

    def test_answers_that_are_nearly_sure_are_told_apart(self):
        scores = np.array([[20, 0, 0], [21, 0, 0], [22, 0, 0]], np.float32)
        for of in confidences(scores).values():
            assert of[0] < of[1] < of[2] < 1

    def test_confidences_of_equal_and_of_certain_scores(self):
        even = confidences(np.zeros((1, 4), np.float32))
        assert [of[0] for of in even.values()] == pytest.approx([0.25, 0, 0])
        sure = confidences(np.array([[np.finfo(np.float32).min, 0]], np.float32))
        assert [of[0] for of in sure.values()] == [1, 1, 1]
        one = confidences(np.zeros((3, 1), np.float32))
        assert all((of == 1).all() for of in one.values())
        assert all(len(of) == 0 for of in confidences(np.zeros((0, 3), np.float32)).values())

    def test_what_could_not_be_read_has_none(self):
        scores = np.zeros((3, 4), np.float32)
        scores[1] = np.nan
        assert all(
            np.isnan(of).tolist() == [False, True, False] for of in confidences(scores).values()
        )


class TestAgreement:
    def test_by_hand(self):
        predictions = np.array([[0, 1, 2], [0, 1, 0], [0, 2, 1]])
        assert agreement(predictions, predictions[0]) == pytest.approx([1, 2 / 3, 1 / 3])
        assert agreement(predictions, np.array([1, 1, 1])) == pytest.approx([0, 2 / 3, 1 / 3])
