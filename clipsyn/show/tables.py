"""Frames and rows as aligned tables of text."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import polars as pl

from clipsyn.frames import is_nan
from clipsyn.printable import printable, printable_lines
from clipsyn.show.layout import NOTE, Column, broken, drawn, fitted, is_whole, width_of, wrapped
from clipsyn.show.numbers import NOTHING, interval

Cell = tuple[int, str]  # row, column
_MANY = 6  # backbones, beyond which columns are narrow
_NUMBERED = 12  # backbones, from which on columns have numbers
WIDTH = 100  # characters of a paragraph


def show(
    table: pl.DataFrame | Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    percent: Collection[str] = (),
    digits: Mapping[str, int] | None = None,
    headers: Mapping[str, str] | None = None,
    right: Collection[str] = (),
    bold: Collection[Cell] = (),
    terminal: bool | None = None,
) -> str:
    """A frame, or rows, as an aligned text table, nothing cut off; on a terminal it fits the width.

    percent: columns of shares, shown as percent with one decimal. digits: decimals of columns of
    numbers that shall have so many; others have as many as their largest number needs. headers:
    other texts above columns; `interval_of` another column is headed "95 %" without. right:
    text columns to align right as numbers are. bold: cells to set in bold on a terminal.
    terminal: None asks standard output. See `clipsyn.show.layout` for what becomes of a table that
    is wider than the terminal; `layout.NOTE` stands below it.
    """
    terminal = sys.stdout.isatty() if terminal is None else terminal
    if not isinstance(table, pl.DataFrame):
        table = pl.DataFrame(table, infer_schema_length=None)
    decimals = dict(digits or {})
    intervals = [interval_of(name) for name in (*table.columns, *percent, *decimals)]
    heads = dict.fromkeys(intervals, "95 %") | dict(headers or {})
    numbers = {*percent, *decimals, *intervals, *right}
    columns = [
        Column(
            printable_lines(heads.get(name, name)),
            tuple(_texts(table[name].to_list(), name in percent, decimals.get(name))),
            table.schema[name].is_numeric() or name in numbers,
            frozenset(row for row, column in bold if column == name),
        )
        for name in table.columns
    ]
    width = width_of(terminal)
    tables = fitted(columns, width)
    parts = [broken(printable_lines(title), width)] if title else []
    parts.append("\n\n".join(drawn(columns, terminal) for columns in tables))
    return "\n".join(parts if is_whole(columns, tables) else [*parts, NOTE])


def interval_of(column: str) -> str:
    """The name of the column with the 95 % intervals of a column."""
    return f"95 % of {column}"


def measured(
    column: str, row: Mapping[str, Any], digits: int | None = None
) -> dict[str, float | str | None]:
    """Two cells of a line: the value of a row of results, and its interval beside it.

    digits: as `clipsyn.show.numbers.interval` takes them. The row may be empty.
    """
    return {column: row.get("value"), interval_of(column): interval(row, digits)}


def best_of_columns(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], *, least: bool = False
) -> set[Cell]:
    """The cells with the largest number of each column, or the least; all of equal ones."""
    return {
        cell
        for column in columns
        for cell in _best({(at, column): row.get(column) for at, row in enumerate(rows)}, least)
    }


def best_of_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, least: bool = False
) -> set[Cell]:
    """The cells with the largest number of each row among some columns, or the least."""
    return {
        cell
        for at, row in enumerate(rows)
        for cell in _best({(at, column): row.get(column) for column in columns}, least)
    }


def _best(cells: Mapping[Cell, float | None], least: bool) -> set[Cell]:
    known = {
        cell: value for cell, value in cells.items() if value is not None and not is_nan(value)
    }
    best = (min if least else max)(known.values(), default=None)
    return {cell for cell, value in known.items() if value == best}


class ShortNames(NamedTuple):
    """What backbones are shown as, by name in order, and what was cut off: "tiny-*/zoo"."""

    short: dict[str, str]
    pattern: str

    @property
    def phrase(self) -> str:
        """ "backbones tiny-*/zoo" for a title; empty where nothing was cut off."""
        return f"backbones {self.pattern}" if self.pattern else ""

    @property
    def columns(self) -> dict[str, str]:
        """Backbone -> the name of the column about it, which is the name of no other column."""
        return {name: f"backbone {number}" for number, name in enumerate(self.short, 1)}

    @property
    def heads(self) -> dict[str, str]:
        """Column -> what stands above it: narrower where there are many, a number from 12 on."""
        if self._numbered:
            return {column: str(number) for number, column in enumerate(self.columns.values(), 1)}
        width = 9 if len(self.short) <= _MANY else 7
        heads = (wrapped(text, width) for text in self.short.values())
        return dict(zip(self.columns.values(), heads, strict=True))

    @property
    def legend(self) -> str:
        """A paragraph for below the table that says what the numbers stand for, if heads are."""
        if not self._numbered:
            return ""
        space = "\N{NO-BREAK SPACE}"
        numbered = (f"{number}{space}{text}" for number, text in enumerate(self.short.values(), 1))
        return "\n" + fill(", ".join(numbered) + ".", WIDTH).replace(space, " ")

    @property
    def _numbered(self) -> bool:
        return len(self.short) >= _NUMBERED


def shortened(names: Sequence[str]) -> ShortNames:
    """Names without what all begin with, up to a hyphen, and end with, from a slash."""
    prefix, tag = _pattern(names)
    short = {name: name.removeprefix(prefix).removesuffix(tag) for name in names}
    return ShortNames(short, f"{prefix}*{tag}" if prefix or tag else "")


def _pattern(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin with, up to a hyphen, and end with, from a slash: "tiny-", "/zoo".

    What is left of each name begins with a letter: "ViT-B-16" and "ViT-B-32" share "ViT-" only.
    """
    if len(names) < 2:
        return "", ""
    prefix = ""
    for parts in zip(*(name.split("-")[:-1] for name in names), strict=False):
        longer = f"{prefix}{parts[0]}-"
        if len(set(parts)) > 1:
            break
        if all(name.removeprefix(longer)[:1].isalpha() for name in names):
            prefix = longer
    tags = {"/" + name.rpartition("/")[2] if "/" in name else "" for name in names}
    return prefix, tags.pop() if len(tags) == 1 else ""


def _texts(values: list[Any], percent: bool, digits: int | None) -> list[str]:
    if percent:
        values, digits = [None if value is None else 100 * value for value in values], 1
    if digits is None:
        digits = _decimals(values)
    return [_text(value, digits) for value in values]


def _text(value: Any, decimals: int) -> str:
    if value is None or is_nan(value):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{round(value, decimals) + 0.0:,.{decimals}f}"  # no -0.0
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _decimals(values: list[Any]) -> int:
    """Decimals that keep three digits of the largest number, fewer where all are round."""
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(map(abs, floats), default=0)
    most = next((places for bound, places in ((100, 1), (1, 2)) if largest >= bound), 3)
    rounded = [round(v, most) for v in floats]
    return next((p for p in range(most) if all(round(v, p) == v for v in rounded)), most)
