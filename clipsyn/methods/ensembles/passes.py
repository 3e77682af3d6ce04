"""The minimum of a sum over samples, few numbers, in few passes over a support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.optimise import Array, minimise
from clipsyn.methods.stream import Stream, Support

# support, parameters -> mean over the samples, gradient: one pass
Objective = Callable[[Support, Array], tuple[float, Array]]

_STEP = 1e-2  # of the differences that give the curvature
_FLATTEST = 1e-3  # curvature, in parts of the largest: no step is longer for less
_SLOPE = 1e-4  # in units of the sample's curvature: the value is within 1e-8 of the lowest
_STEPS = 15


def minimum(
    objective: Objective,
    support: Support,
    start: Array,
    moved: Callable[[Array], Array] = np.copy,
    **options: Any,
) -> Array:
    """The parameters at the minimum of a convex `objective`; options: those of `minimise`.

    moved: takes the minimum on a sample away from where `objective` has no slope, at which a search
    would stay.

    A pool is gone through as often as L-BFGS likes. A stream costs a read a time, so the search
    starts at the minimum of a sample of it, in units of the curvature there, in which a step of
    length one leads almost to the end: about five passes, and no more than 15 steps.
    """
    if not isinstance(support, Stream):
        return minimise(lambda values: objective(support, values), start, **options)
    from scipy.optimize import minimize  # 0.2 s

    sample, bounds = support.sample(), options.get("bounds") or (-np.inf, np.inf)
    near = moved(minimum(objective, sample, start, **options))
    scale = _inverse_root(_curvature(objective, sample, near))

    def scaled(units: Array) -> tuple[float, Array]:
        values = near + scale @ units
        inside = np.clip(values, *bounds)
        value, gradient = objective(support, inside)
        return value, scale @ np.where(inside == values, gradient, 0)

    found = minimize(
        scaled,
        np.zeros(len(near)),
        jac=True,
        method="BFGS",
        options={"gtol": _SLOPE, "maxiter": _STEPS},
    )
    return np.asarray(np.clip(near + scale @ found.x, *bounds))


def _curvature(objective: Objective, sample: Support, at: Array) -> Array:
    """The Hessian by differences of the gradient: as many passes over `sample` as parameters."""
    _, slope = objective(sample, at)
    rows = [(objective(sample, at + step)[1] - slope) / _STEP for step in _STEP * np.eye(len(at))]
    return (np.array(rows) + np.array(rows).T) / 2


def _inverse_root(curvature: Array) -> Array:
    """Its inverse square root, symmetric."""
    values, vectors = np.linalg.eigh(curvature)
    values = np.maximum(values, _FLATTEST * max(values.max(), np.finfo(float).tiny))
    root: NDArray[np.float64] = (vectors / np.sqrt(values)) @ vectors.T
    return root
