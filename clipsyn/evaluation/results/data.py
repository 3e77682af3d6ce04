"""What numbers were measured on: the column `data` of results, short digests by name.

So a file of results can be compared with a store, without measuring again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import polars as pl

from clipsyn.errors import MissingCell, UsageError
from clipsyn.evaluation.results.frame import DATA, NUMBERS, RESULT, subject
from clipsyn.names import CLEAN, FeatureKey, fingerprint
from clipsyn.store.features import FeatureStore

_SUBJECT = ["dataset", "split", "perturbation", "prompts", "backbones"]
_SUBJECT += ["support", "support_prompts"]
_NEEDED = ["dataset", "split", "perturbation", "backbones"]
_DIGITS = 12  # of a digest
_EQUAL = 1e-9  # two ways to sum


class Data:
    """What a store holds now, a digest for each of `DATA`; None for what is not there."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._labels, self._of = cache(self._read_labels), cache(self._read)
        self._cell, self._classes = cache(self._read_cell), cache(self._read_classes)

    def of(self, about: Mapping[str, Any]) -> dict[str, str | None]:
        """The digests for a row of results, which has the columns of `RESULT`."""
        prompts, backbones = about["prompts"], tuple(sorted(about["backbones"]))
        place = about["dataset"], about["split"], about["perturbation"]
        fitted: Sequence[str | None] = [None] * 3
        if about["support"] is not None:
            fitted_on = about["dataset"], about["support"], CLEAN.label
            fitted = self._of(*fitted_on, about["support_prompts"] or prompts, backbones)
        return dict(zip(DATA, (*self._of(*place, prompts, backbones), *fitted), strict=True))

    def _read(
        self, dataset: str, split: str, perturbation: str, prompts: str, backbones: tuple[str, ...]
    ) -> tuple[str | None, str | None, str | None]:
        keys = [FeatureKey(dataset, split, perturbation, backbone) for backbone in backbones]
        cells = [self._cell(key, prompts) for key in keys]
        texts = [self._classes(dataset, prompts, it) for it in backbones] if prompts else []
        return (
            self._labels(dataset, split),
            _digest([one for one in cells if one is not None]),
            _digest([one for one in texts if one is not None]),
        )

    def _read_cell(self, key: FeatureKey, prompts: str | None) -> str | None:
        """Its fingerprint; empty if it was imported with other prompt sets."""
        cell = self._store.cell(key)
        if not self._store.tree.exists(cell.path):
            return None
        try:
            return str(cell.group(prompts)["fingerprint"])
        except MissingCell:
            return ""

    def _read_classes(self, dataset: str, prompts: str, backbone: str) -> str | None:
        path = self._store.classes_path(dataset, prompts, backbone)
        return self._store.group(path)["fingerprint"] if self._store.tree.exists(path) else None

    def _read_labels(self, dataset: str, split: str) -> str | None:
        if not self._store.tree.exists(self._store.samples_path(dataset, split)):
            return None
        samples = self._store.samples(dataset, split)
        return _digest([samples.labels.tolist(), samples.class_names])


def _digest(parts: Sequence[Any]) -> str | None:
    return fingerprint({"parts": parts})[:_DIGITS] if parts else None


def with_data(store: FeatureStore, frame: pl.DataFrame) -> pl.DataFrame:
    """Results with what they were measured on; means over datasets are about no cells."""
    data = Data(store)
    about = frame.select(_SUBJECT).drop_nulls(_NEEDED).unique(maintain_order=True)
    measured = [data.of(row) for row in about.iter_rows(named=True)]
    found = about.with_columns(pl.Series("data", measured, RESULT["data"]))
    joined = frame.drop("data").join(
        found, on=_SUBJECT, how="left", nulls_equal=True, maintain_order="left"
    )
    return joined.select(frame.columns)


def check_data(
    store: FeatureStore, results: pl.DataFrame, source: Any, *, held: bool = False
) -> None:
    """Raise UsageError for results that were measured on something else than the store holds now.

    source: its name, for messages. held: only where the store has such cells at all.
    """
    data = Data(store)
    rows = results.select(*_SUBJECT, "data").drop_nulls(_NEEDED)
    for row in rows.unique(maintain_order=True).iter_rows(named=True):
        then = row["data"] or {}
        for field, now in data.of(row).items():
            if now != then.get(field) and not (held and now is None):
                raise UsageError(
                    f"{source} is not about what {store.path} holds now: its {row['dataset']}/"
                    f"{row['split']} ({row['perturbation']}, {', '.join(row['backbones'])}) has "
                    f"other {field.replace('_', ' ')}; measure this store again, into another file"
                )


def agreeing(frames: Sequence[tuple[Any, pl.DataFrame]]) -> pl.DataFrame:
    """The rows of several sources of results, each once; source: its name, for messages.

    Rows of columns that only one has, such as a threshold, are about something else. Raises
    UsageError where two of them say different things under the same names.
    """
    kept: list[tuple[Any, pl.DataFrame]] = []  # of each source what those before it have not
    for source, frame in frames:
        new = frame
        for earlier, before in kept:
            names = [it for it in frame.columns if it in before.columns and it not in NUMBERS]
            plain, theirs = _without_own(new, before), before.filter(_without_own(before, new))
            both = new.filter(plain).join(theirs, on=names, nulls_equal=True, suffix="_before")
            odd = both.filter(~pl.col("metric").str.ends_with("_seconds"), _differ())
            if not odd.is_empty():
                raise UsageError(_contradiction(odd.row(0, named=True), earlier, source))
            others = new.filter(plain).join(theirs, on=names, how="anti", nulls_equal=True)
            new = pl.concat([others, new.filter(~plain)])
        kept.append((source, new))
    return pl.concat([frame for _, frame in kept], how="diagonal_relaxed")


def _without_own(frame: pl.DataFrame, other: pl.DataFrame) -> pl.Expr:
    """Whether a row has no value in a column that the other frame lacks."""
    own = [it for it in frame.columns if it not in other.columns and it not in NUMBERS]
    return pl.all_horizontal(pl.lit(value=True), *(pl.col(name).is_null() for name in own))


def _differ() -> pl.Expr:
    value, before = (pl.col(name).fill_nan(None) for name in ("value", "value_before"))
    other_data = pl.col("data").ne_missing(pl.col("data_before"))
    return ((value - before).abs() > _EQUAL) | (value.is_null() != before.is_null()) | other_data


def _contradiction(row: Mapping[str, Any], *sources: Any) -> str:
    return (
        f"{' and '.join(map(str, sources))} contradict each other: {row['metric']} of "
        f"{subject(row)} on {row['dataset']}/{row['split']} "
        f"({row['perturbation']}, {row['prompts']}) is "
        f"{row['value_before']} and {row['value']}, or is of other images or labels: give one"
    )
