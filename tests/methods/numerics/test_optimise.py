"""`clipsyn.methods.numerics.optimise`: against scipy, torch and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsyn.methods.numerics.optimise import Adam, minimise


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
