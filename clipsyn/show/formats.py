"""The formats that tables are written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipsyn.show.table import Tables

FORMATS = ("text", "markdown", "latex", "csv")
BENCHMARK = "clip-benchmark"  # of numbers, not of tables: see clipsyn.results.benchmark


def written(shown: Mapping[str, Tables], format: str) -> str:
    """Tables by name in one of `FORMATS`; text is as wide as standard output is."""
    from clipsyn.show.latex import latex_of
    from clipsyn.show.markdown import markdown_of
    from clipsyn.show.separated import csv_of
    from clipsyn.show.text import text_of

    if format == "csv":
        return csv_of(shown)
    write: Mapping[str, Callable[[Tables], str]]
    write = {"text": text_of, "markdown": markdown_of, "latex": latex_of}
    return write[format](tuple(table for tables in shown.values() for table in tables))
