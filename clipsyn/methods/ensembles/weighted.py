"""A weight or a temperature for each backbone, the same for all samples, by cross-entropy.

    super-learner    z = sum_b w_b z_b
    calibrated       T_b = argmin_T  mean_n cross_entropy(z_nb / T, y_n)

Guo et al., On Calibration of Modern Neural Networks (2017), for each backbone alone. Ensembles on
calibrated logits are the paper's rows C-Conf and C-Log-Avg (section 4.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.ensembles.base import Router
from clipsyn.methods.ensembles.static import most_confident, one_hot
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.numerics.blocks import in_blocks, in_cache
from clipsyn.methods.numerics.logits import weighted_cross_entropy
from clipsyn.methods.numerics.optimise import minimise
from clipsyn.methods.pool import Pool
from clipsyn.settings import FLAG, NUMBER

LOWEST, HIGHEST = 0.01, 100.0  # temperatures: scaled logits and bare cosines both fit in
_BOUNDS = (math.log(LOWEST), math.log(HIGHEST))
_ITERATIONS = 100


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

    `weights_`: (backbone,), in the order of `backbones_`; unset for one backbone.

    >>> from clipsyn import SuperLearner
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> SuperLearner().fit(logits, labels).weights_.round(2)
    array([0.81, 0.1 ])
    >>> SuperLearner(simplex=True).fit(logits, labels).weights_.round(2)
    array([0.86, 0.14])
    """

    any_size: ClassVar[bool] = True

    simplex: bool = parameter(False, FLAG)
    penalty: float = parameter(1.0, NUMBER, least=0)

    weights_: NDArray[np.float64] = learned()

    def _fit(self, support: Pool) -> None:
        self.weights_ = fit_weights(support, penalty=self.penalty, simplex=self.simplex)

    def _weights(self, pool: Pool) -> NDArray[Any]:
        return self.weights_


