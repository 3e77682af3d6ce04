from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from clipsyn.methods.numerics import logistic
from clipsyn.methods.numerics.logistic import fit_logistic, fit_probe


def problem(n: int = 60, width: int = 9, classes: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width)) * np.linspace(0.05, 1, width) + 3
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    return features, labels, rng.normal(size=(n, classes)), rng.uniform(0.2, 2, n)


def loss(coef, intercept, *, features, labels, base, weights, penalty):
    """The formula in torch, in float64."""
    scores = torch.tensor(base) + torch.tensor(features) @ coef.T + intercept
    each = torch.nn.functional.cross_entropy(scores, torch.tensor(labels), reduction="none")
    return (torch.tensor(weights) * each).sum() + penalty / 2 * (coef**2).sum()


@pytest.mark.parametrize("penalty", [10.0, 1.0, 0.01])
@pytest.mark.parametrize("intercept", [True, False])
def test_the_solution_has_no_gradient(penalty, intercept):
    features, labels, base, weights = problem()
    data = {"features": features, "labels": labels, "base": base, "weights": weights}
    found = fit_logistic(
        features,
        labels,
        base,
        penalty,
        sample_weights=weights,
        intercept=intercept,
        tolerance=1e-15,
    )
    coef = torch.tensor(found.coef.astype(float), requires_grad=True)
    bias = torch.tensor(found.intercept.astype(float), requires_grad=True)
    value = loss(coef, bias, **data, penalty=penalty)
    value.backward()
    scale = weights.sum()
    assert coef.grad.abs().max() / scale < 1e-4
    if intercept:
        assert bias.grad.abs().max() / scale < 1e-4
    else:
        assert not found.intercept.any()


@pytest.mark.parametrize("penalty", [1.0, 0.1, 0.001])
def test_it_is_scikit_learns_logistic_regression(penalty):
    features, labels, _, weights = problem()
    base = np.zeros((len(labels), 4))
    ours = fit_logistic(
        features, labels, base, penalty, sample_weights=weights, intercept=True, tolerance=1e-14
    )
    theirs = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20_000)
    theirs.fit(features, labels, sample_weight=weights)
    np.testing.assert_allclose(ours.coef, theirs.coef_, atol=2e-3 * np.abs(theirs.coef_).max())
    expected = theirs.predict_log_proba(features)
    scores = features @ ours.coef.T + ours.intercept
    found = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=2e-2, rtol=1e-3)


def test_the_usual_tolerance_is_close_in_single_precision():
    features, labels, base, weights = problem(200, 30, 8)
    data = {"features": features, "labels": labels, "base": base, "weights": weights}
    exact = fit_logistic(features, labels, base, 0.1, sample_weights=weights, tolerance=1e-15)
    single = features.astype(np.float32), labels, base.astype(np.float32)
    usual = fit_logistic(*single, 0.1, sample_weights=weights)
    lowest, found = (
        float(loss(torch.tensor(part.coef.astype(float)), 0, **data, penalty=0.1)) / weights.sum()
        for part in (exact, usual)
    )
    assert lowest - 1e-9 <= found < lowest + 1e-4


def test_rows_of_the_correction_sum_to_zero():
    features, labels, base, _ = problem()
    found = fit_logistic(features, labels, base, 0.5, tolerance=1e-12)
    np.testing.assert_allclose(found.coef.sum(axis=0), 0, atol=1e-4)


def test_equal_features_leave_the_class_shares():
    features = np.ones((6, 3), np.float32)
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = fit_logistic(features, labels, np.zeros((6, 3)), 1.0, intercept=True, tolerance=1e-12)
    assert not found.coef.any()
    shares = np.exp(found.intercept) / np.exp(found.intercept).sum()
    np.testing.assert_allclose(shares, [1 / 2, 1 / 3, 1 / 6], atol=1e-4)


@pytest.mark.parametrize("penalty", [1.0, 0.1, 0.001])
def test_a_large_probe_is_scikit_learns_too(monkeypatch, penalty):
    """From whatever it starts, features without a mean of zero, in single precision."""
    monkeypatch.setattr(logistic, "LARGE", 0)
    features, labels, _, weights = problem()
    theirs = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20_000)
    theirs.fit(features, labels, sample_weight=weights)
    data = {"features": features, "labels": labels, "base": np.zeros((60, 4)), "weights": weights}
    coef, intercept = torch.tensor(theirs.coef_), torch.tensor(theirs.intercept_)
    lowest = float(loss(coef, intercept, **data, penalty=penalty)) / weights.sum()
    start = None
    for tolerance in (1e-3, 1e-6):
        start = fit_probe(
            features.astype(np.float32),
            labels,
            4,
            penalty,
            tolerance=tolerance,
            sample_weights=weights,
            start=start,
        )
    coef, intercept = torch.tensor(start.coef.astype(float)), torch.tensor(start.intercept)
    found = float(loss(coef, intercept, **data, penalty=penalty)) / weights.sum()
    assert lowest - 1e-9 <= found < lowest + 1e-4
