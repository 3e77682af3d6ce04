"""`clipsyn.methods.heads.base`: splits, cross-fitting, what every head shares."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from clipsyn.errors import InputError
from clipsyn.methods.estimator import cross_fitted
from clipsyn.methods.heads.base import Head, image_embeddings, mean_loss, repeated
from clipsyn.methods.heads.zero_shot import ZeroShot
from clipsyn.methods.numerics.folds import stratified_folds
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


def test_most_classes_repeated():
    assert repeated(np.array([0, 0, 3, 3, 5]))
    assert not repeated(np.array([0, 0, 3]))
    assert not repeated(np.array([2]))


@pytest.mark.parametrize("count", [2, 3, 11])
def test_cross_fitted_logits_come_from_everybody_else(count):
    support = numbered(count)
    logits = cross_fitted(Recorder(0.5), support, lambda head, it: head.transform(it).logits, 4, 3)
    assert logits.shape == support.logits.shape
    for held in stratified_folds(support.labels, 4, random_state=3):
        expected = 0.5 * sum(2.0**other for other in np.flatnonzero(~held))
        assert (logits[held, 0, 0] == expected).all()


def test_embeddings_are_float32_or_named_as_missing():
    pool = Pool.of(np.zeros((2, 1, 3)), None, [np.full((2, 4), 0.5, np.float16)])
    assert image_embeddings(pool, "0").dtype == np.float32
    with pytest.raises(InputError, match="no embeddings of other"):
        image_embeddings(pool, "other")


def test_mean_loss_is_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9, 4)) * 50, rng.integers(0, 4, 9)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert mean_loss(logits, labels) == pytest.approx(float(expected), abs=1e-12)


def test_unreadable_rows_are_unknown_whatever_a_head_says():
    logits = np.zeros((3, 2, 2))
    logits[1, 0] = np.nan
    pool = Pool.of(logits, [0, 1, 0], [np.ones((3, 1))] * 2)
    result = Recorder().fit(pool).transform(pool).logits
    np.testing.assert_array_equal(np.isnan(result), np.isnan(logits))
    np.testing.assert_array_equal(ZeroShot().fit(pool).transform(pool).logits, logits)