def fit_weights(support: Pool, *, penalty: float, simplex: bool = False) -> NDArray[np.float64]:
    """The weights (backbone,) of a super learner, by L-BFGS from 1/B; samples all learnable."""
    count = len(support.backbones)

    def free(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return penalised_loss(support, weights, penalty)

    def on_simplex(u: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = _simplex(u)
        value, gradient = free(weights)
        return value, weights * (gradient - weights @ gradient)

    if simplex:
        return _simplex(minimise(on_simplex, np.zeros(count)))
    return minimise(free, np.full(count, 1 / count))


def penalised_loss(
    support: Pool, weights: NDArray[np.float64], penalty: float
) -> tuple[float, NDArray[np.float64]]:
    """What a super learner minimises, over the number of samples, and its gradient (backbone,).

    One pass over the logits.
    """
    losses, gradients = weighted_cross_entropy(support.logits, weights, support.labels)
    excess = len(weights) * weights - 1
    share = penalty / len(support)
    value = losses.sum(dtype=np.float64) / len(support) + share / 2 * (excess @ excess)
    slope = gradients.sum(axis=0, dtype=np.float64) / len(support)
    return float(value), slope + share * len(weights) * excess


def _simplex(u: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(u - u.max())
    return np.asarray(powers / powers.sum())


class _Calibrated(Router):
    """`temperatures_`: (backbone,), in the order of `backbones_`; unset for one backbone."""

    any_size: ClassVar[bool] = True

    temperatures_: NDArray[np.float64]

    def _fit(self, support: Pool) -> None:
        self.temperatures_ = fit_temperatures(support.logits, support.labels)


class CalibratedConfidence(_Calibrated):
    """``z = z_b* / T_b*`` with ``b* = argmax_b max_c softmax(z_b / T_b)_c``, for each sample.

    Equal confidences go to the backbone whose name sorts first. `temperatures_`: (backbone,).

    >>> from clipsyn import CalibratedConfidence
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> ensemble = CalibratedConfidence().fit(logits, labels)
    >>> ensemble.temperatures_.round(2).tolist()  # the second is now never the surer one
    [0.06, 100.0]
    >>> ensemble.predict(logits)
    array([0, 0, 1, 1], dtype=uint16)
    """

    def _weights(self, pool: Pool) -> NDArray[Any]:
        inverse = (1 / self.temperatures_).astype(np.float32)
        chosen = most_confident(pool.logits * inverse[:, None])
        return one_hot(chosen, len(inverse)) * inverse


class CalibratedLogAverage(_Calibrated):
    """``z = 1/B sum_b z_b / T_b``, divided by one more temperature T.

    The mean of backbones that are each as sure as they are right is less sure than it is right,
    the more so the less they agree. T is that of the lowest cross-entropy plus (log T)^2 / 2, a
    prior that keeps it finite. It changes no prediction. `temperatures_`: (backbone,);
    `temperature_`: T.

    >>> from clipsyn import CalibratedLogAverage
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> ensemble = CalibratedLogAverage().fit(logits, labels)
    >>> ensemble.weights(logits[:1]).round(2)  # 1 / (B T_b T)
    array([[7.98, 0.01]], dtype=float32)
    """

    temperature_: float

    def _fit(self, support: Pool) -> None:
        super()._fit(support)
        self.temperature_ = 1.0
        mean = self._weights(support)

        def loss(log_t: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            weights, share = mean * np.exp(-log_t), 1 / len(support)
            value, slope = penalised_loss(support, weights, 0)
            return value + share / 2 * float(log_t @ log_t), share * log_t - slope @ weights

        self.temperature_ = math.exp(minimise(loss, np.zeros(1), bounds=_BOUNDS)[0])

    def _weights(self, pool: Pool) -> NDArray[Any]:
        return 1 / (len(self.temperatures_) * self.temperatures_ * self.temperature_)


def fit_temperatures(logits: NDArray[Any], labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """The temperature of each backbone that gives its probabilities the lowest cross-entropy.

    logits: (sample, backbone, class), all finite. labels: (sample,), all known.
    Returns (backbone,) between LOWEST and HIGHEST. With few samples the minimum can be at 0 (every
    sample is right) or infinity (no better than chance). The search then ends at a bound, or before
    it where nothing more is gained.

    L-BFGS on log T from 0, for all backbones at once: their losses are summed, so each reaches its
    own minimum. Each loss is convex in 1/T, so it has one minimum in log T.
    """

    def objective(log_temperatures: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        losses, slopes = tempered_cross_entropy(logits, np.exp(log_temperatures), labels)
        loss = losses.sum(axis=0, dtype=np.float64) / len(labels)
        return float(loss.sum()), slopes.sum(axis=0, dtype=np.float64) / len(labels)

    start = np.zeros(logits.shape[1])
    return np.exp(minimise(objective, start, bounds=_BOUNDS, iterations=_ITERATIONS))


def tempered_cross_entropy(
    logits: NDArray[Any], temperatures: NDArray[Any], labels: NDArray[np.int32]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Losses (sample, backbone) of ``softmax(z_b / T_b)``, and their slopes along ``log T_b``.

        d loss_nb / d log T_b = - (sum_c p_nbc Z_nbc - Z_nb[y_n]) / T_b

    logits: (sample, backbone, class); temperatures: (backbone,). In the dtype of `logits`.
    """
    inverse = (1 / np.asarray(temperatures)).astype(logits.dtype)
    losses = np.empty(logits.shape[:2], logits.dtype)
    slopes = np.empty_like(losses)

    def block(rows: slice) -> None:
        for part in in_cache(rows, logits[0].size):
            losses[part], slopes[part] = _tempered(logits[part], inverse, labels[part])

    in_blocks(block, logits.shape)
    return losses, slopes


def _tempered(
    logits: NDArray[Any], inverse: NDArray[Any], labels: NDArray[np.int32]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """`tempered_cross_entropy` of a few samples; inverse: 1 / temperatures."""
    scaled = logits - logits.max(axis=2, keepdims=True)
    scaled *= inverse[:, None]
    true = np.take_along_axis(scaled, labels[:, None, None], axis=2)[:, :, 0]
    powers = np.exp(scaled)
    total = powers.sum(axis=2)
    return np.log(total) - true, true - np.einsum("nbc,nbc->nb", powers, scaled) / total
