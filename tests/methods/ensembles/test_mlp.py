from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsyn.methods.ensembles.mlp import Network, PerceptronRouter, batches_of, train


def settings(**changes) -> PerceptronRouter:
    few = {"hidden": 6, "learning_rate": 1e-2, "batch_size": 256, "steps": 60, "epochs": 1}
    return PerceptronRouter(**few | changes)


def squares(target):
    """Loss (t - target)^2 summed over outputs, as `train` wants it."""

    def loss(rows, outputs):
        error = outputs - target[rows]
        return (error**2).sum(axis=1), 2 * error

    return loss


def test_gradient_is_that_of_autograd():
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(9, 7)), rng.normal(size=(9, 3))
    network = Network(7, 5, np.array([0.3, -0.2, 0.1]), 3, np.float64)
    network.values += rng.normal(size=network.values.shape)  # away from the zero layer
    _, slope = squares(target)(slice(None), network.forward(x))
    network.backward(x, slope)
    weights = {
        name: torch.tensor(value, requires_grad=True) for name, value in network.weights.items()
    }
    active = torch.relu(torch.tensor(x) @ weights["hidden_weight"] + weights["hidden_bias"])
    out = active @ weights["output_weight"] + weights["output_bias"]
    np.testing.assert_allclose(network.forward(x), out.detach(), rtol=1e-12)
    ((out - torch.tensor(target)) ** 2).sum().backward()
    for name, gradient in network.gradients.items():
        np.testing.assert_allclose(gradient, weights[name].grad, rtol=1e-9, atol=1e-12)


def test_outputs_start_as_the_bias_and_seeds_differ():
    bias = np.array([0.5, 2.0])
    first, second = (Network(4, 8, bias, seed, np.float32) for seed in (0, 1))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(first.forward(x), np.broadcast_to(bias, (3, 2)))
    assert (first.weights["hidden_weight"] != second.weights["hidden_weight"]).all()
    assert abs(first.weights["hidden_weight"]).max() <= 0.5


def test_best_step_on_the_held_out_samples_is_kept():
    """The training part pulls the output to 1, the held-out part wants 0.25: it is passed by."""
    x = np.ones((2000, 1))
    target = np.where(np.arange(2000) < 1800, 1.0, 0.25)[:, None]
    patient = settings(learning_rate=2e-3, steps=400, patience=1000)
    kept = train(patient, x, squares(target), np.zeros(1))
    without = settings(steps=400, holdout=0)
    last = train(without, x[:1800], squares(target[:1800]), np.zeros(1))
    assert 0 < kept.steps < 400
    assert kept.loss < 0.03
    assert last.steps == 400
    assert np.isnan(last.loss)
    assert abs(answer(last, x)[0] - 1) < 0.1


def answer(trained, x):
    weights = trained.weights
    active = np.maximum(x @ weights["hidden_weight"] + weights["hidden_bias"], 0)
    return (active @ weights["output_weight"] + weights["output_bias"])[:, 0]


def test_start_is_kept_where_training_only_harms():
    target = np.where(np.arange(1000) < 900, 1.0, -1.0)[:, None]
    trained = train(settings(), np.ones((1000, 2)), squares(target), np.zeros(1))
    assert trained.steps == 0
    assert trained.loss == 1.0
    assert not trained.weights["output_weight"].any()


def test_every_sample_is_seen_once_an_epoch_and_held_out_ones_never():
    seen = np.zeros(1030, int)

    def loss(rows, outputs):
        seen[rows] += 1
        return np.zeros(len(outputs)), np.zeros_like(outputs)

    short = settings(steps=1, epochs=3, batch_size=100, holdout=0)
    train(short, np.ones((1030, 2)), loss, np.zeros(1))
    assert (seen == 3).all()


@pytest.mark.parametrize(
    ("samples", "size", "count"), [(1, 1, 1), (90, 30, 3), (1000, 125, 8), (50_000, 256, 196)]
)
def test_small_sets_are_cut_into_about_eight_batches(samples, size, count):
    batches = batches_of(settings(), samples)
    lengths = [batch.stop - batch.start for batch in batches]
    assert (max(lengths), len(batches), sum(lengths)) == (size, count, samples)
