"""Minimising functions whose gradients are written by hand.

`minimise` is for a handful of parameters, `Adam` for batches of samples, `fit_logistic` for
multinomial logistic regressions, on thousands of coordinates too:

    minimise over V, a:   1/S sum_n s_n (logsumexp(t_n) - t_n[y_n]) + penalty / 2S |V|^2,
                          t_n = V x_n + a

That is scikit-learn's problem with ``C = 1 / penalty``, divided by the sum S of the weights. A step
takes two products with all inputs: the gradient, and the scores t of the direction that it gives.
Scores are linear in V and a. So slopes and curvatures in a plane, that of this direction and of the
step before it, come from scores alone, and the step is Newton's in this plane, halved where it goes
too far. On a quadratic function that is the method of conjugate gradients. Nothing but the last
step is kept, and nothing leaves the precision of the inputs: a vector of nine thousand coordinates
for each of a thousand classes has 36 MB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from clipsyn.methods.numerics import Array, Doubles, Labels
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import cross_entropy

# of `minimise`: less is no progress of the value (of that part of it, above 1), of the gradient
_FLAT_VALUE, _FLAT_SLOPE = 1e-8, 1e-6
_FIRST_DECAY, _SECOND_DECAY = 0.9, 0.999  # of Adam's moments, as in torch
_ADAM_BYTES = 1 << 18  # parameters at once: with gradient and moments 1 MB, which a cache holds

LARGE = 2e8  # samples * inputs * classes: beyond it a fit is in single precision
_AXES = 256
_STEPS = 500
_FLAT = 1e-12  # nats: where a step would gain less, all is done
_HALVINGS = 30
_ENOUGH = 1e-4  # of the gain that the slope promises
_APART = 1e-9  # of the curvature along a direction, added to it: two directions may be one


def minimise(
    objective: Callable[[Doubles], tuple[float, Doubles]],
    start: Doubles,
    bounds: tuple[float, float] | None = None,
) -> Doubles:
    """The parameters at the minimum, by L-BFGS from `start`: one vector.

    objective: parameters -> value, gradient. bounds: of every parameter.
    """
    from scipy.optimize import minimize  # 0.2 s

    options = {"maxiter": 200, "ftol": _FLAT_VALUE, "gtol": _FLAT_SLOPE}
    limits = None if bounds is None else [bounds] * len(start)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=limits, options=options)
    return np.asarray(found.x)


class Adam:
    """torch.optim.Adam, whose weight decay is a part of the gradient (L2); AdamW if `decoupled`.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; Loshchilov and Hutter,
    "Decoupled Weight Decay Regularization", 2019. All parameters lie in one vector, so that a step
    is one pass over blocks that fit a cache. The moments are kept without the factors (1 - beta),
    which the step size takes over: two passes less over the parameters.
    """

    def __init__(
        self,
        size: int,
        weight_decay: float,
        dtype: Any,
        *,
        decoupled: bool = False,
        epsilon: float = 1e-8,
    ) -> None:
        self._decay, self._decoupled, self._epsilon = weight_decay, decoupled, epsilon
        self._first, self._second = np.zeros(size, dtype), np.zeros(size, dtype)
        self._steps = 0

    def step(self, values: Array, gradient: Array, rate: float) -> None:
        """Move `values` in place; overwrites `gradient`."""
        self._steps += 1
        spread = math.sqrt((1 - _SECOND_DECAY**self._steps) / (1 - _SECOND_DECAY))
        mean = (1 - _FIRST_DECAY) / (1 - _FIRST_DECAY**self._steps)
        length = _ADAM_BYTES // values.itemsize
        for start in range(0, len(values), length):
            block = slice(start, start + length)
            first, second, slope = self._first[block], self._second[block], gradient[block]
            if self._decoupled:
                values[block] *= 1 - rate * self._decay
            else:
                slope += self._decay * values[block]
            first *= _FIRST_DECAY
            first += slope
            second *= _SECOND_DECAY
            slope *= slope
            second += slope
            np.sqrt(second, out=slope)
            slope += self._epsilon * spread
            np.divide(first, slope, out=slope)
            slope *= rate * mean * spread
            values[block] -= slope


class Linear(NamedTuple):
    """Logits to add: ``features @ coef.T + intercept``."""

    coef: Array  # (class, embed)
    intercept: Array  # (class,), zero where none is fitted

    def of(self, features: Array) -> Array:
        scores: Array = features @ self.coef.T
        scores += self.intercept
        return scores


class Axes(NamedTuple):
    """Principal axes of centred inputs."""

    vectors: Array  # (embed, axis), orthonormal
    variances: Array  # (axis,)
    rest: float  # mean variance along the directions that are left


# labels (n,), shares (n,) of the samples, in sum 1, and the weight of |V|^2 / 2
_Target = tuple[Labels, Array, float]


class _Move(NamedTuple):
    """A point or a direction, with its scores."""

    coef: Array  # (class, embed)
    intercept: Array  # (class,)
    scores: Array  # (n, class)


def principal_axes(inputs: Array) -> Axes:
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


def fit_logistic(
    inputs: Array,
    labels: Labels,
    penalty: float,
    tolerance: float,
    *,
    start: Linear | None = None,
    axes: Axes | None = None,
    weights: Array | None = None,
    base: Array | None = None,
) -> Linear:
    """The minimum of the formula above, from `start`, or from zeros.

    inputs: (n, embed), centred, float32 or float64; labels: (n,), of which the last class has one
    at least; axes: of these inputs, or of some like them. base: (n, class) scores to which V x_n is
    added in place of a, which stays 0; inputs then need no centre. Stops when a step lowers the
    objective by less than `tolerance` nats (less than that part of it, where it is above 1), or
    after 500 of them.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    shares, ridge = (weights / weights.sum()).astype(inputs.dtype), float(penalty / weights.sum())
    target, axes = (labels, shares, ridge), axes or principal_axes(inputs)
    classes = labels.max() + 1
    start = start or Linear(np.zeros((classes, inputs.shape[1])), np.zeros(classes))
    begin = Linear(*(part.astype(inputs.dtype) for part in start))
    at = _Move(*begin, begin.of(inputs))
    if base is not None:
        np.add(at.scores, base, out=at.scores)
    value, residual = _objective(at, target)
    step: _Move | None = None
    for _ in range(_STEPS):
        slope = residual.T @ inputs + ridge * at.coef, residual.sum(axis=0) * (base is None)
        downhill = _scaled(*slope, axes, ridge)
        if np.vdot(slope[0], downhill.coef) + slope[1] @ downhill.intercept < _FLAT:
            break
        direction = _Move(*downhill, downhill.of(inputs))
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
    features: Array, labels: Labels, *stop: float, start: Linear | None = None, **about: Any
) -> Linear:
    """The same for inputs that need not be centred. stop: penalty and tolerance."""
    centre = features.mean(axis=0)
    if start:
        start = Linear(start.coef, start.intercept + start.coef @ centre)
    found = fit_logistic(features - centre, labels, *stop, start=start, **about)
    return Linear(found.coef, found.intercept - found.coef @ centre)


