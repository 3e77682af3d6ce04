"""How alike the embeddings of every two backbones are, as half a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from clipsyn.evaluation.results.view import WHERE, over_datasets, refuse_several
from clipsyn.show.figure import Figure, needed
from clipsyn.show.panels import named_pairs, pair_map, pair_map_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ABOUT = WHERE[1:3]  # no prompt set: embeddings of images have none


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each pair, mean over datasets."""
    rows = needed(
        named_pairs(frame.filter(metric="cka")),
        "CKA of any two backbones",
        "give a store with the embeddings of two, or what `clipsyn representation STORE -o "
        "FILE.parquet` wrote",
    )
    refuse_several(rows)
    return over_datasets(rows, [*_ABOUT, "backbone", "other"])


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    pair_map(data, ax, "linear CKA", (*WHERE[:3], "n"))


cka = Figure(
    name="cka",
    short="How alike the embeddings of every two backbones are.",
    caption="Linear CKA, unbiased, of the image embeddings of every two backbones: 1 for the same "
    "embeddings but for rotation and scale, 0 for independent ones.",
    source="representation",
    data=_data,
    draw=_draw,
    size=pair_map_size,
)
