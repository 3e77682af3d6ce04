"""Arrays that a writer of cells is given, and their checks; messages name them by `what`.

They may be larger than memory: then some rows at a time are made, or read from where they lie.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import InputError
from clipsyn.methods.numerics.logits import LARGEST_LOGIT, finite_rows, is_scale
from clipsyn.methods.pool import check_unit_norm
from clipsyn.names import fingerprint
from clipsyn.store.arrays import spans

_Type = type[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Made:
    """Rows that are made when they are asked for; a slice of them is an array of numpy's."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[slice], NDArray[Any]]
    unit: int = 1  # rows that lie together
    digest: str = ""  # of its bytes, where they were looked at already

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        return self.make(slice(*rows.indices(len(self))))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


Rows = NDArray[Any] | Made  # of numpy's, mapped or not, or made


def made_of(rows: Rows, dtype: Any, make: Callable[[NDArray[Any]], NDArray[Any]]) -> Rows:
    """Rows that are made of others: of an array of numpy's at once."""
    if isinstance(rows, Made):
        return Made(rows.shape, np.dtype(dtype), lambda some: make(rows[some]), rows.unit)
    return make(rows)


def blocks(values: Rows) -> Iterator[slice]:
    """Slices that cover all rows in order, each a small part of memory."""
    row_bytes = max(1, values.dtype.itemsize * math.prod(values.shape[1:]))
    unit = values.unit if isinstance(values, Made) else 1
    for rows in spans(len(values), unit, 4 * row_bytes):
        yield slice(rows.start, rows.stop)


def content_digest(values: Mapping[str, Rows]) -> str:
    """Of names, types, shapes and bytes of the arrays of a cell."""
    parts = {}
    for name, array in values.items():
        digest = array.digest if isinstance(array, Made) else ""
        if not digest:
            hasher = hashlib.sha256()
            for rows in blocks(array):
                hasher.update(_bytes_of(array[rows]))
            digest = hasher.hexdigest()
        parts[name] = [array.dtype.name, *array.shape, digest]
    return fingerprint(parts)


def _bytes_of(values: NDArray[Any]) -> memoryview:
    little = values.astype(values.dtype.newbyteorder("<"), order="C", copy=False)
    return little.reshape(-1).view("u1").data


def matrix(
    what: str,
    rows: ArrayLike | Made,
    valid: ArrayLike | None,
    dtype: _Type,
    look: Callable[[NDArray[Any]], object],
) -> tuple[Made, NDArray[np.bool_]]:
    """(row, width) with NaN in rows that have no value, and (row,) which have one.

    The first is made of the rows that are given whenever it is asked for. `look` is shown all of
    them, in order, some at a time.
    """
    given = rows if isinstance(rows, Made) else np.asarray(rows)
    if len(given.shape) != 2 or given.dtype.kind not in "fiu" or not given.shape[1]:
        raise InputError(f"{what} are numbers (row, width), not {_described(given)}")
    known = known_rows(what, np.ones(len(given), np.bool_), valid)

    def make(some: slice) -> NDArray[Any]:
        return stored(_floating(given[some]), known[some])

    def stored(values: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            out = np.array(values, dtype)
        out[~known] = np.nan
        return out

    finite, hasher = np.zeros(len(given), np.bool_), hashlib.sha256()
    for some in blocks(given):
        values = _floating(given[some])
        finite[some] = finite_rows(values)
        if (finite[some] | ~known[some]).all():  # else it is refused below
            hasher.update(_bytes_of(part := stored(values, known[some])))
            look(part)
    known_rows(what, finite, valid)
    return Made(given.shape, np.dtype(dtype), make, digest=hasher.hexdigest()), known


def _floating(values: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what is too large is not finite, or far off unit norm
        return values if values.dtype == np.float16 else values.astype(np.float32)


def texts(what: str, rows: ArrayLike, scale: float, dtype: _Type) -> NDArray[Any]:
    """(row, width) of unit norm, which have a logit scale."""
    values = matrix(what, rows, None, dtype, lambda part: check_unit_norm(what, part))[0][:]
    if not is_scale(scale):
        raise InputError(f"{what}: the logit scale is from 1e-6 to 1e6, such as 100, not {scale}")
    return values


def known_rows(what: str, finite: NDArray[np.bool_], valid: ArrayLike | None) -> NDArray[np.bool_]:
    """(row,) which rows have a value: all, or those of `valid`; they are finite."""
    known = np.ones(len(finite), np.bool_) if valid is None else np.array(valid)
    if known.shape != finite.shape or known.dtype != np.bool_:
        raise InputError(f"{what}: valid is bool ({len(finite)},), not {_described(known)}")
    if len(wrong := np.flatnonzero(known & ~finite)):
        raise InputError(
            f"{what} of {len(wrong):,} rows are not finite, or beyond {LARGEST_LOGIT:g} "
            f"(row {wrong[0]} of {len(finite):,}): valid=… says which images have none"
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


def _described(values: Rows) -> str:
    return f"{values.dtype} {values.shape}"
