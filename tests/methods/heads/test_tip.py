from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from clipsyn.methods.heads import cache
from clipsyn.methods.heads.cache import TipAdapter, TipAdapterF, cache_sums
from clipsyn.methods.pool import Pool
from tests.methods.heads.clusters import clusters as images_of


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def clusters(sizes=(3, 3, 3, 3), **about) -> Pool:
    return images_of(sizes, width=10, **about)


def values(labels: np.ndarray, classes: int) -> np.ndarray:
    """L: one-hot labels; each class weighs as if it had the mean number of images."""
    counts = np.array([np.sum(labels == label) for label in labels])
    return np.eye(classes)[labels] * (len(labels) / len(set(labels.tolist())) / counts)[:, None]


def formula(new: Pool, keys: np.ndarray, labels: np.ndarray, alpha: float, beta: float):
    """z + alpha exp(-beta (1 - f K^T)) L, written out."""
    one_hot = values(labels, new.n_classes)
    affinity = new.embeddings["0"].astype(float) @ keys.astype(float).T
    return new.logits[:, 0] + alpha * np.exp(-beta * (1 - affinity)) @ one_hot


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (1, 4, 0, 2), (5, 0, 0, 0), (1, 1, 1, 1)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 5.5), (3.0, 0.7)])
def test_logits_are_the_publications(sizes, alpha, beta):
    support, new = clusters(sizes), clusters((2, 2, 2, 2), seed=1)
    found = TipAdapter(alpha=alpha, beta=beta).fit(support).transform(new).logits[:, 0]
    expected = formula(new, support.embeddings["0"], support.labels, alpha, beta)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_keys_are_the_mean_over_views_at_unit_norm():
    support, new = clusters(), clusters(seed=1)
    rng = np.random.default_rng(3)
    views = [unit(support.embeddings["0"] + 0.2 * rng.normal(size=(12, 10))) for _ in range(4)]
    viewed = dataclasses.replace(support, views=tuple({"0": view} for view in views))
    found = TipAdapter(alpha=1.0, beta=3.0).fit(viewed).transform(new).logits[:, 0]
    expected = formula(new, unit(np.mean(views, axis=0)), support.labels, 1.0, 3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("views", [False, True])
def test_the_combiner_gets_what_a_cache_without_the_sample_says(views):
    """Refitted without each sample; the mean number of keys is that of all."""
    sizes = np.array([3, 1, 2, 4])
    support = clusters(tuple(sizes))
    if views:
        shaken = unit(
            support.embeddings["0"] + 0.1 * np.random.default_rng(3).normal(size=(10, 10))
        )
        support = dataclasses.replace(support, views=({"0": shaken},))
    found = TipAdapter(alpha=2.0, beta=3.0).fit_transform(support).logits[:, 0]
    for row, label in enumerate(support.labels):
        rest = support.take(np.delete(np.arange(10), row))
        one = support.take(np.array([row]))
        without = TipAdapter(alpha=2.0, beta=3.0).fit(rest).transform(one).logits[0, 0]
        added = without - one.logits[0, 0]
        added *= (10 / 4) / (9 / (4 - (sizes[label] == 1))) * (sizes[label] > 1)
        np.testing.assert_allclose(found[row], one.logits[0, 0] + added, rtol=1e-4, atol=1e-5)


def test_alpha_and_beta_have_the_lowest_leave_one_out_loss():
    support = clusters((4, 4, 3, 2))
    head = TipAdapter().fit(support)
    losses = {}
    for alpha, beta in itertools.product(cache.ALPHAS, cache.BETAS):
        logits = TipAdapter(alpha=alpha, beta=beta).fit_transform(support).logits[:, 0]
        losses[alpha, beta] = float(
            torch.nn.functional.cross_entropy(
                torch.tensor(logits.astype(float)), torch.tensor(support.labels).long()
            )
        )
    assert losses[head.alpha_[0], head.beta_[0]] == pytest.approx(min(losses.values()), abs=1e-6)
    assert head.alpha_[0] > 0


def test_the_publications_where_nothing_can_be_left_out():
    head = TipAdapter().fit(clusters((1, 1, 1, 2)))
    assert (head.alpha_[0], head.beta_[0]) == (1.0, 5.5)
    head = TipAdapter(alpha=2.0).fit(clusters((1, 1, 1, 2)))
    assert (head.alpha_[0], head.beta_[0]) == (2.0, 5.5)


def test_blocks_change_nothing(monkeypatch):
    support, new = clusters((3, 0, 5, 4)), clusters((9, 9, 9, 9), seed=1)
    order = np.argsort(support.labels, kind="stable")
    keys = support.embeddings["0"][order]
    classes = keys, np.array([3, 0, 5, 4])
    betas = [2.0, 5.5]
    of, every = new.embeddings["0"], np.arange(12)
    whole = cache_sums(of, *classes, betas), cache_sums(keys, *classes, betas, own=every)
    monkeypatch.setattr(cache, "_BLOCK_VALUES", 5 * len(keys))
    parts = cache_sums(of, *classes, betas), cache_sums(keys, *classes, betas, own=every)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    rows = np.array([1, 11, 4])
    some = cache_sums(keys[rows], *classes, [5.5], own=rows)
    np.testing.assert_allclose(some[0], whole[1][1, rows], rtol=1e-6)


def torch_logits(embeddings, keys, one_hot, zero_shot, *, alpha=1.0, beta=5.5):
    affinity = embeddings @ keys.T
    return zero_shot + alpha * torch.exp(-beta * (1 - affinity)) @ one_hot


@pytest.mark.parametrize("batch_size", [256, 7])
def test_training_ends_where_a_torch_loop_ends(monkeypatch, batch_size):
    """The publication's loop, on shuffles of its own: the same loss where a batch is everything."""
    support = clusters((6, 6, 5, 4), noise=1.0)
    embeddings, zero_shot = (
        torch.tensor(values) for values in (support.embeddings["0"], support.logits[:, 0])
    )
    labels = torch.tensor(support.labels).long()
    one_hot = torch.tensor(values(support.labels, 4)).float()
    keys = torch.nn.Parameter(embeddings.clone())
    optimiser = torch.optim.AdamW([keys], lr=1e-2, eps=1e-4)
    generator = torch.Generator().manual_seed(1)
    steps = -(-len(labels) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20 * steps)
    for _ in range(20):
        for rows in torch.randperm(len(labels), generator=generator).split(batch_size):
            logits = torch_logits(embeddings[rows], keys, one_hot, zero_shot[rows])
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels[rows]).backward()
            optimiser.step()
            schedule.step()
    logits = torch_logits(embeddings, keys, one_hot, zero_shot)
    expected = torch.nn.functional.cross_entropy(logits, labels).item()

    def loss(head: TipAdapter) -> float:
        found = torch.tensor(head.fit(support).transform(support).logits[:, 0])
        return torch.nn.functional.cross_entropy(found, labels).item()

    monkeypatch.setattr(cache, "_RATE", 1e-2)
    monkeypatch.setattr(cache, "_BATCH", batch_size)
    trained = loss(TipAdapterF(alpha=1.0, beta=5.5))
    before = loss(TipAdapter(alpha=1.0, beta=5.5))
    assert expected < before - 0.1
    assert trained == pytest.approx(expected, abs=1e-4 if batch_size == 256 else 0.02)


def test_training_leaves_the_combiner_the_untrained_caches_logits():
    support = clusters()
    found = TipAdapterF().fit_transform(support)
    np.testing.assert_array_equal(found.logits, TipAdapter().fit_transform(support).logits)
    seen = TipAdapterF(leave_one_out=False)
    own = seen.fit_transform(support)
    np.testing.assert_array_equal(own.logits, seen.transform(support).logits)


def test_training_starts_at_tip_adapter(monkeypatch):
    monkeypatch.setattr(cache, "_BATCH", 5)
    support, new = clusters(), clusters(seed=1)
    still = TipAdapterF(epochs=0).fit(support).transform(new)
    np.testing.assert_array_equal(still.logits, TipAdapter().fit(support).transform(new).logits)
    moved = TipAdapterF(random_state=1).fit(support).transform(new)
    again = TipAdapterF(random_state=2).fit(support).transform(new)
    assert (moved.logits != still.logits).any()
    assert (moved.logits != again.logits).any()
