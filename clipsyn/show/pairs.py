"""Two measures of pairs of backbones, as one matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import polars as pl

from clipsyn.show.table import Cell, Table
from clipsyn.show.tables import ShortNames, table_of


class Side(NamedTuple):
    """The measure on one side of the diagonal, and how its values are written."""

    metric: str
    cell: Callable[[float | None], Cell]


def pair_matrix(
    part: pl.DataFrame,
    names: ShortNames,
    *,
    above: Side,
    below: Side,
    diagonal: Mapping[str, Cell],
    title: str,
    note: str,
) -> Table:
    """A line and a column for each backbone; means over datasets.

    part: results, whose rows about a pair have both names in `backbones`, in any order. diagonal:
    the cell there for each name. note: stands below.
    """
    means = part.group_by("metric", "backbones").agg(pl.col("value").fill_nan(None).mean())
    values = {(metric, frozenset(pair)): value for metric, pair, value in means.iter_rows()}
    lines = []
    for i, one in enumerate(names.short):
        line = {"backbone": names.cell(one)}
        for j, (other, column) in enumerate(names.columns.items()):
            side = below if j < i else above
            value = values.get((side.metric, frozenset((one, other))))
            line[column] = diagonal[one] if i == j else side.cell(value)
        lines.append(line)
    return table_of(
        lines,
        title=title,
        names=names,
        right=list(names.heads),
        notes=f"{note}{_uneven(part, above.metric)}",
    )


def _uneven(part: pl.DataFrame, metric: str) -> str:
    """What to say where some datasets lack a pair."""
    datasets = part.filter(metric=metric).group_by("backbones").agg(pl.col("dataset").n_unique())
    if datasets["dataset"].n_unique() == 1:
        return ""
    return "\nA pair that some datasets lack: mean over the others."
