"""The fusion of caches against its source's formula in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsyn.methods.ensembles.caches import CacheFusion
from clipsyn.methods.heads.cache import ALPHAS, BETAS
from clipsyn.methods.pool import Pool


def pool(sizes=(4, 4, 4), seed=0, backbones=3):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    truth = np.eye(len(sizes))[labels]
    embeddings = []
    for width in range(5, 5 + backbones):
        values = rng.normal(size=(len(labels), width))
        values[:, : len(sizes)] += 1.5 * truth
        embeddings.append(values / np.linalg.norm(values, axis=1, keepdims=True))
    logits = rng.normal(size=(len(labels), backbones, len(sizes))) + truth[:, None]
    return Pool.of(logits, labels, embeddings)


def standardised(values):
    return (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True)


def fused(support, new, alpha, beta, classes=3):
    text = torch.tensor(new.logits).double().mean(1)
    values = torch.nn.functional.one_hot(torch.tensor(support.labels).long(), classes).double()
    values *= len(support) / values.sum(0) / (values.sum(0) > 0).sum()
    caches = []
    for name in support.backbones:
        cosines = torch.tensor(new.embeddings[name] @ support.embeddings[name].T).double()
        caches.append(standardised((-beta * (1 - cosines)).exp() @ values))
    likeness = torch.stack([(cache * standardised(text)).sum(1) for cache in caches])
    weights = likeness.softmax(0)[..., None]
    return text + alpha * (weights * torch.stack(caches)).sum(0)


@pytest.mark.parametrize(("sizes", "alpha", "beta"), [((4, 4, 4), 2.0, 3.0), ((5, 2, 3), 0.5, 9.0)])
def test_it_is_the_formula_of_the_source(sizes, alpha, beta):
    support, new = pool(sizes), pool(seed=1)
    found = CacheFusion(alpha=alpha, beta=beta).fit(support).combine(new)
    np.testing.assert_allclose(found, fused(support, new, alpha, beta), rtol=1e-4, atol=1e-5)


def test_alpha_and_beta_have_the_least_loss_of_fits_without_each_image():
    support = pool()

    def loss(alpha, beta):
        losses = []
        for row in range(12):
            rest = support.take(np.delete(np.arange(12), row))
            one = support.take(np.array([row]))
            scores = fused(rest, one, alpha, beta)
            losses.append(-scores.log_softmax(1)[0, one.labels[0]])
        return float(np.mean(losses))

    fitted = CacheFusion().fit(support)
    chosen = loss(fitted.alpha_, fitted.beta_)
    some = [(alpha, beta) for alpha in ALPHAS[:8] for beta in BETAS[3:12:3]]
    assert chosen <= min(loss(*pair) for pair in some) + 1e-4


def test_where_nothing_can_be_left_out_the_settings_are_fixed():
    fitted = CacheFusion().fit(pool((1, 1, 1)))
    assert (fitted.alpha_, fitted.beta_) == (1, 5.5)
