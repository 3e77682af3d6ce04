"""Measures of diversity against hand-counted samples, loops, and scikit-learn."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from clipsyn.analyses.diversity import measure as diversity
from clipsyn.analyses.diversity.measure import (
    PAIRWISE,
    Counts,
    fleiss_kappa,
    over_pairs,
    pair_counts,
    plausible,
    shares_by_image,
)
from clipsyn.methods.numerics.logits import NO_PREDICTION

every_measure = pytest.mark.parametrize("name", PAIRWISE)


def measure(name: str) -> Callable[..., np.ndarray]:
    return lambda *given: PAIRWISE[name](pair_counts(*given))


@pytest.fixture
def four() -> tuple[np.ndarray, np.ndarray]:
    """Four images that count, and two that do not: without a label, without a prediction.

    The first backbone is right on images 0, 1, 2; the second on 0, 1, 3; the third on 3.
    """
    labels = np.array([0, 1, 2, 3, -1, 2], np.int32)
    predictions = np.array(
        [[0, 1, 2, 0, 0, 2], [0, 1, 1, 3, 0, 2], [3, 2, 1, 3, 0, NO_PREDICTION]], np.uint16
    )
    return predictions, labels


@pytest.fixture
def many() -> tuple[np.ndarray, np.ndarray]:
    """Four backbones of different accuracy that share what is hard; some rows do not count."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 300).astype(np.int32)
    hard = rng.random(300)
    predictions = np.stack(
        [
            np.where(hard + rng.normal(0, 0.3, 300) < level, labels, rng.integers(0, 6, 300))
            for level in (0.3, 0.5, 0.6, 0.8)
        ]
    ).astype(np.uint16)
    labels[:5] = -1
    predictions[1, 7] = NO_PREDICTION
    return predictions, labels


def rows(predictions: np.ndarray, labels: np.ndarray) -> list[tuple[int, ...]]:
    """Predictions and the label of the samples that count, one after the other."""
    return [
        row
        for row in zip(*predictions.tolist(), labels.tolist(), strict=True)
        if row[-1] >= 0 and NO_PREDICTION not in row
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # pairs 01, 02, 12: both right 2, 0, 1; one right 2, 4, 2; both wrong 0, 0, 1
        ("error_inconsistency", (2 / 4, 4 / 4, 2 / 4)),
        ("disagreement", (2 / 4, 4 / 4, 2 / 4)),
        ("double_fault", (0 / 4, 0 / 4, 1 / 4)),
        ("yules_q", ((0 - 1) / (0 + 1), (0 - 3) / (0 + 3), (1 - 0) / (1 + 0))),
        # accuracies 3/4, 3/4, 1/4: by chance 10/16, 6/16, 6/16 right or wrong together
        ("error_consistency", ((8 - 10) / 6, (0 - 6) / 10, (8 - 6) / 10)),
    ],
)  # fmt: skip
def test_by_hand(four, name, expected):
    matrix = measure(name)(*four)
    assert matrix[[0, 0, 1], [1, 2, 2]] == pytest.approx(expected)
    assert over_pairs(matrix) == pytest.approx(sum(expected) / 3)


def test_all_together_by_hand(four):
    counts = pair_counts(*four)
    assert counts.n == 4
    # mean accuracy 7/12, mean inconsistency 2/3
    assert fleiss_kappa(counts) == pytest.approx(1 - (2 / 3) / (2 * 7 / 12 * 5 / 12))
    # votes 2:1 on images 0 to 3, but for image 1: 2:1 too
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(3)
    assert vote_entropy(*four) == pytest.approx(entropy)


LOOPS = {  # of (first, second, label)
    "error_inconsistency": lambda a, b, y: (a == y) != (b == y),
    "disagreement": lambda a, b, y: a != b,
    "double_fault": lambda a, b, y: y not in (a, b),
}


@pytest.mark.parametrize("name", LOOPS)
def test_shares_equal_a_loop(many, name):
    matrix, counted = measure(name)(*many), rows(*many)
    for i, j in itertools.product(range(4), repeat=2):
        hits = [LOOPS[name](row[i], row[j], row[-1]) for row in counted]
        assert matrix[i, j] == pytest.approx(sum(hits) / len(counted), abs=1e-12)


def test_error_consistency_is_scikit_learns_kappa(many):
    matrix = measure("error_consistency")(*many)
    right = np.array([[p == row[-1] for p in row[:-1]] for row in rows(*many)])
    for i, j in itertools.combinations(range(4), 2):
        assert matrix[i, j] == pytest.approx(cohen_kappa_score(right[:, i], right[:, j]))


def test_yules_q_is_that_of_the_odds_ratio(many):
    matrix = measure("yules_q")(*many)
    for i, j in itertools.combinations(range(4), 2):
        table = Counter((row[i] == row[-1], row[j] == row[-1]) for row in rows(*many))
        odds = table[True, True] * table[False, False] / table[True, False] / table[False, True]
        assert matrix[i, j] == pytest.approx((odds - 1) / (odds + 1))


