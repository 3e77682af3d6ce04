"""`clipsyn.methods.numerics.samples`: who is held out, and that every class stays."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.methods.numerics.samples import held_out, stratified_folds

LABELS = np.repeat(np.arange(7), [1, 2, 3, 10, 0, 5, 26]).astype(np.int32)


@pytest.mark.parametrize("random_state", [None, 0])
@pytest.mark.parametrize("folds", [2, 3, 5, 50])
def test_folds_are_even_and_spread_every_class(folds, random_state):
    masks = np.array(list(stratified_folds(LABELS, folds, random_state=random_state)))
    assert len(masks) == min(folds, len(LABELS))  # none is empty
    assert (masks.sum(axis=0) == 1).all()
    assert np.ptp(masks.sum(axis=1)) <= 1
    for label in np.unique(LABELS):
        assert np.ptp(masks[:, label == LABELS].sum(axis=1)) <= 1


def test_folds_depend_on_labels_and_random_state_alone():
    first, again, other = (
        np.array(list(stratified_folds(LABELS, 5, random_state=state))) for state in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_samples_of_a_class_go_to_one_fold_after_the_other():
    labels = np.array([1, 0, 1, 0, 1], np.int32)
    masks = [np.flatnonzero(mask).tolist() for mask in stratified_folds(labels, 3)]
    assert masks == [[1, 2], [3, 4], [0]]  # 0: rows 1, 3; then 1: rows 0, 2, 4


def test_no_sample_makes_no_fold():
    for keep in (False, True):
        assert not list(stratified_folds(np.zeros(0, np.int32), 3, keep_classes=keep))


def test_folds_that_keep_classes_never_lose_one():
    labels = np.array([0, 1, 1, 2, 2, 2, 2, 1, 3, 2], np.int32)
    masks = list(stratified_folds(labels, 3, keep_classes=True))
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [[1, 3, 6], [2, 4, 9], [5, 7]]
    for mask in masks:
        assert set(labels[~mask]) == {0, 1, 2, 3}
    assert not list(stratified_folds(np.arange(4, dtype=np.int32), 3, keep_classes=True))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_every_class_keeps_a_sample_when_some_are_held_out(share, seed):
    out = held_out(LABELS, share, seed)
    sizes = np.bincount(LABELS)
    kept = np.bincount(LABELS[~out], minlength=7)
    assert (kept[sizes > 0] > 0).all()
    assert not out[sizes[LABELS] == 1].any()
    assert abs(out.sum() - share * (len(LABELS) - 1)) <= 1
    assert (np.abs((sizes - kept) - share * sizes) <= 1).all()


def test_nothing_is_held_out_of_single_samples_and_something_of_two():
    assert not held_out(np.arange(5, dtype=np.int32), 0.1, 0).any()
    out = held_out(np.array([0, 1, 2, 2], np.int32), 0.1, 0)
    assert out.sum() == 1
    assert out[2:].any()
