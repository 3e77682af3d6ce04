"""One weight for each backbone, the same for all samples, fitted by cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.ensembles.base import Router
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.numerics.loss import weighted_cross_entropy
from clipsyn.methods.pool import Pool
from clipsyn.methods.stream import Support, minimum
from clipsyn.settings import FLAG, NUMBER

_LEAST_START = 0.01  # a weight that a search over a large support starts with


@dataclass(eq=False, repr=False)
class SuperLearner(Router):
    """``z = sum_b w_b z_b``, with w minimising

        sum_n cross_entropy(z_n, y_n) + penalty / 2 sum_b (B w_b - 1)^2

    over the support set. Paper section 4.2, row SL, after van der Laan, Polley and Hubbard, Super
    Learner (2007); it does not say whether the weights are free or on the simplex.

    simplex: w_b >= 0 and sum_b w_b = 1, as w = softmax(u). By default w is free, and its sum is a
    temperature too.
    penalty: a Gaussian prior around log-avg. It makes the minimum unique (backbones with equal
    logits share their weight) and finite (without it there is no minimum where all samples are
    right), and counts less the more samples there are. 1 was chosen on training samples held out of
    the support set.

    A support that is larger than memory takes about five passes, and a sample of it before.

    `weights_`: (backbone,), in the order of `backbones_`; unset for one backbone.

    >>> from clipsyn import SuperLearner
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> SuperLearner().fit(logits, labels).weights_.round(2)
    array([0.81, 0.1 ])
    >>> SuperLearner(simplex=True).fit(logits, labels).weights_.round(2)
    array([0.86, 0.14])
    """

    streams: ClassVar[bool] = True

    simplex: bool = parameter(False, FLAG)
    penalty: float = parameter(1.0, NUMBER, least=0)

    weights_: NDArray[np.float64] = learned()

    def _fit(self, support: Support) -> None:
        self.weights_ = fit_weights(support, penalty=self.penalty, simplex=self.simplex)

    def _weights(self, pool: Pool) -> NDArray[Any]:
        return self.weights_


def fit_weights(support: Support, *, penalty: float, simplex: bool = False) -> NDArray[np.float64]:
    """The weights (backbone,) of a super learner, by L-BFGS from 1/B; samples all learnable."""
    count = len(support.backbones)

    def free(part: Support, weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return penalised_loss(part, weights, penalty)

    def on_simplex(part: Support, u: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = _simplex(u)
        value, gradient = free(part, weights)
        return value, weights * (gradient - weights @ gradient)

    if simplex:
        return _simplex(minimum(on_simplex, support, np.zeros(count), _off_the_edges))
    return minimum(free, support, np.full(count, 1 / count))


def penalised_loss(
    support: Support, weights: NDArray[np.float64], penalty: float
) -> tuple[float, NDArray[np.float64]]:
    """What a super learner minimises, over the number of samples, and its gradient (backbone,).

    One pass over the logits.
    """
    loss, slope = 0.0, np.zeros(len(weights))
    for pool in support.blocks(embeddings=False):
        losses, gradients = weighted_cross_entropy(pool.logits, weights, pool.labels)
        loss += float(losses.sum(dtype=np.float64))
        slope += gradients.sum(axis=0, dtype=np.float64)
    excess = len(weights) * weights - 1
    share = penalty / len(support)
    value = loss / len(support) + share / 2 * (excess @ excess)
    return float(value), slope / len(support) + share * len(weights) * excess


def _off_the_edges(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Near u, with no weight so close to 0 that its logarithm does not matter."""
    return np.asarray(np.log(_simplex(u) + _LEAST_START))


def _simplex(u: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(u - u.max())
    return np.asarray(powers / powers.sum())
