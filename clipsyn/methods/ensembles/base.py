"""What every ensemble is: `fit(support)`, `combine(pool) -> (sample, class)`.

A router also says how much each backbone counts for each sample: `weights(pool)`.

The base class keeps the promises that hold for all of them, so that an ensemble is only its
formula (`_fit`, and `_combine` or `_weights`), beside those of `Estimator`:

- samples that some backbone has no logits for have NaN scores;
- one backbone on its own is that backbone;
- `combine` and `weights` work on blocks of rows, on all cores: the memory that a formula needs
  beside the logits is bounded, and fits into a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.methods.estimator import Estimator, as_pool
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import predictions, softmax, weighted_sum
from clipsyn.methods.numerics.metrics import accuracy
from clipsyn.methods.pool import Pool

_FAR = 1000.0  # beyond it a logit has less than four decimals in single precision


class Ensemble(Estimator):
    kind: ClassVar[str | None] = "classifier"

    def combine(self, pool: Pool | ArrayLike) -> NDArray[np.float32]:
        """Scores (sample, class) whose softmax are the ensemble's probabilities."""
        pool = self._aligned(as_pool(pool))
        compute = self._combine_near if len(pool.backbones) > 1 else _only_backbone
        return _by_blocks(pool, compute, pool.n_classes)

    def predict(self, pool: Pool | ArrayLike) -> NDArray[np.uint16]:
        """(sample,) class index, the lowest on ties; NO_PREDICTION where there are no logits."""
        return predictions(self.combine(pool))

    def predict_proba(self, pool: Pool | ArrayLike) -> NDArray[np.float32]:
        """(sample, class) probabilities."""
        return np.asarray(softmax(self.combine(pool)))

    def score(self, pool: Pool | ArrayLike, labels: ArrayLike | None = None) -> float:
        """Accuracy over the samples with a label and a prediction; NaN if there is none."""
        pool = as_pool(pool, labels)
        predicted = self.predict(pool)
        return accuracy(predicted, pool.labels).value

    @property
    def classes_(self) -> NDArray[np.intp]:
        """(class,) what the columns of `predict_proba` are, for scikit-learn's scorers."""
        return np.arange(self.n_classes_)

    def _learn(self, support: Pool) -> None:  # one backbone on its own is that backbone
        if self.learns and len(support.backbones) > 1:
            self._fit(support)

    def _aligned(self, pool: Pool) -> Pool:
        if self.learns or hasattr(self, "backbones_"):
            return super()._aligned(pool)
        pool.check_text(type(self).__name__)
        return pool.of_backbones(sorted(pool.backbones))

    def _combine(self, pool: Pool) -> NDArray[Any]:
        """(sample, class) scores of samples that are all readable."""
        raise NotImplementedError

    def _combine_near(self, pool: Pool) -> NDArray[Any]:
        near = self._near(pool)
        scores = self._combine(near)
        return scores if near is pool else np.maximum(scores, np.finfo(np.float32).min)

    def _near(self, pool: Pool) -> Pool:
        """`pool` with logits near 0, for a formula that learns nothing.

        A number added to all logits of a backbone changes no probability, but single precision has
        few digits left for differences between large numbers. Such logits are centred, and stay in
        double precision where a difference is too large for single precision.
        """
        logits = pool.logits
        # a number below 0 that was added to all shows in any class: half the time of a minimum
        if self.learns or (logits.max() <= _FAR and logits[:, :, 0].min() >= -_FAR):
            return pool
        centred: NDArray[Any] = logits.astype(np.float64)
        centred -= centred.max(axis=2, keepdims=True)
        if centred.min() >= np.finfo(np.float32).min:
            centred = centred.astype(np.float32)
        return replace(pool, logits=centred)


class Router(Ensemble):
    """An ensemble that is a weighted sum of logits, with weights (sample, backbone)."""

    def weights(self, pool: Pool | ArrayLike) -> NDArray[np.float32]:
        """(sample, backbone) in the order of the pool's backbones; NaN where unreadable."""
        given = as_pool(pool)
        pool = self._aligned(given)
        weights = _by_blocks(pool, self._spread_weights, len(pool.backbones))
        return weights[:, [pool.backbones.index(name) for name in given.backbones]]

    def _spread_weights(self, pool: Pool) -> NDArray[Any]:
        one = len(pool.backbones) == 1
        weights = 1.0 if one else self._weights(self._near(pool))
        return np.broadcast_to(weights, pool.logits.shape[:2])

    def _weights(self, pool: Pool) -> NDArray[Any]:
        """(sample, backbone), or (backbone,) if they are the same for all samples."""
        raise NotImplementedError

    def _combine(self, pool: Pool) -> NDArray[Any]:
        return weighted_sum(pool.logits, self._weights(pool))


def _only_backbone(pool: Pool) -> NDArray[Any]:
    return pool.logits[:, 0]


def _by_blocks(
    pool: Pool, compute: Callable[[Pool], NDArray[Any]], width: int
) -> NDArray[np.float32]:
    """compute(readable samples) in the rows they are for, NaN in the others: (sample, width)."""
    out = np.empty((len(pool), width), np.float32)
    readable = pool.readable

    def block(rows: slice) -> None:
        part, good = pool.take(rows), readable[rows]
        if good.all():
            out[rows] = compute(part)
            return
        out[rows] = np.nan
        if good.any():
            out[rows][good] = compute(part.take(np.flatnonzero(good)))

    in_blocks(block, pool.logits.shape)
    return out
