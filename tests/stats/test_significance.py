"""Exact tests against scipy, against all sign patterns, and by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from clipsyn.stats.differences import flipped, holm, mcnemar


@pytest.mark.parametrize(
    ("first", "second"),
    [(0, 0), (0, 1), (3, 9), (9, 3), (6, 6), (0, 40), (512, 450), (20_000, 19_500)],
)
def test_mcnemar_is_a_binomial_test(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (3, 9), (6, 6), (40, 11), (512, 450)]
)
def test_flipped_with_one_draw_is_mcnemars_test(first, second):
    sums = np.repeat([1, -1, 0], [first, second, 7])
    assert flipped(sums) == pytest.approx(mcnemar(first, second), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "sums", [[3, 0, -1], [2, 2, -1, 1], [3, 3, 3, -2, 1, 0, 0], [-1, -3, -3, 2, 1, 1, 3, -2]]
)
def test_flipped_is_the_share_of_all_signs_that_are_as_far(sums):
    sizes, total = np.abs(sums), abs(sum(sums))
    signs = itertools.product([-1, 1], repeat=len(sums))
    expected = np.mean([abs(np.dot(one, sizes)) >= total for one in signs])
    assert flipped(np.array(sums)) == pytest.approx(expected)


def test_flipped_of_many_samples_is_about_normal():
    sums = np.random.default_rng(0).integers(-2, 4, 20_000) - np.arange(20_000) % 2
    sums[:600] += 1
    spread = math.sqrt((sums**2).sum())
    expected = 2 * norm.sf((abs(sums.sum()) - 1) / spread)
    assert flipped(sums) == pytest.approx(expected, rel=0.02)
    assert 0.01 < expected < 0.1
    assert flipped(np.full(50_000, 3)) == 1e-12


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 (not below .06) .06 (not below)
    assert holm(np.array([0.03, 0.01, 0.04, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    # as R's p.adjust has it
    assert holm(np.array([0.001, 0.5, 0.9])) == pytest.approx([0.003, 1, 1])


def test_holm_keeps_the_level_of_the_family():
    """Reject while the k-th smallest is at most level / (m + 1 - k): Holm's own description."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        p_values = rng.random(8) ** 3
        rejected = np.zeros(8, bool)
        for k, index in enumerate(np.argsort(p_values)):
            if p_values[index] > 0.05 / (8 - k):
                break
            rejected[index] = True
        assert np.array_equal(holm(p_values) <= 0.05, rejected)


def test_holm_counts_tests_that_there_are():
    assert holm(np.array([np.nan, 0.02, 0.04])) == pytest.approx([np.nan, 0.04, 0.04], nan_ok=True)
    assert holm(np.empty(0)).shape == (0,)
