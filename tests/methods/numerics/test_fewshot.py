"""Few-shot subsets: the same for every method, and what the labels allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsyn.methods.numerics.samples import few_shot, halves, shortfall

LABELS = np.array([0, 1, 0, 2, 0, 1, -1, 0, 3], np.int32)


def test_full_takes_every_labelled_sample():
    assert few_shot(LABELS, None, 5).tolist() == [0, 1, 2, 3, 4, 5, 7, 8]


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
        few_shot(LABELS, 0, 0)


def test_shortfall_counts_small_and_empty_classes():
    assert shortfall(LABELS, 2, 6) == (2, 2)  # 2 and 3 have one image, 4 and 5 none
    assert shortfall(LABELS, None, 4) == (0, 0)


def test_base_classes_are_the_first_half():
    assert [list(half) for half in halves(5)] == [[0, 1, 2], [3, 4]]
