"""Minimising functions whose gradients are written by hand.

`minimise` and `newton` are for a handful of parameters or a convex problem, `Adam` and `adamw` for
batches of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# torch's defaults
_FIRST_DECAY, _SECOND_DECAY, _EPSILON = 0.9, 0.999, 1e-8
_ADAMW_DECAY, _ADAMW_EPSILON = 0.01, 1e-4  # Tip-Adapter-F's
_ADAMW_BLOCK = 16_384  # the same in double precision
_ADAM_BLOCK = 65_536  # parameters: with gradient and moments 1 MB, which a core's cache holds
_NEWTON_STEPS = 50
_NEWTON_DECREMENT = 1e-7  # squared, in the units of the value


def minimise(
    objective: Callable[[Array], tuple[float, Array]],
    start: Array,
    *,
    tolerance: float = 1e-8,
    slope: float = 1e-6,
    iterations: int = 200,
    searches: int = 20,
    bounds: tuple[float, float] | None = None,
) -> Array:
    """The parameters at the minimum, by L-BFGS from `start`: one vector.

    objective: parameters -> value, gradient. Stops where a step lowers the value by less than
    `tolerance` (less than that part of it, where it is above 1), where no component of the gradient
    is above `slope`, or after so many `iterations`. searches: evaluations along a line. bounds: of
    every parameter.
    """
    from scipy.optimize import minimize  # 0.2 s

    return np.asarray(
        minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=None if bounds is None else [bounds] * len(start),
            options={"maxiter": iterations, "ftol": tolerance, "gtol": slope, "maxls": searches},
        ).x
    )


def newton(objective: Callable[[Array], tuple[float, Array, Array]], start: Array) -> Array:
    """The parameters at the minimum of a convex function, by Newton's method from `start`.

    objective: parameters -> value, gradient, Hessian. A step that goes too far is halved.
    """
    parameters = start
    value, slope, curvature = objective(parameters)
    for _ in range(_NEWTON_STEPS):
        step = np.linalg.solve(curvature, slope)
        decrement = float(slope @ step)
        if decrement < _NEWTON_DECREMENT:
            break
        for size in 0.5 ** np.arange(30):
            nearer = objective(parameters - size * step)
            if nearer[0] <= value - 1e-4 * size * decrement:
                break
        parameters = parameters - size * step
        value, slope, curvature = nearer
    return parameters


class Adam:
    """torch.optim.Adam: weight decay is a part of the gradient (L2), not AdamW's.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015. All parameters lie in one
    vector, so that a step is one pass over blocks that fit a cache. The moments are kept without
    the factors (1 - beta), which the step size takes over: two passes less over the parameters.
    """

    def __init__(self, size: int, learning_rate: float, weight_decay: float, dtype: Any) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self._first, self._second = np.zeros(size, dtype), np.zeros(size, dtype)
        self._steps = 0

    def step(self, values: NDArray[Any], gradient: NDArray[Any]) -> None:
        """Move `values` in place; overwrites `gradient`."""
        self._steps += 1
        spread = math.sqrt((1 - _SECOND_DECAY**self._steps) / (1 - _SECOND_DECAY))
        mean = (1 - _FIRST_DECAY) / (1 - _FIRST_DECAY**self._steps)
        size = self.learning_rate * mean * spread
        for start in range(0, len(values), _ADAM_BLOCK):
            block = slice(start, start + _ADAM_BLOCK)
            first, second, slope = self._first[block], self._second[block], gradient[block]
            slope += self.weight_decay * values[block]
            first *= _FIRST_DECAY
            first += slope
            second *= _SECOND_DECAY
            slope *= slope
            second += slope
            np.sqrt(second, out=slope)
            slope += _EPSILON * spread
            np.divide(first, slope, out=slope)
            slope *= size
            values[block] -= slope


def adamw(
    start: NDArray[Any],
    gradient: Callable[[NDArray[Any], NDArray[np.intp]], NDArray[Any]],
    batches: Sequence[NDArray[np.intp]],
    learning_rate: float,
) -> NDArray[Any]:
    """Parameters after a step for each batch: AdamW, the rate falling to 0 as half a cosine.

    gradient: parameters, rows of a batch -> gradient. Weight decay is 0.01, epsilon 1e-4.
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. In double precision, where
    squares of small gradients are still numbers.
    """
    parameters = start.astype(np.float64).ravel()
    rounded = start.copy()  # what gradients are taken at
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)
    for step, batch in enumerate(batches):
        rate = learning_rate * (1 + np.cos(np.pi * step / len(batches))) / 2
        size = rate / (1 - _FIRST_DECAY ** (step + 1))
        flat, slopes = rounded.reshape(-1), gradient(rounded, batch).reshape(-1)
        for begin in range(0, len(parameters), _ADAMW_BLOCK):
            block = slice(begin, begin + _ADAMW_BLOCK)
            values, mean, square = parameters[block], first[block], second[block]
            slope = slopes[block].astype(np.float64)
            mean *= _FIRST_DECAY
            mean += (1 - _FIRST_DECAY) * slope
            square *= _SECOND_DECAY
            slope *= slope
            slope *= 1 - _SECOND_DECAY
            square += slope
            np.multiply(square, 1 / (1 - _SECOND_DECAY ** (step + 1)), out=slope)
            np.sqrt(slope, out=slope)
            slope += _ADAMW_EPSILON
            np.divide(mean, slope, out=slope)
            slope *= size
            values *= 1 - rate * _ADAMW_DECAY
            values -= slope
            flat[block] = values
    return rounded
