"""Tables as CSV, for spreadsheets and programs: numbers in the unit of the table, whole names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from clipsyn.show.frames import guarded
from clipsyn.show.numbers import NOTHING
from clipsyn.show.table import Cell, Column, Table, Tables, Value


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
    if column.is_interval:
        return _ends(column, labels.get(column.interval_of or "", column.label))
    ends = _ends(column, column.label) if column.has_ends else {}
    return {column.label: _numbers_or_texts(column), **ends}


def _ends(column: Column, label: str) -> dict[str, list[Any]]:
    return {
        f"{label} low": [_number(cell.low) for cell in column.cells],
        f"{label} high": [_number(cell.high) for cell in column.cells],
    }


def _numbers_or_texts(column: Column) -> list[Any]:
    values = [_number(cell.value) for cell in column.cells]
    if any(isinstance(value, str) for value in values) or all(value is None for value in values):
        return [_text(cell) for cell in column.cells]
    return values


def _number(value: Value) -> Value:
    """With twelve digits: 28.5, not 28.499999999999996, for what was a fraction."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _text(cell: Cell) -> str | None:
    text = " ".join((cell.value if isinstance(cell.value, str) else cell.text).split())
    return None if text in ("", NOTHING) else text
