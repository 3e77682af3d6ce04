"""Rows of a cell that callers give a writer: as they are stored, and in blocks on their way there.

InputError says what is wrong with them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import InputError, UsageError
from clipsyn.methods.numerics.logits import LARGEST_LOGIT, NO_CLASS, NO_PREDICTION
from clipsyn.names import FeatureKey, Identity
from clipsyn.store.arrays import ContentDigest
from clipsyn.store.drafts import Draft
from clipsyn.store.samples import SampleTable
from clipsyn.store.schema import HELD, IDENTITY_VERSION, IMPORTED


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


class Rows:
    """Rows that are appended to a draft.

    A digest of all rows is a part of the cell's identity, so the draft gets its own at the end.
    """

    def __init__(self, draft: Draft) -> None:
        token = secrets.token_hex(10)
        self.draft = replace(draft, identity={**draft.identity, "writing": token}, id=token)
        self.count = self.invalid = 0
        self._waiting: list[Mapping[str, NDArray[Any]]] = []  # what the next block begins with
        self._digest = ContentDigest()

    @property
    def width(self) -> int | None:
        """Of the embeddings, if it holds some."""
        return self.draft.sizes.get("embed")

    def append(self, draft: Draft, values: Mapping[str, NDArray[Any]], name: str) -> None:
        """Take the next rows of every array; `draft` is of the cell that they are rows of."""
        self._check_alike(draft, name)
        count, total = len(values["valid"]), self.draft.sizes["sample"]
        if self.count + count > total:
            raise InputError(
                f"{name}: {self.count + count:,} rows, where there are {total:,} samples"
            )
        self.invalid += count - int(np.count_nonzero(values["valid"]))
        for array, rows in values.items():
            self._digest.add(array, rows)
        start, blocks = 0, self.draft.blocks
        while start < count:
            block = self.count // blocks.rows
            end = blocks.range(block).stop
            part = slice(start, min(count, start + end - self.count))
            self._waiting.append({array: rows[part] for array, rows in values.items()})
            start, self.count = part.stop, self.count + part.stop - start
            if self.count == end:
                parts, self._waiting = self._waiting, []
                whole = {array: np.concatenate([it[array] for it in parts]) for array in values}
                self.draft.write(block, whole, {})

    def _check_alike(self, draft: Draft, name: str) -> None:
        if draft.specs != self.draft.specs:
            given, before = _held(draft), _held(self.draft)
            raise UsageError(f"{name}: {given} after {before}: a cell holds one kind of rows")
        if draft.sizes != self.draft.sizes:
            raise InputError(
                f"{name}: embeddings of width {draft.sizes['embed']} after those of width "
                f"{self.width}: one backbone has one width"
            )

    def identify(self, key: FeatureKey, samples: SampleTable, prompts: str | None) -> None:
        """Give the draft the identity that it will be published with, once all rows are there."""
        kind = self.draft.kind
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "source": IMPORTED,
            "content": self._digest.hexdigest(),
            **vars(key),
            "samples": samples.digest,
            "class_names": None if kind == "features" else list(samples.class_names),
        }
        if kind == "predictions":
            identity["confidences"] = self.draft.identity["confidences"]
        if prompts is not None:
            identity["prompts"] = prompts
        self.draft = replace(self.draft, identity=identity)


def _held(draft: Draft) -> str:
    """What a cell holds, as messages say it."""
    if draft.kind != "predictions":
        return HELD[draft.kind]
    return f"predictions {'with' if draft.identity['confidences'] else 'without'} confidences"
