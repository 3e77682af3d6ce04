"""Parts are aligned with a sample table by id; each becomes the arrays of one cell."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.catalog.datasets import find_dataset
from clipsyn.errors import DatasetError
from clipsyn.importing.classes import class_indices, class_names, predicted_indices
from clipsyn.importing.parts import Part, Text, short
from clipsyn.importing.settings import ImportSettings
from clipsyn.numerics.logits import NO_PREDICTION
from clipsyn.pool import NO_LABEL
from clipsyn.printable import few
from clipsyn.specs import FeatureKey, by_severity
from clipsyn.store.facts import ELSEWHERE
from clipsyn.store.folders import PROMPTS
from clipsyn.store.given import finite_rows
from clipsyn.store.samples import SampleTable

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
    prompts: str | None
    kind: str
    texts: Mapping[str, Text]  # by prompt set, beside embeddings
    arrays: Mapping[str, NDArray[Any]]
    invalid: Mapping[str, int]  # reason -> rows
    files: tuple[Path, ...]

    @property
    def valid(self) -> NDArray[np.bool_]:
        valid: NDArray[np.bool_] = self.arrays["valid"]
        return valid


class Aligned(NamedTuple):
    """The cells of one split, and the samples that their rows are."""

    table: SampleTable
    is_new: bool
    cells: list[NewCell]


def merged(parts: Iterable[Part]) -> list[Part]:
    """One part for each backbone, perturbation and prompt set; a part may span several files."""
    groups: dict[tuple[str, str, str | None], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.backbone, part.perturbation, part.prompts), []).append(part)
    return [_join(group) for group in groups.values()]


def align(parts: Sequence[Part], table: SampleTable, *, intersect: bool) -> list[NewCell]:
    """Cells of the parts. Raises DatasetError, naming ids, for a part with missing or unknown ids.

    A part should have all ids of the table. Where the perturbation came from a column, each image
    may be shown under one alone: the part should have the ids of all parts under its perturbation.
    """
    rows = {name: row for row, name in enumerate(table.ids)}
    shown: dict[str, set[str]] = {}
    for part in parts:
        shown.setdefault(part.perturbation, set()).update(part.ids or table.ids)
    cells = []
    for part in parts:
        of_all = shown[part.perturbation] if part.of_condition else rows.keys()
        expected = [name for name in table.ids if name in of_all]
        ids = _row_ids(part, table) if part.ids is None else part.ids
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


def new_table(parts: Sequence[Part], wanted: ImportSettings, names: Sequence[str]) -> SampleTable:
    """A sample table of the parts' ids and labels, in the order they come in.

    Content hashes are all zero, since no image was read.
    """
    parts = [_numbered(part) for part in parts]
    ids = tuple(dict.fromkeys(name for part in parts for name in part.ids or ()))
    names = tuple(names) or class_names(parts)
    labels = np.full(len(ids), NO_LABEL, np.int32)
    rows = {name: row for row, name in enumerate(ids)}
    for part in parts:
        if part.labels is not None and part.ids is not None:
            given = class_indices(part.labels, names, part)
            at = np.array([rows[name] for name in part.ids], np.intp)
            _check_labels(part, given, labels[at], names)
            labels[at[given >= 0]] = given[given >= 0]
    info = find_dataset(wanted.dataset_name)
    return SampleTable(
        wanted.dataset_name,
        wanted.split,
        ids,
        labels,
        np.zeros((len(ids), 32), np.uint8),
        names,
        info.metric if info else "acc1",
        info.licence if info else "",
    )


def check_labels(parts: Sequence[Part], table: SampleTable) -> None:
    """Refuse parts whose labels differ from the table's, where both have one."""
    rows = {name: row for row, name in enumerate(table.ids)}
    for part in parts:
        if part.labels is None:
            continue
        given = class_indices(part.labels, table.class_names, part)
        ids = table.ids if part.ids is None else part.ids
        at = [rows.get(name, -1) for name in ids]
        there = np.array([table.labels[row] if row >= 0 else NO_LABEL for row in at], np.int32)
        if len(there) == len(given):
            _check_labels(part, given, there, table.class_names)


def _join(group: list[Part]) -> Part:
    first = group[0]
    if len(group) == 1:
        _check_unique(first)
        return first
    files = tuple(dict.fromkeys(path for part in group for path in part.files))
    whole = replace(first, files=files)
    shapes = {
        (part.kind, part.values.shape[1:], part.columns, part.confidence is None) for part in group
    }
    texts = {part.text and part.text.numbers for part in group}
    if len(shapes) > 1 or len(texts) > 1 or any(part.ids is None for part in group):
        raise DatasetError(
            f"{whole}: files of one backbone and perturbation must hold the same, with ids: give "
            "each its own import with backbone=…"
        )
    unlabelled = any(part.labels is None for part in group)
    joined = replace(
        whole,
        ids=tuple(name for part in group for name in part.ids or ()),
        values=np.concatenate([part.values for part in group]),
        labels=None if unlabelled else tuple(x for part in group for x in part.labels or ()),
        confidence=_joined([part.confidence for part in group if part.confidence is not None]),
    )
    _check_unique(joined)
    return joined


