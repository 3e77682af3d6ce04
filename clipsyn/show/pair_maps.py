"""A measure of pairs of backbones, as half a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from clipsyn.show.frames import is_nan
from clipsyn.show.panels import headed, room
from clipsyn.show.style import COLUMN, heat_map, label
from clipsyn.show.tables import ShortNames, shortened
from clipsyn.show.titles import subject, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL, _SCALE, _HEADING = 0.265, 0.5, 0.5  # inches


def pair_map_size(data: pl.DataFrame) -> tuple[float, float]:
    """Inches of the figure: a column of a paper for up to nine backbones."""
    texts = _texts(shortened(_names(data)))
    wide, beside = max(_CELL * (len(texts) - 1), 1.1), room(texts)
    return max(COLUMN, wide + beside + _SCALE), wide + 0.7 * beside + _HEADING


def pair_map(data: pl.DataFrame, ax: Axes, measure: str, about: tuple[str, ...]) -> None:
    """Draw a measure between 0 and 1, and below 0 where it is, of each pair once.

    data: a row a pair, with the columns `backbone`, `other` and `value`, and those of
    `clipsyn.evaluation.results.view.over_datasets`. measure: what stands beside the scale. about:
    columns for the heading.
    """
    names = _names(data)
    places = {name: place for place, name in enumerate(names)}
    values = {}
    for one, other, value in data.select("backbone", "other", "value").iter_rows():
        column, row = sorted((places[one], places[other]))
        if value is not None and not is_nan(value):
            values[row - 1, column] = value
    short = shortened(names)
    texts = _texts(short)
    limits: Any = {"vmin": min(0.0, *values.values()) if values else 0.0, "vmax": 1}
    heading = title(subject(data, about), short.phrase)
    headed(ax, heading, room(texts))  # before a scale takes of the width
    heat_map(ax, texts[1:], texts[:-1], values, decimals=2, label=measure, **limits)


def named_pairs(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows about two backbones each, with their names in columns `backbone` and `other`, sorted."""
    both = pl.col("backbones").list.sort()
    return rows.filter(both.list.len() == 2).with_columns(
        backbone=both.list.first(), other=both.list.last()
    )


def _texts(names: ShortNames) -> list[str]:
    return [label(text) for text in names.short.values()]


def _names(data: pl.DataFrame) -> list[str]:
    return sorted({*data["backbone"], *data["other"]})
