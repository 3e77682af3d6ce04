"""Cross-entropy of a weighted sum of logits, and its gradient to the weights.

    z_n = sum_b w_nb Z_nb        loss_n = logsumexp(z_n) - z_n[y_n]
    d loss_n / d w_nb = sum_c p_nc Z_nbc - Z_nb[y_n]          p_n = softmax(z_n)

Every fitted weighting needs just this. A block of rows is read from memory once: forward and
backward while it is in the cache, on all cores.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_VALUES = 500_000  # logits in a block: 2 MB


def cross_entropy(
    scores: NDArray[Any], labels: NDArray[np.int32]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Losses (sample,) in nats, and their gradients (sample, class) to the scores.

    scores: (sample, class), overwritten by the gradients.
    """
    rows = np.arange(len(scores))
    scores -= scores.max(axis=1, keepdims=True)
    true = scores[rows, labels]
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
    n = len(logits)
    weights = np.broadcast_to(weights, logits.shape[:2]).astype(logits.dtype, copy=False)
    losses = np.empty(n, logits.dtype)
    gradient = np.empty(logits.shape[:2], logits.dtype)
    step = max(1, _BLOCK_VALUES // max(1, logits.shape[1] * logits.shape[2]))

    def block(start: int) -> None:
        rows = slice(start, start + step)
        scores = np.matmul(weights[rows, None, :], logits[rows])[:, 0]
        losses[rows], residual = cross_entropy(scores, labels[rows])
        np.matmul(logits[rows], residual[:, :, None], out=gradient[rows, :, None])

    starts = range(0, n, step)
    if len(starts) <= 1:
        for start in starts:
            block(start)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(block, starts))
    return losses, gradient
