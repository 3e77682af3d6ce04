"""CLAP, LP++ and RLA against torch's own gradients and optimisers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from clipsyn.methods.heads import HEADS, trained
from clipsyn.methods.heads.trained import CLAP, LPPlusPlus, ResidualAdapter
from clipsyn.methods.pool import Pool
from tests.methods.heads.clusters import clusters

SCALE, EPOCHS = 12.0, 30


@pytest.fixture(autouse=True)
def fewer_epochs(monkeypatch):
    monkeypatch.setattr(trained, "_EPOCHS", EPOCHS)


def pool(sizes=(4, 4, 4), seed=0) -> Pool:
    images = clusters(sizes, seed=seed)
    text = np.random.default_rng(5).normal(size=(len(sizes), 9))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return replace(images, class_embeddings={"0": text}, logit_scales={"0": SCALE})


def parts(of: Pool):
    text = torch.tensor(of.class_embeddings["0"], dtype=torch.float32)
    return torch.tensor(of.embeddings["0"]), torch.tensor(of.labels).long(), text


def cosine_schedule(optimiser, warm_up=0):
    def factor(epoch):
        if epoch < warm_up:
            return 1e-5 / 0.1
        return 0.5 * (1 + np.cos(np.pi * (epoch - warm_up) / (EPOCHS - warm_up)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def clap_of_torch(support: Pool, new: Pool):
    x, y, text = parts(support)
    weights = text.clone().requires_grad_()
    probability = (SCALE * x @ text.T).softmax(dim=1)[torch.arange(len(y)), y]
    hold = torch.stack([probability[y == c].mean() for c in range(len(text))])
    optimiser = torch.optim.SGD([weights], 0.1, momentum=0.9)
    schedule = cosine_schedule(optimiser, warm_up=1)
    for _ in range(EPOCHS):
        loss = cross_entropy(SCALE * x @ normalize(weights).T, y)
        loss = loss + (hold * (weights - text).square().sum(dim=1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return SCALE * parts(new)[0] @ normalize(weights).T


def lp_of_torch(support: Pool, new: Pool):
    x, y, text = parts(support)
    cosines = x @ text.T
    weights = torch.stack([x[y == c].sum(dim=0) for c in range(len(text))]).requires_grad_()
    bias = torch.zeros(len(text), requires_grad=True)
    own = torch.stack([cosines[y == c, c].mean() for c in range(len(text))]).mean()
    alpha = torch.full((len(text),), 250 * float(own), requires_grad=True)
    rate = 4 * len(x) / float(torch.linalg.eigvalsh(x.T @ x).max())
    linear = torch.optim.SGD([weights, bias], rate, momentum=0.9)
    step = len(x) / (4 * float(cosines.square().sum(dim=0).max()))
    for epoch in range(EPOCHS):
        linear.zero_grad()  # alpha's gradient adds up
        cross_entropy(x @ weights.T + bias + alpha * cosines, y).backward()
        linear.step()
        if (epoch + 1) % 10 == 0:
            alpha.data -= step * alpha.grad
    features = parts(new)[0]
    return features @ weights.T + bias + alpha * (features @ text.T)


def rla_of_torch(support: Pool, new: Pool):
    x, y, text = parts(support)
    adapter = torch.eye(x.shape[1]).requires_grad_()
    optimiser = torch.optim.Adam([adapter], 1e-3, eps=1e-4)
    schedule = cosine_schedule(optimiser)
    for _ in range(EPOCHS):
        loss = cross_entropy(SCALE * normalize(x @ adapter) @ text.T, y)
        loss = loss + (adapter - torch.eye(x.shape[1])).square().sum() / len(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return SCALE * normalize(parts(new)[0] @ adapter) @ text.T


REFERENCES = {CLAP: clap_of_torch, LPPlusPlus: lp_of_torch, ResidualAdapter: rla_of_torch}
each = pytest.mark.parametrize("head", REFERENCES)


@each
def test_it_is_what_torch_makes_of_the_formula(head):
    support, new = pool(), pool(seed=1)
    expected = REFERENCES[head](support, new).detach().numpy()
    found = head().fit(support).transform(new).logits[:, 0]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    start = SCALE * parts(new)[0] @ parts(new)[2].T
    assert np.abs(found - start.numpy()).max() > 0.05  # something was learned


@each
def test_more_images_of_a_class_do_not_prefer_it(head):
    once = pool((3, 3, 3))
    twice = once.take(np.concatenate([np.arange(9), np.flatnonzero(once.labels == 1)]))
    new = pool(seed=1)
    found, expected = (head().fit(of).transform(new).logits for of in (twice, once))
    if head is CLAP:  # its batches and lambda are the same; the two others' constants have the size
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert np.abs(found - expected).max() < 0.3 * np.ptp(expected)


def test_the_order_of_images_does_not_matter_where_rounding_is_amplified(monkeypatch):
    """All embeddings are alike, so the adapter shrinks them, and gradients are divided by that."""
    monkeypatch.setattr(trained, "_EPOCHS", 300)
    rng = np.random.default_rng(0)
    images, text = (
        normalize(torch.tensor(5 * rng.normal(size=160) + rng.normal(size=(9, 160)))).numpy()
        for _ in range(2)
    )
    about = {"class_embeddings": {"0": text}, "logit_scales": {"0": SCALE}}
    support = replace(Pool.of((images @ text.T)[:, None], np.arange(9), [images]), **about)
    one, other = (
        ResidualAdapter().fit(support.take(rows)).transform(support).logits
        for rows in (slice(None), slice(None, None, -1))
    )
    np.testing.assert_allclose(one, other, rtol=0, atol=3e-6)


def test_they_are_registered():
    assert {HEADS.load(name) for name in ("clap", "lp++", "rla")} == {*REFERENCES}
