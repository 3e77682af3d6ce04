"""Tables as CSV, for spreadsheets and programs: numbers as tables show them, but not rounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from clipsyn.frames import guarded
from clipsyn.show.numbers import NOTHING
from clipsyn.show.table import Cell, Column, Table, Tables


def csv_of(shown: Mapping[str, Tables]) -> str:
    """Every table with its head, an empty line between; titles and notes stay out.

    Tables that have a name begin with two columns more: `table` is the name, `about` the title.
    """
    parts = (_lines(name, *pair) for name, tables in shown.items() for pair in _titled(tables))
    return "\n".join(parts).rstrip("\n")


def _titled(tables: Sequence[Table]) -> Iterator[tuple[Table, str]]:
    """Tables and what they are about: one without a title continues the one before it."""
    about = ""
    for table in tables:
        about = table.caption or about
        if table.columns:
            yield table, about


def _lines(name: str, table: Table, about: str) -> str:
    columns: dict[str, list[Any]] = {}
    if name:
        columns = {"table": [name] * len(table), "about": [about] * len(table)}
    labels = {column.name: column.label for column in table.columns}
    for column in table.columns:
        columns |= _values(column, labels)
    series = [pl.Series(label, values, strict=False) for label, values in columns.items()]
    return guarded(pl.DataFrame(series)).write_csv()


def _values(column: Column, labels: Mapping[str, str]) -> dict[str, list[Any]]:
    """The values of a column by its label; an interval becomes two columns."""
    if column.interval_of:
        label = labels[column.interval_of]
        return {
            f"{label} low": [cell.low for cell in column.cells],
            f"{label} high": [cell.high for cell in column.cells],
        }
    values = [cell.value for cell in column.cells]
    if any(isinstance(value, str) for value in values) or all(value is None for value in values):
        return {column.label: [_text(cell) for cell in column.cells]}
    return {column.label: values}


def _text(cell: Cell) -> str | None:
    text = " ".join(cell.text.split())
    return None if text in ("", NOTHING) else text
