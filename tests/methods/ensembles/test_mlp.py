"""The network and its training, on losses whose minimum is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from clipsyn.methods.ensembles.nlc import Network, PerceptronRouter
from clipsyn.methods.pool import Pool


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


def router(**changes) -> Squares:
    few = {"hidden": 6, "learning_rate": 1e-2, "batch_size": 256, "steps": 60, "epochs": 1}
    return Squares(**few | {"penalty": 0.0} | changes)


def pool_of(target) -> Pool:
    count = len(target)
    return Pool.of(np.reshape(target, (count, 1, 1)), np.zeros(count, int), [np.ones((count, 1))])


def trained(chosen, target, held=None):
    """Fitted on samples of these targets, the held-out ones among them."""
    pool = pool_of(target)
    if held is None:
        chosen._fit(pool)
    else:
        samples = len(target)
        chosen._train(chosen._sliced(pool, samples), samples, pool_of(held), np.zeros(1))
    return chosen


def test_gradient_is_that_of_autograd():
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(2, 9, 7)).astype(np.float32)
    network = Network(7, 5, rng.normal(size=7), 3)
    network.values += rng.normal(size=network.values.shape)  # away from the zero layer
    slope = 2 * (network.forward(x) - target)
    network.backward(x, slope)
    weights = {
        name: torch.tensor(value, requires_grad=True) for name, value in network.weights.items()
    }
    active = torch.relu(torch.tensor(x) @ weights["hidden_weight"] + weights["hidden_bias"])
    out = active @ weights["output_weight"] + weights["output_bias"]
    np.testing.assert_allclose(network.forward(x), out.detach(), rtol=1e-5, atol=1e-5)
    ((out - torch.tensor(target)) ** 2).sum().backward()
    for name, gradient in network.gradients.items():
        np.testing.assert_allclose(gradient, weights[name].grad, rtol=1e-4, atol=1e-4)


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
    kept = trained(router(learning_rate=2e-3, steps=400, patience=1000), target, held)
    last = trained(router(steps=400, holdout=0), target)
    assert 0 < kept.steps_ < 400
    assert kept.held_out_loss_ < 0.03
    assert last.steps_ == 400
    assert last.held_out_loss_ is None
    assert abs(last._outputs(pool_of(target))[0, 0] - 1) < 0.1


def test_start_is_kept_where_training_only_harms():
    fitted = trained(router(), np.ones(900), -np.ones(100))
    assert fitted.steps_ == 0
    assert fitted.held_out_loss_ == 1.0
    assert not fitted.output_weight_.any()


def test_a_tenth_is_held_out_if_that_is_a_hundred():
    few, many = (trained(router(), np.ones(count)) for count in (900, 1000))
    assert few.held_out_loss_ is None
    assert many.held_out_loss_ < 1


def test_every_sample_is_seen_once_an_epoch():
    seen = np.zeros(1030, int)
    short = router(steps=1, epochs=3, batch_size=100, holdout=0)

    def loss(rows, outputs):
        seen[rows] += len(outputs) > 0
        return np.zeros(len(outputs)), np.zeros_like(outputs)

    short._loss = lambda pool: loss
    trained(short, np.ones(1030))
    assert (seen == 3).all()


@pytest.mark.parametrize(
    ("samples", "size", "count"), [(1, 1, 1), (90, 30, 3), (1000, 125, 8), (50_000, 256, 196)]
)
def test_small_sets_are_cut_into_about_eight_batches(samples, size, count):
    found = router(holdout=0)
    assert found._batch_count(samples) == count
    assert -(-samples // count) == size
