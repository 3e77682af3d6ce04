"""Mixture of experts: the backbones are the experts, a network on their embeddings is the gate.

R. A. Jacobs, M. I. Jordan, S. J. Nowlan, G. E. Hinton, "Adaptive Mixtures of Local Experts",
Neural Computation 3(1), 1991. Here the experts are given, and only the gate learns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.ensembles.mlp import Loss, PerceptronRouter
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import log_mixture, log_softmax, softmax
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
