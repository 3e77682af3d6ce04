"""Accuracy of every backbone on every dataset, as a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from clipsyn.frames import is_nan
from clipsyn.results.view import WHERE, singles
from clipsyn.show.figure import Figure, Size, needed
from clipsyn.show.style import BEST, heat_map
from clipsyn.show.tables import shortened
from clipsyn.show.titles import common, title, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _CELL = 0.2, 0.42  # inches
_LABELS = 1.2  # inches beside and below the matrix


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each dataset and backbone; `best` marks the largest accuracy of a dataset."""
    rows = needed(
        singles(frame).filter(metric="acc1", shots=0),
        "zero-shot accuracy of any backbone",
        "give a store, or what `clipsyn zeroshot` has written by --parquet",
    )
    known = pl.col("value").fill_nan(None)
    best = (known == known.max()).fill_null(value=False).over(WHERE)
    return rows.select(*WHERE, "backbone", "value", "ci_low", "ci_high", "n", best=best)


def _size(data: pl.DataFrame) -> Size:
    columns, rows = data["backbone"].n_unique(), data.select(WHERE).n_unique()
    return _LABELS + 0.8 + _CELL * columns, _LABELS + _ROW * rows


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    names = shortened(data["backbone"].unique(maintain_order=True).to_list())
    varying = [name for name in WHERE if name not in common(data, WHERE)] or ["dataset"]
    columns = {name: at for at, name in enumerate(names.short)}
    rows: dict[str, int] = {}
    values: dict[tuple[int, int], float] = {}
    for line in data.iter_rows(named=True):
        row = rows.setdefault(title(*where(line, varying)), len(rows))
        if not is_nan(line["value"]):
            values[row, columns[line["backbone"]]] = 100 * line["value"]
        if line["best"]:
            ax.plot(columns[line["backbone"]], row + 0.36, "_", color=BEST, ms=16, mew=1.6)
    heat_map(ax, list(rows), list(names.short.values()), values, 1, vmin=0, vmax=100)
    ax.get_figure().axes[-1].set_ylabel("zero-shot top-1 accuracy, %")


accuracy_matrix = Figure(
    name="accuracy-matrix",
    short="Zero-shot accuracy of every backbone on every dataset.",
    caption="Zero-shot top-1 accuracy in percent; the best backbone of each row is underlined.",
    source="zeroshot",
    data=_data,
    draw=_draw,
    size=_size,
)