def _objective(at: _Move, target: _Target) -> tuple[float, Array]:
    """The value, and the gradient (n, class) of its first term to the scores."""
    (labels, shares, ridge), residual = target, at.scores.copy()

    def block(rows: slice) -> float:
        losses = cross_entropy(residual[rows], labels[rows])[0]
        residual[rows] *= shares[rows, None]
        return float(np.sum(shares[rows] * losses, dtype=np.float64))

    value = sum(in_blocks(block, residual.shape))
    return value + ridge / 2 * float(np.vdot(at.coef, at.coef)), residual


def _in_plane(
    at: _Move, moves: list[_Move], residual: Array, target: _Target
) -> tuple[Doubles, Doubles]:
    """Slopes (move,) and Hessian (move, move) of the objective at `at`, along moves.

    residual: ``shares (p - onehot(labels))``, p the probabilities. With u and v two moves of the
    scores and E_p a mean over classes, the Hessian of cross-entropy is the sum over samples of
    E_p[u v] - E_p[u] E_p[v], by shares.
    """
    labels, all_shares, ridge = target
    count, ones = len(moves), np.ones(residual.shape[1], residual.dtype)

    def block(rows: slice) -> tuple[Doubles, Doubles]:
        scores, shares = [move.scores[rows] for move in moves], all_shares[rows]
        true = np.arange(len(shares)), labels[rows]
        own = np.array([move[true] for move in scores], np.float64)  # (move, n)
        slopes, second = np.empty_like(own), np.empty((count, count))
        product = np.empty_like(residual[rows])
        for one, move in enumerate(scores):
            np.multiply(residual[rows], move, out=product)
            slopes[one] = product @ ones
            second[one] = [np.vdot(product, other) for other in scores]
        means = slopes / shares + own
        return slopes.sum(axis=1), second + (shares * own) @ own.T - (shares * means) @ means.T

    slopes, hessians = zip(*in_blocks(block, residual.shape), strict=True)
    slope = [np.vdot(move.coef, at.coef) for move in moves]
    products = [[np.vdot(one.coef, other.coef) for other in moves] for one in moves]
    hessian = np.sum(hessians, axis=0) + ridge * np.array(products)
    hessian[np.diag_indices(count)] *= 1 + _APART
    return np.sum(slopes, axis=0) + ridge * np.array(slope), hessian


def _scaled(coef: Array, intercept: Array, axes: Axes, ridge: float) -> Linear:
    """A gradient divided by the curvature at equal probabilities."""
    classes = len(intercept)
    share = (classes - 1) / classes**2
    other = share * axes.rest + ridge
    extra = other / (share * axes.variances + ridge) - 1
    scaled = coef + ((coef @ axes.vectors) * extra.astype(coef.dtype)) @ axes.vectors.T
    scaled /= other
    return Linear(scaled, intercept / coef.dtype.type(share + ridge))


def _sum(moves: Sequence[_Move], sizes: Doubles) -> _Move:
    """A linear combination, in the precision of the moves."""
    factors = sizes.astype(moves[0].scores.dtype)
    total = _Move(*(factors[0] * part for part in moves[0]))
    for factor, move in zip(factors[1:], moves[1:], strict=True):
        for number, part in enumerate(move):
            np.add(total[number], factor * part, out=total[number])
    return total