def _joined(arrays: list[NDArray[np.float32]]) -> NDArray[np.float32] | None:
    return np.concatenate(arrays) if arrays else None


def _check_unique(part: Part) -> None:
    if part.ids is None or len(set(part.ids)) == len(part.ids):
        return
    twice = [name for name, count in Counter(part.ids).items() if count > 1]
    raise DatasetError(
        f"{part}: {len(twice)} ids occur more than once ({short(twice[:3])}): an id is one image"
    )


def _numbered(part: Part) -> Part:
    """The part, with ids ``row-…`` if it has none."""
    if part.ids is not None:
        return part
    width = len(str(part.rows - 1))
    return replace(part, ids=tuple(f"row-{row:0{width}}" for row in range(part.rows)))


def _row_ids(part: Part, table: SampleTable) -> tuple[str, ...]:
    if part.rows != len(table):
        raise DatasetError(
            f"{part}: {part.rows:,} rows in the store's order, which has {len(table):,} samples of "
            f"{table.name}: give ids=FILE instead of row_order=True"
        )
    return table.ids


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
            f"{part}: none of its {len(ids):,} ids is one of the samples ({short(ids[:2])} …; the "
            f"samples are called {short(sorted(known)[:2])} …)"
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


def _check_labels(
    part: Part, given: NDArray[Any], there: NDArray[Any], names: Sequence[str]
) -> None:
    differ = np.flatnonzero((given >= 0) & (there >= 0) & (given != there))
    if len(differ):
        row = int(differ[0])
        name = part.ids[row] if part.ids else f"row {row}"
        raise DatasetError(
            f"{part}: {len(differ):,} labels are others than known so far ({name}: "
            f"{names[given[row]]}, not {names[there[row]]}): mend them, or leave labels away"
        )


def _cell(
    part: Part, key: FeatureKey, at: NDArray[np.intp], table: SampleTable, expected: int
) -> NewCell:
    """The cell whose rows `at` have the part's values; -1 is no row of the table."""
    values = _Values(part, table.class_names)
    taken = at >= 0
    arrays: dict[str, NDArray[Any]] = {}
    for name, (rows, fill) in values.arrays.items():
        arrays[name] = np.full((len(table), *rows.shape[1:]), fill, rows.dtype)
        arrays[name][at[taken]] = rows[taken]
    arrays["valid"] = np.zeros(len(table), np.bool_)
    arrays["valid"][at[taken]] = values.valid[taken]
    invalid = {
        ELSEWHERE: len(table) - expected,
        ABSENT: expected - int(taken.sum()),
        _UNANSWERED[part.kind]: int(np.count_nonzero(~values.valid[taken])),
    }
    if not arrays["valid"].any():
        raise DatasetError(f"{part}: every row is invalid ({_UNANSWERED[part.kind]})")
    kept = {reason: count for reason, count in invalid.items() if count}
    files, prompts, texts = part.files, part.prompts, {}
    if part.text:
        files, prompts = (*files, part.text.file), prompts or PROMPTS
        texts = {prompts: part.text}
    return NewCell(key, prompts, part.kind, texts, arrays, kept, tuple(dict.fromkeys(files)))


@dataclass(frozen=True)
class _Values:
    """The arrays of a part in its own order, each with its fill value."""

    part: Part
    names: Sequence[str]

    @cached_property
    def arrays(self) -> dict[str, tuple[NDArray[Any], Any]]:
        if self.part.kind == "embeddings":
            return {"image_embedding": (self._embedding, np.nan)}
        if self.part.kind == "logits":
            return {"logit": (self.part.values, np.nan)}
        classes = np.where(self.valid, self._classes, NO_PREDICTION).astype(np.uint16)
        predicted = {"prediction": (classes, NO_PREDICTION)}
        if self.part.confidence is None:
            return predicted
        return predicted | {"confidence": (self._confidence(self.part.confidence), np.nan)}

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        if self.part.kind == "predictions":
            return self._classes >= 0
        if self.part.kind == "logits":
            return finite_rows(self.part.values)
        return np.asarray(np.isfinite(self._embedding).all(axis=1))

    @cached_property
    def _classes(self) -> NDArray[np.int64]:
        return predicted_indices(self.part.values, self.names, self.part)

    def _confidence(self, given: NDArray[np.float32]) -> NDArray[np.float32]:
        """NaN where there is no prediction; raises DatasetError where only the confidence lacks."""
        if len(lacking := np.flatnonzero(self.valid & np.isnan(given))):
            raise DatasetError(
                f"{self.part}: {len(lacking):,} predictions have no confidence (row {lacking[0]})"
            )
        return np.where(self.valid, given, np.float32(np.nan))

    @cached_property
    def _embedding(self) -> NDArray[np.float16]:
        """Unit norm in float32, then rounded; NaN where that cannot be.

        What is of unit norm in float16 already, as a store has it, keeps its bits.
        """
        values = self.part.values
        if (exact := _as_stored(values)) is not None:
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
