"""Contenders against sums over all classes, with weights at the corners and at random."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.methods.numerics.logits import contenders


def logits_of(n=80, backbones=4, classes=40, seed=0, common=2.0):
    """Backbones agree on a part of what they say."""
    rng = np.random.default_rng(seed)
    shared = common * rng.normal(size=(n, 1, classes))
    return (shared + rng.normal(size=(n, backbones, classes))).astype(np.float32)


def as_sets(groups, n):
    kept = [None] * n
    for group in groups:
        for sample, classes in zip(group.samples.tolist(), group.classes.tolist(), strict=True):
            assert kept[sample] is None
            kept[sample] = classes
    assert None not in kept
    return kept


def first_by_groups(groups, logits, weights):
    out = np.empty(len(logits), int)
    for group in groups:
        best = np.einsum("b,nbc->nc", weights, group.of(logits)).argmax(axis=1)
        out[group.samples] = group.classes[np.arange(len(best)), best]
    return out


def weights_of(backbones, rng):
    yield np.ones(backbones, np.float32)
    yield from np.eye(backbones, dtype=np.float32)
    for _ in range(60):
        drawn = rng.exponential(size=backbones) ** 3 * (rng.random(backbones) < 0.7)
        if drawn.any():
            yield drawn.astype(np.float32)


@pytest.mark.parametrize("common", [0.0, 1.0, 5.0])
@pytest.mark.parametrize(("backbones", "classes"), [(1, 7), (2, 40), (5, 40), (9, 3), (3, 1)])
def test_whatever_the_weights_the_first_class_is_kept(backbones, classes, common):
    logits = logits_of(80, backbones, classes, common=common)
    groups = contenders(logits)
    for weights in weights_of(backbones, np.random.default_rng(1)):
        expected = np.einsum("b,nbc->nc", weights, logits).argmax(axis=1)
        assert np.array_equal(first_by_groups(groups, logits, weights), expected)


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_of_classes_that_tie_the_first_is_kept(classes):
    """Whole numbers, few of them: sums are exact and often equal."""
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 3, (300, 3, classes)).astype(np.float32)
    groups = contenders(logits)
    tied = 0
    for weights in rng.integers(0, 3, (40, 3)).astype(np.float32):
        if weights.any():
            sums = np.einsum("b,nbc->nc", weights, logits)
            tied += np.count_nonzero((sums == sums.max(axis=1, keepdims=True)).sum(axis=1) > 1)
            assert np.array_equal(first_by_groups(groups, logits, weights), sums.argmax(axis=1))
    assert tied > 300


def test_a_difference_that_rounding_can_undo_leaves_nothing_out():
    logits = np.full((1, 2, 3), 1000, np.float32)
    logits[0, :, 1] = np.nextafter(logits[0, :, 1], np.float32(2000))
    logits[0, :, 2] = 900
    (group,) = contenders(logits)
    assert group.classes.tolist() == [[0, 1]]


def test_groups_have_ascending_samples_and_classes_padded_with_the_last():
    logits = logits_of(200, 5, 60)
    groups = contenders(logits)
    assert [group.classes.shape[1] for group in groups] == sorted(
        {group.classes.shape[1] for group in groups}
    )
    for group in groups:
        width = group.classes.shape[1]
        assert width & (width - 1) == 0
        assert (np.diff(group.samples) > 0).all()
        for classes in group.classes.tolist():
            assert classes == sorted(classes)
            distinct = sorted(set(classes))
            assert width < 2 * len(distinct)
            assert classes == distinct + distinct[-1:] * (width - len(distinct))
    assert len(as_sets(groups, 200)) == 200
