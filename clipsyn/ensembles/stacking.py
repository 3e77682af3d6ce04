"""Stacking: a multinomial logistic regression on the log-probabilities of all backbones.

D. H. Wolpert, "Stacked Generalization", Neural Networks 5, 1992; with the class probabilities of
every model as inputs and a linear model on top: K. M. Ting, I. H. Witten, "Issues in Stacked
Generalization", JAIR 10, 1999.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.ensembles.base import Ensemble
from clipsyn.estimator import learned, parameter
from clipsyn.numerics.folds import stratified_folds
from clipsyn.numerics.logistic import fit_probe
from clipsyn.numerics.logits import log_softmax
from clipsyn.numerics.loss import cross_entropy
from clipsyn.pool import Pool
from clipsyn.settings import NUMBER

_GRID = (1.0, 10.0, 100.0)  # inverse penalties tried, the strongest penalty first
_FIXED = 10.0  # where the support set is too small to choose
_FOLDS = 3


@dataclass(eq=False, repr=False)
class Stacking(Ensemble):
    """Logistic regression from all backbones' log-probabilities to the class.

        x_n = log softmax(Z_nb) for all b, side by side        z_nk = v_k . x_n + a_k
        minimise  |V|^2 / 2 + c * sum_n cross_entropy(z_n, y_n)

    The inputs are centred and divided by one number, which makes the mean |x_n|^2 one (why:
    docs/methods.md). scikit-learn's `LogisticRegression(C=c)` on these inputs has the same
    solution (`C=2*c` for two classes, where it has coefficients for one class alone).

    inverse_penalty: c. None chooses 1, 10 or 100 by the likelihood in a 3-fold cross-validation
    on the support set if at least half of its classes have two samples; otherwise it is 10.

    A class without a sample in the support set cannot be learned. Such classes come after all
    learned ones, in the order of the mean log-probability of the backbones.

    A step of the solver takes samples * coordinates * classes operations, with min(samples,
    backbones * classes) coordinates: a fit on one sample of each of a thousand classes takes
    seconds, on sixteen of each, by that count, hours.

    Learned: `seen_` (learned,) the classes of the support set; `coefficients_` (learned,
    backbone * class) and `intercepts_` (learned,), for log-probabilities as they are;
    `inverse_penalty_`.

    >>> from clipsyn import Stacking
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> ensemble = Stacking().fit(logits, labels)
    >>> ensemble.coefficients_.shape  # (learned class, backbone * class)
    (2, 4)
    >>> ensemble.score(logits, labels)
    1.0
    """

    knows_classes: ClassVar[bool] = True

    inverse_penalty: float | None = parameter(None, NUMBER, above=0)

    seen_: NDArray[np.int32] = learned()
    coefficients_: NDArray[np.float32] = learned()
    intercepts_: NDArray[np.float64] = learned()
    inverse_penalty_: float = learned()

    def _fit(self, pool: Pool) -> None:
        self.seen_, positions = np.unique(pool.labels, return_inverse=True)
        labels = positions.astype(np.int32)
        inputs = log_softmax(pool.logits).reshape(len(pool), -1).astype(np.float64)
        center = inputs.mean(axis=0)
        inputs -= center
        scale = np.sqrt((inputs**2).sum(axis=1).mean()) or 1.0
        inputs /= scale
        # |V| and V x stay the same when both are rotated: as many coordinates as samples are enough
        left, lengths, rotation = np.linalg.svd(inputs, full_matrices=False)
        inputs = left * lengths
        self.inverse_penalty_ = self.inverse_penalty or _chosen(inputs, labels)
        solution = fit_probe(
            inputs, labels, len(self.seen_), 1 / self.inverse_penalty_, tolerance=1e-8
        )
        coefficients = solution.coef @ rotation / scale
        self.coefficients_ = coefficients.astype(np.float32)
        self.intercepts_ = solution.intercept - coefficients @ center

    def _combine(self, pool: Pool) -> NDArray[Any]:
        inputs = log_softmax(pool.logits)
        learned = inputs.reshape(len(pool), -1) @ self.coefficients_.T + self.intercepts_
        scores = np.empty((len(pool), pool.n_classes), np.float32)
        scores[:, self.seen_] = learned
        absent = np.setdiff1d(np.arange(pool.n_classes), self.seen_)
        if len(absent):
            mean = inputs[:, :, absent].mean(axis=1)
            below = learned.min(axis=1, keepdims=True) - 1
            scores[:, absent] = mean - mean.max(axis=1, keepdims=True) + below
        return scores


def _chosen(inputs: NDArray[np.float64], labels: NDArray[np.int32]) -> float:
    """The inverse penalty with the best likelihood of held-out samples."""
    sizes = np.bincount(labels)
    if len(sizes) < 2 or np.mean(sizes > 1) < 0.5:
        return _FIXED
    losses = np.zeros(len(_GRID))
    for held in stratified_folds(labels, _FOLDS, keep_classes=True):
        kept = ~held
        # what lies outside the space of the samples kept has no coefficient
        rotation = np.linalg.svd(inputs[kept], full_matrices=False)[2]
        coordinates = inputs @ rotation.T
        for number, inverse_penalty in enumerate(_GRID):
            solution = fit_probe(
                coordinates[kept],
                labels[kept],
                len(sizes),
                1 / inverse_penalty,
                tolerance=1e-5,
            )
            scores = coordinates[held] @ solution.coef.T + solution.intercept
            losses[number] += cross_entropy(scores, labels[held])[0].sum()
    return _GRID[int(losses.argmin())]
