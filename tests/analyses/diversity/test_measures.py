"""Measures of diversity against hand-counted samples, loops, and scikit-learn."""

import math

import numpy as np
import pytest

from clipsyn.analyses.diversity import measure as diversity
from clipsyn.analyses.diversity.measure import (
    PAIRWISE,
    Counts,
    over_pairs,
    pair_counts,
    plausible,
    shares_by_image,
)
from clipsyn.methods.numerics.logits import NO_PREDICTION

every_measure = pytest.mark.parametrize("name", PAIRWISE)


def measure(name):
    return lambda *given: PAIRWISE[name](pair_counts(*given))


@pytest.fixture
def many():
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


def test_shares_by_image_have_the_measures_as_their_means(many):
    by_image = shares_by_image(*many)
    for name in ("error_inconsistency", "disagreement", "double_fault"):
        mean = over_pairs(measure(name)(*many))
        assert by_image[f"mean_{name}"].mean() == pytest.approx(mean)
        assert by_image[f"mean_{name}"].min() >= 0
        assert by_image[f"mean_{name}"].max() <= 1


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
