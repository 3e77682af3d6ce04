"""`clipsyn.methods.numerics.optimise`: against scipy, torch and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsyn.methods.numerics import optimise
from clipsyn.methods.numerics.optimise import Adam, adamw, minimise, newton


def bowl(parameters):
    """(x - 1)^4 + (x - 1)^2 in every direction: convex, with its minimum at 1."""
    away = parameters - 1
    return float((away**4 + away**2).sum()), 4 * away**3 + 2 * away


def test_the_minimum_is_found_within_bounds():
    np.testing.assert_allclose(minimise(bowl, np.array([5.0, -3.0])), 1, atol=1e-3)
    np.testing.assert_allclose(minimise(bowl, np.zeros(3), bounds=(-1.0, 0.5)), 0.5)
    assert (minimise(bowl, np.full(2, 4.0), iterations=1) > 1.5).all()


def test_newtons_method_halves_steps_that_go_too_far():
    """log cosh is flat far away: whole steps from 3 would leave for good."""

    def objective(x):
        return (
            float(np.log(np.cosh(x)).sum()),
            np.tanh(x),
            np.diag(1 / np.cosh(x) ** 2),
        )

    np.testing.assert_allclose(newton(objective, np.array([3.0, -2.0])), 0, atol=1e-3)


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


@pytest.mark.parametrize("block", [16_384, 4])
def test_adamw_with_a_cosine_schedule_is_torchs(monkeypatch, block):
    monkeypatch.setattr(optimise, "_ADAMW_BLOCK", block)
    rng = np.random.default_rng(0)
    start, target = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    batches = [rng.permutation(5)[:2] for _ in range(30)]

    def slope(parameters, rows):
        out = np.zeros_like(parameters)
        out[rows] = parameters[rows] - target[rows]
        return out

    found = adamw(start, slope, batches, 0.05)
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimiser = torch.optim.AdamW([parameter], lr=0.05, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(batches))
    for rows in batches:
        parameter.grad = torch.tensor(slope(parameter.detach().numpy(), rows))
        optimiser.step()
        schedule.step()
    np.testing.assert_allclose(found, parameter.detach().numpy(), atol=1e-12)
