from __future__ import annotations

import numpy as np
import torch

from clipsyn.methods.ensembles.mlp import Network
from clipsyn.methods.ensembles.moe import MixtureOfExperts
from clipsyn.methods.pool import Pool


def unit(rng, samples, width):
    array = rng.normal(size=(samples, width))
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


def pool_of(samples=60, backbones=3, classes=5, seed=0, scale=4.0, **arguments) -> Pool:
    """Backbone b is right where coordinate b of the first embedding is positive."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    embeddings = [unit(rng, samples, 6 + b) for b in range(backbones)]
    logits = rng.normal(size=(samples, backbones, classes))
    for b in range(backbones):
        good = embeddings[0][:, b] > 0
        logits[good, b, labels[good]] += 3
    return Pool.of(scale * logits, labels, embeddings, **arguments)


def mixture(weights, logits):
    """The dumb way, in float64: (sample, class) probabilities."""
    logits = logits.astype(float)
    probabilities = np.exp(logits - logits.max(axis=2, keepdims=True))
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    return (weights[:, :, None] * probabilities).sum(axis=1)


def mean_loss(router, pool):
    probabilities = mixture(router.weights(pool), pool.logits)
    return -np.log(probabilities[np.arange(len(pool)), pool.labels]).mean()


def torch_loss(weights, x, logits, labels):
    active = torch.relu(x @ weights["hidden_weight"] + weights["hidden_bias"])
    gate = (active @ weights["output_weight"] + weights["output_bias"]).softmax(-1)
    probability = logits.softmax(-1)[torch.arange(len(x)), :, labels.long()]
    return -(gate * probability).sum(1).log().mean()


def test_fit_reaches_what_torch_reaches():
    """The same start and the same two batches in the same order, which come from seed 0."""
    pool = pool_of(40)
    router = MixtureOfExperts(steps=150, learning_rate=2e-3, hidden=16, penalty=0).fit(pool)
    start = Network(21, 16, np.zeros(3), 0, np.float32).weights
    weights = {key: torch.tensor(value, requires_grad=True) for key, value in start.items()}
    x, logits, labels = map(torch.tensor, (pool.features(), pool.logits, pool.labels))
    optimiser = torch.optim.Adam(weights.values(), lr=2e-3, weight_decay=0.01)
    halves = np.split(np.random.default_rng(0).permutation(40), 2)
    schedule = np.random.default_rng(0)
    for step in range(150):
        if step % 2 == 0:
            turn = schedule.permutation(2)
        rows = halves[turn[step % 2]]
        optimiser.zero_grad()
        torch_loss(weights, x[rows], logits[rows], labels[rows]).backward()
        optimiser.step()
    peer = torch_loss(weights, x, logits, labels).item()
    assert abs(mean_loss(router, pool) - peer) < 1e-4
    average = mixture(np.full((40, 3), 1 / 3), pool.logits)[np.arange(40), pool.labels]
    assert peer < -np.log(average).mean() - 0.1


def test_scores_are_the_log_of_the_mixture():
    pool = pool_of()
    router = MixtureOfExperts(learning_rate=2e-3).fit(pool)
    expected = np.log(mixture(router.weights(pool), pool.logits))
    np.testing.assert_allclose(router.combine(pool), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(router.predict_proba(pool), np.exp(expected), atol=1e-5)


def test_gate_chooses_the_expert():
    router, test = MixtureOfExperts(learning_rate=2e-3).fit(pool_of(800)), pool_of(400, seed=1)
    gate = router.weights(test)
    np.testing.assert_allclose(gate.sum(axis=1), 1, rtol=1e-5)
    for b in range(3):
        good = test.embeddings["0"][:, b] > 0
        assert gate[good, b].mean() > 2 * gate[~good, b].mean()


def test_equal_embeddings_give_every_sample_the_best_fixed_mixture():
    pool = pool_of(200)
    same = np.broadcast_to(np.full(4, 0.5, np.float32), (200, 4))
    pool = Pool.of(pool.logits, pool.labels, [same] * 3)
    router = MixtureOfExperts(steps=1500, learning_rate=2e-3, weight_decay=0.0).fit(pool)
    shares = np.full(3, 1 / 3)
    rows = np.arange(200)
    true = np.stack([mixture(np.tile(e, (200, 1)), pool.logits) for e in np.eye(3)], axis=1)
    true = true[rows, :, pool.labels]
    for _ in range(2000):  # expectation maximisation, which has no step size to get wrong
        responsible = shares * true
        shares = (responsible / responsible.sum(axis=1, keepdims=True)).mean(axis=0)
    best = -np.log(true @ shares).mean()
    assert best - 1e-6 <= mean_loss(router, pool) < best + 1e-3
