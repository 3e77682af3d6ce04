"""Arrays that a writer of cells is given, and their checks; messages name them by `what`.

They may be larger than memory: then some rows at a time are made, or read from where they lie.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import InputError
from clipsyn.methods.numerics.logits import LARGEST_LOGIT, finite_rows, is_scale, squares
from clipsyn.methods.pool import check_unit_norm
from clipsyn.names import fingerprint
from clipsyn.store.arrays import bytes_of, spans

_Type = type[np.floating[Any]]
_ROUNDED = 1e-3  # how far rounding to float16 takes a norm from 1


@dataclass(frozen=True, eq=False)
class Made:
    """Rows that are made when they are asked for; a slice of them is an array of numpy's."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[slice], NDArray[Any]]
    unit: int = 1  # rows that lie together

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


def one_after_another(parts: Sequence[Rows]) -> Rows:
    """The rows of several arrays of one width, as of one array."""
    starts = np.cumsum([0, *map(len, parts)])
    (width,) = {part.shape[1:] for part in parts}

    def make(some: slice) -> NDArray[Any]:
        return np.concatenate(
            [
                part[max(some.start - at, 0) : some.stop - at]
                for at, part in zip(starts.tolist(), parts, strict=False)
                if at < some.stop and some.start < at + len(part)
            ]
        )

    return Made((int(starts[-1]), *width), np.result_type(*(it.dtype for it in parts)), make)


def blocks(values: Rows) -> Iterator[slice]:
    """Slices that cover all rows in order, each a small part of memory."""
    row_bytes = max(1, values.dtype.itemsize * math.prod(values.shape[1:]))
    unit = values.unit if isinstance(values, Made) else 1
    for rows in spans(len(values), unit, 4 * row_bytes):
        yield slice(rows.start, rows.stop)


def content_digest(
    values: Mapping[str, Rows], parts: Iterable[Mapping[str, NDArray[Any]]] | None = None
) -> str:
    """Of names, types, shapes and bytes of the arrays of a cell.

    parts: all their rows, where these pass by anyway.
    """
    hashers = {name: hashlib.sha256() for name in values}
    own = ({name: array[rows]} for name, array in values.items() for rows in blocks(array))
    for part in own if parts is None else parts:
        for name, rows in part.items():
            hashers[name].update(bytes_of(rows))
    digests = {name: hasher.hexdigest() for name, hasher in hashers.items()}
    return fingerprint(
        {name: [it.dtype.name, *it.shape, digests[name]] for name, it in values.items()}
    )


def matrix(
    what: str,
    rows: ArrayLike | Made,
    valid: ArrayLike | None,
    dtype: _Type,
    *,
    unit: bool,
    mended: bool = False,
) -> tuple[Made, NDArray[np.bool_]]:
    """(row, width) with NaN in rows that have no value, and (row,) which have one.

    The first is made of the rows that are given, and checked, when it is asked for: with `unit`
    they are of unit norm. If they are to be `mended`, others are divided by their norm, and those
    that are not finite have no value: the second knows it of rows that were asked for.
    """
    given = rows if isinstance(rows, Made) else np.asarray(rows)
    if len(given.shape) != 2 or given.dtype.kind not in "fiu" or not given.shape[1]:
        raise InputError(f"{what} are numbers (row, width), not {_described(given)}")
    known = known_rows(what, len(given), valid)

    def make(some: slice) -> NDArray[Any]:
        values, has = _floating(given[some]), known[some]
        if mended:
            values, finite = units(values) if unit else (values, finite_rows(values))
            has &= finite
        else:
            norms = np.sqrt(squares(values)) if unit else np.ones(len(values))
            finite = np.isfinite(norms) if unit else finite_rows(values)
            if len(wrong := np.flatnonzero(has & ~finite)):
                raise InputError(
                    f"{what}: row {some.start + wrong[0]} of {len(given):,} is not finite, or "
                    f"beyond {LARGEST_LOGIT:g}: valid=… says which images have none"
                )
            check_unit_norm(f"rows of {what}", norms[has])
        with np.errstate(over="ignore"):
            out = values.astype(dtype, copy=False)
        return out if has.all() else np.where(has[:, None], out, dtype(np.nan))

    return Made(given.shape, np.dtype(dtype), make), known


def units(values: NDArray[Any]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """(row, width) unit norm in float32, then rounded, and (row,) where that can be; NaN elsewhere.

    A row that is of unit norm in float16 already keeps its bits.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        kept = abs(np.sqrt(squares(values)) - 1) < _ROUNDED
        if values.dtype != np.float16:
            near = np.flatnonzero(kept)
            near = near[values[near, 0].astype(np.float16) == values[near, 0]]  # most are not
            kept[:] = False
            kept[near] = (values[near].astype(np.float16) == values[near]).all(axis=1)
        if kept.all():  # as of every export
            return values.astype(np.float16, copy=False), kept
        rest = values[~kept]
        norm = np.sqrt(np.einsum("ij,ij->i", rest, rest, dtype=np.float64)).reshape(-1, 1)
        norm[~((norm > 0) & (norm < np.inf))] = np.nan
        unit = np.divide(rest, norm).astype(np.float32)
        unit[~np.isfinite(unit).all(axis=1)] = np.nan
        out = values.astype(np.float16)
        out[~kept] = unit
        kept[~kept] = np.isfinite(unit[:, 0])
    return out, kept


def _floating(values: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what is too large is not finite, or far off unit norm
        return values if values.dtype == np.float16 else values.astype(np.float32, copy=False)


def texts(what: str, rows: ArrayLike, scale: float, dtype: _Type) -> NDArray[Any]:
    """(row, width) of unit norm, which have a logit scale."""
    values = matrix(what, rows, None, dtype, unit=True)[0][:]
    if not is_scale(scale):
        raise InputError(f"{what}: the logit scale is from 1e-6 to 1e6, such as 100, not {scale}")
    return values


def known_rows(what: str, count: int, valid: ArrayLike | None) -> NDArray[np.bool_]:
    """(row,) which rows have a value: all, or those of `valid`."""
    known = np.ones(count, np.bool_) if valid is None else np.array(valid)
    if known.shape != (count,) or known.dtype != np.bool_:
        raise InputError(f"{what}: valid is bool ({count},), not {_described(known)}")
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
