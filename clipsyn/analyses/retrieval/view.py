"""Tables of retrieval, a line a method, and the figure of its recall."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import polars as pl

from clipsyn.analyses.retrieval import DIRECTIONS, RetrievalSettings
from clipsyn.evaluation.results.frame import (
    METHOD,
    WHERE,
    backbones,
    by_method,
    gain_metric,
    having,
    numbers_by,
    over_datasets,
    refuse_several,
    singles,
)
from clipsyn.methods.ensembles import ORACLE
from clipsyn.settings import SINGLE
from clipsyn.show.figure import COLUMN, Figure, key, label, marks, needed
from clipsyn.show.figure import methods as method_names
from clipsyn.show.table import Table, Tables, percent_cell
from clipsyn.show.tables import Measure, Side, measures_table, notes_beside, pair_matrix
from clipsyn.show.titles import WIDTH, shortened, subject, title, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLACE = (*WHERE, "direction")
_RECALLS = (
    Measure("R@1", "recall_at_1", interval=True, best="most"),
    Measure("R@5", "recall_at_5", best="most"),
    Measure("R@10", "recall_at_10", best="most"),
    Measure("median", "median_rank", percent=False, head="median\nrank"),
    Measure("mAP", "map", best="most"),
)
_ALONE = Measure("alone", "unique_correct", optional=True)
_NOTES = notes_beside(__file__)


def tables(frame: pl.DataFrame, settings: RetrievalSettings) -> dict[str, Tables]:
    """ "retrieval": for each dataset, split, perturbation and direction a line a method.

    With `details` "failures", too, a line and a column for each backbone.
    """
    parts = [part for _, part in frame.group_by(_PLACE, maintain_order=True)]
    shown = {"retrieval": tuple(map(_methods, parts))}
    if settings.details and len(backbones(frame)) > 1:
        shown["failures"] = tuple(map(_failures, parts))
    return shown if parts else {}


def _methods(part: pl.DataFrame) -> Table:
    names, over = shortened(backbones(singles(part))), gain_metric(part)
    found = numbers_by(
        part.drop_nulls("ensemble").with_columns(method=METHOD), "ensemble", "method"
    )
    lines = [
        ({"method": names.cell(method) if ensemble == SINGLE else method}, numbers)
        for (ensemble, method), numbers in found.items()
    ]
    support = part.filter(metric="gain")["support"]
    chosen = f"is best on {support[0]}" if len(support) else "is best here, on these queries"
    return measures_table(
        lines,
        (*_RECALLS, Measure("gain", over, interval=True, optional=True), _ALONE),
        sum(ensemble != ORACLE for ensemble, _ in found),
        title=title(*where(part.row(0, named=True), (*_PLACE, "n")), names.phrase),
        notes=fill(_NOTES["methods"].format(chosen=chosen), WIDTH),
    )


def _failures(part: pl.DataFrame) -> Table:
    names = shortened(backbones(singles(part)))
    right = singles(part).filter(metric="recall_at_1").select("backbone", "value").rows()
    return pair_matrix(
        part.filter(pl.col("ensemble").is_null()),
        names,
        above=Side("double_fault", percent_cell),
        below=Side("failure_overlap", percent_cell),
        diagonal={name: percent_cell(1 - value) for name, value in right},
        title=title(*where(part.row(0, named=True), (*_PLACE, "n")), names.phrase),
        note=_NOTES["failures"],
    )


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each method and direction, mean over datasets; those before the oracle, and it."""
    rows = needed(
        having(frame, "direction").filter(metric="recall_at_1"), "recall of any method", "retrieval"
    )
    refuse_several(rows, WHERE[1:3])
    by = "split", "perturbation", "backbone", "ensemble", "direction"
    return over_datasets(by_method(rows), by)


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    names, looks = method_names(data)[0], marks(DIRECTIONS)
    lines = {name: at for at, name in enumerate(names)}
    for place, (direction, mark) in enumerate(looks.items()):
        for row in data.filter(direction=direction).iter_rows(named=True):
            at = lines[row["ensemble"] or row["backbone"]] + 0.3 * (place - 0.5)
            ax.plot(100 * row["value"], at, **mark | {"linestyle": ""})
            if row["ci_low"] is not None:
                ax.hlines(
                    at, 100 * row["ci_low"], 100 * row["ci_high"], color=mark["color"], lw=0.8
                )
    ax.set_yticks([*lines.values()], [label(text) for text in names.values()])
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.set_xlabel("recall at 1, %")
    key(ax, {name: mark | {"linestyle": ""} for name, mark in looks.items()})


recall = Figure(
    name="recall",
    short="How often a caption finds its image first, and an image a caption, by method.",
    caption=_NOTES["recall"],
    source="retrieval",
    data=_data,
    draw=_draw,
    size=lambda data: (COLUMN, 0.16 * len(method_names(data)[0]) + 0.5),
    about=lambda data: title(subject(data, ("dataset", "split", "perturbation", "n"))),
)
