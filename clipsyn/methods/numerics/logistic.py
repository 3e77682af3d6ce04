"""Multinomial logistic regression around given logits, by L-BFGS with a gradient by hand.

    minimise over D, b:   sum_n s_n (logsumexp(t_n) - t_n[y_n]) + penalty / 2 |D|^2,
                          t_n = base_n + D x_n + b

The gradients are ``sum_n s_n (softmax(t_n) - onehot(y_n)) x_n^T + penalty D``, and the same without
x and penalty for b, which is not penalised. The problem is convex. With ``base = 0`` it is
scikit-learn's LogisticRegression with ``C = 1 / penalty``; with zero-shot logits it is a probe
anchored at the zero-shot classifier.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.loss import cross_entropy
from clipsyn.methods.numerics.optimise import minimise
from clipsyn.methods.numerics.wide import LARGE, Linear, fit_wide, principal_axes


def fit_logistic(
    features: NDArray[Any],
    labels: NDArray[Any],
    base: NDArray[Any],
    penalty: float,
    *,
    sample_weights: NDArray[Any] | None = None,
    intercept: bool = False,
    tolerance: float = 1e-6,
) -> Linear:
    """The minimum of the formula above.

    features: (n, embed); labels: (n,) from 0 to class - 1; base: (n, class). The precision of
    the products is that of `features`. Stops when a step lowers the mean loss by less than
    `tolerance` nats (less than that part of it, where it is above 1), or after 500 of them.
    """
    centre = features.mean(axis=0) if intercept else np.zeros_like(features[0])
    axes = _axes(features - centre, penalty / len(labels), base.shape[1])
    columns = (features - centre) @ axes
    if intercept:
        columns = np.concatenate([columns, np.ones((len(columns), 1), columns.dtype)], axis=1)
    weights = np.ones(len(labels)) if sample_weights is None else sample_weights
    total = weights.sum()
    ridge = np.zeros(columns.shape[1])
    ridge[: axes.shape[1]] = penalty / total * np.square(axes).sum(axis=0)
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
    coef = solution[:, : axes.shape[1]] @ axes.T
    bias = solution[:, -1] - coef @ centre if intercept else np.zeros(len(coef))
    return Linear(coef.astype(np.float32), bias.astype(np.float32))


def fit_probe(
    features: NDArray[Any],
    labels: NDArray[np.int32],
    classes: int,
    penalty: float,
    *,
    tolerance: float,
    sample_weights: NDArray[Any] | None = None,
    start: Linear | None = None,
) -> Linear:
    """The same with an intercept and without logits to start from.

    Above `LARGE` it is `fit_wide`, from `start`: the probe of a stronger penalty, say.
    """
    if features.size * classes <= LARGE:
        return fit_logistic(
            features,
            labels,
            np.zeros((len(labels), classes), features.dtype),
            penalty,
            sample_weights=sample_weights,
            intercept=True,
            tolerance=tolerance,
        )
    centre = features.mean(axis=0)
    inputs = features - centre
    coef, intercept = start or Linear.nothing(classes, len(centre))
    found = fit_wide(
        inputs,
        labels,
        Linear(coef, intercept + coef @ centre),
        penalty,
        axes=principal_axes(inputs),
        tolerance=tolerance,
        sample_weights=sample_weights,
    )
    return Linear(found.coef, found.intercept - found.coef @ centre)


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
