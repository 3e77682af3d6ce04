from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from clipsyn.errors import InputError
from clipsyn.methods.heads import tip
from clipsyn.methods.heads.tip import TipAdapter, TipAdapterF, cache_loss, cache_sums, left_out_sums
from clipsyn.methods.pool import Pool


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def clusters(sizes=(3, 3, 3, 3), *, seed: int = 0, width: int = 10, noise: float = 0.6) -> Pool:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centre = np.random.default_rng(7).normal(size=(len(sizes), width))
    values = unit(centre[labels] + noise * rng.normal(size=(len(labels), width)) + 1)
    logits = rng.normal(size=(len(labels), 1, len(sizes)))
    return Pool.of(logits, labels, [values])


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


def test_without_leaving_out_the_support_is_right_for_no_reason():
    """Labels drawn at random: the cache that holds the samples looks perfect, and is not."""
    support = clusters((20, 20, 20, 20), noise=3.0)
    shuffled = np.random.default_rng(0).permutation(support.labels)
    support = dataclasses.replace(support, labels=shuffled)

    def right(leave_one_out: bool) -> float:
        head = TipAdapter(alpha=30.0, beta=30.0, leave_one_out=leave_one_out)
        pool = head.fit_transform(support)
        return float(np.mean(pool.logits[:, 0].argmax(axis=1) == pool.labels))

    assert right(False) > 0.9
    assert right(True) < 0.4


def test_alpha_and_beta_have_the_lowest_leave_one_out_loss():
    support = clusters((4, 4, 3, 2))
    head = TipAdapter().fit(support)
    losses = {}
    for alpha, beta in itertools.product(tip.ALPHAS, tip.BETAS):
        logits = TipAdapter(alpha=alpha, beta=beta).fit_transform(support).logits[:, 0]
        losses[alpha, beta] = float(
            torch.nn.functional.cross_entropy(
                torch.tensor(logits.astype(float)), torch.tensor(support.labels).long()
            )
        )
    assert losses[head.alpha_[0], head.beta_[0]] == pytest.approx(min(losses.values()), abs=1e-6)
    assert head.alpha_[0] > 0


def test_the_best_beta_may_be_large():
    """Classes of many close groups, a few wrong labels: only the nearest keys are to count."""
    rng = np.random.default_rng(0)
    values = np.repeat(0.3 * rng.normal(size=(40, 6)), 5, axis=0) + 0.03 * rng.normal(size=(200, 6))
    labels = np.repeat(np.arange(40), 5) % 4
    wrong = rng.random(200) < 0.1
    labels[wrong] = rng.integers(0, 4, wrong.sum())
    head = TipAdapter().fit(Pool.of(np.zeros((200, 1, 4)), labels, [unit(values + 1)]))
    assert 64 < head.beta_[0] < max(tip.BETAS)
    assert 0 < head.alpha_[0] < max(tip.ALPHAS)


def test_one_of_them_can_be_given():
    support = clusters((4, 4, 3, 2))
    assert TipAdapter(alpha=3.0).fit(support).alpha_[0] == 3
    assert TipAdapter(beta=3.0).fit(support).beta_[0] == 3
    assert TipAdapter(beta=3.0).fit(support).alpha_[0] in tip.ALPHAS


def test_the_publications_where_nothing_can_be_left_out():
    head = TipAdapter().fit(clusters((1, 1, 1, 2)))
    assert (head.alpha_[0], head.beta_[0]) == (1.0, 5.5)
    head = TipAdapter(alpha=2.0).fit(clusters((1, 1, 1, 2)))
    assert (head.alpha_[0], head.beta_[0]) == (2.0, 5.5)


def test_only_some_samples_are_asked_where_there_are_many(monkeypatch):
    support = clusters((30, 30, 30, 30))
    whole = TipAdapter().fit(support)
    monkeypatch.setattr(tip, "_CHOICE_SAMPLES", 40)
    asked = []
    sums = tip.left_out_sums

    def spy(*arguments):
        asked.append(np.repeat(np.arange(4), 30)[arguments[4]])
        return sums(*arguments)

    monkeypatch.setattr(tip, "left_out_sums", spy)
    part = TipAdapter().fit(support)
    assert {len(labels) for labels in asked} == {40}
    assert np.bincount(asked[0]).tolist() == [10, 10, 10, 10]
    assert part.beta_[0] in tip.BETAS
    np.testing.assert_array_equal(part.keys_["0"], whole.keys_["0"])


