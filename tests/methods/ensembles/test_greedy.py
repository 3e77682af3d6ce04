"""Greedy selection against a ten-line version that keeps every average."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from clipsyn.methods.ensembles.search import GreedySelection


def problem(n=60, backbones=4, classes=5, seed=0, scale=2.0):
    """Backbones of different quality, each helpful on its own samples."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, backbones, classes))
    skill = rng.uniform(0, 2, (n, backbones))
    logits[np.arange(n), :, labels] += skill
    return (scale * logits).astype(np.float32), labels.astype(np.int32)


def dumb(logits, labels, rounds):
    """(names chosen) by trying every backbone in every round on float64 probabilities."""
    p = softmax(np.asarray(logits, np.float64), axis=-1)

    def quality(chosen):
        mean = np.mean([p[:, b] for b in chosen], axis=0)
        true = mean[np.arange(len(labels)), labels]
        return np.mean(mean.argmax(1) == labels), round(np.log(true).mean(), 9)

    chosen, path = [], []
    for _ in range(rounds):
        chosen.append(max(range(p.shape[1]), key=lambda b: quality([*chosen, b])))
        path.append(quality(chosen))
    return chosen[: path.index(max(path)) + 1]


@pytest.mark.parametrize("seed", range(6))
def test_chooses_what_a_dumb_version_chooses(seed):
    logits, labels = problem(seed=seed)
    fitted = GreedySelection(rounds=12).fit(logits, labels)
    expected = dumb(logits, labels, 12)
    assert fitted.chosen_ == tuple(str(b) for b in expected)
    assert fitted.weights_ == pytest.approx(np.bincount(expected, minlength=4) / len(expected))


def test_probabilities_are_the_weighted_mean_of_probabilities():
    logits, labels = problem()
    fitted = GreedySelection().fit(logits, labels)
    expected = np.einsum("b,nbc->nc", fitted.weights_, softmax(logits.astype(np.float64), -1))
    assert fitted.predict_proba(logits) == pytest.approx(expected, abs=1e-6)
    assert np.exp(fitted.combine(logits)) == pytest.approx(expected, abs=1e-6)


def test_one_round_is_the_best_single_backbone():
    logits, labels = problem(seed=1)
    right = (logits.argmax(-1) == labels[:, None]).sum(axis=0)
    best = right.argmax()
    assert np.sum(right == right[best]) == 1
    assert GreedySelection(rounds=1).fit(logits, labels).chosen_ == (str(best),)


def test_equal_accuracy_is_decided_by_likelihood_then_by_name():
    sure = np.array([[[3.0, 0.0]], [[0.0, 3.0]]], np.float32)
    unsure = sure / 3
    labels = np.array([0, 1])
    assert GreedySelection().fit(np.concatenate([unsure, sure], 1), labels).chosen_ == ("1",)
    assert GreedySelection().fit(np.concatenate([sure, sure], 1), labels).chosen_ == ("0",)


def test_the_best_prefix_is_kept():
    """Every average beyond the first choice is wrong somewhere."""
    right = np.tile(np.array([4.0, 0.0], np.float32), (5, 1))
    wrong = np.tile(np.array([0.0, 9.0], np.float32), (5, 1))
    fitted = GreedySelection().fit(np.stack([wrong, right], 1), np.zeros(5, int))
    assert fitted.chosen_ == ("1",)
    assert fitted.weights_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.array([[[1, 2, 3], [3, 2, 1]]]), [2]),  # one sample
        (np.zeros((4, 2, 3)), [0, 1, 2, 0]),  # constant
        (np.ones((6, 2, 3)) * [1, 1, 0], [0, 0, 1, 1, 0, 1]),  # two classes alike, one absent
        (np.random.default_rng(0).normal(size=(2, 5, 2)), [0, 1]),  # fewer samples than backbones
        (np.random.default_rng(0).normal(size=(9, 3, 4)) * 300, [1] * 9),  # huge, one class
    ],
)
def test_degenerate_support_gives_finite_probabilities(logits, labels):
    fitted = GreedySelection().fit(logits, labels)
    assert fitted.weights_.sum() == pytest.approx(1)
    assert np.isfinite(fitted.combine(logits)).all()
    assert fitted.predict_proba(logits).sum(axis=1) == pytest.approx(1)


def test_probabilities_too_small_for_floats_keep_their_order():
    logits, labels = problem(n=10, backbones=2, classes=3)
    fitted = GreedySelection().fit(logits, labels)
    fitted.weights_ = np.array([0.25, 0.75])
    scores = fitted.combine(np.array([[[0, -300, -500], [0, -400, -600]]]))
    assert scores[0] == pytest.approx([0, -300 + np.log(0.25), -500 + np.log(0.25)], abs=1e-4)
