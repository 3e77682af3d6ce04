"""The oracle of every subset and Shapley values against brute force; four images by hand."""

from itertools import combinations, permutations

import numpy as np
import pytest

from clipsyn.analyses.oracle.measures import (
    Overlap,
    best_subsets,
    class_choice,
    members,
    subset_hits,
)

# Four images, three backbones: a alone, a and b, none, all.
BY_HAND = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]], bool)


def random_right(backbones, n, seed=0):
    """Backbones of different accuracy that are right together more often than by chance."""
    rng = np.random.default_rng(seed)
    easy = rng.normal(size=n)
    return easy + rng.normal(size=(backbones, n)) > rng.normal(size=(backbones, 1)) / 2


def oracle_of(right, subset):
    return sum(any(right[b, i] for b in subset) for i in range(right.shape[1]))


def shapley_by_orders(right):
    """The mean over all orders of what each backbone adds when it joins."""
    count, n = right.shape
    orders = list(permutations(range(count)))
    added = np.zeros(count)
    for order in orders:
        for place, b in enumerate(order):
            before = order[:place]
            added[b] += oracle_of(right, (*before, b)) - oracle_of(right, before)
    return added / len(orders) / n


def test_four_images_by_hand():
    overlap = Overlap.of(BY_HAND)
    assert overlap.n == 4
    assert overlap.hits().tolist() == [3, 2, 1]
    assert overlap.only().tolist() == [1, 0, 0]
    assert overlap.mean(overlap.credit()) == pytest.approx(
        [(1 + 1 / 2 + 1 / 3) / 4, (1 / 2 + 1 / 3) / 4, 1 / 3 / 4]
    )
    assert subset_hits(BY_HAND).tolist() == [0, 3, 2, 3, 1, 3, 2, 3]
    assert best_subsets(subset_hits(BY_HAND)) == [0b001, 0b011, 0b111]


def test_regions_are_exact_and_ordered():
    right = np.repeat(BY_HAND, [1, 5, 3, 3], axis=1)
    overlap = Overlap.of(right)
    assert overlap.counts.tolist() == [5, 3, 3, 1]
    assert overlap.right.tolist() == [
        [True, True, False],
        [True, True, True],  # before the empty one, which is as large
        [False, False, False],
        [True, False, False],
    ]


@pytest.mark.parametrize(("backbones", "n"), [(1, 1), (1, 30), (2, 7), (5, 200), (7, 50)])
def test_every_subset_equals_brute_force(backbones, n):
    right = random_right(backbones, n)
    hits = subset_hits(right)
    assert hits[0] == 0
    for size in range(1, backbones + 1):
        for subset in combinations(range(backbones), size):
            assert hits[sum(1 << b for b in subset)] == oracle_of(right, subset)


@pytest.mark.parametrize(("backbones", "n"), [(1, 5), (2, 40), (5, 60)])
def test_shapley_values_equal_brute_force_over_orders(backbones, n):
    right = random_right(backbones, n)
    overlap = Overlap.of(right)
    values = overlap.mean(overlap.credit())
    np.testing.assert_allclose(values, shapley_by_orders(right), atol=1e-12)


@pytest.mark.parametrize("backbones", [1, 5])
def test_the_best_subset_of_each_size(backbones):
    right = random_right(backbones, 150, seed=4)
    hits = subset_hits(right)
    for size, best in enumerate(best_subsets(hits), 1):
        assert len(members(best, backbones)) == size
        every = [oracle_of(right, subset) for subset in combinations(range(backbones), size)]
        assert hits[best] == max(every)


def test_of_equal_subsets_the_one_that_lacks_the_later_backbones():
    assert best_subsets(subset_hits(np.ones((3, 5), bool))) == [0b001, 0b011, 0b111]


def test_regions_of_more_backbones_than_have_all_subsets():
    right = random_right(70, 200)  # more than fit into a word too
    overlap = Overlap.of(right)
    regions = {}
    for column in right.T.tolist():
        regions[tuple(column)] = regions.get(tuple(column), 0) + 1
    counts = zip(overlap.right.tolist(), overlap.counts.tolist(), strict=True)
    assert {tuple(region): count for region, count in counts} == regions


def test_a_class_of_one_sample_has_the_backbone_that_is_best_on_the_rest():
    right = np.array([[1, 0, 0, 0], [0, 1, 1, 1]], bool)
    assert class_choice(right, np.arange(4), left_out=True).tolist() == [False, True, True, True]
