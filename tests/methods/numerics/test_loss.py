from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsyn.methods.numerics.logits import cross_entropy, weighted_cross_entropy


def sample(n=23, backbones=4, classes=7, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, backbones, classes)) * scale
    return logits, rng.integers(0, classes, n).astype(np.int32), rng


def by_autograd(logits, weights, labels):
    """Losses (sample,), and the gradient of their sum to `weights`."""
    w = torch.tensor(weights, requires_grad=True)
    z = torch.einsum("nb,nbc->nc", w.expand(logits.shape[:2]), torch.tensor(logits))
    target = torch.tensor(labels).long()
    losses = torch.nn.functional.cross_entropy(z, target, reduction="none")
    losses.sum().backward()
    return losses.detach().numpy(), w.grad.numpy()


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_cross_entropy_is_that_of_torch(scale):
    logits, labels, _ = sample(scale=scale)
    scores = torch.tensor(logits[:, 0], requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        scores, torch.tensor(labels).long(), reduction="none"
    )
    expected.sum().backward()
    losses, gradient = cross_entropy(logits[:, 0].copy(), labels)
    np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, scores.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(4,), (23, 4)])
def test_gradients_to_weights_are_those_of_autograd(shape):
    logits, labels, rng = sample()
    weights = rng.normal(size=shape)
    losses, gradient = weighted_cross_entropy(logits, weights, labels)
    expected, slopes = by_autograd(logits, weights, labels)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    summed = gradient.sum(axis=0) if len(shape) == 1 else gradient
    np.testing.assert_allclose(summed, slopes, rtol=1e-5, atol=1e-12)


def test_float32_stays_float32_and_close():
    logits, labels, rng = sample(scale=20.0)
    weights = rng.normal(size=(23, 4))
    losses, gradient = weighted_cross_entropy(logits.astype(np.float32), weights, labels)
    assert losses.dtype == gradient.dtype == np.float32
    expected, slopes = by_autograd(logits, weights, labels)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(4,), (23, 4)])
def test_blocks_change_nothing(shape, monkeypatch):
    logits, labels, rng = sample()
    weights = rng.normal(size=shape)
    whole = weighted_cross_entropy(logits, weights, labels)
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", 5 * 4 * 7)  # five rows
    for one, other in zip(weighted_cross_entropy(logits, weights, labels), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_huge_logits_have_finite_losses():
    logits = np.array([[[0.0, 1e4, -1e4]], [[0.0, 1e4, -1e4]]], np.float32)
    losses, gradient = weighted_cross_entropy(logits, np.ones(1), np.array([1, 2], np.int32))
    np.testing.assert_allclose(losses, [0, 2e4])
    np.testing.assert_allclose(gradient[:, 0], [0, 2e4], atol=1e-9)


def test_gradients_are_never_subnormal():
    logits = np.array([[0, -95, -200], [0, 300, 0]], np.float32)
    losses, gradient = cross_entropy(logits, np.array([0, 2]))
    np.testing.assert_array_equal(losses, [0, 300])
    assert np.abs(gradient[gradient != 0]).min() > 1e-20
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0, 1, -1]], atol=1e-16)
