"""Fitted in passes over blocks: the same as in memory, or a sample and a word about it."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.methods import stream
from clipsyn.methods.ensembles import ENSEMBLES, mlp
from clipsyn.methods.ensembles.calibrated import CalibratedLogAverage
from clipsyn.methods.ensembles.nlc import NLC
from clipsyn.methods.ensembles.static import LogAverage
from clipsyn.methods.ensembles.super_learner import SuperLearner
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.methods.numerics.fewshot import stratified
from clipsyn.methods.pool import Pool
from clipsyn.methods.stream import minimum
from tests.methods.test_stream import pool_of, stream_of

STREAMING = [name for name in ENSEMBLES if ENSEMBLES.load(name).streams]
SAMPLING = [name for name in ENSEMBLES if ENSEMBLES.load(name).learns and name not in STREAMING]


@pytest.fixture
def support():
    return pool_of(n=900, backbones=4, classes=5, seed=2)


@pytest.fixture(autouse=True)
def _small(monkeypatch, support):
    """As if a tenth of the support were all that memory holds."""
    monkeypatch.setattr(stream, "IN_MEMORY", len(support) * support.bytes_a_sample // 10)


def counting(support):
    """A stream of it, and the blocks that were read of each pass."""
    whole, read = stream_of(support, 100), []

    def counted(rows, embeddings):
        read.append(rows)
        return support.take(rows)

    return stream.replace(whole, read=counted), read


@pytest.mark.parametrize("text", ["super-learner", "super-learner:simplex=true"])
def test_weights_are_those_of_a_fit_in_memory(support, text):
    expected = from_text(ENSEMBLES, text).fit(support)
    whole, read = counting(support)
    found = from_text(ENSEMBLES, text).fit(whole)
    np.testing.assert_allclose(found.weights_, expected.weights_, atol=2e-3)
    assert len(read) <= 1 + 9 * 15  # the sample, then passes over nine blocks
    assert not hasattr(found, "sampled_")


def test_a_weight_that_is_nothing_on_the_sample_is_found(support):
    """A backbone that is wrong on the sample alone; its weight on the simplex starts at 0."""
    whole = stream_of(support, 100)
    wrong = stream.stratified(support.labels, 90, 0)
    logits = support.logits.copy()
    logits[:, 1] += np.eye(5)[support.labels]
    logits[wrong, 1] -= 3 * np.eye(5)[support.labels[wrong]]
    pool = support.with_logits(logits)
    learner = SuperLearner(simplex=True)
    assert learner.fit(stream_of(pool, 100).sample()).weights_[1] < 1e-4
    expected = learner.fit(pool).weights_
    found = learner.fit(stream.replace(whole, read=lambda rows, _: pool.take(rows))).weights_
    assert expected[1] > 0.02
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_temperatures_are_those_of_a_fit_in_memory(support):
    expected = CalibratedLogAverage().fit(support)
    whole, read = counting(support)
    found = CalibratedLogAverage().fit(whole)
    np.testing.assert_allclose(found.temperatures_, expected.temperatures_, rtol=2e-3)
    assert len(read) <= 1 + 9 * 10


def test_a_temperature_that_has_no_end_is_at_the_bound(support):
    """Backbone 1 is always right, backbone 2 says nothing of the class."""
    logits = support.logits.copy()
    logits[:, 1] = 5 * np.eye(5)[support.labels]
    logits[:, 2] = logits[::-1, 2]
    pool = support.with_logits(logits)
    found = CalibratedLogAverage().fit(stream_of(pool, 100)).temperatures_
    expected = CalibratedLogAverage().fit(pool).temperatures_
    np.testing.assert_allclose(found[[0, 3]], expected[[0, 3]], rtol=2e-3)
    assert 0.01 <= found[1] < 0.3
    assert found[2] == pytest.approx(expected[2], rel=0.05)


def test_the_minimum_of_a_parabola_is_found_in_three_passes(support):
    matrix, end = np.array([[100.0, 3.0], [3.0, 0.5]]), np.array([2.0, -1.0])
    seen = []

    def objective(part, values):
        seen.append(len(part))
        away = values - (end if len(part) == len(support) else 0.97 * end)
        return float(away @ matrix @ away) / 2, matrix @ away

    found = minimum(objective, stream_of(support, 100), np.zeros(2))
    np.testing.assert_allclose(found, end, atol=1e-3)
    assert seen.count(900) <= 3


@pytest.mark.parametrize("name", SAMPLING)
def test_what_cannot_be_fitted_in_passes_says_that_it_took_a_sample(support, name):
    whole = stream_of(support, 100)
    found = ENSEMBLES.load(name)().fit(whole)
    assert found.sampled_ == 90
    expected = ENSEMBLES.load(name)().fit(whole.sample())
    np.testing.assert_array_equal(found.combine(support), expected.combine(support))
    assert not hasattr(found.fit(support), "sampled_")


def test_heads_that_learn_take_the_sample_and_their_ensembles_too(support):
    whole = stream_of(support, 100)
    head = HEADS.load("lda")()
    combiner = head.fit_transform(whole)
    assert head.sampled_ == 90
    assert SuperLearner().fit(combiner).sampled_ == len(combiner)
    assert not hasattr(head.fit(support), "sampled_")
    zero_shot = HEADS.load("zero-shot")()
    assert zero_shot.fit_transform(whole) is whole
    assert zero_shot.transform(support).logits is support.logits


@pytest.mark.parametrize("name", ["nlc", "moe"])
def test_a_network_is_as_good_as_one_fitted_in_memory(monkeypatch, name):
    """On samples that lie class after class, of which memory holds an eighth."""
    pool = kinds_of(4000)
    support, test = pool.take(slice(0, 4000, 2)), pool.take(slice(1, 4000, 2))
    monkeypatch.setattr(stream, "IN_MEMORY", 250 * support.bytes_a_sample)
    inside = ENSEMBLES.load(name)(learning_rate=2e-3).fit(support)
    whole = stream_of(support, 100)
    passed = ENSEMBLES.load(name)(learning_rate=2e-3).fit(whole)
    scores = [LogAverage().fit(support).score(test), inside.score(test), passed.score(test)]
    assert scores[1] > scores[0] + 0.1
    assert scores[2] == pytest.approx(scores[1], abs=0.02)
    assert passed.held_out_loss_ == pytest.approx(inside.held_out_loss_, abs=0.15)


def kinds_of(n, classes=8, seed=0):
    """Each backbone is right on one of two kinds of images, which their embeddings tell apart."""
    rng = np.random.default_rng(seed)
    labels, kind = np.sort(np.arange(n) % classes), rng.integers(2, size=n)
    logits = rng.normal(size=(n, 2, classes)).astype(np.float32) * 2
    logits[np.arange(n), kind, labels] += 4
    embeddings = rng.normal(size=(2, n, 6)) * 0.2
    embeddings[:, np.arange(n), kind] += 1
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    return Pool.of(logits, labels, list(embeddings), split="train")


def test_held_out_samples_are_not_learned_from(monkeypatch):
    """The labels of the held-out ones are others: the loss on them can only become worse."""
    pool = kinds_of(3000)
    held = stratified(pool.labels, 300, 0)
    labels = pool.labels.copy()
    labels[held] = (labels[held] + 1) % 8
    monkeypatch.setattr(stream, "IN_MEMORY", 1200 * pool.bytes_a_sample)
    monkeypatch.setattr(mlp, "stratified", lambda *_: held)
    wrong = stream.replace(pool, labels=labels)
    assert NLC(learning_rate=1e-2).fit(stream_of(wrong, 100)).steps_ == 0
