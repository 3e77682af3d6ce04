"""What is shown of the protocol's results."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from clipsyn.evaluation.gains import gain_tables
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.evaluation.tables import NOTE, named_tables
from clipsyn.show.table import Tables, paragraph
from clipsyn.store.samples import SampleTable


def tables(
    frame: pl.DataFrame, settings: ProtocolSettings, independent: Iterable[SampleTable]
) -> dict[str, Tables]:
    """`named_tables`, what they mean, and for each head the gains of `settings.compare`.

    independent: sample tables that share no image; tests are over their datasets alone.
    """
    compared = named_tables(frame)
    if not compared:
        return {"": (paragraph("no ensemble to show"),)}
    shown = compared | {"what they mean": (paragraph(NOTE),)}
    methods, datasets = list(dict.fromkeys(settings.compare)), {it.dataset for it in independent}
    for head in frame["head"].unique(maintain_order=True) if methods else ():
        shown[f"gains, {head}"] = gain_tables(frame, head, methods, datasets)
    return shown
