"""Cross-entropy of scores, and of a weighted sum of logits, with gradients.

    z_n = sum_b w_nb Z_nb        loss_n = logsumexp(z_n) - z_n[y_n]
    d loss_n / d w_nb = sum_c p_nc Z_nbc - Z_nb[y_n]          p_n = softmax(z_n)

Every ensemble of fitted weights needs these. A block of rows is read from memory once, for loss and
gradient, on all cores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.blocks import in_blocks


def cross_entropy(
    scores: NDArray[Any], labels: NDArray[np.int32]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Losses (sample,) in nats, and their gradients (sample, class) to the scores.

    scores: (sample, class), overwritten by the gradients.

    Probabilities below exp(-40) of the largest are rounded up to that: numbers near the smallest of
    single precision would slow the products that follow down many times.
    """
    rows = np.arange(len(scores))
    scores -= scores.max(axis=1, keepdims=True)
    true = scores[rows, labels]
    np.maximum(scores, -40, out=scores)
    np.exp(scores, out=scores)
    total = scores.sum(axis=1, keepdims=True)
    scores /= total
    scores[rows, labels] -= 1
    return np.log(total[:, 0]) - true, scores


def weighted_cross_entropy(
    logits: NDArray[Any], weights: NDArray[Any], labels: NDArray[np.int32]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Losses (sample,) in nats, and their gradients (sample, backbone) to the weights.

    logits: (sample, backbone, class); weights: (sample, backbone) or (backbone,).
    """
    weights = np.broadcast_to(weights, logits.shape[:2]).astype(logits.dtype, copy=False)
    gradient = np.empty(weights.shape, logits.dtype)
    losses = np.empty(len(logits), logits.dtype)

    def block(rows: slice) -> None:
        scores = (weights[rows, None, :] @ logits[rows])[:, 0]
        losses[rows], residual = cross_entropy(scores, labels[rows])
        # on short vectors OpenBLAS can set this flag though all that goes in and out is finite
        with np.errstate(invalid="ignore"):
            gradient[rows] = (logits[rows] @ residual[:, :, None])[:, :, 0]

    in_blocks(block, logits.shape)
    return losses, gradient
