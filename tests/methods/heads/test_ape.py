"""APE against the formula of its source in torch."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from clipsyn.methods.heads.cache import APE, TipAdapter
from clipsyn.methods.numerics.samples import by_class
from tests.methods.heads.clusters import clusters

ALPHA, BETA, GAMMA = 2.0, 3.0, 0.3


def with_text(pool, width=9):
    text = np.random.default_rng(3).normal(size=(pool.n_classes, width)) + 0.5
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return replace(pool, class_embeddings={"0": text}, logit_scales={"0": 20.0})


def channels_of(text, count):
    """Two loops over the classes, as in the source."""
    pairs = [text[i] * text[j] for i, j in permutations(range(len(text)), 2)]
    return (-0.7 * sum(pairs) / len(pairs) + 0.3 * text.var(dim=0)).topk(count).indices


def on_channels(values, chosen):
    return torch.nn.functional.normalize(values[:, chosen], dim=1)


@pytest.mark.parametrize(("share", "count"), [(0.5, 5), (1.0, 9)])
def test_it_is_the_formula_of_the_source(share, count):
    support, new = with_text(clusters((4, 4, 4))), with_text(clusters((3, 3, 3), seed=1))
    text = torch.tensor(support.class_embeddings["0"])
    chosen = channels_of(text, count)
    images, keys = (
        on_channels(torch.tensor(it.embeddings["0"]).double(), chosen) for it in (new, support)
    )
    values = torch.nn.functional.one_hot(torch.tensor(support.labels).long()).double()
    shares = (keys @ on_channels(text, chosen).T).softmax(1)
    divergence = (values * torch.log2((values + 1e-12) / shares)).sum(dim=1, keepdim=True)
    sums = (-BETA * (1 - images @ keys.T)).exp() @ (values * (GAMMA * divergence).exp())
    head = APE(alpha=ALPHA, beta=BETA, share=share, gamma=GAMMA).fit(support)
    found = head.transform(new).logits[:, 0]
    np.testing.assert_allclose(found, new.logits[:, 0] + ALPHA * sums.numpy(), rtol=1e-4)
    assert sorted(chosen.tolist()) == head.channels_["0"].tolist()


def test_with_all_channels_and_equal_keys_it_is_tip_adapter():
    support, new = with_text(clusters((4, 3, 5))), with_text(clusters((2, 2, 2), seed=1))
    ape, tip = APE(share=1, gamma=0).fit(support), TipAdapter().fit(support)
    found, expected = ape.transform(new).logits, tip.transform(new).logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert len(ape.trust_["0"]) == len(by_class(support.labels))


def test_the_combiner_gets_logits_without_each_samples_key():
    support = with_text(clusters((4, 4, 4)))
    settings = {"alpha": ALPHA, "beta": BETA, "gamma": GAMMA}
    found = APE(**settings).fit_transform(support).logits
    for row in range(len(support)):
        rest = support.take(np.delete(np.arange(len(support)), row))
        alone = support.take(np.array([row]))
        change = APE(**settings).fit(rest).transform(alone).logits - alone.logits
        # `rest` has 11 images in its mean over classes, the support 12; the class that is one short
        # is made up for by 4 / 3 in both
        expected = alone.logits + change * 12 / 11
        np.testing.assert_allclose(found[row], expected[0], rtol=1e-4)
