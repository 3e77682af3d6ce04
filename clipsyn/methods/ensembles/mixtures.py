"""Mixtures of the backbones' probabilities, whose weights a network gives for each image.

R. A. Jacobs, M. I. Jordan, S. J. Nowlan, G. E. Hinton, "Adaptive Mixtures of Local Experts", Neural
Computation 3(1), 1991. Here the experts are given, and only the gate learns, as `nlc` does.
"""

from __future__ import annotations

import numpy as np

from clipsyn.methods.ensembles.nlc import Loss, PerceptronRouter
from clipsyn.methods.numerics import Array, Floats
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import (
    log_mixture,
    log_softmax,
    softmax,
    weighted_cross_entropy,
)
from clipsyn.methods.pool import Pool


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

    def _start(self, pool: Pool) -> Floats:
        return np.zeros(len(pool.backbones), np.float32)

    def _loss(self, pool: Pool) -> Loss:
        true = np.empty(pool.logits.shape[:2], np.float32)  # log p_b(y|x): all that it needs

        def block(rows: slice) -> None:
            labels = pool.labels[rows, None, None]
            values = log_softmax(pool.logits[rows])
            true[rows] = np.take_along_axis(values, labels, axis=2)[..., 0]

        in_blocks(block, pool.logits.shape)

        def loss(rows: slice, outputs: Array) -> tuple[Array, Array]:
            log_gate = log_softmax(outputs)
            joint = log_gate + true[rows]
            log_probability = np.logaddexp.reduce(joint, axis=-1)
            responsible = np.exp(joint - log_probability[..., None])
            return -log_probability, np.exp(log_gate) - responsible

        return loss

    def _weights(self, pool: Pool) -> Array:
        return softmax(self._outputs(pool))

    def _combine(self, pool: Pool) -> Array:
        return log_mixture(pool.logits, log_softmax(self._outputs(pool)))


class SampleAwareWeights(MixtureOfExperts):
    """``p(c|x)`` of `MixtureOfExperts`, trained on ``cross_entropy(sum_b g_b(x) p_b)``.

    The probabilities stand in the place of logits there, so even a sure and right answer has a loss
    far from 0. That is the publication's T_En, or SWIG (arXiv 2311.17091), the nearest
    published relative of NLC: one network weighs probabilities, the other logits. It takes
    embeddings as the backbones give them, which no store has; here they have unit norm, and the
    training is that of NLC.

    >>> from clipsyn import Pool, SampleAwareWeights
    >>> kinds = [[1, 0], [1, 0], [0, 1], [0, 1]]  # embeddings of two kinds of images
    >>> logits = [[[3, 0], [0, 1]], [[0, 3], [1, 0]], [[0, 1], [3, 0]], [[1, 0], [0, 3]]]
    >>> support = Pool.of(logits, [0, 1, 0, 1], [kinds, kinds])  # a backbone is right on each kind
    >>> SampleAwareWeights(penalty=0).fit(support).weights(support).round(1)  # (sample, backbone)
    array([[1., 0.],
           [1., 0.],
           [0., 1.],
           [0., 1.]], dtype=float32)
    """

    def _loss(self, pool: Pool) -> Loss:
        shares = softmax(pool.logits)  # once: every epoch asks for all of them

        def loss(rows: slice, outputs: Array) -> tuple[Array, Array]:
            gate = softmax(outputs)
            losses, slopes = weighted_cross_entropy(shares[rows], gate, pool.labels[rows])
            return losses, gate * (slopes - (gate * slopes).sum(axis=1, keepdims=True))

        return loss
