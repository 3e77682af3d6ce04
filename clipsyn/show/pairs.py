"""What is measured of pairs of backbones, as one matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import polars as pl

from clipsyn.show.tables import column_heads, legend, show


class Side(NamedTuple):
    """What stands on one side of the diagonal."""

    metric: str
    text: Callable[[float | None], str]


def pair_matrix(
    part: pl.DataFrame,
    short: Mapping[str, str],
    *,
    above: Side,
    below: Side,
    diagonal: Mapping[str, str],
    title: str,
    note: str,
    terminal: bool | None,
) -> str:
    """A line and a column a backbone: means over datasets, in whichever order a pair is named.

    part: a tidy frame, rows of pairs have two names in `backbones`. short: what each name is shown
    as. diagonal: the text for each name.
    """
    means = part.group_by("metric", "backbones").agg(pl.col("value").fill_nan(None).mean())
    of = {(metric, frozenset(pair)): value for metric, pair, value in means.iter_rows()}
    names, rows = list(short), []
    for i, one in enumerate(names):
        cells = {"backbone": short[one]}
        for j, other in enumerate(names):
            side = below if j < i else above
            pair = frozenset((one, other))
            cells[other] = side.text(of.get((side.metric, pair))) if i != j else diagonal[one]
        rows.append(cells)
    text = show(
        pl.DataFrame(rows), title=title, headers=column_heads(short), right=names, terminal=terminal
    )
    return f"{text}\n\n{note}{_of_fewer(part, above.metric)}{legend(short)}"


def _of_fewer(part: pl.DataFrame, metric: str) -> str:
    """What to say where some datasets lack a pair."""
    of_pairs = part.filter(pl.col("metric") == metric).group_by("backbones")
    counts = of_pairs.agg(pl.col("dataset").n_unique())["dataset"]
    uneven = counts.n_unique() > 1
    return "\nA pair that some datasets lack: mean over the others." if uneven else ""
