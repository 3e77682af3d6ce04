"""What perturbations do to accuracy, from arrays of accuracies.

All functions are pure and work along the last axes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.metrics import ratio
from clipsyn.names import CLEAN, Perturbation, parse_perturbation

_ROUNDING = 1e-12


def families(labels: Iterable[str]) -> dict[str, list[str]]:
    """Labels of perturbations by the perturbation without its severity, in order of severity.

    "jpeg-3" and "jpeg-5" are "jpeg"; "jpeg-3-seed1" is "jpeg-seed1". Clean images are left out.
    """
    members: dict[str, list[Perturbation]] = {}
    for label in labels:
        perturbation = parse_perturbation(label)
        if perturbation != CLEAN:
            name = label.replace(f"-{perturbation.severity}", "", 1)
            members.setdefault(name, []).append(perturbation)
    return {
        name: [one.label for one in sorted(family, key=lambda one: one.severity)]
        for name, family in sorted(members.items())
    }


def corruption_error(accuracy: NDArray[Any], reference: int) -> NDArray[np.float64]:
    """``sum_s error_s / sum_s error_s of the reference``, s the severities of one perturbation.

    accuracy: (…, severity, method); reference: index of a method. Returns (…, method). This is the
    corruption error of Hendrycks & Dietterich 2019, section 3.3; its mean over perturbations is
    their mCE. NaN where the reference makes no error.
    """
    errors = _exact(1 - np.asarray(accuracy, np.float64).mean(axis=-2))  # means: the same ratio
    return ratio(errors, errors[..., [reference]])


def kendall_tau(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Kendall's tau-b of two rankings along the last axis: (…, backbone) twice -> (…,).

        tau_b = sum_{i<j} sgn(x_i - x_j) sgn(y_i - y_j) / sqrt(n_x n_y)

    with n_x and n_y the numbers of pairs that are not tied (Kendall 1945). 1 is the same order, -1
    the opposite; NaN where a ranking ties all, or there are fewer than two backbones. Accuracies
    that differ by rounding alone are tied.
    """
    i, j = np.triu_indices(first.shape[-1], 1)
    x, y = (np.sign(_exact(values[..., i] - values[..., j])) for values in (first, second))
    untied = np.abs(x).sum(axis=-1) * np.abs(y).sum(axis=-1)
    return ratio((x * y).sum(axis=-1), np.sqrt(untied))


def _exact(values: NDArray[Any]) -> NDArray[Any]:
    """The values, 0 where they are no more than rounding."""
    return np.where(np.abs(values) < _ROUNDING, 0, values)
