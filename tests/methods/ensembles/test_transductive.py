"""Transductive ensembles against dense loops over their formulas, in double precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from clipsyn.errors import UsageError
from clipsyn.methods.ensembles import ENSEMBLES, TRANSDUCTIVE
from clipsyn.methods.ensembles.transductive import SOTA, TransCLIP, TransCLIPFewShot, ZLaP
from clipsyn.methods.pool import Pool

NAMES = ENSEMBLES.groups[TRANSDUCTIVE]
SCALE = 20.0


def pool_of(n=40, classes=5, seed=0, *, backbones=3, sizes=None, labels=None):
    """Images around the centres of their classes; texts that are near these."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=sizes) if labels is None else labels
    embeddings, logits = [], []
    for b in range(backbones):
        centres = np.random.default_rng(b).normal(size=(classes, 6 + b))
        images = unit(centres[labels] + 0.7 * rng.normal(size=(n, 6 + b)))
        texts = unit(centres + np.random.default_rng(b + 9).normal(size=centres.shape))
        embeddings.append(images)
        logits.append(SCALE * images @ texts.T)
    pool = Pool.of(np.stack(logits, axis=1), labels, embeddings)
    return replace(pool, logit_scales=dict.fromkeys(pool.backbones, SCALE))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def parts(pool):
    """Logits and embeddings of each backbone, in double precision."""
    for b, name in enumerate(pool.backbones):
        yield pool.logits[:, b].astype(float), pool.embeddings[name].astype(float)


def shares(ensemble, pool):
    return np.exp(ensemble.combine(pool).astype(float))


def first_gaussians(f, z):
    top = [np.argsort(-z[:, c], kind="stable")[:8] for c in range(z.shape[1])]
    means = [sum(z[i, c] * f[i] for i in rows) for c, rows in enumerate(top)]
    return unit(np.array(means)), np.full(f.shape[1], 1 / f.shape[1])


def next_gaussians(f, z):
    """f, z: of all images, z times what an image counts for."""
    mu = unit(z.T @ f)
    spread = sum(z[i, c] * (f[i] - mu[c]) ** 2 for i in range(len(f)) for c in range(len(mu)))
    return mu, spread / z.sum()


def density(f, mu, s):
    return np.array([[-((row - mean) ** 2 / s).sum() / 2 for mean in mu] for row in f])


def nearest(f, i, k, among):
    return sorted(
        (j for j in range(len(among)) if among is not f or j != i), key=lambda j: -f[i] @ among[j]
    )[:k]


def dense_transclip(logits, f, *, power=1.0, support=None, labels=None, gamma=0.0):
    n, classes = logits.shape
    p = softmax(logits, axis=1)
    g = f if support is None else np.concatenate([f, support])
    known = np.empty((0, classes)) if support is None else np.eye(classes)[labels]
    w = np.zeros((len(g), n))
    for i in range(len(g)):
        for j in nearest(f, i, 3, f) if i < n else nearest(support, i - n, 3, f):
            w[i, j] = g[i] @ f[j]
    z, (mu, s) = p, first_gaussians(f, p)
    if support is not None:
        mu = np.array(
            [unit(support[labels == c].sum(0)) if c in labels else mu[c] for c in range(classes)]
        )
    for step in range(11):
        if step:
            count = [np.full(n, 1 / n), np.full(len(known), 50 * gamma / max(1, len(known)))]
            mu, s = next_gaussians(g, np.concatenate(count)[:, None] * np.concatenate([z, known]))
        held = density(f, mu, s)
        for _ in range(5):
            votes = w.T @ np.concatenate([z, known]) + w[:n] @ z
            powers = p**power * np.exp((held - held.max(1, keepdims=True) + 50 / 6 * votes) / 50)
            z = powers / powers.sum(1, keepdims=True)
    return z


def dense_zlap(logits, f, k=5, gamma=5.0, alpha=0.3):
    n, classes = logits.shape
    w = np.zeros((classes + n, classes + n))
    for i in range(n):
        for j in nearest(f, i, k - 1, f):
            w[classes + i, classes + j] = max(0, f[i] @ f[j])
        for c in np.argsort(-logits[i])[:k]:
            w[classes + i, c] = max(0, logits[i, c] / SCALE) ** gamma
    w += w.T
    root = 1 / np.sqrt(np.where(w.sum(1) > 0, w.sum(1), 1))
    system = np.eye(len(w)) - alpha * root[:, None] * w * root
    z = np.linalg.solve(system, np.eye(len(w))[:, :classes])[classes:]
    return z / z.sum(1, keepdims=True)


def dense_sota(pool):
    features = [f for _, f in parts(pool)]
    p = [softmax(logits, axis=1) for logits, _ in parts(pool)]
    z, a, c = np.mean(p, axis=0), np.full(len(p), 1 / len(p)), np.full(len(p), 1 / len(p))
    gaussians = [first_gaussians(f, z) for f in features]
    for _ in range(10):
        q = [
            softmax(density(f, *of) / 50, axis=1) for f, of in zip(features, gaussians, strict=True)
        ]
        z = sinkhorn(
            sum(wi * qi for wi, qi in zip(a, q, strict=True))
            + sum(wi * pi for wi, pi in zip(c, p, strict=True))
        )
        a, c = (np.array([(it.argmax(1) == z.argmax(1)).sum() for it in of]) for of in (q, p))
        a, c = a / a.sum(), c / c.sum()
        gaussians = [next_gaussians(f, z) for f in features]
    return z


