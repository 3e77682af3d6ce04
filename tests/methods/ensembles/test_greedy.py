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
