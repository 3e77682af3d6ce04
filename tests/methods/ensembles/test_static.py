from __future__ import annotations

import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clipsyn.methods.ensembles.base import (
    BestSingle,
    Confidence,
    LogAverage,
    ProbabilityAverage,
    VoteTop1,
    VoteTop3,
)
from clipsyn.methods.pool import Pool


def logits_of(n=60, backbones=4, classes=6, scale=2.0, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, backbones, classes)) * scale
    return values.astype(np.float32)


def probabilities(row):
    """Softmax of a list of numbers, in plain Python."""
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def mean_probabilities(sample):
    rows = [probabilities(row) for row in sample]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def dumb_vote(sample, k):
    """Most votes, then largest mean softmax, then lowest index."""
    votes = [0] * len(sample[0])
    for row in sample:
        for chosen in sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]:
            votes[chosen] += 1
    mean = mean_probabilities(sample)
    winner = min(range(len(votes)), key=lambda c: (-votes[c], -mean[c], c))
    return winner, [(v + m) / (sum(votes) + 1) for v, m in zip(votes, mean, strict=True)]


@pytest.mark.parametrize(("vote", "k"), [(VoteTop1, 1), (VoteTop3, 3)])
@pytest.mark.parametrize("classes", [2, 3, 4, 9])
@pytest.mark.parametrize("backbones", [2, 5])
def test_votes_are_those_of_a_plain_loop(vote, k, classes, backbones):
    logits = logits_of(80, backbones, classes)
    scores = vote().combine(logits)
    for row, sample in zip(scores.tolist(), logits.tolist(), strict=True):
        winner, shares = dumb_vote(sample, k)
        assert int(np.argmax(row)) == winner
        np.testing.assert_allclose(np.exp(row), shares, rtol=1e-5)


def test_equal_logits_vote_for_the_lowest_classes():
    logits = np.zeros((1, 2, 5), np.float32)
    third = 2 / 7 + 0.2 / 7  # two votes and the mean, of 3 x 2 + 1
    np.testing.assert_allclose(
        np.exp(VoteTop3().combine(logits))[0], [third] * 3 + [0.2 / 7] * 2, rtol=1e-5
    )


@pytest.mark.parametrize("scale", [1.0, 4.0, 30.0])
def test_confidence_takes_the_surest_backbone(scale):
    logits = logits_of(200, 5, 7, scale)
    weights = Confidence().weights(logits)
    for row, sample in zip(weights.tolist(), logits.tolist(), strict=True):
        doubts = [  # 1 - max p, without cancellation
            sum(p for c, p in enumerate(probabilities(r)) if c != r.index(max(r))) for r in sample
        ]
        assert row == [float(b == doubts.index(min(doubts))) for b in range(5)]
    scores = Confidence().combine(logits)
    np.testing.assert_array_equal(scores, logits[np.arange(200), weights.argmax(axis=1)])


@pytest.mark.parametrize("offset", [-90.0, 0.0, 60.0, 95.0])
@pytest.mark.parametrize("apart", [1e-3, 1e-5, 0.0])
def test_confidences_that_are_nearly_equal_are_told_apart(offset, apart):
    """Odds that differ by a part of `apart`, or not; powers overflow or are 0 at some offsets."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(200, 1, 9)) * 3
    logits = np.repeat(one, 4, axis=1)
    raised = rng.integers(0, 4, 200)
    best = one[:, 0].argmax(axis=1)
    logits[np.arange(200), raised, best] += apart
    logits = (logits + offset).astype(np.float32)
    z = logits.astype(float) - logits.max(axis=2, keepdims=True).astype(float)
    odds = np.exp(z).sum(axis=2) - 1
    weights = Confidence().weights(logits)
    assert weights.argmax(axis=1).tolist() == odds.argmin(axis=1).tolist()


def test_averages_are_those_of_a_plain_loop():
    logits = logits_of()
    sums, shares = LogAverage().combine(logits), ProbabilityAverage().combine(logits)
    for n, sample in enumerate(logits.tolist()):
        mean = [sum(column) / 4 for column in zip(*sample, strict=True)]
        np.testing.assert_allclose(sums[n], mean, atol=1e-6)
        np.testing.assert_allclose(np.exp(shares[n]), mean_probabilities(sample), rtol=1e-5)
    np.testing.assert_array_equal(LogAverage().weights(logits), np.full((60, 4), 0.25))


def test_best_single_has_the_best_accuracy_on_the_support_set():
    logits = logits_of(100, 3)
    labels = logits[:, 1].argmax(axis=1)
    labels[::4] = (labels[::4] + 1) % 6
    router = BestSingle().fit(logits, labels)
    assert router.best_ == "1"
    other = logits_of(9, 3, seed=1)
    np.testing.assert_array_equal(router.combine(other), other[:, 1])
    assert router.weights(other).tolist() == [[0, 1, 0]] * 9


def test_best_single_ties_go_to_the_lower_loss_then_to_the_first_name():
    sure, unsure = [[2, 0], [0, 2], [2, 0]], [[1, 0], [0, 1], [1, 0]]  # the third is wrong
    logits, labels = np.array([sure, unsure, unsure]).swapaxes(0, 1), [0, 1, 1]
    one = Pool.of(logits, labels, backbones=("a", "c", "b"))
    losses = np.log1p(np.exp([[-2, -2, 2], [-1, -1, 1]])).sum(axis=1)
    assert losses[0] > losses[1]
    assert BestSingle().fit(one).best_ == "b"
    assert BestSingle().fit(one.of_backbones(["a", "c"])).best_ == "c"


@pytest.mark.parametrize(
    "ensemble",
    [VoteTop1(), VoteTop3(), Confidence(), LogAverage(), ProbabilityAverage()],
    ids=repr,
)
def test_memory_beside_the_logits_is_bounded(ensemble, monkeypatch):
    pool = Pool.of(logits_of(4000, 5, 50))
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", 50_000)
    with ThreadPoolExecutor(2) as threads:
        monkeypatch.setattr("clipsyn.methods.numerics.blocks._threads", lambda: threads)
        tracemalloc.start()
        scores = ensemble.combine(pool)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < scores.nbytes + 2 * 8 * 4 * 50_000  # eight blocks a thread; the pool is 4 MB
