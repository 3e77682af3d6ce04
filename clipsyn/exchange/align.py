"""Parts are aligned with a sample table by id; each becomes the arrays of one cell."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.exchange.export import Split
from clipsyn.exchange.parts import (
    Part,
    called,
    class_indices,
    predicted_indices,
)
from clipsyn.methods.numerics.logits import finite_rows
from clipsyn.methods.pool import NO_LABEL
from clipsyn.names import FeatureKey, by_severity
from clipsyn.store.groups import ELSEWHERE
from clipsyn.store.samples import SampleTable
from clipsyn.text import few

_LOG = logging.getLogger("clipsyn")
ABSENT = "not in the source"
_ROUNDED = 1e-3  # how far rounding to float16 takes a norm from 1
_UNANSWERED = {
    "predictions": "no prediction",
    "logits": "not finite",
    "embeddings": "not finite, or of norm 0",
}


@dataclass(frozen=True, eq=False)
class NewCell:
    """What will be stored of one backbone under one perturbation: a row for every sample."""

    key: FeatureKey
    part: Part
    values: NDArray[Any]  # (sample,) classes, or (sample, width): embeddings in float16, logits
    confidence: NDArray[np.float32] | None
    valid: NDArray[np.bool_]
    invalid: Mapping[str, int]  # reason -> rows

    @property
    def prompts(self) -> str | None:
        """Of the predictions, or of the first class embeddings."""
        return next(iter(self.part.texts), self.part.prompts)


def check_parts(parts: Sequence[Part]) -> None:
    """Raise DatasetError for an id twice, and where two files hold one cell."""
    cells: dict[tuple[str, str, str | None], Part] = {}
    for part in parts:
        twice = [name for name, count in Counter(part.ids or ()).items() if count > 1]
        if twice:
            raise DatasetError(
                f"{part}: {len(twice)} ids occur more than once ({few(twice[:3])}): an id is one "
                "image"
            )
        cell = part.backbone, part.perturbation, part.prompts
        if (other := cells.setdefault(cell, part)) is not part:
            raise DatasetError(
                f"{part} and {other} hold the same: make one file of them, or give each its own "
                "import with backbone=…"
            )


def align(parts: Sequence[Part], table: SampleTable, *, intersect: bool) -> list[NewCell]:
    """Cells of the parts. Raises DatasetError, naming ids, for a part with missing or unknown ids.

    A part should have all ids of the table. Where the perturbation came from a column, each image
    may be shown under one alone: the part should have the ids of all parts under its perturbation.
    """
    rows = {name: row for row, name in enumerate(table.ids)}
    shown: dict[str, set[str]] = {}
    for part in parts:
        shown.setdefault(part.perturbation, set()).update(part.ids or ())
    cells = []
    for part in parts:
        of_all = shown[part.perturbation] if part.of_condition else rows.keys()
        expected = [name for name in table.ids if name in of_all]
        ids = part.ids or ()
        _check_ids(part, ids, expected, rows, intersect)
        at = np.array([rows.get(name, -1) for name in ids], np.intp)
        key = FeatureKey(table.dataset, table.split, part.perturbation, part.backbone)
        cells.append(_cell(part, key, at, table, len(expected)))
    return sorted(
        cells,
        key=lambda cell: (
            by_severity(cell.key.perturbation),
            cell.key.backbone,
            cell.prompts or "",
        ),
    )


def with_ids(part: Part, table: SampleTable | None) -> Part:
    """The part, whose rows are those of the table in its order, or get ids ``row-…``, if it has
    none.
    """
    if part.ids is not None:
        return part
    if table is None:
        width = len(str(part.rows - 1))
        return replace(part, ids=tuple(f"row-{row:0{width}}" for row in range(part.rows)))
    if part.rows != len(table):
        raise DatasetError(
            f"{part}: {part.rows:,} rows in the store's order, which has {len(table):,} samples of "
            f"{table.name}: give ids instead of row_order=True"
        )
    return replace(part, ids=table.ids)


def new_table(parts: Sequence[Part], split: Split) -> SampleTable:
    """A sample table of the parts' ids and labels, in the order they come in.

    Content hashes are all zero, since no image was read.
    """
    ids = tuple(dict.fromkeys(name for part in parts for name in part.ids or ()))
    none = np.full(len(ids), NO_LABEL, np.int32)
    labels = labels_of(parts, ids, none, split.class_names)
    unseen, about = np.zeros((len(ids), 32), np.uint8), (split.metric, split.licence)
    return SampleTable(split.dataset, split.split, ids, labels, unseen, split.class_names, *about)


def labels_of(
    parts: Sequence[Part], ids: Sequence[str], known: NDArray[np.int32], names: Sequence[str]
) -> NDArray[np.int32]:
    """The labels of samples, with those that the parts add to what is known.

    Raises DatasetError for one that is another than is known.
    """
    rows, labels = {name: row for row, name in enumerate(ids)}, known.copy()
    for part in parts:
        if part.labels is None or part.ids is None:
            continue
        given = class_indices(part.labels, names, part)
        at = np.array([rows.get(name, -1) for name in part.ids], np.intp)
        told = (at >= 0) & (given >= 0)
        differ = np.flatnonzero(told & (labels[at] >= 0) & (labels[at] != given))
        if len(differ):
            row = int(differ[0])
            raise DatasetError(
                f"{part}: {len(differ):,} labels are others than known so far ({part.ids[row]}: "
                f"{called(given[row], names)}, not {called(labels[at[row]], names)}): mend them, "
                "or leave labels away"
            )
        labels[at[told]] = given[told]
    return labels


def _check_ids(
    part: Part,
    ids: Sequence[str],
    expected: Sequence[str],
    known: Mapping[str, int],
    intersect: bool,
) -> None:
    given = set(ids)
    missing = [name for name in expected if name not in given]
    unknown = [name for name in ids if name not in known]
    if len(unknown) == len(ids):
        raise DatasetError(
            f"{part}: none of its {len(ids):,} ids is one of the samples ({few(ids[:2])} …; the "
            f"samples are called {few(sorted(known)[:2])} …)"
        )
    if intersect and unknown:
        _LOG.info(f"{part}: {len(unknown):,} ids that are no samples are left out")
    if intersect or not (missing or unknown):
        return
    problems = [
        f"{len(names):,} {what} ({few(names)})"
        for names, what in ((missing, "samples are not in it"), (unknown, "of its ids are unknown"))
        if names
    ]
    raise DatasetError(
        f"{part}: {' and '.join(problems)}: mend the ids, or take those in common with "
        "intersect=True"
    )


def _cell(
    part: Part, key: FeatureKey, at: NDArray[np.intp], table: SampleTable, expected: int
) -> NewCell:
    """The cell whose rows `at` have the part's values; -1 is no row of the table."""
    (values, valid), taken = _values(part, table.class_names), at >= 0

    def placed(rows: NDArray[Any], none: float) -> NDArray[Any]:
        out = np.full((len(table), *rows.shape[1:]), none, rows.dtype)
        out[at[taken]] = rows[taken]
        return out

    invalid = {
        ELSEWHERE: len(table) - expected,
        ABSENT: expected - int(taken.sum()),
        _UNANSWERED[part.kind]: int(np.count_nonzero(~valid[taken])),
    }
    if not valid[taken].any():
        raise DatasetError(f"{part}: every row is invalid ({_UNANSWERED[part.kind]})")
    return NewCell(
        key,
        part,
        placed(values, -1 if part.kind == "predictions" else np.nan),
        None if part.confidence is None else placed(part.confidence, np.nan),
        placed(valid, False),
        {reason: count for reason, count in invalid.items() if count},
    )