def sinkhorn(scores):
    plan = np.exp((scores - scores.max(1, keepdims=True)) / 0.01)
    plan /= plan.sum()
    for _ in range(15):
        before = plan
        plan = plan / plan.sum(0) / plan.shape[1]
        plan = plan / plan.sum(1, keepdims=True) / len(plan)
        if np.abs(plan - before).max() < 1e-5:
            break
    return plan * len(plan)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("make", "dense"), [(TransCLIP, dense_transclip), (ZLaP, dense_zlap)])
def test_one_backbone_after_the_other_and_the_mean(make, dense, seed):
    pool = pool_of(seed=seed)
    expected = np.mean([dense(*part) for part in parts(pool)], axis=0)
    np.testing.assert_allclose(shares(make(), pool), expected, atol=2e-4)


@pytest.mark.parametrize("sizes", [None, (0.6, 0.1, 0.1, 0.1, 0.1)])
def test_optimal_transport_of_all_backbones(sizes):
    pool = pool_of(60, sizes=sizes)
    np.testing.assert_allclose(shares(SOTA(), pool), dense_sota(pool), atol=2e-3)


@pytest.mark.parametrize("gamma", [0.002, 0.2])
@pytest.mark.parametrize("absent", [(), (1, 4)])
def test_labelled_images_take_part(gamma, absent):
    support, pool = pool_of(15, labels=np.arange(15) % 5, seed=2), pool_of()
    support = support.take(np.flatnonzero(~np.isin(support.labels, absent)))
    support = replace(
        support, embeddings={k: v.astype(np.float16) for k, v in support.embeddings.items()}
    )
    both = zip(parts(pool), parts(support), strict=True)
    expected = [
        dense_transclip(*ours, power=0.5, support=known, labels=support.labels, gamma=gamma)
        for ours, (_, known) in both
    ]
    found = shares(TransCLIPFewShot(gamma=gamma).fit(support), pool)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=5e-4)


def test_an_image_alone_by_hand():
    """TransCLIP has nothing to add. ZLaP: Z = a s + a^2 (s s^T) Z, s_c = sqrt(w_c / sum of w)."""
    pool = pool_of(1, backbones=1)
    np.testing.assert_allclose(
        shares(TransCLIP(), pool), softmax(pool.logits[:, 0], axis=1), rtol=1e-4
    )
    roots = np.sqrt(np.maximum(pool.logits[:, 0] / SCALE, 0) ** 5)
    np.testing.assert_allclose(shares(ZLaP(), pool), roots / roots.sum(), rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(shares(SOTA(), pool), np.full((1, 5), 0.2), rtol=1e-4)


def test_optimal_transport_expects_as_many_images_of_each_class():
    """On a pool of which 70 % are of one class it spreads these over the others."""
    pool = pool_of(400, sizes=(0.7, 0.1, 0.1, 0.05, 0.05))
    found = shares(SOTA(), pool)
    assert 60 < found.sum(axis=0)[0] < 140 < np.count_nonzero(pool.labels == 0)
    mean = softmax(pool.logits, axis=2).mean(axis=1)
    assert (mean.argmax(1) == pool.labels).mean() > SOTA().score(pool) + 0.2
    balanced = pool_of(400)
    assert SOTA().score(balanced) > TransCLIP().score(balanced) - 0.05 > 0.6


def fitted(name, **parameters):
    ensemble = ENSEMBLES.load(name)(**parameters)
    return (
        ensemble.fit(pool_of(20, labels=np.arange(20) % 5, seed=7)) if ensemble.learns else ensemble
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_images_and_their_labels_change_nothing(name):
    pool, order = pool_of(), np.random.default_rng(0).permutation(40)
    scores = fitted(name).combine(pool)
    np.testing.assert_allclose(
        np.exp(fitted(name).combine(pool.take(order))), np.exp(scores[order]), atol=1e-3
    )
    for labels in (np.zeros(40, np.int32), np.full(40, -1, np.int32)):
        np.testing.assert_array_equal(fitted(name).combine(replace(pool, labels=labels)), scores)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_seen_without_the_others(name):
    pool = pool_of()
    np.testing.assert_array_equal(fitted(name, batch=40).combine(pool), fitted(name).combine(pool))
    alone = np.concatenate([fitted(name).combine(pool.take([row])) for row in range(40)])
    np.testing.assert_allclose(fitted(name, batch=1).combine(pool), alone, rtol=1e-5)
    assert not np.allclose(fitted(name, batch=10).combine(pool), fitted(name).combine(pool))
    with pytest.raises(UsageError, match="batch"):
        fitted(name, batch=0).combine(pool)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_unreadable_takes_no_part(name):
    pool = pool_of()
    logits, embeddings = pool.logits.copy(), {k: v.copy() for k, v in pool.embeddings.items()}
    logits[3, 1] = np.nan
    embeddings["2"][8] = np.nan
    found = fitted(name).combine(replace(pool, logits=logits, embeddings=embeddings))
    rest = np.setdiff1d(np.arange(40), [3, 8])
    assert np.isnan(found[[3, 8]]).all()
    np.testing.assert_array_equal(found[rest], fitted(name).combine(pool.take(rest)))


@pytest.mark.parametrize("name", NAMES)
def test_little_of_everything(name):
    for pool in (pool_of(2, classes=5), pool_of(30, classes=1), pool_of(1, classes=1)):
        support = pool_of(4, labels=np.zeros(4, int), classes=pool.n_classes)
        ensemble = ENSEMBLES.load(name)().fit(support)
        assert np.isfinite(ensemble.combine(pool)).all()
    same = pool.take(np.zeros(12, int))
    assert np.isfinite(ensemble.combine(same)).all()
