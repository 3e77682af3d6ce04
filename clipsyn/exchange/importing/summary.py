"""What an import has brought into a store."""

from __future__ import annotations

import polars as pl

from clipsyn.show.table import Table
from clipsyn.show.tables import table_of

_MOST = 20  # cells with a line each


def imported_table(frame: pl.DataFrame) -> Table:
    """A line for each cell, or, of many, for each perturbation.

    frame: what `clipsyn.exchange.importing.write.import_files` returns. Accuracies in percent, of
    the images that have a label and a prediction.
    """
    if frame["prompts"].is_null().all():
        frame = frame.drop("prompts")
    if len(frame) <= _MOST:
        return table_of(frame, percent=["acc1"], headers={"acc1": "top-1"})
    every = ["dataset", "split", "perturbation", "prompts", "kind", "images"]
    where = [name for name in every if name in frame.columns]
    grouped = frame.group_by(where, maintain_order=True).agg(
        pl.len().alias("backbones"),
        pl.col("valid").min(),
        pl.col("acc1").min().alias("lowest"),
        pl.col("acc1").max().alias("highest"),
        pl.col("was").unique(maintain_order=True).str.join(", "),
    )
    headers = {"valid": "valid, least", "lowest": "top-1, least", "highest": "most"}
    names = ", ".join(frame["backbone"].unique(maintain_order=True))
    return table_of(
        grouped,
        percent=["lowest", "highest"],
        headers=headers,
        below=(f"{len(frame)} cells; backbones: {names}",),
    )
