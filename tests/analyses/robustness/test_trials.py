"""Measures of accuracies under perturbation: by hand, and Kendall's tau against scipy."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from clipsyn.analyses.robustness.trials import families, kendall_tau


def test_families_are_perturbations_without_their_severity():
    labels = ["jpeg-5", "clean", "fog-2", "jpeg-10", "jpeg-1", "fog-2-seed1", "fog-1-seed1"]
    assert families(labels) == {
        "fog": ["fog-2"],
        "fog-seed1": ["fog-1-seed1", "fog-2-seed1"],
        "jpeg": ["jpeg-1", "jpeg-5", "jpeg-10"],
    }
    assert list(families(labels)) == ["fog", "fog-seed1", "jpeg"]


def test_kendall_tau_equals_scipy():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 4, (2, 200, 6)) / 10  # many ties, some rows all tied
    taus = [kendall_tau(x, y) for x, y in zip(first, second, strict=True)]
    expected = [kendalltau(x, y).statistic for x, y in zip(first, second, strict=True)]
    np.testing.assert_allclose(taus, expected, atol=1e-12)
    assert np.isnan(kendall_tau(np.zeros(6), second[0]))


def test_means_that_differ_by_rounding_are_tied():
    first = np.array([0.1 + 0.2, 0.3, 0.5])
    assert first[0] != first[1]
    assert kendall_tau(first, np.array([1.0, 2, 3])) == pytest.approx(2 / np.sqrt(6))
