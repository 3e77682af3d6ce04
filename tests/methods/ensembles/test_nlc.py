from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.nn import functional as F

from clipsyn.methods.ensembles.nlc import NLC, MixtureOfExperts, Network
from clipsyn.methods.numerics.logits import weighted_cross_entropy
from clipsyn.methods.pool import Pool

TORCH_MAPS = {
    "softplus": F.softplus,
    "linear": lambda t: t,
}


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


def mean_loss(router, pool):
    losses, _ = weighted_cross_entropy(pool.logits, router.weights(pool), pool.labels)
    return float(losses.mean())


def torch_outputs(weights, x):
    active = torch.relu(x @ weights["hidden_weight"] + weights["hidden_bias"])
    return active @ weights["output_weight"] + weights["output_bias"]


def torch_loss(name, weights, x, logits, labels):
    outputs = torch_outputs(weights, x)
    scores = torch.einsum("nb,nbc->nc", TORCH_MAPS[name](outputs), logits) / logits.shape[1]
    return F.cross_entropy(scores, labels.long())


def torch_fit(weights, loss_of):
    """150 steps of Adam on two batches of 20 rows, in the order that comes from seed 0."""
    optimiser = torch.optim.Adam(weights.values(), lr=2e-3, weight_decay=0.01)
    halves = np.split(np.random.default_rng(0).permutation(40), 2)
    schedule = np.random.default_rng(0)
    for step in range(150):
        if step % 2 == 0:
            turn = schedule.permutation(2)
        optimiser.zero_grad()
        loss_of(halves[turn[step % 2]]).backward()
        optimiser.step()


@pytest.mark.parametrize("name", TORCH_MAPS)
def test_fit_reaches_what_torch_reaches(name):
    """The same start and the same two batches in the same order, which come from seed 0."""
    pool, penalty = pool_of(40), 2.0
    router = NLC(name, steps=150, learning_rate=2e-3, hidden=16, penalty=penalty).fit(pool)
    start = Network(21, 16, router._start(pool), 0).weights
    bias = torch.tensor(start["output_bias"].copy())
    weights = {key: torch.tensor(value, requires_grad=True) for key, value in start.items()}
    x, logits, labels = map(torch.tensor, (pool.features(), pool.logits, pool.labels))

    def loss_of(rows):
        loss = torch_loss(name, weights, x[rows], logits[rows], labels[rows])
        away = ((torch_outputs(weights, x[rows]) - bias) ** 2).sum(dim=1).mean()
        return loss + penalty / 2 / len(x) * away

    torch_fit(weights, loss_of)
    peer = torch_loss(name, weights, x, logits, labels).item()
    assert abs(mean_loss(router, pool) - peer) < 1e-4
    equal = np.full((40, 3), 1 / 3, np.float32)
    assert peer < weighted_cross_entropy(pool.logits, equal, pool.labels)[0].mean() - 0.1


@pytest.mark.parametrize("name", TORCH_MAPS)
def test_start_is_log_average_at_its_best_temperature(name):
    pool = pool_of(scale=1.0)
    router = NLC(name, learning_rate=0.0).fit(pool)
    weights = router.weights(pool)
    np.testing.assert_allclose(weights, weights[0, 0], rtol=1e-6)
    one, around = mean_loss(router, pool), (0.5, 0.9, 1.1, 2.0)
    for factor in around:
        other = weighted_cross_entropy(pool.logits, factor * weights, pool.labels)[0].mean()
        assert one < other


def test_few_labels_stay_near_log_average():
    """Labels drawn at random: with more of them the weights spread as they would without it."""
    less = {}
    for samples in (40, 640):
        pool = pool_of(samples)
        pool = replace(pool, labels=np.random.default_rng(1).permutation(pool.labels))
        free, held = (
            NLC(penalty=penalty, learning_rate=2e-3, epochs=0).fit(pool).weights(pool)
            for penalty in (0.0, 10.0)
        )
        less[samples] = (held / held.mean()).std() / (free / free.mean()).std()
    assert less[40] < 0.4
    assert 0.5 < less[640] < 1