def test_blocks_change_nothing(monkeypatch):
    support, new = clusters((3, 0, 5, 4)), clusters((9, 9, 9, 9), seed=1)
    order = np.argsort(support.labels, kind="stable")
    keys = support.embeddings["0"][order]
    classes = keys, np.array([3, 0, 5, 4])
    betas = [2.0, 5.5]
    whole = cache_sums(new.embeddings["0"], *classes, 2.0), left_out_sums(keys, *classes, betas)
    monkeypatch.setattr(tip, "_BLOCK_VALUES", 5 * len(keys))
    parts = cache_sums(new.embeddings["0"], *classes, 2.0), left_out_sums(keys, *classes, betas)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    some = left_out_sums(keys, *classes, [5.5], np.array([1, 11, 4]))
    np.testing.assert_allclose(some[0], whole[1][1, [1, 11, 4]], rtol=1e-6)


def torch_logits(embeddings, keys, one_hot, zero_shot, *, alpha=1.0, beta=5.5):
    affinity = embeddings @ keys.T
    return zero_shot + alpha * torch.exp(-beta * (1 - affinity)) @ one_hot


def test_the_gradient_is_autograds():
    support = clusters((3, 1, 0, 4), width=6)
    order = np.argsort(support.labels, kind="stable")
    embeddings = support.embeddings["0"].astype(float)
    labels = support.labels[order]
    keys = torch.tensor(embeddings[order] * 1.1, requires_grad=True)
    value = torch.nn.functional.cross_entropy(
        torch_logits(
            torch.tensor(embeddings),
            keys,
            torch.tensor(values(labels, 4)),
            torch.tensor(support.logits[:, 0].astype(float)),
            alpha=1.7,
            beta=4.2,
        ),
        torch.tensor(support.labels).long(),
    )
    value.backward()
    found, gradient = cache_loss(
        embeddings,
        embeddings[order] * 1.1,
        labels,
        zero_shot=support.logits[:, 0].astype(float),
        labels=support.labels,
        alpha=1.7,
        beta=4.2,
    )
    assert found == pytest.approx(value.item(), abs=1e-12)
    np.testing.assert_allclose(gradient, keys.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("batch_size", [256, 7])
def test_training_ends_where_a_torch_loop_ends(batch_size):
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

    options = {"learning_rate": 1e-2, "batch_size": batch_size}
    trained = loss(TipAdapterF(alpha=1.0, beta=5.5, **options))
    before = loss(TipAdapter(alpha=1.0, beta=5.5))
    assert expected < before - 0.1
    assert trained == pytest.approx(expected, abs=1e-4 if batch_size == 256 else 0.02)


def test_a_fit_that_is_refused_leaves_the_earlier_one():
    support, new = clusters(), clusters(seed=1)
    head = TipAdapterF(epochs=2).fit(support)
    before = head.transform(new).logits
    with pytest.raises(InputError, match="no embeddings"):
        head.fit(Pool.of(support.logits, support.labels))
    np.testing.assert_array_equal(head.transform(new).logits, before)


def test_training_leaves_the_combiner_the_untrained_caches_logits():
    support = clusters()
    found = TipAdapterF().fit_transform(support)
    np.testing.assert_array_equal(found.logits, TipAdapter().fit_transform(support).logits)
    seen = TipAdapterF(leave_one_out=False)
    own = seen.fit_transform(support)
    np.testing.assert_array_equal(own.logits, seen.transform(support).logits)


def test_training_starts_at_tip_adapter():
    support, new = clusters(), clusters(seed=1)
    still = TipAdapterF(epochs=0).fit(support).transform(new)
    np.testing.assert_array_equal(still.logits, TipAdapter().fit(support).transform(new).logits)
    moved = TipAdapterF(random_state=1, batch_size=5).fit(support).transform(new)
    again = TipAdapterF(random_state=2, batch_size=5).fit(support).transform(new)
    assert (moved.logits != still.logits).any()
    assert (moved.logits != again.logits).any()


def test_views_are_cells_of_the_store(tmp_path, fakes):
    views = [f"augment:3:seed={seed}" for seed in range(3)]
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    source = fakes.Source(split="train", count=12)
    store = fakes.fill(tmp_path / "store", encoders, [source], ("clean", *views))
    support = store.pool("toy", "train", views=("augment-3*",))
    assert len(support.views) == 3
    head = TipAdapter(alpha=1.0, beta=2.0).fit(support)
    order = np.argsort(support.labels, kind="stable")
    for name in support.backbones:
        cells = [store.pool("toy", "train", perturbation=view).embeddings[name] for view in views]
        expected = unit(np.mean([cell.astype(float) for cell in cells], axis=0))[order]
        np.testing.assert_allclose(head.keys_[name], expected, atol=1e-6)
