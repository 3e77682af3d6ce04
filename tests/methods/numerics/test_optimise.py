"""`clipsyn.methods.numerics.optimise`: against scipy, torch and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from clipsyn.methods.numerics.optimise import (
    Adam,
    Linear,
    fit_logistic,
    fit_probe,
    minimise,
    principal_axes,
)


def bowl(parameters):
    """(x - 1)^4 + (x - 1)^2 in every direction: convex, with its minimum at 1."""
    away = parameters - 1
    return float((away**4 + away**2).sum()), 4 * away**3 + 2 * away


def test_the_minimum_is_found_within_bounds():
    np.testing.assert_allclose(minimise(bowl, np.array([5.0, -3.0])), 1, atol=1e-3)
    np.testing.assert_allclose(minimise(bowl, np.zeros(3), bounds=(-1.0, 0.5)), 0.5)


@pytest.mark.parametrize("size", [7, 150_000])  # in one block, and in three
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_steps_as_torch(size, decay, decoupled):
    rng = np.random.default_rng(1)
    start = rng.normal(size=size)
    target, values = rng.normal(size=size), start.copy()
    peer = torch.tensor(start, requires_grad=True)
    make = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimiser = make([peer], lr=2e-3, weight_decay=decay, eps=1e-4)
    adam = Adam(size, decay, np.float64, decoupled=decoupled, epsilon=1e-4)
    for _ in range(50):
        optimiser.zero_grad()
        ((peer - torch.tensor(target)) ** 2).sum().backward()
        optimiser.step()
        adam.step(values, 2 * (values - target), 2e-3)
    np.testing.assert_allclose(values, peer.detach(), rtol=1e-9, atol=1e-12)
    assert abs(values - start).max() > 0.05


def problem(n=120, width=30, classes=5, seed=0):
    """Centred inputs whose variances fall as those of log-probabilities do, mean |x|^2 1."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    inputs = rng.normal(size=(n, width)) + 0.7 * rng.normal(size=(classes, width))[labels]
    inputs = inputs / np.arange(1, width + 1)
    inputs -= inputs.mean(axis=0)
    return inputs / np.sqrt(np.square(inputs).sum(axis=1).mean()), labels.astype(np.int32)


def objective(found, inputs, labels, penalty):
    """The formula in torch, in float64."""
    coef = torch.tensor(found.coef.astype(float), requires_grad=True)
    intercept = torch.tensor(found.intercept.astype(float), requires_grad=True)
    scores = torch.tensor(inputs.astype(float)) @ coef.T + intercept
    value = torch.nn.functional.cross_entropy(scores, torch.tensor(labels).long())
    value = value + penalty / 2 / len(labels) * (coef**2).sum()
    value.backward()
    return value.item(), coef.grad.abs().max().item(), intercept.grad.abs().max().item()


def scikit_learns(inputs, labels, penalty):
    model = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20_000).fit(inputs, labels)
    return objective(Linear(model.coef_, model.intercept_), inputs, labels, penalty)[0]


@pytest.mark.parametrize("numbers", [("f8", 1e-9, 1e-7), ("f4", 1e-5, 1e-4)])
@pytest.mark.parametrize("penalty", [1.0, 0.1, 0.01])
@pytest.mark.parametrize(
    "shape",
    [(120, 30, 5), (40, 90, 8), (150, 300, 10)],  # wide, and wider than there are axes
)
def test_the_objective_is_as_low_as_scikit_learns(shape, penalty, numbers):
    precision, tolerance, gap = numbers
    inputs, labels = problem(*shape)
    single = inputs.astype(precision)
    found = fit_logistic(single, labels, penalty, tolerance)
    lowest = scikit_learns(inputs, labels, penalty)
    assert objective(found, inputs, labels, penalty)[0] == pytest.approx(lowest, abs=gap)


def test_neither_the_start_nor_the_axes_change_the_solution():
    inputs, labels = problem()
    others = principal_axes(problem(seed=1)[0][:, ::-1])
    far = fit_logistic(inputs, labels, 0.001, 1e-6)
    expected = fit_logistic(inputs, labels, 0.1, 1e-12)
    for start, theirs in ((far, None), (None, others)):
        found = fit_logistic(inputs, labels, 0.1, 1e-12, start=start, axes=theirs)
        np.testing.assert_allclose(found.coef, expected.coef, atol=1e-3)
        np.testing.assert_allclose(found.intercept, expected.intercept, atol=1e-3)


def test_a_sharp_problem_ends_where_scikit_learn_ends():
    """Whole Newton steps from equal probabilities would go too far here."""
    inputs, labels = problem(60, 40, 6)
    found = fit_logistic(100 * inputs, labels, 1.0, 1e-10)
    lowest = scikit_learns(100 * inputs, labels, 1.0)
    assert objective(found, 100 * inputs, labels, 1.0)[0] == pytest.approx(lowest, abs=1e-6)


def test_a_weight_of_two_counts_as_two_samples():
    inputs, labels = problem()
    twice = np.repeat(np.arange(len(labels)), np.arange(len(labels)) % 2 + 1)
    weights = np.bincount(twice).astype(float)
    found = fit_logistic(inputs, labels, 0.1, 1e-12, weights=weights)
    expected = fit_logistic(inputs[twice], labels[twice], 0.1, 1e-12)
    np.testing.assert_allclose(found.coef, expected.coef, atol=1e-4)
    np.testing.assert_allclose(found.intercept, expected.intercept, atol=1e-4)


def features_of(n: int = 60, width: int = 9, classes: int = 4, seed: int = 0):
    """Not centred; scores to start from, and weights."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width)) * np.linspace(0.05, 1, width) + 3
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    return features, labels, rng.normal(size=(n, classes)), rng.uniform(0.2, 2, n)


@pytest.mark.parametrize("precision", ["f4", "f8"])
@pytest.mark.parametrize("penalty", [10.0, 1.0, 0.01])
def test_around_given_scores_the_solution_has_no_gradient(penalty, precision):
    features, labels, base, weights = features_of()
    inputs, about = features.astype(precision), {"weights": weights, "base": base}
    found = fit_logistic(inputs, labels, penalty, 1e-9, **about)
    coef = torch.tensor(found.coef.astype(float), requires_grad=True)
    scores = torch.tensor(base) + torch.tensor(features) @ coef.T
    each = torch.nn.functional.cross_entropy(scores, torch.tensor(labels), reduction="none")
    ((torch.tensor(weights) * each).sum() + penalty / 2 * (coef**2).sum()).backward()
    assert coef.grad.abs().max() / weights.sum() < (1e-3 if precision == "f4" else 1e-4)
    np.testing.assert_allclose(found.coef.sum(axis=0), 0, atol=1e-3)
    assert not found.intercept.any()


@pytest.mark.parametrize("precision", ["f4", "f8"])
@pytest.mark.parametrize("penalty", [1.0, 0.1, 0.001])
def test_a_probe_is_scikit_learns_logistic_regression(penalty, precision):
    """From whatever it starts, features without a mean of zero, in single precision too."""
    features, labels, _, weights = features_of()
    theirs = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20_000)
    theirs.fit(features, labels, sample_weight=weights)
    start = None
    for tolerance in (1e-3, 1e-7):
        inputs, about = features.astype(precision), {"start": start, "weights": weights}
        start = fit_probe(inputs, labels, penalty, tolerance, **about)
    expected = theirs.predict_log_proba(features)
    scores = features @ start.coef.T + start.intercept
    found = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=2e-2, rtol=5e-3)
