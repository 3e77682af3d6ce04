"""Parts are aligned with a sample table by id; each becomes the arrays of one cell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.exchange.export import Split
from clipsyn.exchange.parts import Part, called, class_indices, predicted_indices
from clipsyn.methods.numerics.metrics import ratio
from clipsyn.methods.pool import NO_LABEL
from clipsyn.names import FeatureKey, by_severity
from clipsyn.store.given import Made, Rows, blocks, units
from clipsyn.store.groups import ELSEWHERE
from clipsyn.store.samples import SampleTable, is_any_twice
from clipsyn.text import LOG, counted, few

ABSENT = "not in the source"
Array = NDArray[Any]
_COMPARED, _LEAST_PAIRS = 1_000, 1_000  # rows of two backbones, and pairs of a class among them
_LEAST_ALIKE = 0.1  # OpenAI's models have 0.58 and more, and at most 0.11 where rows are shuffled
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
    values: Rows  # (sample,) classes, or (sample, width): embeddings, logits
    confidence: NDArray[np.float32] | None
    given: NDArray[np.bool_]  # which samples the source has; of these some may have no value
    lacking: Mapping[str, int]  # reason -> how many it has not

    @property
    def prompts(self) -> str | None:
        """Of the predictions, or of the first class embeddings."""
        return next(iter(self.part.texts), self.part.prompts)

    def invalid(self, valid: NDArray[np.bool_]) -> dict[str, int]:
        """Reason -> rows, where it is known which have a value; DatasetError if none has."""
        why = _UNANSWERED[self.part.kind]
        if not valid.any():
            raise DatasetError(f"{self.part}: every row is invalid ({why})")
        counts = {**self.lacking, why: int(np.count_nonzero(self.given & ~valid))}
        return {reason: count for reason, count in counts.items() if count}


def check_parts(parts: Sequence[Part]) -> None:
    """Raise DatasetError for an id twice, and where two files hold one cell."""
    cells: dict[tuple[str, str, str | None], Part] = {}
    for part in parts:
        if is_any_twice(part.ids or ()):
            twice = [name for name, count in Counter(part.ids).items() if count > 1]
            ids = counted(len(twice), "id occurs", "ids occur")
            raise DatasetError(
                f"{part}: {ids} more than once ({few(twice[:3])}): an id is one image"
            )
        cell = part.backbone, part.perturbation, part.prompts
        if (other := cells.setdefault(cell, part)) is not part:
            raise DatasetError(
                f"{part} and {other} hold the same: make one file of them, or give each its own "
                "import with backbone=…"
            )


def align(parts: Sequence[Part], table: SampleTable) -> list[NewCell]:
    """Cells of the parts, whose ids were checked (`check_ids`)."""
    cells = []
    for part in parts:
        at = _places(part, table.ids)
        key = FeatureKey(table.dataset, table.split, part.perturbation, part.backbone)
        cells.append(_cell(part, key, at, table, len(_expected(part, parts, table))))
    return sorted(cells, key=_order)


def _order(cell: NewCell) -> tuple[Any, ...]:
    return by_severity(cell.key.perturbation), cell.key.backbone, cell.prompts or ""


def _expected(part: Part, parts: Sequence[Part], table: SampleTable) -> Sequence[str]:
    """The ids that a part should have: all of the table.

    Where the perturbation came from a column, each image may be shown under one alone: then those
    of all parts under that perturbation.
    """
    if not part.of_condition:
        return table.ids
    alike = [it.ids or () for it in parts if it.perturbation == part.perturbation]
    shown = set(chain(*alike))
    return [name for name in table.ids if name in shown]


def with_ids(parts: Sequence[Part], table: SampleTable | None) -> list[Part]:
    """The parts; rows without ids are those of the table in its order, or are called ``row-…``.

    Raises DatasetError where they are not as many.
    """
    ordered = [part for part in parts if part.ids is None]
    if not ordered:
        return [*parts]
    first, count = (ordered[0], ordered[0].rows) if table is None else (table.name, len(table))
    width = len(str(count - 1))
    ids = table.ids if table else tuple(f"row-{row:0{width}}" for row in range(count))
    for part in ordered:
        if part.rows != count:
            raise DatasetError(
                f"{part}: {part.rows:,} rows without ids, where {first} has {count:,}: give ids"
            )
    return [replace(part, ids=part.ids or ids) for part in parts]


def check_order(parts: Sequence[Part], table: SampleTable, known: Mapping[str, Array]) -> None:
    """Raise DatasetError for embeddings whose rows seem to be other images than those of others.

    parts: of one perturbation, whose rows have no ids; known: embeddings that the store has, by
    backbone. Equal labels do not show it, for images of a class may stand in another order. But
    which images of a class are alike is much the same for all backbones (`likeness`).
    """
    rows = np.argsort(table.labels, kind="stable")[(table.labels < 0).sum() :][:_COMPARED]
    others = [(name, values[rows]) for name, values in known.items()]
    for part in parts:
        if part.kind == "embeddings":
            others.append((part.backbone, taken(part.values, rows)))
            alike = likeness(others[0][1], others[-1][1], table.labels[rows])
            if alike < _LEAST_ALIKE:
                raise DatasetError(
                    f"{part}: its rows seem to be other images than those of {others[0][0]}, or in "
                    f"another order: the likeness of images of a class is correlated by {alike:.2f}"
                    ", where 0.5 and more is usual: write ids into an npz"
                )
            if len(others) > 1 and not np.isnan(alike):
                LOG.info(f"{table.name}: likeness in {part} and {others[0][0]}: {alike:.2f}")


def taken(values: Rows, rows: NDArray[np.int64]) -> Array:
    """Some rows in their order, of values that may be larger than memory."""
    if not isinstance(values, Made):
        return values[rows]
    order = np.argsort(rows)
    sought, read = rows[order], [values[:0]]
    for some in blocks(values):
        inside = sought[slice(*np.searchsorted(sought, (some.start, some.stop)))]
        if inside.size:
            read.append(values[some][inside - some.start])
    return np.concatenate(read)[np.argsort(order)]


def likeness(one: Array, other: Array, labels: NDArray[np.int32]) -> float:
    """Correlation of two backbones' cosines over all pairs of images of a class.

    (row, width) each, and (row,); of each class its mean cosine is subtracted. NaN where there are
    too few pairs to tell.
    """
    both = [np.nan_to_num(units(values)[0].astype(np.float32)) for values in (one, other)]
    finite = np.flatnonzero([a.any() and b.any() for a, b in zip(*both, strict=True)])
    of_class = labels[finite]
    first, second = np.nonzero(np.triu(of_class[:, None] == of_class, 1))
    if len(first) < _LEAST_PAIRS:
        return math.nan
    classes = of_class[first]
    sizes = np.maximum(np.bincount(classes), 1)
    inside = []
    for unit in (both[0][finite], both[1][finite]):
        cosines = (unit @ unit.T)[first, second]
        inside.append(cosines - (np.bincount(classes, cosines) / sizes)[classes])
    one, other = inside
    return float(ratio(one @ other, np.sqrt((one @ one) * (other @ other))))


def new_table(parts: Sequence[Part], split: Split) -> SampleTable:
    """A sample table of the parts' ids and labels, in the order they come in.

    Content hashes are all zero, since no image was read.
    """
    ids = parts[0].ids or ()
    if any(part.ids != ids for part in parts):
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
    labels = known.copy()
    for part in parts:
        if part.labels is None or part.ids is None:
            continue
        given = class_indices(part.labels, names, part)
        at = _places(part, ids)
        told = (at >= 0) & (given >= 0)
        differ = np.flatnonzero(told & (labels[at] >= 0) & (labels[at] != given))
        if len(differ):
            row = int(differ[0])
            others = counted(len(differ), "label is another", "labels are others")
            raise DatasetError(
                f"{part}: {others} than known so far ({part.ids[row]}: "
                f"{called(given[row], names)}, not {called(labels[at[row]], names)}): mend them, "
                "or leave labels away"
            )
        labels[at[told]] = given[told]
    return labels


def _places(part: Part, ids: Sequence[str]) -> NDArray[np.intp]:
    """(row of the part,) where its id stands among the ids; -1 where it does not."""
    if part.ids == ids:  # as usual, and a table of millions of texts takes long
        return np.arange(len(ids))
    rows = {name: row for row, name in enumerate(ids)}
    return np.array([rows.get(name, -1) for name in part.ids or ()], np.intp)


def check_ids(parts: Sequence[Part], table: SampleTable, *, intersect: bool) -> None:
    """Raise DatasetError, naming ids, for a part with missing or unknown ids.

    With `intersect` some may be missing, and unknown ones are left out, with a note.
    """
    for part in parts:
        if part.ids == table.ids:
            continue
        ids, known = part.ids or (), set(table.ids)
        given = set(ids)
        missing = [name for name in _expected(part, parts, table) if name not in given]
        unknown = [name for name in ids if name not in known]
        if len(unknown) == len(ids):
            raise DatasetError(
                f"{part}: none of its {len(ids):,} ids is one of the samples ({few(ids[:2])} …; "
                f"the samples are called {few(table.ids[:2])} …)"
            )
        if intersect and unknown:
            LOG.info(f"{part}: {len(unknown):,} ids that are no samples are left out")
        if not intersect and (missing or unknown):
            lacking = f"{len(missing):,} samples are not in it ({few(missing)})" if missing else ""
            strange = f"{len(unknown):,} of its ids are unknown ({few(unknown)})" if unknown else ""
            raise DatasetError(
                f"{part}: {' and '.join(filter(None, (lacking, strange)))}: mend the ids, or take "
                "those in common with intersect=True"
            )


def _cell(
    part: Part, key: FeatureKey, at: NDArray[np.intp], table: SampleTable, expected: int
) -> NewCell:
    """The cell whose rows `at` have the part's values; -1 is no row of the table."""
    taken, values = at >= 0, part.values
    if part.kind == "predictions":
        values = predicted_indices(values[:], table.class_names, part)

    def placed(rows: Rows, none: float) -> Any:
        if np.array_equal(at, np.arange(len(table))):
            return rows
        out = np.full((len(table), *rows.shape[1:]), none, rows.dtype)
        out[at[taken]] = rows[:][taken]
        return out

    return NewCell(
        key,
        part,
        placed(values, -1 if part.kind == "predictions" else np.nan),
        None if part.confidence is None else placed(part.confidence, np.nan),
        placed(np.ones(len(at), np.bool_), False),
        {ELSEWHERE: len(table) - expected, ABSENT: expected - int(taken.sum())},
    )