def test_embeddings_choose_the_backbone():
    fitted = NLC(steps=400, learning_rate=2e-3).fit(pool_of(800))
    test = pool_of(400, seed=1)
    weights = fitted.weights(test)
    for b in range(3):
        good = test.embeddings["0"][:, b] > 0
        assert weights[good, b].mean() > 1.5 * weights[~good, b].mean()
    equal = np.full((400, 3), 1 / 3, np.float32)
    average = weighted_cross_entropy(test.logits, equal, test.labels)[0].mean()
    assert mean_loss(fitted, test) < average


def test_equal_embeddings_leave_a_super_learner():
    """Its best positive constant weights, found by scipy, are reached."""
    from scipy.optimize import minimize

    pool = pool_of(200)
    same = np.broadcast_to(np.full(4, 0.5, np.float32), (200, 4))
    pool = Pool.of(pool.logits, pool.labels, [same] * 3)
    router = NLC(steps=1500, learning_rate=2e-3, weight_decay=0.0).fit(pool)
    weights = router.weights(pool)
    np.testing.assert_array_equal(weights, np.broadcast_to(weights[0], weights.shape))

    def objective(values):
        losses, gradient = weighted_cross_entropy(pool.logits.astype(float), values, pool.labels)
        return losses.mean(), gradient.mean(axis=0)

    best = minimize(objective, np.full(3, 1 / 3), jac=True, bounds=[(0, None)] * 3)
    assert best.fun - 1e-6 <= mean_loss(router, pool) < best.fun + 2e-3


def test_linear_weights_can_be_negative():
    pool = pool_of(80)
    logits = pool.logits.copy()
    logits[:, 1] *= -1
    pool = pool.with_logits(logits)
    assert NLC("linear", learning_rate=0.01).fit(pool).weights(pool)[:, 1].mean() < 0


def test_held_out_loss_decides_what_is_kept():
    """Labels that nothing tells can only be learned by heart."""
    rng = np.random.default_rng(0)

    def noise():
        logits = 3 * rng.normal(size=(1200, 3, 4))
        return Pool.of(logits, rng.integers(0, 4, 1200), [unit(rng, 1200, 40)] * 3)

    support, fresh = noise(), noise()
    kept = NLC("linear", learning_rate=0.02, weight_decay=0.0, steps=300, patience=1000)
    last = clone(kept).set_params(holdout=0.0).fit(support)
    kept.fit(support)
    assert kept.steps_ < last.steps_ == 300
    assert last.held_out_loss_ is None
    assert mean_loss(last, support) < mean_loss(kept, support)
    assert mean_loss(kept, fresh) < mean_loss(last, fresh) - 1


# a mixture of experts


def mixture(weights, logits):
    """The dumb way, in float64: (sample, class) probabilities."""
    logits = logits.astype(float)
    probabilities = np.exp(logits - logits.max(axis=2, keepdims=True))
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    return (weights[:, :, None] * probabilities).sum(axis=1)


def mixture_loss(router, pool):
    probabilities = mixture(router.weights(pool), pool.logits)
    return -np.log(probabilities[np.arange(len(pool)), pool.labels]).mean()


def torch_mixture_loss(weights, x, logits, labels):
    gate = torch_outputs(weights, x).softmax(-1)
    probability = logits.softmax(-1)[torch.arange(len(x)), :, labels.long()]
    return -(gate * probability).sum(1).log().mean()


def test_a_mixture_reaches_what_torch_reaches():
    """The same start and the same two batches in the same order, which come from seed 0."""
    pool = pool_of(40)
    router = MixtureOfExperts(steps=150, learning_rate=2e-3, hidden=16, penalty=0).fit(pool)
    start = Network(21, 16, np.zeros(3), 0).weights
    weights = {key: torch.tensor(value, requires_grad=True) for key, value in start.items()}
    x, logits, labels = map(torch.tensor, (pool.features(), pool.logits, pool.labels))
    torch_fit(
        weights,
        lambda rows: torch_mixture_loss(weights, x[rows], logits[rows], labels[rows]),
    )
    peer = torch_mixture_loss(weights, x, logits, labels).item()
    assert abs(mixture_loss(router, pool) - peer) < 1e-4
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
    assert best - 1e-6 <= mixture_loss(router, pool) < best + 1e-3
