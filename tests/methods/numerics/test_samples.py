"""`clipsyn.methods.numerics.samples`: who is held out, and that every class stays."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsyn.methods.numerics.samples import (
    CONFLICTING,
    TEST,
    TRAIN,
    UNLABELLED,
    few_shot,
    halves,
    held_out,
    shortfall,
    sides,
    stratified_folds,
)

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


def test_samples_of_a_class_go_to_one_fold_after_the_other():
    labels = np.array([1, 0, 1, 0, 1], np.int32)
    masks = [np.flatnonzero(mask).tolist() for mask in stratified_folds(labels, 3)]
    assert masks == [[1, 2], [3, 4], [0]]  # 0: rows 1, 3; then 1: rows 0, 2, 4


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


FEW = np.array([0, 1, 0, 2, 0, 1, -1, 0, 3], np.int32)


def test_full_takes_every_labelled_sample():
    assert few_shot(FEW, None, 5).tolist() == [0, 1, 2, 3, 4, 5, 7, 8]


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60), st.integers(1, 6), st.integers(0, 9))
def test_each_class_gives_k_or_all_it_has(labels, shots, seed):
    array = np.array(labels, np.int32)
    rows = few_shot(array, shots, seed)
    assert rows.tolist() == sorted(set(rows.tolist()))
    for label in range(-1, 5):
        wanted = 0 if label < 0 else min(shots, labels.count(label))
        assert np.count_nonzero(array[rows] == label) == wanted


def test_a_larger_draw_contains_the_smaller_one_and_seeds_differ():
    labels = np.repeat(np.arange(5, dtype=np.int32), 20)
    one, four = few_shot(labels, 1, 0), few_shot(labels, 4, 0)
    assert set(one) < set(four)
    assert few_shot(labels, 4, 0).tolist() == four.tolist()
    assert few_shot(labels, 4, 1).tolist() != four.tolist()


def test_draws_are_uniform():
    labels = np.zeros(10, np.int32)
    counts = np.bincount([int(few_shot(labels, 1, s)[0]) for s in range(2000)], minlength=10)
    assert counts.min() > 130  # 200 expected, standard deviation 13.4
    assert counts.max() < 270


def test_no_shots_is_a_mistake():
    with pytest.raises(ValueError, match="at least one shot, not 0"):
        few_shot(FEW, 0, 0)


def test_shortfall_counts_small_and_empty_classes():
    assert shortfall(FEW, 2, 6) == (2, 2)  # 2 and 3 have one image, 4 and 5 none
    assert shortfall(FEW, None, 4) == (0, 0)


def test_base_classes_are_the_first_half():
    assert [list(half) for half in halves(5)] == [[0, 1, 2], [3, 4]]


def divided(labels: list[int], keys: list[str], share: float = 0.5) -> list[int]:
    return sides(np.array(labels, np.int32), np.array(keys, "S64"), share).tolist()


def test_the_lowest_keys_of_each_class_are_tested() -> None:
    labels = [0, 0, 0, 0, 1, 1, -1]
    assert divided(labels, [*"dbca", *"fe", "g"]) == [
        *(TRAIN, TEST, TRAIN, TEST),
        *(TRAIN, TEST),
        UNLABELLED,
    ]


@pytest.mark.parametrize(
    ("share", "tested"),
    [(0.5, 150), (0.4, 120), (0.6, 180), (0.2, 100), (0.7, 200)],  # the last two: one of each side
)
def test_rounding_does_not_add_up_over_classes(share: float, tested: int) -> None:
    """Of three images each class has one or two tested, and all classes together their share."""
    labels = np.repeat(np.arange(100), 3)
    found = np.array(divided(labels.tolist(), [f"{row:03}" for row in range(300)], share))
    counts = np.bincount(labels[found == TEST], minlength=100)
    assert set(counts) <= {1, 2}
    assert counts.sum() == tested


def slowly(labels: list[int], keys: list[str], share: float) -> list[int]:
    """The same from what `sides` promises, with dictionaries."""
    said: dict[str, set[int]] = defaultdict(set)
    for label, key in zip(labels, keys, strict=True):
        if label >= 0:
            said[key].add(label)
    rows: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    found = []
    for row, (label, key) in enumerate(zip(labels, keys, strict=True)):
        state = UNLABELLED if label < 0 else CONFLICTING if len(said[key]) > 1 else TRAIN
        found.append(state)
        if state == TRAIN:
            rows[label][key].append(row)
    before = 0
    for label in range(max(labels, default=-1) + 1):
        contents = rows[label]
        total = sum(map(len, contents.values()))
        wanted = round(share * (before + total)) - round(share * before)
        before += total
        if len(contents) < 2:
            continue
        wanted = min(max(wanted, 1), total - 1)
        tested: list[int] = []
        for key in sorted(contents):
            if len(tested) + len(contents[key]) <= wanted:
                tested += contents[key]
        if not tested:
            tested = min((contents[key] for key in sorted(contents)), key=len)
        for row in tested:
            found[row] = TEST
    return found


samples = st.lists(st.tuples(st.integers(-1, 3), st.sampled_from("abcdefghijkl")), max_size=40)


@given(samples, st.sampled_from([0.1, 0.3, 0.5, 0.8]))
def test_it_is_the_slow_implementation(drawn: list[tuple[int, str]], share: float) -> None:
    labels, keys = [label for label, _ in drawn], [key for _, key in drawn]
    assert divided(labels, keys, share) == slowly(labels, keys, share)
