from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsyn.methods.ensembles.weighted import (
    HIGHEST,
    LOWEST,
    CalibratedConfidence,
    CalibratedLogAverage,
    fit_temperatures,
    tempered_cross_entropy,
)
from clipsyn.methods.numerics.logits import softmax

TRUE = np.array([0.4, 1.0, 2.5])


def miscalibrated(n=600, classes=5, seed=0, dtype=np.float64):
    """Backbones that are right as often as they say at temperatures of about TRUE."""
    rng = np.random.default_rng(seed)
    ideal = rng.normal(size=(n, len(TRUE), classes)) * 2
    mean = softmax(ideal.mean(axis=1))
    labels = (rng.random((n, 1)) > mean.cumsum(axis=1)).sum(axis=1)
    return (ideal * TRUE[:, None]).astype(dtype), labels.astype(np.int32)


def torch_losses(logits, log_temperatures, labels):
    scaled = torch.tensor(logits) / log_temperatures.exp()[:, None]
    target = torch.tensor(labels).long()[:, None].expand(scaled.shape[:2])
    return torch.nn.functional.cross_entropy(scaled.transpose(1, 2), target, reduction="none")


def by_torch(logits, labels):
    log_temperatures = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([log_temperatures], max_iter=500, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        loss = torch_losses(logits, log_temperatures, labels).mean(dim=0).sum()
        loss.backward()
        return loss

    solver.step(closure)
    return log_temperatures.detach().exp().numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_temperatures_are_those_of_torch(dtype):
    logits, labels = miscalibrated()
    expected = by_torch(logits, labels)
    found = fit_temperatures(logits.astype(dtype), labels)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    best, reached = (
        tempered_cross_entropy(logits, values, labels)[0].mean(axis=0)
        for values in (expected, found)
    )
    np.testing.assert_allclose(reached, best, atol=1e-6)


def test_nothing_diverges():
    right = np.array([[[3.0, 0.0], [0.0, 3.0]]])  # one backbone is right, the other wrong
    low, high = fit_temperatures(right, np.array([0], np.int32))
    assert LOWEST <= low < 0.5
    assert high == pytest.approx(HIGHEST)
    assert fit_temperatures(right / 1000, np.array([0], np.int32))[0] == pytest.approx(LOWEST)
    constant = np.zeros((4, 2, 3))
    found = fit_temperatures(constant, np.array([0, 1, 2, 0], np.int32))
    assert found.tolist() == [1, 1]  # every temperature is as good: none is changed


def test_calibrated_log_average_is_the_calibrated_mean_of_the_calibrated_logits():
    """Backbones that see different things: their mean is less sure than it is right."""
    logits, labels = miscalibrated(dtype=np.float32)
    router = CalibratedLogAverage().fit(logits, labels)
    mean = (logits / router.temperatures_[:, None]).mean(axis=1)
    found = by_torch(mean[:, None].astype(float), labels)[0]
    assert router.temperature_ == pytest.approx(found, rel=0.01)  # but for a prior of one sample
    assert router.temperature_ < 0.5
    expected = mean / router.temperature_
    np.testing.assert_allclose(router.combine(logits), expected, rtol=1e-5, atol=1e-5)


def test_calibrated_confidence_takes_the_surest_backbone_after_calibration():
    logits, labels = miscalibrated(dtype=np.float32)
    router = CalibratedConfidence().fit(logits, labels)
    calibrated = logits / router.temperatures_[:, None]
    surest = softmax(calibrated).max(axis=2).argmax(axis=1)
    samples = np.arange(len(logits))
    np.testing.assert_allclose(router.combine(logits), calibrated[samples, surest], rtol=1e-5)
    weights = router.weights(logits)
    np.testing.assert_allclose(weights[samples, surest], 1 / router.temperatures_[surest], 1e-6)
    assert (np.count_nonzero(weights, axis=1) == 1).all()
    before = softmax(logits).max(axis=2).argmax(axis=1)
    assert (before != surest).any()  # calibration matters here
