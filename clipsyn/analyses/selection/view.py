"""Tables of choices without labels: how well each score ranks, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from clipsyn.analyses.selection import SelectionSettings
from clipsyn.evaluation.results.frame import (
    OVER_BEST_ON_TEST,
    WHERE,
    about_line,
    backbones,
    named_parts,
    numbers,
    numbers_by,
)
from clipsyn.show.table import Table
from clipsyn.show.tables import Line, Measure, measures_table, notes_beside
from clipsyn.show.titles import ShortNames, common, shortened, title, where

_TAU = Measure("tau", "kendall_tau", percent=False, digits=2)
_LOSES = Measure("loses", OVER_BEST_ON_TEST)
_NOTES = notes_beside(__file__)


def tables(frame: pl.DataFrame, settings: SelectionSettings) -> dict[str, Table]:
    """ "means" over several datasets, a line for each score, and "choices" in each of them."""
    names, shared = shortened(sorted(backbones(frame))), common(frame, WHERE)
    about = title(*where(shared, list(shared)), names.phrase)
    parts = named_parts(frame).values()
    lines = [line for part in parts for line in _lines(part, names, [*shared])]
    columns = (_TAU, _LOSES._replace(interval=True))
    choices = measures_table(lines, columns, title=about, notes=_NOTES["choices"])
    shown = {"choices": choices}
    if len(parts) == 1:
        return shown
    known = frame.filter(pl.col("metric") != "score", pl.col("value").is_not_nan())
    means = known.group_by("by", "metric", maintain_order=True).agg(
        pl.col("value").mean(), cells=pl.len()
    )
    over: list[Line] = [
        ({"score": by, "cells": max(row["cells"] for row in of.values())}, of)
        for by, of in numbers_by(means, "by").items()
    ]
    table = measures_table(over, (_TAU, _LOSES), title=about, notes=_NOTES["means"])
    return {"means": table} | shown


def _lines(part: pl.DataFrame, names: ShortNames, shared: list[str]) -> Iterator[Line]:
    """A line for each score of one dataset that all backbones have."""
    about = about_line(part, WHERE, shared)
    for (by,), rows in part.group_by("by", maintain_order=True):
        scores = rows.filter(metric="score")
        if not scores["value"].is_nan().any():
            taken = scores["backbones"][int(scores["value"].arg_max() or 0)][0]
            told = {"score": by, "backbones": len(scores), "takes": names.cell(taken)}
            yield about | told, numbers(rows)


def notes(frame: pl.DataFrame, settings: SelectionSettings) -> Iterator[str]:
    """Which scores are not known, and why."""
    reasons = {
        "published": f"{settings.reference} has no other dataset with all of these backbones",
        "elsewhere": "the store has no other labelled dataset with them",
        "confidence": "predictions alone have none",
        "text": "a backbone has no class embeddings, or there is one class",
    }
    unknown = frame.filter(pl.col("value").is_nan(), metric="score")
    for (by,), rows in unknown.group_by("by", maintain_order=True):
        yield f"no score {by} on {', '.join(rows['dataset'].unique().sort())}: {reasons[str(by)]}"
