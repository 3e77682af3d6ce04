"""The largest numbers of rows, compared with a stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.methods.numerics.neighbours import largest


@pytest.mark.parametrize("unknown", [0, 0.05, 0.95])
@pytest.mark.parametrize("k", [0, 1, 3, 40, 41, 90])
def test_the_largest_are_those_of_a_stable_sort(k, unknown):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 9, (20, 210)).astype(np.float32)
    values[rng.random(values.shape) < unknown] = np.nan
    values[0] = -np.inf
    expected = np.argsort(np.where(np.isfinite(values), -values, np.inf), axis=1, kind="stable")
    there = np.take_along_axis(np.isfinite(values), expected, axis=1)
    assert largest(values, k).tolist() == np.where(there, expected, 210)[:, :k].tolist()
