"""What every head is: it turns a pool into one with other logits.

`fit(support)` learns from labelled samples, `transform(pool)` gives any pool new logits. A head and
a combiner share the labelled samples, and logits that the head gives its own support are
over-confident. `fit_transform(support)` is therefore *not* ``fit(support).transform(support)``, as
with scikit-learn's TargetEncoder. It returns the pool that a combiner may be fitted on: its logits
were made without the label that they are for, and it can hold fewer samples.

Without the label is meant strictly. A sample that is left out leaves its class one image short, and
a head that scores small classes lower would tell by that which class it is. Each head says how it
makes up for the missing image. A handful of numbers (temperatures, penalties) are chosen with all
labels.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from clipsyn.errors import InputError
from clipsyn.methods.estimator import Estimator, as_pool, cross_fitted
from clipsyn.methods.numerics import Array, Floats
from clipsyn.methods.numerics.logits import log_softmax
from clipsyn.methods.pool import Pool, in_memory


class Head(Estimator):
    needs_embeddings: ClassVar[bool] = True
    knows_classes: ClassVar[bool] = True

    def transform(self, pool: Pool | ArrayLike) -> Pool:
        """The pool with this head's logits, (sample, backbone, class)."""
        pool = self._aligned(as_pool(pool))
        return pool.with_logits(self._transform(pool))

    def fit_transform(self, support: Pool | ArrayLike, labels: ArrayLike | None = None) -> Pool:
        """Fit, and return the pool that a combiner may be fitted on (see the module's text).

        Of a support that is larger than memory that is of a sample, unless the head learns nothing.
        """
        given = as_pool(support, labels)
        if self.learns and not self.any_size:
            given = in_memory(given, type(self).__name__)
        return self.fit(given)._combiner_pool(given.labelled())

    def _transform(self, pool: Pool) -> Floats:
        """(sample, backbone, class); NaN where the pool's logits have one."""
        logits = np.empty(pool.logits.shape, np.float32)
        for column, name in enumerate(pool.backbones):
            logits[:, column] = self._logits(pool, name)
        logits[np.isnan(pool.logits.sum(axis=2))] = np.nan
        return logits

    def _logits(self, pool: Pool, backbone: str) -> Floats:
        """(sample, class) of one backbone."""
        raise NotImplementedError

    def _combiner_pool(self, support: Pool) -> Pool:
        """`support`, or a part of it, with logits that were made without its labels."""
        raise NotImplementedError


class ZeroShot(Head):
    """``logit scale * image embedding @ class embedding.T``, as the store holds them.

    Nothing is learned, so the support's own logits know no label.

    >>> from clipsyn import Pool, ZeroShot
    >>> pool = Pool.of([[[2, 0, 1]]])  # one sample, one backbone, three classes
    >>> ZeroShot().fit(pool).transform(pool).logits
    array([[[2., 0., 1.]]], dtype=float32)
    """

    learns: ClassVar[bool] = False
    needs_embeddings: ClassVar[bool] = False
    needs_logits: ClassVar[bool] = False
    knows_classes: ClassVar[bool] = False

    def _transform(self, pool: Pool) -> Floats:
        return pool.logits

    def _combiner_pool(self, support: Pool) -> Pool:
        return support


class CrossFitted(Head):
    """A head whose combiner gets logits of heads like it, fitted on the other folds."""

    folds: int
    random_state: int

    def _combiner_pool(self, support: Pool) -> Pool:
        if len(support) < 2:
            return support  # nothing is left to fit a head on
        logits = cross_fitted(self, support, Head._transform, self.folds, self.random_state)
        return support.with_logits(logits)


def image_embeddings(pool: Pool, backbone: str) -> Floats:
    """(sample, embed) float32; InputError where the pool has none of this backbone."""
    if backbone not in pool.embeddings:
        raise InputError(
            f"there are no embeddings of {backbone}: use the zero-shot head, which needs logits "
            "alone, extract this backbone, or give Pool.of(…, embeddings=…)"
        )
    return pool.embeddings[backbone].astype(np.float32)


def normalised(values: Array) -> Array:
    """(row, embed) of unit norm; a row of zeros stays one."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norms, np.finfo(np.float32).tiny))


def backbone_logits(pool: Pool, backbone: str) -> Floats:
    """(sample, class): the logits that the pool holds for one backbone, a view."""
    return pool.logits[:, pool.backbones.index(backbone)]


def mean_loss(logits: Array, labels: Array) -> float:
    """Mean cross-entropy in nats: logits (sample, class), labels (sample,)."""
    return -float(log_softmax(logits)[np.arange(len(labels)), labels].mean(dtype=np.float64))


def repeated(labels: Array) -> bool:
    """Whether most of the classes that are there have at least two samples."""
    sizes = np.bincount(labels)
    return bool(np.mean(sizes[sizes > 0] >= 2) > 0.5)
