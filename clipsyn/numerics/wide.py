"""Multinomial logistic regression on thousands of coordinates, where products are all that counts.

The problem is that of `clipsyn.numerics.logistic` without logits to start from, divided by n:

    minimise over V, a:   1/n sum_n (logsumexp(t_n) - t_n[y_n]) + penalty / 2n |V|^2,
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
from clipsyn.numerics.logistic import Linear
from clipsyn.numerics.loss import cross_entropy
from clipsyn.numerics.optimise import newton

_AXES = 256
_STEPS = 500
_FLAT = 1e-12  # nats: where a step would gain less, all is done
_INEXACT = 0.1  # of the tolerance, in a plane
_APART = 1e-9  # of the curvature along a direction, added to it: two directions may be one

Plane = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64], NDArray[np.float64]]]


class Axes(NamedTuple):
    """Principal axes of centred inputs."""

    vectors: NDArray[Any]  # (embed, axis), orthonormal
    variances: NDArray[Any]  # (axis,)
    rest: float  # mean variance along the directions that are left


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
) -> Linear:
    """The minimum of the formula above, from `start`.

    inputs: (n, embed), centred, float32 or float64; labels: (n,) from 0 to class - 1; axes: of
    these inputs, or of some like them. Stops when a step lowers the objective by less than
    `tolerance` nats (less than that part of it, where it is above 1), or after 500 of them.
    """
    ridge = penalty / len(labels)
    at = _move(inputs, start.coef.astype(inputs.dtype), start.intercept.astype(inputs.dtype))
    step: Move | None = None
    value = np.inf
    for _ in range(_STEPS):
        before = value
        value, residual = _objective(at, labels, ridge)
        if before - value < tolerance * max(1, value):
            break
        slope = residual.T @ inputs + ridge * at.coef, residual.sum(axis=0)
        del residual
        coef, intercept = _scaled(*slope, axes, ridge)
        if np.vdot(slope[0], coef) + slope[1] @ intercept < _FLAT:
            break
        direction = _move(inputs, coef, intercept)
        moves = [direction] if step is None else [direction, step]
        plane = _plane(at, moves, labels, ridge)
        sizes = newton(plane, np.zeros(len(moves)), decrement=_INEXACT * tolerance)
        step = _sum(moves, sizes)
        at = _sum([at, step], np.ones(2))
    return Linear(at.coef.astype(np.float32), at.intercept.astype(np.float32))


def _objective(at: Move, labels: NDArray[np.int32], ridge: float) -> tuple[float, NDArray[Any]]:
    """The value, and the gradient (n, class) of its first term to the scores."""
    residual = at.scores.copy()

    def block(rows: slice) -> float:
        losses = cross_entropy(residual[rows], labels[rows])[0]
        residual[rows] /= len(labels)
        return float(losses.sum(dtype=np.float64))

    value = sum(in_blocks(block, residual.shape)) / len(labels)
    return value + ridge / 2 * float(np.vdot(at.coef, at.coef)), residual


def _plane(at: Move, moves: list[Move], labels: NDArray[np.int32], ridge: float) -> Plane:
    """The objective at `at` plus multiples of `moves`, for `newton`: a constant is left out."""
    slope = ridge * np.array([np.vdot(move.coef, at.coef) for move in moves])
    curvature = ridge * np.array([[np.vdot(a.coef, b.coef) for b in moves] for a in moves])

    def objective(
        sizes: NDArray[np.float64],
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        def block(rows: slice) -> tuple[float, NDArray[Any], NDArray[Any]]:
            along = [move.scores[rows] for move in moves]
            scores = at.scores[rows].copy()
            for size, move in zip(sizes, along, strict=True):
                scores += scores.dtype.type(size) * move
            return _along(scores, along, labels[rows])

        losses, slopes, hessians = zip(*in_blocks(block, at.scores.shape), strict=True)
        pull = curvature @ sizes
        value = sum(losses) / len(labels) + float(sizes @ (slope + pull / 2))
        hessian = np.sum(hessians, axis=0) / len(labels) + curvature
        hessian[np.diag_indices(len(moves))] *= 1 + _APART
        return value, np.sum(slopes, axis=0) / len(labels) + slope + pull, hessian

    return objective


def _along(
    scores: NDArray[Any], moves: list[NDArray[Any]], labels: NDArray[np.int32]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Summed cross-entropy of scores (n, class), its slopes (move,) and its Hessian (move, move).

    With p the probabilities, u and v two moves and E_p a mean over classes, the Hessian is the sum
    over samples of E_p[u v] - E_p[u] E_p[v]. `scores` are overwritten.
    """
    rows = np.arange(len(scores))
    losses, residual = cross_entropy(scores, labels)  # p, less 1 at the label
    own = np.array([move[rows, labels] for move in moves], np.float64)  # (move, n)
    weighted = [residual * move for move in moves]
    slopes = np.array([part.sum(axis=1) for part in weighted], np.float64)  # (move, n)
    means = slopes + own
    second = np.array([[np.vdot(part, move) for move in moves] for part in weighted], np.float64)
    hessian = second + own @ own.T - means @ means.T
    return float(losses.sum(dtype=np.float64)), slopes.sum(axis=1), hessian


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
