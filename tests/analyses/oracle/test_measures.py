"""The oracle of every subset and Shapley values against brute force; four images by hand."""

from __future__ import annotations

from itertools import combinations, permutations, product

import numpy as np
import pytest

from clipsyn.analyses.oracle import measures as module
from clipsyn.analyses.oracle.measures import (
    Overlap,
    best_subsets,
    class_choice,
    members,
    subset_hits,
)
from clipsyn.methods.numerics.metrics import class_accuracy, independent_oracle

# Four images, three backbones: a alone, a and b, none, all.
BY_HAND = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]], bool)


def random_right(backbones: int, n: int, seed: int = 0) -> np.ndarray:
    """Backbones of different accuracy that are right together more often than by chance."""
    rng = np.random.default_rng(seed)
    easy = rng.normal(size=n)
    return easy + rng.normal(size=(backbones, n)) > rng.normal(size=(backbones, 1)) / 2


def oracle_of(right: np.ndarray, subset: tuple[int, ...]) -> int:
    return sum(any(right[b, i] for b in subset) for i in range(right.shape[1]))


def shapley_by_orders(right: np.ndarray) -> np.ndarray:
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
    assert overlap.none() == 1
    assert overlap.every() == 1
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


@pytest.mark.parametrize("backbones", [9, 17])
def test_masks_of_more_than_a_byte(backbones):
    right = random_right(backbones, 300)
    hits = subset_hits(right)
    rng = np.random.default_rng(1)
    for subset in rng.integers(0, 1 << backbones, 40):
        chosen = members(int(subset), backbones)
        assert hits[subset] == np.count_nonzero(right[chosen].any(axis=0))


@pytest.mark.parametrize(("backbones", "n"), [(1, 5), (2, 40), (5, 60)])
def test_shapley_values_equal_brute_force_over_orders(backbones, n):
    right = random_right(backbones, n)
    overlap = Overlap.of(right)
    values = overlap.mean(overlap.credit())
    np.testing.assert_allclose(values, shapley_by_orders(right), atol=1e-12)


def test_shapley_values_have_their_axioms():
    right = random_right(4, 500)
    right[1] = right[0]  # two that are alike
    right[3] = False  # one that is never right
    overlap = Overlap.of(right)
    values = overlap.mean(overlap.credit())
    assert values.sum() == pytest.approx(right.any(axis=0).mean(), abs=1e-12)  # efficiency
    assert values[0] == pytest.approx(values[1], abs=1e-12)  # symmetry
    assert values[3] == 0  # dummy


def test_what_only_one_gets_right_is_what_the_oracle_loses_without_it():
    right = random_right(6, 400)
    overlap, hits = Overlap.of(right), subset_hits(right)
    everyone = len(hits) - 1
    lost = [hits[everyone] - hits[everyone ^ 1 << b] for b in range(6)]
    assert overlap.only().tolist() == lost
    assert overlap.none() == right.shape[1] - hits[everyone]
    assert overlap.every() == np.count_nonzero(right.all(axis=0))
    assert overlap.right[:, [1, 4]].any(axis=1) @ overlap.counts == hits[0b10010]


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


def test_more_backbones_than_have_all_subsets(monkeypatch):
    right = random_right(70, 200)  # more than fit into a word too
    overlap = Overlap.of(right)
    regions = {}
    for column in right.T.tolist():
        regions[tuple(column)] = regions.get(tuple(column), 0) + 1
    counts = zip(overlap.right.tolist(), overlap.counts.tolist(), strict=True)
    assert {tuple(region): count for region, count in counts} == regions
    monkeypatch.setattr(module, "MOST_BACKBONES", 4)
    assert len(subset_hits(right[:4])) == 16
    with pytest.raises(ValueError, match="at most 4 backbones have all subsets, not 5"):
        subset_hits(right[:5])


# Two classes of two images, two backbones: a gets the first class, b half of each.
TWO_CLASSES = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)
PAIRS = np.array([0, 0, 3, 3])  # class indices with gaps: classes 1 and 2 have no image here


def test_two_classes_by_hand():
    accuracy, sizes = class_accuracy(TWO_CLASSES, PAIRS)
    assert accuracy.tolist() == [[1, 0], [0.5, 0.5]]
    assert sizes.tolist() == [2, 2]
    # first class: a misses nothing; second: b misses half of it
    assert independent_oracle(accuracy, sizes) == 0.75
    assert (
        class_choice(TWO_CLASSES, PAIRS).mean() == 0.75
    )  # a for the first class, b for the second
    # without the first image: a; the second: equal in the class, b on the rest; the third: equal,
    # a on the rest; the fourth: b
    assert class_choice(TWO_CLASSES, PAIRS, left_out=True).tolist() == [True, False, False, False]


def shuffles(hits: tuple[bool, ...], labels: np.ndarray) -> set[tuple[bool, ...]]:
    """Every way to shuffle hits within classes."""
    every = (np.array(order) for order in permutations(range(len(hits))))
    return {tuple(np.array(hits)[order]) for order in every if (labels[order] == labels).all()}


def test_independent_errors_are_the_mean_over_every_shuffle_within_classes():
    right = np.array([[1, 0, 0, 1, 0], [0, 0, 1, 1, 0], [0, 1, 0, 0, 0]], bool)
    labels = np.array([0, 0, 0, 1, 1])
    oracles = [
        np.logical_or.reduce(rows).mean()
        for rows in product(*(shuffles(tuple(row), labels) for row in right))
    ]
    assert independent_oracle(*class_accuracy(right, labels)) == pytest.approx(np.mean(oracles))


def test_the_best_of_each_class_against_plain_loops():
    right = random_right(4, 300)
    labels = np.random.default_rng(1).integers(0, 12, 300)
    hits = 0
    for c in set(labels.tolist()):
        hits += max(int(row[labels == c].sum()) for row in right)
    assert class_choice(right, labels).sum() == hits
    expected = []
    for i in range(300):
        rest = np.arange(300) != i
        ranks = [
            (int(row[rest & (labels == labels[i])].sum()), int(row[rest].sum())) for row in right
        ]
        expected.append(bool(right[ranks.index(max(ranks)), i]))
    assert class_choice(right, labels, left_out=True).tolist() == expected


def test_a_class_of_one_sample_has_the_backbone_that_is_best_on_the_rest():
    right = np.array([[1, 0, 0, 0], [0, 1, 1, 1]], bool)
    assert class_choice(right, np.arange(4), left_out=True).tolist() == [False, True, True, True]


def test_the_floor_is_what_a_guess_would_be_alone_right_on():
    overlap = Overlap.of(BY_HAND)
    classes, n = 7, overlap.n
    for b in range(3):
        others = np.delete(BY_HAND, b, axis=0)
        floor = (1 - others.any(axis=0).mean()) / classes
        assert overlap.mean(overlap.guessed(classes))[b] == pytest.approx(floor)
    assert overlap.mean(overlap.guessed(classes)).tolist() == pytest.approx(
        [2 / n / classes, 1 / n / classes, 1 / n / classes]
    )


def test_a_backbone_that_guesses_gets_the_floors():
    rng = np.random.default_rng(3)
    classes, n = 5, 40_000
    labels = rng.integers(0, classes, n)
    right = np.concatenate([random_right(4, n), [rng.integers(0, classes, n) == labels]])
    overlap = Overlap.of(right)
    for measured, floor in (
        (overlap.only()[-1] / n, overlap.guessed(classes)),
        (overlap.mean(overlap.credit())[-1], overlap.guessed_credit(classes)),
    ):
        assert measured == pytest.approx(overlap.mean(floor)[-1], abs=0.005)
