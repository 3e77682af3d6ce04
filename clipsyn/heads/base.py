"""What every head is: it turns a pool into one with other logits.

`fit(support)` learns from labelled samples, `transform(pool)` gives any pool new logits. Where
a head and a combiner share the labelled samples, logits that the head gives its own support are
over-confident. `fit_transform(support)` is therefore *not* ``fit(support).transform(support)``,
as with scikit-learn's TargetEncoder: it returns the pool that a combiner may be fitted on, with
logits that do not know the label they are for. It can hold fewer samples.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import InputError, LeakError, RouterMismatch, UsageError
from clipsyn.estimator import Estimator
from clipsyn.pool import Pool


class Head(Estimator):
    learns: ClassVar[bool] = True  # False: needs no labelled sample

    backbones_: tuple[str, ...]
    n_classes_: int

    def fit(self, support: Pool) -> Self:
        """Learn from labelled samples.

        Raises LeakError for a pool of the test split, InputError where there is nothing to
        learn from or too little.
        """
        if support.split == "test":
            raise LeakError(
                f"{type(self).__name__} was given the test split of "
                f"{support.dataset or 'a dataset'} to fit: use its training or validation split"
            )
        pool = support.labelled()
        if self.learns and not len(pool):
            raise InputError(
                f"{type(self).__name__} has no labelled, readable sample to fit: give a support "
                "set with labels"
            )
        self.backbones_ = pool.backbones
        self.n_classes_ = pool.n_classes
        self._fit(pool)
        return self

    def transform(self, pool: Pool) -> Pool:
        """The pool with this head's logits, (sample, backbone, class)."""
        if not hasattr(self, "backbones_"):
            raise UsageError(f"{type(self).__name__} is not fitted yet: call fit(support)")
        if set(self.backbones_) != set(pool.backbones):
            raise RouterMismatch("backbones", self.backbones_, pool.backbones)
        if pool.n_classes != self.n_classes_:
            raise RouterMismatch("number of classes", self.n_classes_, pool.n_classes)
        pool = pool.of_backbones(self.backbones_)
        logits = np.stack([self._logits(pool, name) for name in pool.backbones], axis=1)
        return pool.with_logits(logits.astype(np.float32, copy=False))

    def fit_transform(self, support: Pool) -> Pool:
        """Fit, and return the pool for fitting a combiner (see the module's text)."""
        self.fit(support)
        return self._combiner_pool(support.labelled())

    def _fit(self, pool: Pool) -> None:
        """Learn from samples that are all labelled and readable."""

    def _logits(self, pool: Pool, backbone: str) -> NDArray[np.float32]:
        """(sample, class) of one backbone; NaN rows stay NaN."""
        raise NotImplementedError

    def _combiner_pool(self, support: Pool) -> Pool:
        """Logits for `support` that do not know its labels, possibly for a part of it."""
        raise NotImplementedError