def _values(part: Part, names: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The rows of a part as they will be stored, in its own order, and which have a value."""
    if part.kind == "predictions":
        classes = predicted_indices(part.values, names, part)
        return classes, classes >= 0
    values = _embedding(part.values) if part.kind == "embeddings" else part.values
    return values, finite_rows(values)


def _embedding(values: NDArray[Any]) -> NDArray[np.float16]:
    """Unit norm in float32, then rounded; NaN where that cannot be.

    What is of unit norm in float16 already keeps its bits, and so does float16, an export's.
    """
    exact = values if values.dtype == np.float16 else _as_stored(values)
    if exact is not None:
        return exact
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        norm = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
        unit = (values / norm).astype(np.float32)
    unit[~np.isfinite(unit).all(axis=1)] = np.nan
    rounded: NDArray[np.float16] = unit.astype(np.float16)
    return rounded


def _as_stored(values: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """(row, embed) in float16 if that is what the values are, of unit norm or of none.

    A row of zeros is none: NaN.
    """
    with np.errstate(over="ignore"):
        rounded: NDArray[np.float16] = values.astype(np.float16)
    if not np.array_equal(rounded, values, equal_nan=True):
        return None
    norms = np.linalg.norm(values.astype(np.float64), axis=1)
    rounded[norms == 0] = np.nan
    expected = np.isnan(norms) | (norms == 0) | (abs(norms - 1) < _ROUNDED)
    return rounded if expected.all() else None
