from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsyn.methods.ensembles.weighted import SuperLearner
from clipsyn.methods.pool import Pool


def pool_of(logits, labels):
    """In the dtype of `logits`."""
    return Pool(logits, labels, tuple("abcd"[: logits.shape[1]]))


def sample(n=120, backbones=4, classes=6, seed=0):
    """Backbones of different worth: signal plus noise that grows with the index."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    noise = rng.normal(size=(n, backbones, classes)) * np.linspace(1, 3, backbones)[:, None]
    return 1.5 * np.eye(classes)[labels][:, None] + noise, labels


def plain_loss(weights, logits, labels, penalty):
    """The objective in a second way: sums over everything, in one line each."""
    scores = np.einsum("b,nbc->nc", weights, logits)
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    loss = -np.log(likelihood[np.arange(len(labels)), labels]).sum()
    return (loss + penalty / 2 * np.sum((len(weights) * weights - 1) ** 2)) / len(labels)


def by_torch(logits, labels, penalty, simplex):
    count = logits.shape[1]
    start = np.zeros(count) if simplex else np.full(count, 1 / count)
    u = torch.tensor(start, requires_grad=True)
    solver = torch.optim.LBFGS([u], max_iter=1000, line_search_fn="strong_wolfe")
    Z, y = torch.tensor(logits), torch.tensor(labels).long()

    def weights():
        return u.softmax(0) if simplex else u

    def closure():
        solver.zero_grad()
        excess = count * weights() - 1
        scores = (weights()[:, None] * Z).sum(dim=1)
        loss = torch.nn.functional.cross_entropy(scores, y, reduction="sum")
        loss = (loss + penalty / 2 * (excess**2).sum()) / len(labels)
        loss.backward()
        return loss

    solver.step(closure)
    return weights().detach().numpy()


@pytest.mark.parametrize("simplex", [False, True])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_solution_is_that_of_torch(simplex, penalty, dtype):
    logits, labels = sample()
    found = (
        SuperLearner(penalty=penalty, simplex=simplex)
        .fit(pool_of(logits.astype(dtype), labels))
        .weights_
    )
    expected = by_torch(logits, labels, penalty, simplex)
    reached, best = (plain_loss(w, logits, labels, penalty) for w in (found, expected))
    assert reached == pytest.approx(best, abs=1e-5)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_simplex_whose_best_point_is_a_corner():
    logits, labels = sample()
    logits[:, 1:] *= -1  # all but the first speak against the truth
    found = SuperLearner(penalty=0.0, simplex=True).fit(pool_of(logits, labels)).weights_
    corner = plain_loss(np.array([1.0, 0, 0, 0]), logits, labels, 0.0)
    assert plain_loss(found, logits, labels, 0.0) == pytest.approx(corner, abs=1e-4)
