"""What numbers were measured on: the column `data` of results, short digests by name.

So a file of results can be compared with a store, without measuring again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
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
        self._made_of = cache(self._read_cell)

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
        place = dataset, split, perturbation
        made = [self._made_of(FeatureKey(*place, it), prompts) for it in backbones]
        cells = [of_cell for of_cell, _ in made if of_cell is not None]
        texts = [of_classes for _, of_classes in made if of_classes is not None]
        return self._labels(dataset, split), _digest(cells), _digest(texts)

    def _read_cell(self, key: FeatureKey, prompts: str | None) -> tuple[str | None, str | None]:
        """The fingerprints of a cell and of its class embeddings, where these are there.

        That of a cell is empty if it was imported with other prompt sets.
        """
        store, cell = self._store, self._store.cell(key)
        made = classes = None
        if store.tree.exists(cell.path):
            made = ""
            with suppress(MissingCell):
                made = str(cell.group(prompts)["fingerprint"])
        texts = store.at("classes", key.dataset, prompts or "", key.backbone)
        if prompts and store.tree.exists(texts):
            classes = str(store.group(texts)["fingerprint"])
        return made, classes

    def _read_labels(self, dataset: str, split: str) -> str | None:
        if not self._store.tree.exists(self._store.at("samples", dataset, split)):
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

    Rows with a value in a column that others lack, such as a threshold, are about something else.
    Raises UsageError where two of them say different things under the same names.
    """
    numbered = (frame.with_columns(_source=pl.lit(at)) for at, (_, frame) in enumerate(frames))
    rows = pl.concat(numbered, how="diagonal_relaxed")
    names = [name for name in rows.columns if name not in (*NUMBERS, "_source")]
    first = rows.unique(names, keep="first", maintain_order=True)
    both = rows.join(first, on=names, nulls_equal=True, suffix="_before")
    value, before = (pl.col(name).fill_nan(None) for name in ("value", "value_before"))
    differ = ((value - before).abs() > _EQUAL) | (value.is_null() != before.is_null())
    differ |= pl.col("data").ne_missing(pl.col("data_before"))
    odd = both.filter(~pl.col("metric").str.ends_with("_seconds"), differ)
    if not odd.is_empty():
        row = odd.row(0, named=True)
        raise UsageError(
            f"{frames[row['_source_before']][0]} and {frames[row['_source']][0]} contradict each "
            f"other: {row['metric']} of {subject(row)} on {row['dataset']}/{row['split']} "
            f"({row['perturbation']}, {row['prompts']}) is {row['value_before']} and "
            f"{row['value']}, or is of other images or labels: give one"
        )
    return first.drop("_source")
