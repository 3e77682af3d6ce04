"""Multinomial logistic regression around given logits, by L-BFGS with a gradient by hand.

    minimise over D:   sum_n s_n (logsumexp(t_n) - t_n[y_n]) + penalty / 2 |D|^2,
                       t_n = base_n + D x_n

The gradient is ``sum_n s_n (softmax(t_n) - onehot(y_n)) x_n^T + penalty D``. The problem is convex.
With zero-shot logits as base it is a probe anchored at the zero-shot classifier.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.loss import cross_entropy
from clipsyn.methods.numerics.optimise import minimise


def fit_logistic(
    features: NDArray[Any],
    labels: NDArray[Any],
    base: NDArray[Any],
    penalty: float,
    *,
    sample_weights: NDArray[Any] | None = None,
    tolerance: float = 1e-6,
) -> NDArray[np.float32]:
    """D (class, embed) at the minimum of the formula above.

    features: (n, embed); labels: (n,) from 0 to class - 1; base: (n, class). The precision of
    the products is that of `features`. Stops when a step lowers the mean loss by less than
    `tolerance` nats (less than that part of it, where it is above 1), or after 500 of them.
    """
    axes = _axes(features, penalty / len(labels), base.shape[1])
    columns = features @ axes
    weights = np.ones(len(labels)) if sample_weights is None else sample_weights
    total = weights.sum()
    ridge = penalty / total * np.square(axes).sum(axis=0)
    shape = (base.shape[1], columns.shape[1])
    shares = (weights / total).astype(features.dtype)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        parameters = flat.reshape(shape)
        scores = base + columns @ parameters.T.astype(features.dtype)
        losses, residual = cross_entropy(scores, labels)
        residual *= shares[:, None]
        shrunk = parameters * ridge
        gradient = residual.T @ columns + shrunk
        value = float(shares @ losses) + 0.5 * float(np.vdot(shrunk, parameters))
        return value, gradient.ravel()

    solution = minimise(
        objective,
        np.zeros(shape[0] * shape[1]),
        tolerance=tolerance,
        slope=1e-9,
        iterations=500,
        searches=50,
    ).reshape(shape)
    return np.asarray(solution @ axes.T, np.float32)


def _axes(features: NDArray[Any], ridge: float, classes: int) -> NDArray[Any]:
    """(embed, axis): coordinates in which the problem is well conditioned; only a change of basis.

    The principal axes of the features, each scaled by the root of the inverse curvature there at
    equal probabilities. Axes without any feature are left out: there D is zero.
    """
    variances, vectors = np.linalg.eigh(features.T @ features / len(features))
    kept = variances > 1e-6 * variances[-1]
    curvature = variances[kept] * (classes - 1) / classes**2 + ridge
    scaled: NDArray[Any] = vectors[:, kept] / np.sqrt(curvature)
    return scaled
