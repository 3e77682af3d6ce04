"""The network and its training, on losses whose minimum is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clipsyn.methods.ensembles.mixtures import MixtureOfExperts
from clipsyn.methods.ensembles.nlc import NLC, Network, PerceptronRouter
from clipsyn.methods.numerics.logits import weighted_cross_entropy
from clipsyn.methods.pool import Pool

TORCH_MAPS = {
    "softplus": F.softplus,
    "linear": lambda t: t,
    "divide": lambda t: 1 / (F.softplus(t) + 1e-3),
    "softmax": lambda t: t.softmax(-1) * t.shape[-1],
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
    """But for softmax, whose weights sum to 1."""
    pool = pool_of(scale=1.0)
    router = NLC(name, learning_rate=0.0).fit(pool)
    weights = router.weights(pool)
    np.testing.assert_allclose(weights, weights[0, 0], rtol=1e-6)
    if name == "softmax":
        assert weights[0, 0] == pytest.approx(1 / 3)
        return
    one, around = mean_loss(router, pool), (0.5, 0.9, 1.1, 2.0)
    for factor in around:
        other = weighted_cross_entropy(pool.logits, factor * weights, pool.labels)[0].mean()
        assert one < other


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


@dataclass(eq=False, repr=False)
class Squares(PerceptronRouter):
    """The loss of a sample is (t - target)^2, its target the only logit."""

    def _start(self, pool):
        return np.zeros(1, np.float32)

    def _loss(self, pool):
        def loss(rows, outputs):
            error = outputs - pool.logits[rows, 0]
            return (error**2).sum(axis=1), 2 * error

        return loss


def squares(**changes) -> Squares:
    few = {"hidden": 6, "learning_rate": 1e-2, "batch_size": 256, "steps": 60, "epochs": 1}
    return Squares(**few | {"penalty": 0.0} | changes)


def targets(target) -> Pool:
    count = len(target)
    return Pool.of(np.reshape(target, (count, 1, 1)), np.zeros(count, int), [np.ones((count, 1))])


def trained(chosen, target, held=None):
    """Fitted on samples of these targets, the held-out ones among them."""
    pool = targets(target)
    if held is None:
        chosen._fit(pool)
    else:
        samples = len(target)
        chosen._train(chosen._sliced(pool, samples), samples, targets(held), np.zeros(1))
    return chosen


def test_outputs_start_as_the_bias_and_seeds_differ():
    bias = np.array([0.5, 2.0])
    first, second = (Network(4, 8, bias, seed) for seed in (0, 1))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(first.forward(x), np.broadcast_to(bias, (3, 2)))
    assert (first.weights["hidden_weight"] != second.weights["hidden_weight"]).all()
    assert abs(first.weights["hidden_weight"]).max() <= 0.5


def test_best_step_on_the_held_out_samples_is_kept():
    """The training part pulls the output to 1, the held-out part wants 0.25: it is passed by."""
    target, held = np.ones(1800), np.full(200, 0.25)
    kept = trained(squares(learning_rate=2e-3, steps=400, patience=1000), target, held)
    last = trained(squares(steps=400, holdout=0), target)
    assert 0 < kept.steps_ < 400
    assert kept.held_out_loss_ < 0.03
    assert last.steps_ == 400
    assert last.held_out_loss_ is None
    assert abs(last._outputs(targets(target))[0, 0] - 1) < 0.1


def test_start_is_kept_where_training_only_harms():
    fitted = trained(squares(), np.ones(900), -np.ones(100))
    assert fitted.steps_ == 0
    assert fitted.held_out_loss_ == 1.0
    assert not fitted.output_weight_.any()


def test_a_tenth_is_held_out_if_that_is_a_hundred():
    few, many = (trained(squares(), np.ones(count)) for count in (900, 1000))
    assert few.held_out_loss_ is None
    assert many.held_out_loss_ < 1


def test_every_sample_is_seen_once_an_epoch():
    seen = np.zeros(1030, int)
    short = squares(steps=1, epochs=3, batch_size=100, holdout=0)

    def loss(rows, outputs):
        seen[rows] += len(outputs) > 0
        return np.zeros(len(outputs)), np.zeros_like(outputs)

    short._loss = lambda pool: loss
    trained(short, np.ones(1030))
    assert (seen == 3).all()
