"""What every ensemble is: `fit(support)`, `combine(pool) -> (sample, class)`.

A router also says how much each backbone counts for each sample: `weights(pool)`.

The base class keeps the promises that hold for all of them, so that an ensemble is only its
formula (`_fit`, and `_combine` or `_weights`):

- data of the test split cannot reach `fit`;
- backbones are worked on in the order of their names, and found by name: a pool that holds them
  in another order gives the same scores;
- `fit` leaves out samples without a label, and those that some backbone has no logits for; the
  latter have NaN scores;
- one backbone on its own is that backbone;
- `combine` and `weights` work on blocks of rows, on all cores: the memory that a formula needs
  beside the logits is bounded, and fits into a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.methods.estimator import Estimator, as_pool, as_support
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import predictions, softmax, weighted_sum
from clipsyn.methods.numerics.metrics import accuracy
from clipsyn.methods.pool import Pool
from clipsyn.methods.stream import Support

_FAR = 1000.0  # beyond it a logit has less than four decimals in single precision


class Ensemble(Estimator):
    knows_classes: ClassVar[bool] = False  # True: what is learned is about the classes seen
    needs_embeddings: ClassVar[bool] = False  # True: logits alone will not do
    needs_logits: ClassVar[bool] = True  # False: what each backbone predicts will do
    needs_confidences: ClassVar[bool] = False  # True: with the probability of that

    def fit(self, support: Support | ArrayLike, labels: ArrayLike | None = None) -> Self:
        """Learn from labelled samples.

        support: a Pool, a stream of pools, or logits (sample, backbone, class) beside labels
        (sample,). An ensemble that `streams` goes through a stream in passes; any other takes a
        stratified sample of 1 GiB, and `sampled_` is the number of its images.
        Raises LeakError for a pool of the test split, InputError where there is nothing to
        learn from. Where it raises, an earlier fit stays.
        """
        with self._whole_fit():
            known = self._admit(as_support(support, labels)).of_backbones(self.backbones_)
            if self.learns and len(self.backbones_) > 1:
                self._fit(known)
        return self

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

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        return tags

    def _admit(self, support: Support) -> Support:
        """The part of `support` that can be learned from; forgets an earlier fit."""
        known = self._learnable(support)
        for name in self.learned():
            delattr(self, name)  # of an earlier fit, on what may have been other backbones
        self.backbones_ = tuple(sorted(known.backbones))
        self.n_classes_ = known.n_classes
        self._note_sample(known)
        return known

    def _aligned(self, pool: Pool) -> Pool:
        if self.learns or hasattr(self, "backbones_"):
            return super()._aligned(pool)
        pool.check_text(type(self).__name__)
        return pool.of_backbones(sorted(pool.backbones))

    def _fit(self, support: Any) -> None:
        """Learn from at least two backbones and one sample, all labelled and readable.

        support: a Pool; for an ensemble that `streams` perhaps a stream. ``support.blocks()`` is
        one pass over the samples of either.
        """

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
