from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from clipsyn.ensembles.mlp import Adam, Network, Recipe, train
from clipsyn.errors import UsageError

RECIPE = {
    "hidden": 6,
    "learning_rate": 1e-2,
    "weight_decay": 0.01,
    "batch_size": 256,
    "steps": 60,
    "epochs": 1,
    "patience": 200,
    "holdout": 0.1,
}


def recipe(**changes) -> Recipe:
    return Recipe(**{**RECIPE, **changes})


def squares(target):
    """Loss (t - target)^2 summed over outputs, as `train` wants it."""

    def loss(rows, outputs):
        error = outputs - target[rows, None]
        return (error**2).sum(axis=2), 2 * error

    return loss


def test_gradient_is_that_of_autograd_for_every_seed():
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(9, 7)), rng.normal(size=(9, 3))
    network = Network(7, 5, np.array([0.3, -0.2, 0.1]), [3, 4], np.float64)
    network.values += rng.normal(size=network.values.shape)  # away from the zero layer
    _, slope = squares(target)(slice(None), network.forward(x))
    network.backward(x, slope)
    for number in range(2):
        weights = {
            name: torch.tensor(value, requires_grad=True)
            for name, value in network.weights(number).items()
        }
        active = torch.relu(torch.tensor(x) @ weights["hidden_weight"] + weights["hidden_bias"])
        out = active @ weights["output_weight"] + weights["output_bias"]
        np.testing.assert_allclose(network.forward(x)[:, number], out.detach(), rtol=1e-12)
        ((out - torch.tensor(target)) ** 2).sum().backward()
        for name, gradient in network.gradients(number).items():
            np.testing.assert_allclose(gradient, weights[name].grad, rtol=1e-9, atol=1e-12)


def test_outputs_start_as_the_bias_and_seeds_differ():
    bias = np.array([0.5, 2.0])
    network = Network(4, 8, bias, [0, 1], np.float32)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(network.forward(x), np.broadcast_to(bias, (3, 2, 2)))
    first, second = (network.weights(number)["hidden_weight"] for number in range(2))
    assert (first != second).all()
    assert abs(first).max() <= 0.5


@pytest.mark.parametrize("size", [7, 150_000])  # in one block, and in three
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_adam_steps_as_torch(size, decay):
    rng = np.random.default_rng(1)
    start = rng.normal(size=size)
    target, values = rng.normal(size=size), start.copy()
    peer = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.Adam([peer], lr=2e-3, weight_decay=decay)
    adam = Adam(size, 2e-3, decay, np.float64)
    for _ in range(50):
        optimiser.zero_grad()
        ((peer - torch.tensor(target)) ** 2).sum().backward()
        optimiser.step()
        adam.step(values, 2 * (values - target))
    np.testing.assert_allclose(values, peer.detach(), rtol=1e-9, atol=1e-12)
    assert abs(values - start).max() > 0.05


def test_best_step_on_the_held_out_samples_is_kept():
    """The training part pulls the output to 1, the held-out part wants 0.25: it is passed by."""
    x = np.ones((2000, 1))
    target = np.where(np.arange(2000) < 1800, 1.0, 0.25)[:, None]
    settings = recipe(learning_rate=2e-3, steps=400, patience=1000)
    [kept] = train(x, squares(target), np.zeros(1), settings, [0])
    settings = recipe(steps=400, holdout=0)
    [last] = train(x[:1800], squares(target[:1800]), np.zeros(1), settings, [0])
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
    [trained] = train(np.ones((1000, 2)), squares(target), np.zeros(1), recipe(), [0])
    assert trained.steps == 0
    assert trained.loss == 1.0
    assert not trained.weights["output_weight"].any()


def test_patience_ends_the_training():
    calls = []

    def loss(rows, outputs):
        calls.append(rows)
        return np.ones(outputs.shape[:2]), np.zeros_like(outputs)

    train(np.ones((1000, 2)), loss, np.zeros(1), recipe(steps=5000, patience=50, holdout=0.1), [0])
    assert 50 <= len(calls) < 100


def test_every_sample_is_seen_once_an_epoch_and_held_out_ones_never():
    seen = np.zeros(1030, int)

    def loss(rows, outputs):
        seen[rows] += 1
        return np.zeros(outputs.shape[:2]), np.zeros_like(outputs)

    settings = recipe(steps=1, epochs=3, batch_size=100, holdout=0)
    train(np.ones((1030, 2)), loss, np.zeros(1), settings, [0])
    assert (seen == 3).all()


def test_seeds_together_are_seeds_alone():
    rng = np.random.default_rng(2)
    x, target = rng.normal(size=(1200, 5)), rng.normal(size=(1200, 2))
    settings = recipe(patience=50, steps=500)
    together = train(x, squares(target), np.zeros(2), settings, [5, 0, 9])
    for seed, one in zip([5, 0, 9], together, strict=True):
        [alone] = train(x, squares(target), np.zeros(2), settings, [seed])
        assert alone.steps == one.steps
        for name in alone.weights:
            np.testing.assert_allclose(one.weights[name], alone.weights[name], atol=1e-9)


@pytest.mark.parametrize(
    ("samples", "size", "count"), [(1, 1, 1), (90, 30, 3), (1000, 125, 8), (50_000, 256, 196)]
)
def test_small_sets_are_cut_into_about_eight_batches(samples, size, count):
    batches = recipe().batches(samples)
    lengths = [batch.stop - batch.start for batch in batches]
    assert (max(lengths), len(batches), sum(lengths)) == (size, count, samples)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", 0),
        ("batch_size", 0),
        ("steps", 0),
        ("epochs", -1),
        ("patience", -1),
        ("holdout", 0.9999),  # nothing would be left to train on
        ("learning_rate", 1e30),
        ("learning_rate", -2e-4),
        ("weight_decay", np.inf),
        ("weight_decay", np.nan),
    ],
)
def test_recipes_that_cannot_be_followed_are_refused(name, value):
    with pytest.raises(UsageError, match=rf"^{name} is .*, not {re.escape(str(value))}$"):
        recipe(**{name: value})
