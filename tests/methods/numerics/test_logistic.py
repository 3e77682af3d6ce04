from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from clipsyn.methods.numerics.logistic import fit_logistic
from clipsyn.methods.numerics.wide import fit_probe


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
def test_the_solution_has_no_gradient(penalty):
    features, labels, base, weights = problem()
    data = {"features": features, "labels": labels, "base": base, "weights": weights}
    found = fit_logistic(features, labels, base, penalty, sample_weights=weights, tolerance=1e-15)
    coef = torch.tensor(found.astype(float), requires_grad=True)
    loss(coef, 0, **data, penalty=penalty).backward()
    assert coef.grad.abs().max() / weights.sum() < 1e-4


def test_the_usual_tolerance_is_close_in_single_precision():
    features, labels, base, weights = problem(200, 30, 8)
    data = {"features": features, "labels": labels, "base": base, "weights": weights}
    exact = fit_logistic(features, labels, base, 0.1, sample_weights=weights, tolerance=1e-15)
    single = features.astype(np.float32), labels, base.astype(np.float32)
    usual = fit_logistic(*single, 0.1, sample_weights=weights)
    lowest, found = (
        float(loss(torch.tensor(part.astype(float)), 0, **data, penalty=0.1)) / weights.sum()
        for part in (exact, usual)
    )
    assert lowest - 1e-9 <= found < lowest + 1e-4


def test_rows_of_the_correction_sum_to_zero():
    features, labels, base, _ = problem()
    found = fit_logistic(features, labels, base, 0.5, tolerance=1e-12)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-4)


def test_equal_features_leave_the_class_shares():
    features = np.ones((6, 3), np.float32)
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = fit_probe(features, labels, 3, 1.0, tolerance=1e-12)
    assert not found.coef.any()
    shares = np.exp(found.intercept) / np.exp(found.intercept).sum()
    np.testing.assert_allclose(shares, [1 / 2, 1 / 3, 1 / 6], atol=1e-4)


@pytest.mark.parametrize("precision", ["f4", "f8"])
@pytest.mark.parametrize("penalty", [1.0, 0.1, 0.001])
def test_a_probe_is_scikit_learns_logistic_regression(penalty, precision):
    """From whatever it starts, features without a mean of zero, in single precision too."""
    features, labels, _, weights = problem()
    theirs = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20_000)
    theirs.fit(features, labels, sample_weight=weights)
    start = None
    for tolerance in (1e-3, 1e-7):
        start = fit_probe(
            features.astype(precision),
            labels,
            4,
            penalty,
            tolerance=tolerance,
            sample_weights=weights,
            start=start,
        )
    expected = theirs.predict_log_proba(features)
    scores = features @ start.coef.T + start.intercept
    found = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=2e-2, rtol=5e-3)