def test_fleiss_kappa_is_that_of_the_published_table(many):
    """Fleiss' own formula: how many raters chose each category, subject by subject."""
    b = 4
    table = np.array([[sum(p == row[-1] for p in row[:-1]), 0] for row in rows(*many)])
    table[:, 1] = b - table[:, 0]
    observed = ((table**2).sum(axis=1) - b).mean() / (b * (b - 1))
    expected = ((table.sum(axis=0) / table.sum()) ** 2).sum()
    kappa = fleiss_kappa(pair_counts(*many))
    assert kappa == pytest.approx((observed - expected) / (1 - expected))


def vote_entropy(predictions, labels) -> float:
    return float(shares_by_image(predictions, labels)["vote_entropy"].mean(dtype=float))


def test_vote_entropy_is_that_of_histograms(many):
    entropies = []
    for *votes, _ in rows(*many):
        shares = [count / len(votes) for count in Counter(votes).values()]
        entropies.append(-sum(p * math.log(p) for p in shares) / math.log(len(votes)))
    assert vote_entropy(*many) == pytest.approx(sum(entropies) / len(entropies), abs=1e-6)


@every_measure
def test_order_of_samples_and_backbones(many, name):
    predictions, labels = many
    matrix = measure(name)(predictions, labels)
    assert matrix.shape == (4, 4)
    assert np.array_equal(matrix, matrix.T)
    order = np.random.default_rng(1).permutation(300)
    assert np.array_equal(measure(name)(predictions[:, order], labels[order]), matrix)
    assert np.array_equal(measure(name)(predictions[::-1], labels), matrix[::-1, ::-1])


@every_measure
def test_right_everywhere(name):
    """Nothing to agree on beyond chance; one that errs now and then beside one that never does."""
    labels = np.arange(10, dtype=np.int32)
    right, errs = labels.astype(np.uint16), np.where(labels < 3, 9, labels).astype(np.uint16)
    matrix = measure(name)(np.stack([right, right, errs]), labels)
    expected = {  # of the two, of each with the third, and the mean of the pairs that have one
        "error_inconsistency": (0, 0.3, 0.2),
        "disagreement": (0, 0.3, 0.2),
        "double_fault": (0, 0, 0),
        "yules_q": (math.nan, math.nan, math.nan),
        "error_consistency": (math.nan, 0, 0),
    }[name]
    found = (matrix[0, 1], matrix[0, 2], over_pairs(matrix))
    assert found == pytest.approx(expected, nan_ok=True)
    assert matrix[1, 2] == pytest.approx(matrix[0, 2], nan_ok=True)


@every_measure
def test_no_sample_is_nan(name):
    nothing = np.zeros((3, 2), np.uint16), np.full(2, -1, np.int32)
    assert np.isnan(measure(name)(*nothing)).all()
    assert {len(values) for values in shares_by_image(*nothing).values()} == {0}


def test_one_backbone_has_no_pairs():
    predictions, labels = np.zeros((1, 4), np.uint16), np.arange(4, dtype=np.int32)
    counts = pair_counts(predictions, labels)
    assert math.isnan(over_pairs(PAIRWISE["disagreement"](counts)))
    assert math.isnan(fleiss_kappa(counts))
    assert math.isnan(vote_entropy(predictions, labels))


def test_shares_by_image_have_the_measures_as_their_means(many):
    by_image = shares_by_image(*many)
    for name in ("error_inconsistency", "disagreement", "double_fault"):
        mean = over_pairs(measure(name)(*many))
        assert by_image[f"mean_{name}"].mean() == pytest.approx(mean)
        assert by_image[f"mean_{name}"].min() >= 0
        assert by_image[f"mean_{name}"].max() <= 1


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [
        (np.zeros(4, np.uint16), np.zeros(4, np.int32)),
        (np.zeros((0, 4), np.uint16), np.zeros(4, np.int32)),
        (np.zeros((2, 4), np.uint16), np.zeros(3, np.int32)),
    ],
)
def test_bad_input_is_refused(predictions, labels):
    for function in (pair_counts, shares_by_image):
        with pytest.raises(ValueError, match="predictions are"):
            function(predictions, labels)


@pytest.mark.parametrize("n", [60, 250])
@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.1, 0.2), (0.92, 0.02, 0.02, 0.04)])
@pytest.mark.parametrize("copies", [1, 2])
def test_intervals_of_kappa_cover_as_promised(n, shares, copies):
    """Also where backbones hardly err; every image is there once, or twice."""
    (both, first, second, _), rng, hits = shares, np.random.default_rng(2), 0
    r, s = both + first, both + second
    expected = r * s + (1 - r) * (1 - s)
    kappa = (1 - first - second - expected) / (1 - expected)
    for _ in range(1500):
        a, b, c, d = copies * rng.multinomial(n, shares)
        hit = np.array([a + b, a + c], float)
        counts = Counts(copies * n, hit, np.array([[a + b, a], [a, a + c]], float), np.eye(2))
        found = diversity.error_consistency(counts)[0, 1]
        drawn = diversity.error_consistency(plausible(counts, 0, 1, float(n)))[:, 0, 1]
        low, high = np.quantile(drawn, [0.025, 0.975])
        hits += min(low, found) <= kappa <= max(high, found) or d == b + c + d == 0
    assert 0.925 <= hits / 1500 <= 0.985
