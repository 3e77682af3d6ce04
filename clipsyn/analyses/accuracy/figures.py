"""Accuracy of every backbone on every dataset, as a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import UNFITTED
from clipsyn.evaluation.results.view import WHERE, singles
from clipsyn.show.figure import COLUMN, PAGE, Figure, Size, heat_map, label, needed
from clipsyn.show.frames import is_nan
from clipsyn.show.panels import room, underlined
from clipsyn.show.titles import common, shortened, title, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _CELL = 0.19, 0.36  # inches
_SCALE, _BELOW = 0.8, 0.2  # inches: beside the matrix, and around the names below it
_MOST = 120  # rows


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each dataset and backbone; `best` marks the largest accuracy of a dataset."""
    rows = needed(
        singles(frame).filter(metric="acc1", shots=UNFITTED, head="zero-shot", classes="all"),
        "zero-shot accuracy of any backbone",
        "give a store, or what `clipsyn zeroshot STORE -o FILE.parquet` wrote",
    ).unique([*WHERE, "backbone"], keep="first", maintain_order=True)
    if (count := rows.select(WHERE).n_unique()) > _MOST:
        raise UsageError(
            f"a matrix of {count:,} lines cannot be read: choose up to {_MOST} of them with "
            "datasets=… and perturbations=…"
        )
    known = pl.col("value").fill_nan(None)
    best = (known == known.max()).fill_null(value=False).over(WHERE)
    return rows.select(*WHERE, "backbone", "value", "ci_low", "ci_high", "n", best=best)


def _rows(data: pl.DataFrame) -> dict[tuple[str, ...], str]:
    """What each line is called, by dataset, split, perturbation and prompts: by what differs."""
    varying = [name for name in WHERE if name not in common(data, WHERE)] or ["dataset"]
    lines = data.select(WHERE).unique(maintain_order=True).rows(named=True)
    return {tuple(line.values()): label(title(*where(line, varying))) for line in lines}


def _columns(data: pl.DataFrame) -> dict[str, str]:
    """What each backbone is called."""
    names = shortened(data["backbone"].unique(maintain_order=True).to_list()).short
    return {name: label(short) for name, short in names.items()}


def _size(data: pl.DataFrame) -> Size:
    rows, columns = _rows(data).values(), _columns(data).values()
    width = _SCALE + room(rows) + _CELL * len(columns)
    height = _ROW * max(len(rows), 4) + _BELOW + 0.75 * room(columns)  # they stand at an angle
    return min(PAGE, max(COLUMN, width)), height


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    rows, columns = _rows(data), _columns(data)
    lines = {key: at for at, key in enumerate(rows)}
    places = {name: at for at, name in enumerate(columns)}
    cells = {
        (lines[row[:-2]], places[row[-2]]): 100 * row[-1]
        for row in data.select(*WHERE, "backbone", "value").rows()
        if not is_nan(row[-1])
    }
    heat_map(
        ax,
        [*rows.values()],
        [*columns.values()],
        cells,
        decimals=1,
        label="top-1, %",
        vmin=0,
        vmax=100,
    )
    best = data.filter("best").select(*WHERE, "backbone").rows()
    if best:
        underlined(ax, [(places[row[-1]], lines[row[:-1]]) for row in best])


accuracy_matrix = Figure(
    name="accuracy-matrix",
    short="Zero-shot accuracy of every backbone on every dataset.",
    caption="Zero-shot top-1 accuracy in percent; the best backbone of each line is underlined.",
    source="zeroshot",
    data=_data,
    draw=_draw,
    size=_size,
)
