from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from clipsyn.methods.heads import linear
from clipsyn.methods.heads.linear import DEFAULT_PENALTY, PENALTIES, LinearProbe
from clipsyn.methods.numerics.samples import held_out
from clipsyn.methods.pool import Pool
from tests.methods.heads.clusters import clusters as images_of


def clusters(per_class: int = 10, seed: int = 0) -> Pool:
    pool = uneven([per_class] * 5, 0.5, seed)
    return dataclasses.replace(pool, ids=tuple(map(str, range(len(pool)))))


@pytest.mark.parametrize(
    ("penalty", "large"), [(1.0, False), (0.01, False), (0.001, False), (1.0, True), (0.01, True)]
)
def test_it_is_scikit_learns_on_nine_tenths(monkeypatch, penalty, large):
    if large:
        monkeypatch.setattr(linear, "LARGE", 0)
    support, new = clusters(), clusters(seed=1)
    out = held_out(support.labels, 0.1, 0)
    assert out.sum() == 5
    kept, labels = support.embeddings["0"][~out], support.labels[~out]
    weights = 10 / np.bincount(labels)[labels]
    theirs = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=20_000)
    theirs.fit(kept, labels, sample_weight=weights)
    found = LinearProbe(penalty=penalty).fit(support).transform(new).logits[:, 0]
    expected = theirs.decision_function(new.embeddings["0"])
    found -= found.mean(axis=1, keepdims=True)
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        found, expected, atol=(0.02 if large else 0.004) * np.abs(expected).max()
    )


def test_the_combiner_gets_the_part_that_was_held_out():
    support = clusters()
    probe = LinearProbe(holdout=0.2, random_state=3)
    combiner = probe.fit_transform(support)
    out = np.flatnonzero(held_out(support.labels, 0.2, 3))
    assert combiner.ids == tuple(map(str, out))
    assert len(out) == 10
    # a product with fewer rows may be rounded otherwise
    np.testing.assert_allclose(combiner.logits, probe.transform(support).logits[out], rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "noise", "seed"),
    [((3, 3, 3, 3, 30), 2.0, 18), ((3, 3, 3, 3, 30), 3.0, 17), ((3, 3, 3, 30, 30), 4.0, 23)],
)
def test_classes_weigh_as_much_as_in_the_part_while_the_penalty_is_chosen(sizes, noise, seed):
    """As by a loop with scikit-learn, which chooses another penalty without the weights."""
    support = uneven(sizes, noise, seed)
    kept = ~held_out(support.labels, 0.1, 0)
    features, labels = support.embeddings["0"][kept], support.labels[kept]
    out = held_out(labels, 0.2, 0)

    def loss(penalty: float, weights: np.ndarray | None) -> float:
        probe = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=20_000)
        probe.fit(features[~out], labels[~out], sample_weight=weights)
        return log_loss(labels[out], probe.predict_proba(features[out]), labels=probe.classes_)

    def chosen(weights: np.ndarray | None) -> float:
        losses = [loss(penalty, weights) for penalty in PENALTIES]
        rises = [i for i in range(1, len(losses)) if losses[i] >= losses[i - 1]]
        return PENALTIES[(rises or [len(losses)])[0] - 1]

    whole, part = np.bincount(labels), np.bincount(labels[~out])
    weights = (whole / part)[labels[~out]]
    assert (chosen(weights), chosen(None)) == (1.0, 0.1)
    np.testing.assert_array_equal(LinearProbe().fit(support).penalty_, [1.0])


def uneven(sizes: Sequence[int], noise: float, seed: int) -> Pool:
    return images_of(sizes, noise=noise, seed=seed, width=16, mixed=False)


def test_the_penalty_is_the_default_where_nothing_can_be_held_out_for_it():
    support = clusters(2)
    mostly_single = support.take(np.array([0, 1, 2, 3, 4, 6, 8]))
    np.testing.assert_array_equal(LinearProbe().fit(mostly_single).penalty_, [DEFAULT_PENALTY])
    np.testing.assert_array_equal(LinearProbe(penalty=0.5).fit(support).penalty_, [0.5])


def test_a_class_without_images_comes_last():
    support, new = clusters(), clusters(seed=1)
    part = support.take(np.flatnonzero(support.labels != 2))
    logits = LinearProbe().fit(part).transform(new).logits[:, 0]
    others = np.delete(logits, 2, axis=1)
    np.testing.assert_allclose(logits[:, 2], others.min(axis=1) - 1, rtol=1e-6)


def test_classes_weigh_as_much_as_in_the_whole_support():
    """Without any signal the probe gives the class shares of the support, not of its part."""
    labels = np.repeat([0, 1], [3, 4])
    pool = Pool.of(np.zeros((7, 1, 2)), labels, [np.ones((7, 4)) / 2])
    logits = LinearProbe(holdout=0.3).fit(pool).transform(pool).logits[0, 0]
    assert logits[1] - logits[0] == pytest.approx(np.log(4 / 3), abs=1e-2)
