"""What perturbations do to accuracy: measures of arrays of accuracies.

All are pure and work along the last axes, so that the same function gives a number and, from
bootstrap resamples in front, its interval.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.specs import CLEAN, Perturbation, parse_perturbation

_ROUNDING = 1e-12


def families(labels: Iterable[str]) -> dict[str, list[str]]:
    """Perturbations by what they are without their severity: name -> labels by severity.

    "jpeg-3" and "jpeg-5" are "jpeg"; "jpeg-3-seed1" is "jpeg-seed1". Clean images are none.
    """
    found: dict[str, list[Perturbation]] = {}
    for label in labels:
        one = parse_perturbation(label)
        if one != CLEAN:
            name = replace(one, severity=0).label.replace("-0", "", 1)
            found.setdefault(name, []).append(one)
    return {
        name: [one.label for one in sorted(members, key=lambda one: one.severity)]
        for name, members in sorted(found.items())
    }


def relative_robustness(perturbed: NDArray[Any], clean: NDArray[Any]) -> NDArray[np.float64]:
    """``accuracy_perturbed / accuracy_clean``; NaN where nothing was right on clean images."""
    return _ratio(perturbed, clean)


def corruption_error(accuracy: NDArray[Any], reference: int) -> NDArray[np.float64]:
    """``sum_s error_s / sum_s error_s of the reference``, s the severities of one perturbation.

    accuracy: (…, severity, method); reference: a method. Returns (…, method). The corruption
    error of Hendrycks & Dietterich 2019, section 3.3; its mean over perturbations is their mCE.
    NaN where the reference makes no error (0/0, or more).
    """
    errors = _exact(1 - np.asarray(accuracy, np.float64).mean(axis=-2))  # as many for both
    return _ratio(errors, errors[..., [reference]])


def kendall_tau(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Kendall's tau-b of two rankings along the last axis: (…, backbone) twice -> (…,).

        tau_b = sum_{i<j} sgn(x_i - x_j) sgn(y_i - y_j) / sqrt(n_x n_y)

    with n_x and n_y the pairs that are not tied (Kendall 1945). 1: the same order, -1: the
    opposite; NaN where one of them ties all, or there are fewer than two backbones. Means that
    differ by rounding alone are tied.
    """
    i, j = np.triu_indices(first.shape[-1], 1)
    x, y = (np.sign(_exact(values[..., i] - values[..., j])) for values in (first, second))
    untied = np.abs(x).sum(axis=-1) * np.abs(y).sum(axis=-1)
    return _ratio((x * y).sum(axis=-1), np.sqrt(untied))


def _exact(values: NDArray[Any]) -> NDArray[Any]:
    """Without what rounding leaves of no difference."""
    return np.where(np.abs(values) < _ROUNDING, 0, values)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    bottom = np.asarray(denominator, np.float64)
    return np.asarray(numerator / np.where(bottom > 0, bottom, np.nan), np.float64)
