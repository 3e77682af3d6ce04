"""The tables of commands, as they stand on the page: unfolded by whoever wants them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from clipsyn.analyses import ANALYSES
from clipsyn.analyses.spec import Analysis
from clipsyn.frames import printable_frame
from clipsyn.paired import PairedSettings
from clipsyn.paired.tables import tables as paired_tables
from clipsyn.protocol.tables import named_tables
from clipsyn.report.evidence import EVALUATE, PAIRED, Evidence, settings_of
from clipsyn.report.grids import Grid, grid_of_table
from clipsyn.show.table import Tables

_MOST_CELLS = 4000  # of the tables of one command


@dataclass(frozen=True)
class Folded:
    """All tables of one command, folded away."""

    command: str
    grids: tuple[Grid, ...]


def folded(name: str, evidence: Evidence) -> Folded | None:
    """The tables of an analysis, of evaluate or of test; None where it has none, or too many."""
    frame = evidence.frames.get(name)
    if frame is None or frame.is_empty():
        return None
    shown = [
        table for tables in _tables(name, printable_frame(frame), evidence) for table in tables
    ]
    if not shown or sum(len(table) * len(table.columns) for table in shown) > _MOST_CELLS:
        return None
    return Folded(name, tuple(map(grid_of_table, shown)))


def _tables(name: str, frame: pl.DataFrame, evidence: Evidence) -> Iterable[Tables]:
    if name == EVALUATE:
        return named_tables(frame).values()
    if name == PAIRED:
        return paired_tables(frame, PairedSettings()).values()
    analysis: Analysis = ANALYSES.load(name)
    settings = settings_of(analysis, evidence.settings)
    if "summary" in analysis.declared:  # a line a dataset, no table of each
        settings = settings.replaced(summary=True)
    return analysis.tables(frame, settings).values()
