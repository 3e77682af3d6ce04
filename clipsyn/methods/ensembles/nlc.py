"""Networks on the embeddings that weigh backbones for each image.

NLC, the neural logit controller: C. Rodriguez-Opazo et al., "Synergy and Diversity in CLIP:
Enhancing Performance Through Adaptive Backbone Ensembling", ICLR 2025, section 3.

A mixture of experts: R. A. Jacobs, M. I. Jordan, S. J. Nowlan, G. E. Hinton, "Adaptive Mixtures of
Local Experts", Neural Computation 3(1), 1991. Here the experts are given, and only the gate learns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.ensembles.mlp import Loss, PerceptronRouter
from clipsyn.methods.ensembles.residual import common_temperature, mean_logits
from clipsyn.methods.estimator import parameter
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import (
    log_mixture,
    log_softmax,
    softmax,
    weighted_cross_entropy,
)
from clipsyn.methods.pool import Pool
from clipsyn.settings import TEXT

_LEAST_TEMPERATURE = 1e-3  # of `divide`: what keeps the multiplier finite

# outputs (…, backbone) -> multipliers, and the function that takes a gradient back to the outputs
Slope = Callable[[NDArray[Any]], NDArray[Any]]
WeightMap = Callable[[NDArray[Any]], tuple[NDArray[Any], Slope]]


def _softplus(outputs: NDArray[Any]) -> tuple[NDArray[Any], Slope]:
    return np.logaddexp(0, outputs), lambda gradient: gradient * _sigmoid(outputs)


def _linear(outputs: NDArray[Any]) -> tuple[NDArray[Any], Slope]:
    return outputs, lambda gradient: gradient


def _divide(outputs: NDArray[Any]) -> tuple[NDArray[Any], Slope]:
    multipliers: NDArray[Any] = 1 / (np.logaddexp(0, outputs) + _LEAST_TEMPERATURE)
    return multipliers, lambda gradient: -gradient * multipliers**2 * _sigmoid(outputs)


def _softmax(outputs: NDArray[Any]) -> tuple[NDArray[Any], Slope]:
    share: NDArray[Any] = softmax(outputs)
    count = outputs.shape[-1]

    def slope(gradient: NDArray[Any]) -> NDArray[Any]:
        mean = (share * gradient).sum(axis=-1, keepdims=True)
        return np.asarray(count * share * (gradient - mean))

    return count * share, slope


def _sigmoid(values: NDArray[Any]) -> NDArray[Any]:
    return 0.5 + 0.5 * np.tanh(0.5 * values)  # without overflow at either end


WEIGHT_MAPS: dict[str, WeightMap] = {
    "softplus": _softplus,
    "linear": _linear,
    "divide": _divide,
    "softmax": _softmax,
}
_START: dict[str, Callable[[float], float]] = {  # multiplier -> the output that it comes from
    "softplus": lambda a: math.log(math.expm1(a)),
    "linear": lambda a: a,
    "divide": lambda a: math.log(math.expm1(1 / a - _LEAST_TEMPERATURE)),
    "softmax": lambda _: 0.0,
}
_SHARPEST, _FLATTEST = 20.0, 0.05  # multipliers that a fit starts with


@dataclass(eq=False, repr=False)
class NLC(PerceptronRouter):
    """``z(x) = (1/B) sum over b of a_b(x) Z_b(x)``, with ``a(x) = weight_map(t(x))``.

        t(x) = relu([f_1(x) … f_B(x)] W1 + b1) W2 + b2      f_b: unit-norm embeddings

    minimises the cross-entropy of z by Adam (2e-4, weight decay 0.01 as a part of the gradient).
    W2 starts as zero, and b2 such that every multiplier a_b is the one under which log-avg has the
    lowest cross-entropy: the fit starts at log-avg, as sure as it should be. `weights` are a_b/B.

    weight_map: the paper does not say which one it uses.

    - ``softplus``: a = log(1 + exp t), positive. The default.
    - ``linear``: a = t, of either sign. With more backbones than classes this is hardly a selection
      any more: the weights can give almost any scores.
    - ``divide``: a = 1 / (softplus(t) + 0.001), a temperature for each backbone and image.
    - ``softmax``: a = B softmax(t), so the weights sum to 1; the start is plain log-avg.

    The other parameters, and what is learned, are those of `PerceptronRouter`.

    Raises UnknownName for another weight map, InputError for a pool without embeddings.

    >>> from clipsyn import NLC, Pool
    >>> kinds = [[1, 0], [1, 0], [0, 1], [0, 1]]  # embeddings of two kinds of images
    >>> logits = [[[3, 0], [0, 1]], [[0, 3], [1, 0]], [[0, 1], [3, 0]], [[1, 0], [0, 3]]]
    >>> support = Pool.of(logits, [0, 1, 0, 1], [kinds, kinds])  # a backbone is right on each kind
    >>> NLC(penalty=0).fit(support).weights(support).round(1)  # (sample, backbone), a / B
    array([[1.8, 1.1],
           [1.8, 1.1],
           [1. , 1.8],
           [1. , 1.8]], dtype=float32)
    """

    weight_map: str = parameter("softplus", TEXT, choices=tuple(WEIGHT_MAPS))

    def _weights(self, pool: Pool) -> NDArray[Any]:
        multipliers, _ = WEIGHT_MAPS[self.weight_map](self._outputs(pool))
        return multipliers / len(pool.backbones)

    def _start(self, pool: Pool) -> NDArray[np.float32]:
        found = common_temperature(mean_logits(pool.logits), pool.labels)
        output = _START[self.weight_map](min(max(found, _FLATTEST), _SHARPEST))
        return np.full(len(pool.backbones), output, np.float32)

    def _loss(self, pool: Pool) -> Loss:
        weight_map, count = WEIGHT_MAPS[self.weight_map], len(pool.backbones)

        def loss(rows: slice, outputs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
            multipliers, slope = weight_map(outputs)
            losses, gradient = weighted_cross_entropy(
                pool.logits[rows], multipliers / count, pool.labels[rows]
            )
            return losses, slope(gradient / count)

        return loss


class MixtureOfExperts(PerceptronRouter):
    """``p(c|x) = sum over b of g_b(x) p_b(c|x)``, with ``g = softmax(t(x))``.

        t(x) = relu([f_1(x) … f_B(x)] W1 + b1) W2 + b2      f_b: unit-norm embeddings

    minimises -log p(y|x), by the recipe of NLC. The experts stay as they are, and the mixture
    starts as the plain average of probabilities. The paper (section 4.4) does not say how its
    mixture is made. It loses up to 20.9 points on some dataset, so it is probably another one,
    trained jointly with its experts or with a hard choice.

    `weights` are g: they add up probabilities, not logits.
    Parameters and what is learned: see `PerceptronRouter`.

    >>> from clipsyn import MixtureOfExperts, Pool
    >>> kinds = [[1, 0], [1, 0], [0, 1], [0, 1]]  # embeddings of two kinds of images
    >>> logits = [[[3, 0], [0, 1]], [[0, 3], [1, 0]], [[0, 1], [3, 0]], [[1, 0], [0, 3]]]
    >>> support = Pool.of(logits, [0, 1, 0, 1], [kinds, kinds])  # a backbone is right on each kind
    >>> MixtureOfExperts(penalty=0).fit(support).weights(support).round(1)  # (sample, backbone)
    array([[1., 0.],
           [1., 0.],
           [0., 1.],
           [0., 1.]], dtype=float32)
    """

    def _start(self, pool: Pool) -> NDArray[np.float32]:
        return np.zeros(len(pool.backbones), np.float32)

    def _loss(self, pool: Pool) -> Loss:
        true = _log_probability_of_label(pool)

        def loss(rows: slice, outputs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
            log_gate = log_softmax(outputs)
            joint = log_gate + true[rows]
            log_probability = np.logaddexp.reduce(joint, axis=-1)
            responsible = np.exp(joint - log_probability[..., None])
            return -log_probability, np.exp(log_gate) - responsible

        return loss

    def _weights(self, pool: Pool) -> NDArray[Any]:
        return softmax(self._outputs(pool))

    def _combine(self, pool: Pool) -> NDArray[Any]:
        return log_mixture(pool.logits, log_softmax(self._outputs(pool)))


def _log_probability_of_label(pool: Pool) -> NDArray[np.float32]:
    """(sample, backbone) log p_b(y|x): all that the loss needs of the logits."""
    out = np.empty(pool.logits.shape[:2], np.float32)

    def block(rows: slice) -> None:
        labels = pool.labels[rows, None, None]
        values = log_softmax(pool.logits[rows])
        out[rows] = np.take_along_axis(values, labels, axis=2)[..., 0]

    in_blocks(block, pool.logits.shape)
    return out
