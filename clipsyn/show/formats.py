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

    by_name: dict[str, Callable[[Mapping[str, Tables]], str]] = {"latex": latex_of, "csv": csv_of}
    if format in by_name:
        return by_name[format](shown)
    tables = tuple(table for some in shown.values() for table in some)
    return markdown_of(tables) if format == "markdown" else text_of(tables)
