"""`clipsyn.methods.heads.base`: splits, cross-fitting, what every head shares."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from clipsyn.methods.estimator import cross_fitted
from clipsyn.methods.heads.base import Head
from clipsyn.methods.numerics.samples import stratified_folds
from clipsyn.methods.pool import Pool


class Recorder(Head):
    """Its logits are the sum of the first embedding over the samples it was fitted on."""

    seen: ClassVar[list[int]] = []

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def _fit(self, pool: Pool) -> None:
        self.total_ = self.factor * float(pool.embeddings["0"][:, 0].sum())
        self.seen.append(len(pool))

    def _logits(self, pool: Pool, backbone: str) -> np.ndarray:
        return np.full((len(pool), pool.n_classes), self.total_, np.float32)


def numbered(count: int, classes: int = 3) -> Pool:
    """Sample i has the embedding 2^i, so that a sum says who is in it."""
    pool = Pool.of(np.zeros((count, 1, classes)), np.arange(count) % classes)
    return replace(pool, embeddings={"0": 2.0 ** np.arange(count)[:, None]})


@pytest.mark.parametrize("count", [2, 3, 11])
def test_cross_fitted_logits_come_from_everybody_else(count):
    support = numbered(count)
    logits = cross_fitted(Recorder(0.5), support, lambda head, it: head.transform(it).logits, 4, 3)
    assert logits.shape == support.logits.shape
    for held in stratified_folds(support.labels, 4, random_state=3):
        expected = 0.5 * sum(2.0**other for other in np.flatnonzero(~held))
        assert (logits[held, 0, 0] == expected).all()
