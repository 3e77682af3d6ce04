"""Rows of a tidy frame, found by what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import ALONE, Row
from clipsyn.show.frames import is_nan

WHERE = ("dataset", "split", "perturbation", "prompts")  # what one table, or one line, is about
Numbers = dict[str, Row]  # rows by metric
_SETTINGS = {"split": "splits", "perturbation": "perturbations", "prompts": "prompts"}


def named_parts(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The rows of each dataset, split, perturbation and prompt set: "birds/test, clean, own"."""
    return {
        ", ".join([f"{dataset}/{split}", *others]): part
        for (dataset, split, *others), part in frame.group_by(WHERE, maintain_order=True)
    }


def numbers(frame: pl.DataFrame) -> Numbers:
    """Rows by metric, of a frame that has each once."""
    return {row["metric"]: row for row in frame.iter_rows(named=True)}


def numbers_by(frame: pl.DataFrame, *columns: str) -> dict[Any, Numbers]:
    """Rows by metric, for each value of a column in order; a list of names as a tuple.

    For several columns, for each tuple of their values.
    """
    by_values: dict[Any, Numbers] = {}
    for row in frame.iter_rows(named=True):
        values = (row[column] for column in columns)
        key = tuple(tuple(value) if isinstance(value, list) else value for value in values)
        by_values.setdefault(key if len(columns) > 1 else key[0], {})[row["metric"]] = row
    return by_values


def singles(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows about a backbone on its own, with its name in a column `backbone`."""
    return frame.filter(ALONE).with_columns(backbone=pl.col("backbones").list.first())


def best_single(frame: pl.DataFrame) -> Row:
    """The acc1 of the backbone that is best on its own; of equals the first, NaN is below all."""
    accuracies = singles(frame).filter(metric="acc1").iter_rows(named=True)
    return max(accuracies, key=lambda row: -1 if is_nan(row["value"]) else row["value"])


def backbones(frame: pl.DataFrame) -> list[str]:
    """Every backbone that a row is about, in order."""
    return frame["backbones"].explode().drop_nulls().unique(maintain_order=True).to_list()


def having(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The frame, but without any row where it lacks one of the columns, which are then added."""
    lacking = [name for name in columns if name not in frame.columns]
    if not lacking:
        return frame
    return frame.clear().with_columns(pl.lit(None).alias(name) for name in lacking)


def refuse_several(frame: pl.DataFrame, columns: Sequence[str] = WHERE[1:]) -> None:
    """Raise UsageError where rows are of several splits, perturbations or prompt sets."""
    for column in columns:
        setting = _SETTINGS[column]
        values = frame[column].unique(maintain_order=True).to_list()
        if len(values) > 1:
            some = ", ".join(map(str, values[:3])) + (", …" if len(values) > 3 else "")
            kinds = "prompt sets" if column == "prompts" else setting
            raise UsageError(
                f"there are {len(values)} {kinds}, {some}, and this shows one: name it with "
                f"{setting}=…"
            )


def over_datasets(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Means over datasets of known values, a row for each combination of the columns `by`.

    Columns: `by`, `dataset` (null for a mean), `value`, `ci_low` and `ci_high` (null for a mean),
    `n` (the sum), and `datasets`, over how many.
    """
    known, alone = pl.col("value").is_not_nan(), pl.col("dataset").n_unique() == 1
    return frame.group_by(by, maintain_order=True).agg(
        pl.when(alone).then(pl.col("dataset").first()).alias("dataset"),
        pl.col("value").filter(known).mean(),
        *(pl.when(alone).then(pl.col(name).first()).alias(name) for name in ("ci_low", "ci_high")),
        pl.col("n").sum(),
        datasets=pl.col("dataset").filter(known).n_unique(),
    )
