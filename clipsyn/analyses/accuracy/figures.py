"""Accuracy of every backbone on every dataset, as a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.frames import is_nan
from clipsyn.results.view import WHERE, singles
from clipsyn.show.figure import Figure, Size, needed
from clipsyn.show.style import BEST, COLUMN, PAGE, heat_map, label
from clipsyn.show.tables import shortened
from clipsyn.show.titles import common, title, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _CELL = 0.19, 0.36  # inches
_BESIDE, _BELOW = 1.8, 0.7  # inches: names of rows and the scale; names of backbones
_MOST = 120  # rows


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each dataset and backbone; `best` marks the largest accuracy of a dataset."""
    rows = needed(
        singles(frame).filter(metric="acc1", shots=0, head="zero-shot", classes="all"),
        "zero-shot accuracy of any backbone",
        "give a store, or what `clipsyn zeroshot STORE --parquet FILE` wrote",
    ).unique([*WHERE, "backbone"], keep="first", maintain_order=True)
    if (count := rows.select(WHERE).n_unique()) > _MOST:
        raise UsageError(
            f"a matrix of {count:,} lines cannot be read: choose up to {_MOST} of them with "
            "datasets=… and perturbations=…"
        )
    known = pl.col("value").fill_nan(None)
    best = (known == known.max()).fill_null(value=False).over(WHERE)
    return rows.select(*WHERE, "backbone", "value", "ci_low", "ci_high", "n", best=best)


def _size(data: pl.DataFrame) -> Size:
    columns, rows = data["backbone"].n_unique(), data.select(WHERE).n_unique()
    return min(PAGE, max(COLUMN, _BESIDE + _CELL * columns)), _BELOW + _ROW * max(rows, 4)


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    from matplotlib.transforms import ScaledTranslation

    names = shortened(data["backbone"].unique(maintain_order=True).to_list()).short
    columns = {name: at for at, name in enumerate(names)}
    varying = [name for name in WHERE if name not in common(data, WHERE)] or ["dataset"]
    rows: dict[str, int] = {}
    values: dict[tuple[int, int], float] = {}
    below = ax.transData + ScaledTranslation(0, -5.5 / 72, ax.figure.dpi_scale_trans)
    for line in data.iter_rows(named=True):
        row = rows.setdefault(title(*where(line, varying)), len(rows))
        column = columns[line["backbone"]]
        if not is_nan(line["value"]):
            values[row, column] = 100 * line["value"]
        if line["best"]:
            ax.plot(column, row, "_", color=BEST, ms=17, mew=1.8, transform=below)
    heat_map(
        ax,
        [label(name) for name in rows],
        [label(name) for name in names.values()],
        values,
        decimals=1,
        label="top-1 accuracy, %",
        vmin=0,
        vmax=100,
    )


accuracy_matrix = Figure(
    name="accuracy-matrix",
    short="Zero-shot accuracy of every backbone on every dataset.",
    caption="Zero-shot top-1 accuracy in percent; the best backbone of each line is underlined.",
    source="zeroshot",
    data=_data,
    draw=_draw,
    size=_size,
)
