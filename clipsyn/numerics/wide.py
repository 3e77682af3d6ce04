"""Multinomial logistic regression on thousands of coordinates, where products are all that counts.

The problem is that of `clipsyn.numerics.logistic` without logits to start from, divided by the sum
S of the weights:

    minimise over V, a:   1/S sum_n s_n (logsumexp(t_n) - t_n[y_n]) + penalty / 2S |V|^2,
                          t_n = V x_n + a

A step takes two products with all inputs: the gradient, and the scores t of the direction that it
gives. Scores are linear in V and a. So the lowest point of a plane, that of this direction and of
the step before it, is found on scores alone, by Newton's method in two variables. On a quadratic
function these planes give the method of conjugate gradients. Nothing but the last step is kept,
and nothing leaves the precision of the inputs: a vector of nine thousand coordinates for each of a
thousand classes has 36 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.numerics.blocks import in_blocks
from clipsyn.numerics.loss import cross_entropy
from clipsyn.numerics.optimise import newton

LARGE = 2e8  # samples * inputs * classes: a fit above it belongs here, in single precision
_AXES = 256
_STEPS = 500
_FLAT = 1e-12  # nats: where a step would gain less, all is done
_INEXACT = 0.1  # of the tolerance, in a plane
_APART = 1e-9  # of the curvature along a direction, added to it: two directions may be one

Plane = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64], NDArray[np.float64]]]


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
) -> Linear:
    """The minimum of the formula above, from `start`.

    inputs: (n, embed), centred, float32 or float64; labels: (n,) from 0 to class - 1; axes: of
    these inputs, or of some like them. Stops when a step lowers the objective by less than
    `tolerance` nats (less than that part of it, where it is above 1), or after 500 of them.
    """
    weights = np.ones(len(labels)) if sample_weights is None else sample_weights
    ridge = float(penalty / weights.sum())
    target = Target(labels, (weights / weights.sum()).astype(inputs.dtype), ridge)
    at = _move(inputs, start.coef.astype(inputs.dtype), start.intercept.astype(inputs.dtype))
    step: Move | None = None
    value = np.inf
    for _ in range(_STEPS):
        before = value
        value, residual = _objective(at, target)
        if before - value < tolerance * max(1, value):
            break
        slope = residual.T @ inputs + ridge * at.coef, residual.sum(axis=0)
        del residual
        coef, intercept = _scaled(*slope, axes, ridge)
        if np.vdot(slope[0], coef) + slope[1] @ intercept < _FLAT:
            break
        direction = _move(inputs, coef, intercept)
        moves = [direction] if step is None else [direction, step]
        plane = _plane(at, moves, target)
        sizes = newton(plane, np.zeros(len(moves)), decrement=_INEXACT * tolerance)
        step = _sum(moves, sizes)
        at = _sum([at, step], np.ones(2))
    return Linear(at.coef.astype(np.float32), at.intercept.astype(np.float32))


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


def _plane(at: Move, moves: list[Move], target: Target) -> Plane:
    """The objective at `at` plus multiples of `moves`, for `newton`: a constant is left out."""
    slope = target.ridge * np.array([np.vdot(move.coef, at.coef) for move in moves])
    products = np.array([[np.vdot(one.coef, other.coef) for other in moves] for one in moves])
    curvature = target.ridge * products

    def objective(
        sizes: NDArray[np.float64],
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        def block(rows: slice) -> tuple[float, NDArray[Any], NDArray[Any]]:
            along = [move.scores[rows] for move in moves]
            scores = at.scores[rows].copy()
            for size, move in zip(sizes, along, strict=True):
                scores += scores.dtype.type(size) * move
            return _along(scores, along, target.labels[rows], target.shares[rows])

        losses, slopes, hessians = zip(*in_blocks(block, at.scores.shape), strict=True)
        pull = curvature @ sizes
        hessian = np.sum(hessians, axis=0) + curvature
        hessian[np.diag_indices(len(moves))] *= 1 + _APART
        value = sum(losses) + float(sizes @ (slope + pull / 2))
        return value, np.sum(slopes, axis=0) + slope + pull, hessian

    return objective


def _along(
    scores: NDArray[Any],
    moves: list[NDArray[Any]],
    labels: NDArray[np.int32],
    shares: NDArray[Any],
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Cross-entropy of scores (n, class) summed with `shares`, its slopes (move,) and its Hessian.

    With p the probabilities, u and v two moves and E_p a mean over classes, the Hessian (move,
    move) is the sum over samples of E_p[u v] - E_p[u] E_p[v]. `scores` are overwritten.
    """
    rows, ones = np.arange(len(scores)), np.ones(scores.shape[1], scores.dtype)
    losses, residual = cross_entropy(scores, labels)  # p, less 1 at the label
    residual *= shares[:, None]
    own = np.array([move[rows, labels] for move in moves], np.float64)  # (move, n)
    slopes, second = np.empty_like(own), np.empty((len(moves), len(moves)))
    product = np.empty_like(residual)
    for one, move in enumerate(moves):
        np.multiply(residual, move, out=product)
        slopes[one] = product @ ones
        second[one] = [np.vdot(product, other) for other in moves]
    means = slopes / shares + own
    hessian = second + (shares * own) @ own.T - (shares * means) @ means.T
    return float(np.sum(shares * losses, dtype=np.float64)), slopes.sum(axis=1), hessian


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
