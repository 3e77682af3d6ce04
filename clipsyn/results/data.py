"""What numbers were measured on: short digests at the end of their fingerprints.

``FINGERPRINT.labels.features.classes``, and the same three of the support where something was
fitted on one. So a file of results can be compared with a store, without measuring again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from typing import Any

import polars as pl

from clipsyn.errors import MissingCell, UsageError
from clipsyn.specs import CLEAN, FeatureKey, fingerprint
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore

_PARTS = ("labels", "features", "class embeddings")
_FIELDS = (*_PARTS, *(f"{part} of the support" for part in _PARTS))
_SUBJECT = ["dataset", "split", "perturbation", "prompts", "backbones"]
_SUBJECT += ["support", "support_prompts"]
_NEEDED = ["dataset", "split", "perturbation", "backbones"]
_NUMBERS = ("value", "ci_low", "ci_high", "n", "fingerprint")
_DIGITS = 12  # of a digest
_EQUAL = 1e-9  # two ways to sum


class Data:
    """What a store holds now, a digest for each of `_FIELDS`; empty for what is not there."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._labels, self._of = cache(self._read_labels), cache(self._read)

    def marked(self, made_of: str, about: Mapping[str, Any]) -> str:
        """A fingerprint with what a row of results is about at its end."""
        return ".".join([made_of, *self.of(about)])

    def of(self, about: Mapping[str, Any]) -> tuple[str, ...]:
        """The digests for a row of results, which has the columns of `RESULT`."""
        prompts, backbones = about["prompts"], tuple(sorted(about["backbones"]))
        of = self._of(about["dataset"], about["split"], about["perturbation"], prompts, backbones)
        if about["support"] is None:
            return of
        fitted_with = about["support_prompts"] or prompts
        fitted_on = about["dataset"], about["support"], CLEAN.label
        return *of, *self._of(*fitted_on, fitted_with, backbones)

    def _read(
        self, dataset: str, split: str, perturbation: str, prompts: str, backbones: tuple[str, ...]
    ) -> tuple[str, str, str]:
        store = self._store
        keys = [FeatureKey(dataset, split, perturbation, backbone) for backbone in backbones]
        cells = [cell for key in keys if store.tree.exists((cell := store.cell(key)).path)]
        texts = [store.classes_path(dataset, prompts, it) for it in backbones] if prompts else []
        groups = [store.group(path) for path in texts if store.tree.exists(path)]
        return (
            self._labels(dataset, split),
            _digest([_made_of(cell, prompts) for cell in cells]),
            _digest([group["fingerprint"] for group in groups]),
        )

    def _read_labels(self, dataset: str, split: str) -> str:
        if not self._store.tree.exists(self._store.samples_path(dataset, split)):
            return ""
        samples = self._store.samples(dataset, split)
        return _digest([samples.labels.tolist(), samples.class_names])


def _made_of(cell: Cell, prompts: str | None) -> str:
    try:
        return str(cell.group(prompts)["fingerprint"])
    except MissingCell:  # imported with other prompt sets
        return ""


def _digest(parts: Sequence[Any]) -> str:
    return fingerprint({"parts": parts})[:_DIGITS] if parts else ""


def marked(store: FeatureStore, frame: pl.DataFrame) -> pl.DataFrame:
    """Results with what they were measured on at the end of their fingerprints.

    Means over datasets are about no cells of their own, and stay as they are.
    """
    data = Data(store)
    about = frame.select(_SUBJECT).drop_nulls(_NEEDED).unique(maintain_order=True)
    marks = [".".join(["", *data.of(row)]) for row in about.iter_rows(named=True)]
    joined = frame.join(
        about.with_columns(mark=pl.Series(marks, dtype=pl.String)),
        on=_SUBJECT,
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    print_ = pl.col("fingerprint").str.split(".").list.first() + pl.col("mark")
    return joined.with_columns(pl.coalesce(print_, "fingerprint").alias("fingerprint")).drop("mark")


def check_data(
    store: FeatureStore, results: pl.DataFrame, source: Any, *, held: bool = False
) -> None:
    """Raise UsageError for results that were measured on something else than the store holds now.

    source: its name, for messages. held: only where the store has such cells at all.
    """
    if results.schema["backbones"] == pl.String:  # as predictions have them
        results = results.with_columns(pl.col("backbones").str.json_decode(pl.List(pl.String)))
    data = Data(store)
    rows = results.select(*_SUBJECT, data=_data("fingerprint")).drop_nulls([*_NEEDED, "data"])
    for row in rows.unique(maintain_order=True).iter_rows(named=True):
        now, then = data.of(row), row["data"]
        for field, here, there in zip_longest(_FIELDS[: len(now)], now, then, fillvalue=""):
            if here != there and not (held and not here):
                raise UsageError(
                    f"{source} is not about what {store.path} holds now: its {row['dataset']}/"
                    f"{row['split']} ({row['perturbation']}, {', '.join(row['backbones'])}) has "
                    f"other {field}; measure this store again, into another file"
                )


def agreeing(frames: Sequence[tuple[Any, pl.DataFrame]]) -> pl.DataFrame:
    """The rows of several sources of results, each once; source: its name, for messages.

    Raises UsageError where two of them say different things under the same names.
    """
    kept: list[tuple[Any, pl.DataFrame]] = []  # of each source what those before it have not
    for source, frame in frames:
        new = frame
        for earlier, before in kept:
            names = [it for it in frame.columns if it in before.columns and it not in _NUMBERS]
            both = new.join(before, on=names, nulls_equal=True, suffix="_before")
            odd = both.filter(~pl.col("metric").str.ends_with("_seconds"), _differ())
            if not odd.is_empty():
                raise UsageError(_contradiction(odd.row(0, named=True), earlier, source))
            new = new.join(before, on=names, how="anti", nulls_equal=True)
        kept.append((source, new))
    return pl.concat([frame for _, frame in kept], how="diagonal_relaxed")


def _differ() -> pl.Expr:
    value, before = (pl.col(name).fill_nan(None) for name in ("value", "value_before"))
    other_data = _data("fingerprint").ne_missing(_data("fingerprint_before"))
    return ((value - before).abs() > _EQUAL) | (value.is_null() != before.is_null()) | other_data


def _data(column: str) -> pl.Expr:
    """The digests in a column of fingerprints."""
    return pl.col(column).str.split(".").list.slice(1)


def _contradiction(row: Mapping[str, Any], *sources: Any) -> str:
    what = row["ensemble"] or ", ".join(row["backbones"] or ())
    return (
        f"{' and '.join(map(str, sources))} contradict each other: {row['metric']} of {what} on "
        f"{row['dataset']}/{row['split']} ({row['perturbation']}, {row['prompts']}) is "
        f"{row['value_before']} and {row['value']}, or is of other images or labels: give one"
    )
