"""Rows of a cell that callers give a writer, as they are stored, and the digest over them.

InputError says what is wrong with them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import InputError
from clipsyn.methods.numerics.logits import LARGEST_LOGIT, NO_CLASS, NO_PREDICTION
from clipsyn.names import fingerprint


def matrix(where: str, what: str, rows: ArrayLike) -> NDArray[Any]:
    """(row, width) in float16 or float32."""
    values = np.asarray(rows)
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.shape[1]:
        raise InputError(f"{where}: {what} are numbers (row, width), not {_described(values)}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite
        return values if values.dtype == np.float16 else values.astype(np.float32)


def blanked(
    values: NDArray[Any], known: NDArray[np.bool_], dtype: type[np.floating[Any]]
) -> NDArray[Any]:
    """A copy in that type, with NaN in the rows that have no value."""
    with np.errstate(over="ignore"):  # a number that is too large for float16 is far off unit norm
        stored = values.astype(dtype)
    stored[~known] = np.nan
    return stored


def class_indices(where: str, rows: ArrayLike) -> NDArray[np.integer[Any]]:
    """(row,) of any type of whole numbers."""
    values = np.asarray(rows)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(f"{where}: predictions are class indices (row,), not {_described(values)}")
    return values


def known_rows(
    where: str, what: str, values: NDArray[Any], valid: ArrayLike | None
) -> NDArray[np.bool_]:
    """(row,) which rows have a value: all, or those of `valid`; they are finite."""
    known = np.ones(len(values), np.bool_) if valid is None else np.array(valid)
    if known.shape != (len(values),) or known.dtype != np.bool_:
        raise InputError(f"{where}: valid is bool ({len(values)},), not {_described(known)}")
    if len(wrong := np.flatnonzero(known & ~finite_rows(values))):
        raise InputError(
            f"{where}: {what} of {len(wrong):,} rows are not finite, or beyond {LARGEST_LOGIT:g} "
            f"(row {wrong[0]} of these {len(values):,}): valid=… says which images have none"
        )
    return known


def finite_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    """(row,) whether all of a row is finite, and not so large that sums of it are not."""
    columns = tuple(range(1, values.ndim))
    high, low = (limit(axis=columns).astype(np.float64) for limit in (values.max, values.min))
    finite: NDArray[np.bool_] = (low >= -LARGEST_LOGIT) & (high <= LARGEST_LOGIT)
    return finite


def stored_predictions(
    where: str, values: NDArray[Any], known: NDArray[np.bool_], classes: int
) -> NDArray[np.uint16]:
    """(row,) NO_PREDICTION where not known; each other is one of the classes, or NO_CLASS."""
    outside = known & (values != NO_CLASS) & ((values < 0) | (values >= classes))
    if outside.any():
        raise InputError(
            f"{where}: class {values[outside][0]} is outside 0 to {classes - 1}: valid=… says "
            "which images have no prediction"
        )
    return np.where(known, values, NO_PREDICTION).astype(np.uint16)


def stored_confidences(
    where: str, confidences: ArrayLike, known: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(row,) probabilities; NaN where there is no prediction."""
    values = np.asarray(confidences)
    if values.shape != known.shape or values.dtype.kind not in "fiu":
        raise InputError(
            f"{where}: confidences are numbers ({len(known)},), not {_described(values)}"
        )
    if len(wrong := np.flatnonzero(known & ~((values >= 0) & (values <= 1)))):
        raise InputError(
            f"{where}: confidences are 0 to 1, one for each prediction, not {values[wrong[0]]:g} "
            f"(row {wrong[0]})"
        )
    return np.where(known, values, np.nan).astype(np.float32)


def _described(values: NDArray[Any]) -> str:
    return f"{values.dtype} {values.shape}"


class ContentDigest:
    """SHA-256 over the arrays of a cell, whose rows may come in any parts."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[Any, str, tuple[int, ...]]] = {}
        self._rows: Counter[str] = Counter()

    def add(self, name: str, rows: NDArray[Any]) -> None:
        little = rows.astype(rows.dtype.newbyteorder("<"), order="C", copy=False)
        of_array = hashlib.sha256(), rows.dtype.name, rows.shape[1:]
        self._parts.setdefault(name, of_array)[0].update(little.reshape(-1).view("u1").data)
        self._rows[name] += len(rows)

    def hexdigest(self) -> str:
        """Of names, types, shapes and bytes."""
        parts = self._parts.items()
        return fingerprint(
            {
                name: [dtype, self._rows[name], *width, hasher.hexdigest()]
                for name, (hasher, dtype, width) in parts
            }
        )


def content_digest(values: Mapping[str, NDArray[Any]]) -> str:
    """The digest of whole arrays."""
    digest = ContentDigest()
    for name, array in values.items():
        digest.add(name, array)
    return digest.hexdigest()
