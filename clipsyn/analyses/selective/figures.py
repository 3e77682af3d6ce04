"""Accuracy against coverage: what is right of the most confident answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from clipsyn.evaluation.results.frame import ALONE, WHERE, having, over_datasets, refuse_several
from clipsyn.show.figure import MUTED, Figure, marks, needed
from clipsyn.show.panels import Look, drawn, key, methods
from clipsyn.show.titles import subject, title, typical_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHOSEN: Look = {"color": MUTED, "marker": "o", "linestyle": "", "markerfacecolor": "white"}
_BY = [*WHERE[1:], "score", "ensemble", "backbone"]


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each method and coverage, by one score; and for each threshold, with `wished`.

    The score is the first that the frame has. Means over datasets, of what all have.
    """
    rows = having(frame, "score", "coverage", "wished").with_columns(
        backbone=pl.when(ALONE).then(pl.col("backbones").list.first()),
        ensemble=pl.when(~ALONE).then("ensemble"),
    )
    curves = needed(
        rows.filter(pl.col("coverage").is_not_null(), metric="acc1"),
        "accuracy at any coverage",
        "give a store, or what `clipsyn selective STORE -o FILE.parquet` wrote",
    )
    refuse_several(curves)
    first = curves["score"][0]
    curves, rows = (part.filter(score=first) for part in (curves, rows))
    chosen = rows.filter(pl.col("wished").is_not_null()).drop("coverage")
    means = pl.concat(
        [over_datasets(curves, [*_BY, "coverage"]), _thresholds(chosen)], how="diagonal"
    )
    return means.filter(pl.col("datasets") == pl.col("datasets").max()).drop_nulls("value")


def _thresholds(chosen: pl.DataFrame) -> pl.DataFrame:
    """What thresholds that were chosen on the support come to: coverage, and accuracy as value."""
    by = [*_BY, "wished"]
    coverage, accuracy = (
        over_datasets(chosen.filter(metric=metric), by) for metric in ("coverage", "acc1")
    )
    coverages = coverage.select(*by, coverage="value")
    return accuracy.join(coverages, on=by, nulls_equal=True, maintain_order="left")


def _key(data: pl.DataFrame) -> dict[str, Look]:
    texts = list(methods(data)[0].values())
    looks = {text: drawn(mark) for text, mark in marks(texts).items()}
    for wished in data["wished"].drop_nulls().unique(maintain_order=True):
        looks[f"chosen for {100 * wished:g} %"] = _CHOSEN
    return looks


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    looks = _key(data)
    for name, text in methods(data)[0].items():
        _draw_method(data.filter(pl.coalesce("ensemble", "backbone") == name), ax, looks[text])
    for wished in data["wished"].drop_nulls().unique():
        ax.axhline(100 * wished, color=MUTED, lw=0.8, ls=":")
    ax.set_xticks(range(25, 101, 25))
    ax.set(xlabel="coverage, % of the images", ylabel="accuracy of these, %")
    key(ax, looks)


def _about(data: pl.DataFrame) -> str:
    about = subject(data.sort("n", descending=True), (*WHERE, "n"))  # n of all, not of some
    score = f"score {data['score'][0]}"
    return title(about, score, methods(data)[1], typical_interval(data))


def _draw_method(rows: pl.DataFrame, ax: Axes, of_method: Look) -> None:
    curve = rows.filter(pl.col("wished").is_null()).sort("coverage")
    chosen = rows.filter(pl.col("wished").is_not_null())
    every = {"markevery": 4, "markersize": 2.5, "linewidth": 1}
    ax.plot(100 * curve["coverage"], 100 * curve["value"], **of_method | every)
    at = of_method | {"linestyle": "", "markerfacecolor": "white", "markersize": 5, "zorder": 3}
    ax.plot(100 * chosen["coverage"], 100 * chosen["value"], **at)


coverage = Figure(
    name="coverage",
    short="Accuracy of the most confident answers, by how many are given.",
    caption="Accuracy of the most confident answers against the share of images that are answered, "
    "by the first of the scores of confidence. Hollow marks: where a threshold, chosen on the "
    "support for a wished accuracy (dotted), leads to.",
    source="selective",
    data=_data,
    draw=_draw,
    about=_about,
)
