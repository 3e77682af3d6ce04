"""Checks of the arrays that a writer of cells is given; messages name them by `what`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import InputError
from clipsyn.methods.numerics.logits import LARGEST_LOGIT, finite_rows, is_scale
from clipsyn.methods.pool import check_unit_norm

_Type = type[np.floating[Any]]


def matrix(
    what: str, rows: ArrayLike, valid: ArrayLike | None, dtype: _Type
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(row, width) with NaN in rows that have no value, and (row,) which have one."""
    given = np.asarray(rows)
    if given.ndim != 2 or given.dtype.kind not in "fiu" or not given.shape[1]:
        raise InputError(f"{what} are numbers (row, width), not {_described(given)}")
    with np.errstate(over="ignore"):  # what is too large is not finite, or far off unit norm
        values = given if given.dtype == np.float16 else given.astype(np.float32)
        known = known_rows(what, values, valid)
        stored = values.astype(dtype)
    stored[~known] = np.nan
    return stored, known


def texts(what: str, rows: ArrayLike, scale: float, dtype: _Type) -> NDArray[Any]:
    """(row, width) of unit norm, which have a logit scale."""
    values, _ = matrix(what, rows, None, dtype)
    check_unit_norm(what, values)
    if not is_scale(scale):
        raise InputError(f"{what}: the logit scale is from 1e-6 to 1e6, such as 100, not {scale}")
    return values


def known_rows(what: str, values: NDArray[Any], valid: ArrayLike | None) -> NDArray[np.bool_]:
    """(row,) which rows have a value: all, or those of `valid`; they are finite."""
    known = np.ones(len(values), np.bool_) if valid is None else np.array(valid)
    if known.shape != (len(values),) or known.dtype != np.bool_:
        raise InputError(f"{what}: valid is bool ({len(values)},), not {_described(known)}")
    if len(wrong := np.flatnonzero(known & ~finite_rows(values))):
        raise InputError(
            f"{what} of {len(wrong):,} rows are not finite, or beyond {LARGEST_LOGIT:g} "
            f"(row {wrong[0]} of {len(values):,}): valid=… says which images have none"
        )
    return known


def probabilities(what: str, rows: ArrayLike, known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(row,) confidences; NaN where there is no prediction."""
    values = np.asarray(rows)
    if values.shape != known.shape or values.dtype.kind not in "fiu":
        raise InputError(f"{what} are numbers ({len(known)},), not {_described(values)}")
    if len(wrong := np.flatnonzero(known & ~((values >= 0) & (values <= 1)))):
        raise InputError(
            f"{what} are 0 to 1, one for each prediction, not {values[wrong[0]]:g} (row {wrong[0]})"
        )
    return np.where(known, values, np.nan).astype(np.float32)


def class_indices(where: str, rows: ArrayLike) -> NDArray[np.integer[Any]]:
    """(row,) of any type of whole numbers; raises InputError."""
    values = np.asarray(rows)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(f"{where}: predictions are class indices (row,), not {_described(values)}")
    return values


def _described(values: NDArray[Any]) -> str:
    return f"{values.dtype} {values.shape}"
