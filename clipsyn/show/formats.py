"""The formats that tables are written in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipsyn.show.table import Tables

FORMATS = ("text", "markdown", "latex", "csv")
BENCHMARK = "clip-benchmark"  # of numbers, not of tables: see clipsyn.evaluation.results.benchmark


def written(shown: Mapping[str, Tables], format: str) -> str:
    """Tables by name in one of `FORMATS`; text is as wide as standard output is."""
    if format == "latex":
        from clipsyn.show.latex import latex_of

        return latex_of(shown)
    if format == "csv":  # which polars writes
        from clipsyn.show.separated import csv_of

        return csv_of(shown)
    from clipsyn.show.markdown import markdown_of
    from clipsyn.show.text import text_of

    tables = tuple(table for some in shown.values() for table in some)
    return markdown_of(tables) if format == "markdown" else text_of(tables)
