"""How differently backbones err, pair by pair, and against what ensembles gain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import gain_metric
from clipsyn.evaluation.results.view import WHERE, over_datasets, refuse_several
from clipsyn.methods.ensembles import BEST_SINGLE, place_of
from clipsyn.settings import SINGLE
from clipsyn.show.figure import INK, MUTED, Figure, Size, marks, needed
from clipsyn.show.frames import is_nan
from clipsyn.show.panels import (
    Grid,
    Look,
    drawn,
    key,
    named_pairs,
    pair_map,
    pair_map_size,
    pairs_subject,
    panels,
)
from clipsyn.show.table import NOTHING
from clipsyn.show.titles import title, where
from clipsyn.stats.correlation import least_squares, pearson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAND = "#ebebeb"
_FEWEST = 2  # datasets of a correlation
_PLACES = 101  # at which a line is drawn with its interval


def _pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each pair, mean over datasets."""
    rows = needed(
        named_pairs(frame.filter(metric="error_consistency")),
        "error consistency of any two backbones",
        "give a store, or what `clipsyn diversity STORE -o FILE.parquet` wrote",
    )
    refuse_several(rows)
    return over_datasets(rows, [*WHERE[1:], "backbone", "other"])


def _draw_pairs(data: pl.DataFrame, ax: Axes) -> None:
    pair_map(data, ax, "error consistency")


def _gains(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each dataset and ensemble, with the height of the fitted line there.

    Without the choice of a single backbone, which combines nothing.
    """
    combines = ~pl.col("ensemble").is_in([SINGLE, BEST_SINGLE])
    rows = frame.filter(combines, pl.col("dataset").is_not_null(), metric=gain_metric(frame))
    refuse_several(rows)
    by = ["dataset", "backbones"]
    diverse = frame.filter(metric="mean_error_inconsistency").select(
        *by, diversity="value", diversity_low="ci_low", diversity_high="ci_high"
    )
    known = pl.col("value").is_not_nan() & pl.col("diversity").is_not_nan()
    points = needed(
        rows.join(diverse, on=by, maintain_order="left").filter(known),
        "gain of ensembles beside the diversity of their backbones",
        "run `clipsyn diversity STORE --results RESULTS -o diversity.parquet` and draw that",
    )
    if points["backbones"].n_unique() > 1:
        raise UsageError(
            "these datasets have other backbones than each other, so that their gains are not "
            "comparable: name some with datasets=…"
        )
    if points["dataset"].n_unique() < _FEWEST:
        raise UsageError(f"a correlation over datasets needs {_FEWEST} of them: give more")
    parts = points.partition_by("ensemble", maintain_order=True)
    parts.sort(key=lambda part: (part["ensemble"][0] != "oracle", place_of(part["ensemble"][0])))
    return pl.concat([_fitted(part) for part in parts]).select(
        *WHERE, "head", "ensemble", "backbones", "shots", "diversity", "diversity_low",
        "diversity_high", "value", "ci_low", "ci_high", "n", "fit", "fit_low", "fit_high", "r",
        "r_low", "r_high",
    )  # fmt: skip


def _fitted(part: pl.DataFrame) -> pl.DataFrame:
    """The points of an ensemble with the line through them, and Pearson's r."""
    x, y = part["diversity"].to_numpy(), part["value"].to_numpy()
    line, r = least_squares(x, y, x), pearson(x, y)
    return part.with_columns(
        pl.Series("fit", line.value),
        pl.Series("fit_low", line.low),
        pl.Series("fit_high", line.high),
        r=r.value,
        r_low=r.interval.low,
        r_high=r.interval.high,
    )


def _gains_size(data: pl.DataFrame) -> Size:
    return Grid.of(data["ensemble"].n_unique()).size(_datasets(data), titled=2)


def _datasets(data: pl.DataFrame) -> dict[str, Look]:
    names = data["dataset"].unique(maintain_order=True).to_list()
    return {name: drawn(mark._replace(line="")) for name, mark in marks(names).items()}


def _draw_gains(data: pl.DataFrame, ax: Axes) -> None:
    parts = data.partition_by("ensemble", maintain_order=True)
    labels = "error inconsistency, mean over pairs, %", "gain over the best backbone, points"
    looks = _datasets(data)
    titles = [f"{part['ensemble'][0]}\n{_r(part)}" for part in parts]
    for part, panel in zip(parts, panels(ax, titles, *labels, same_y=False), strict=True):
        for name, x, y in part.select("dataset", "diversity", "value").iter_rows():
            panel.plot(100 * x, 100 * y, **looks[name], zorder=3)
        _draw_line(part, panel)
    key(ax, looks, titled=2)


def _gains_about(data: pl.DataFrame) -> str:
    return title(*where(data.row(0, named=True), (*WHERE[1:], "head")))


def _draw_line(part: pl.DataFrame, panel: Axes) -> None:
    """The fitted line between the outer points, and that of no gain; limits stay as they are."""
    x, y = part["diversity"].to_numpy(), part["value"].to_numpy()
    panel.margins(0.1)
    limits = panel.get_ylim()
    places = np.linspace(x.min(), x.max(), _PLACES)
    line = least_squares(x, y, places)
    panel.fill_between(100 * places, 100 * line.low, 100 * line.high, color=_BAND, lw=0)
    panel.plot(100 * places, 100 * line.value, color=INK, lw=1)
    panel.axhline(0, color=MUTED, lw=0.8, ls=":")
    panel.set_ylim(limits)


def _r(part: pl.DataFrame) -> str:
    """ "r +0.62 (-0.10 to 0.88)"."""
    value, low, high = part.select("r", "r_low", "r_high").row(0)
    if is_nan(value):
        return f"r {NOTHING}"
    return f"r {value:+.2f}" + ("" if is_nan(low) else f" ({low:.2f} to {high:.2f})")


error_consistency = Figure(
    name="error-consistency",
    short="How alike the errors of every two backbones are.",
    caption="Error consistency (Cohen's kappa) of every two backbones: 1 for errors on the same "
    "images, 0 for as many common ones as by chance.",
    source="diversity",
    data=_pairs,
    draw=_draw_pairs,
    size=pair_map_size,
    about=lambda data: pairs_subject(data, (*WHERE, "n")),
)
diversity_gain = Figure(
    name="diversity-gain",
    short="Whether ensembles gain more where the backbones err more differently.",
    caption="Gain of ensembles over the best single backbone against error inconsistency, a mark a "
    "dataset: the line of least squares with the 95 % interval of its height, and Pearson's r with "
    "its interval.",
    source="diversity",
    data=_gains,
    draw=_draw_gains,
    size=_gains_size,
    about=_gains_about,
)
