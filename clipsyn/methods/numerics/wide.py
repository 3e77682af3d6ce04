"""Multinomial logistic regression, on thousands of coordinates too: products are all that counts.

The problem is scikit-learn's with ``C = 1 / penalty``, divided by the sum S of the weights:

    minimise over V, a:   1/S sum_n s_n (logsumexp(t_n) - t_n[y_n]) + penalty / 2S |V|^2,
                          t_n = V x_n + a

A step takes two products with all inputs: the gradient, and the scores t of the direction that it
gives. Scores are linear in V and a. So slopes and curvatures in a plane, that of this direction and
of the step before it, come from scores alone, and the step is Newton's in this plane, halved where
it goes too far. On a quadratic function that is the method of conjugate gradients. Nothing but the
last step is kept, and nothing leaves the precision of the inputs: a vector of nine thousand
coordinates for each of a thousand classes has 36 MB.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import cross_entropy

LARGE = 2e8  # samples * inputs * classes: a fit above it belongs here, in single precision
_AXES = 256
_STEPS = 500
_FLAT = 1e-12  # nats: where a step would gain less, all is done
_HALVINGS = 30
_ENOUGH = 1e-4  # of the gain that the slope promises
_APART = 1e-9  # of the curvature along a direction, added to it: two directions may be one


class Linear(NamedTuple):
    """Logits to add: ``features @ coef.T + intercept``."""

    coef: NDArray[np.float32]  # (class, embed)
    intercept: NDArray[np.float32]  # (class,), zero where none is fitted

    @classmethod
    def nothing(cls, classes: int, width: int) -> Linear:
        return cls(np.zeros((classes, width), np.float32), np.zeros(classes, np.float32))


class Axes(NamedTuple):
    """Principal axes of centred inputs."""

    vectors: NDArray[Any]  # (embed, axis), orthonormal
    variances: NDArray[Any]  # (axis,)
    rest: float  # mean variance along the directions that are left


class Target(NamedTuple):
    """What the scores are to fit, and the weight of |V|^2 / 2 beside it."""

    labels: NDArray[np.int32]  # (n,)
    shares: NDArray[Any]  # (n,) of the samples, in sum 1
    ridge: float


class Move(NamedTuple):
    """A point or a direction, with its scores."""

    coef: NDArray[Any]  # (class, embed)
    intercept: NDArray[Any]  # (class,)
    scores: NDArray[Any]  # (n, class)


def principal_axes(inputs: NDArray[Any]) -> Axes:
    """The first 256, by a randomised projection: they are to make a fit faster, not more exact.

    Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53, 2011.
    """
    count, width = inputs.shape
    drawn = np.random.default_rng(0).normal(size=(width, min(_AXES, width)))
    span = np.linalg.qr(inputs.T @ (inputs @ drawn.astype(inputs.dtype)))[0]
    along = inputs @ span
    variances, turn = np.linalg.eigh(along.T @ along / count)
    rest = float(np.vdot(inputs, inputs)) / count - float(variances.sum())
    left = max(width - len(variances), 1)
    return Axes(span @ turn, np.maximum(variances, 0), max(rest, 0) / left)


def fit_wide(
    inputs: NDArray[Any],
    labels: NDArray[np.int32],
    start: Linear,
    penalty: float,
    *,
    axes: Axes,
    tolerance: float,
    sample_weights: NDArray[Any] | None = None,
    base: NDArray[Any] | None = None,
) -> Linear:
    """The minimum of the formula above, from `start`.

    inputs: (n, embed), centred, float32 or float64; labels: (n,) from 0 to class - 1; axes: of
    these inputs, or of some like them. base: (n, class) scores to which V x_n is added in place of
    a, which stays 0; inputs then need no centre. Stops when a step lowers the objective by less
    than `tolerance` nats (less than that part of it, where it is above 1), or after 500 of them.
    """
    weights = np.ones(len(labels)) if sample_weights is None else sample_weights
    ridge = float(penalty / weights.sum())
    target = Target(labels, (weights / weights.sum()).astype(inputs.dtype), ridge)
    at = _move(inputs, start.coef.astype(inputs.dtype), start.intercept.astype(inputs.dtype))
    if base is not None:
        np.add(at.scores, base, out=at.scores)
    value, residual = _objective(at, target)
    step: Move | None = None
    for _ in range(_STEPS):
        slope = residual.T @ inputs + ridge * at.coef, residual.sum(axis=0) * (base is None)
        coef, intercept = _scaled(*slope, axes, ridge)
        if np.vdot(slope[0], coef) + slope[1] @ intercept < _FLAT:
            break
        direction = _move(inputs, coef, intercept)
        moves = [direction] if step is None else [direction, step]
        slopes, hessian = _in_plane(at, moves, residual, target)
        before = value
        for size in 0.5 ** np.arange(_HALVINGS):
            newton = size * np.linalg.solve(hessian, -slopes)
            step = _sum(moves, newton)
            nearer = _sum([at, step], np.ones(2))
            value, residual = _objective(nearer, target)
            if value <= before + _ENOUGH * float(slopes @ newton):
                break
        at = nearer
        if before - value < tolerance * max(1, value):
            break
    return Linear(at.coef.astype(np.float32), at.intercept.astype(np.float32))


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
    """The same for inputs that need not be centred; start: of a stronger penalty, say."""
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


def _objective(at: Move, target: Target) -> tuple[float, NDArray[Any]]:
    """The value, and the gradient (n, class) of its first term to the scores."""
    residual = at.scores.copy()

    def block(rows: slice) -> float:
        shares = target.shares[rows]
        losses = cross_entropy(residual[rows], target.labels[rows])[0]
        residual[rows] *= shares[:, None]
        return float(np.sum(shares * losses, dtype=np.float64))

    value = sum(in_blocks(block, residual.shape))
    return value + target.ridge / 2 * float(np.vdot(at.coef, at.coef)), residual


def _in_plane(
    at: Move, moves: list[Move], residual: NDArray[Any], target: Target
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slopes (move,) and Hessian (move, move) of the objective at `at`, along moves."""

    def block(rows: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scores = [move.scores[rows] for move in moves]
        return _along(scores, residual[rows], target.labels[rows], target.shares[rows])

    slopes, hessians = zip(*in_blocks(block, residual.shape), strict=True)
    slope = [np.vdot(move.coef, at.coef) for move in moves]
    products = [[np.vdot(one.coef, other.coef) for other in moves] for one in moves]
    hessian = np.sum(hessians, axis=0) + target.ridge * np.array(products)
    hessian[np.diag_indices(len(moves))] *= 1 + _APART
    return np.sum(slopes, axis=0) + target.ridge * np.array(slope), hessian


def _along(
    moves: list[NDArray[Any]],
    residual: NDArray[Any],
    labels: NDArray[np.int32],
    shares: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slopes (move,) and Hessian (move, move) of cross-entropy along moves of the scores.

    residual: ``shares (p - onehot(labels))``, p the probabilities. With u and v two moves and E_p a
    mean over classes, the Hessian is the sum over samples of E_p[u v] - E_p[u] E_p[v], by shares.
    """
    rows, ones = np.arange(len(labels)), np.ones(residual.shape[1], residual.dtype)
    own = np.array([move[rows, labels] for move in moves], np.float64)  # (move, n)
    slopes, second = np.empty_like(own), np.empty((len(moves), len(moves)))
    product = np.empty_like(residual)
    for one, move in enumerate(moves):
        np.multiply(residual, move, out=product)
        slopes[one] = product @ ones
        second[one] = [np.vdot(product, other) for other in moves]
    means = slopes / shares + own
    return slopes.sum(axis=1), second + (shares * own) @ own.T - (shares * means) @ means.T


def _scaled(
    coef: NDArray[Any], intercept: NDArray[Any], axes: Axes, ridge: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A gradient divided by the curvature at equal probabilities."""
    classes = len(intercept)
    share = (classes - 1) / classes**2
    other = share * axes.rest + ridge
    extra = other / (share * axes.variances + ridge) - 1
    scaled = coef + ((coef @ axes.vectors) * extra.astype(coef.dtype)) @ axes.vectors.T
    scaled /= other
    return scaled, intercept / coef.dtype.type(share + ridge)


def _move(inputs: NDArray[Any], coef: NDArray[Any], intercept: NDArray[Any]) -> Move:
    scores = inputs @ coef.T
    scores += intercept
    return Move(coef, intercept, scores)


def _sum(moves: list[Move], sizes: NDArray[np.float64]) -> Move:
    """A linear combination, in the precision of the moves."""
    factors = sizes.astype(moves[0].scores.dtype)
    total = Move(*(factors[0] * part for part in moves[0]))
    for factor, move in zip(factors[1:], moves[1:], strict=True):
        for number, part in enumerate(move):
            np.add(total[number], factor * part, out=total[number])
    return total
