"""Tables of the page: each cell has its text, and what it is sorted by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from clipsyn.report.html import Html, named
from clipsyn.report.means import Mean
from clipsyn.show.frames import is_nan
from clipsyn.show.table import NOTHING, Column, Table, interval_text, number

_DIGITS = 6  # of the number that a cell is sorted by
_SHORT = 40  # characters, with the marks of a name
_MOST_ROWS = 150  # of the numbers below a figure


class Cell(NamedTuple):
    """One cell. by: the number that it is sorted by; None where it has none, `text` counts then."""

    text: str
    by: float | None = None
    best: bool = False
    note: str = ""  # smaller, behind the text: an interval
    is_number: bool = False

    @property
    def kind(self) -> str:
        """The classes of its element: texts that are short stay on one line."""
        is_short = not self.is_number and len(self.text) < _SHORT
        kinds = {"number": self.is_number, "best": self.best, "short": is_short}
        return " ".join(kind for kind, applies in kinds.items() if applies)

    @property
    def sorted_by(self) -> str:
        """What the script reads: empty for a number that is not known, which comes last."""
        return "" if self.by is None else f"{self.by:.{_DIGITS}g}"


class Head(NamedTuple):
    """The head of a column."""

    text: str
    right: bool


@dataclass(frozen=True)
class Grid:
    """A table with a caption; its first column names the rows."""

    caption: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str | Html = ""

    @classmethod
    def of(
        cls,
        caption: str,
        heads: Iterable[Head],
        rows: Iterable[Sequence[Cell]],
        note: str | Html = "",
    ) -> Grid:
        return cls(caption, tuple(heads), tuple(map(tuple, rows)), note)


def grid_of_lines(
    caption: str, lines: Sequence[Iterable[tuple[str, Cell]]], note: str | Html = ""
) -> Grid:
    """Lines of cells, each with the head of its column."""
    pairs = [[*line] for line in lines]
    heads = (Head(text, cell.is_number) for text, cell in pairs[0])
    return Grid.of(caption, heads, [[cell for _, cell in line] for line in pairs], note)


def words(text: object) -> Cell:
    """A name, or `NOTHING` for none."""
    return Cell(NOTHING) if text in (None, "") else Cell(named(text))


def count(value: int | None) -> Cell:
    return _numeric(NOTHING if value is None else f"{value:,}", value)


def decimal(value: float | None, digits: int = 1) -> Cell:
    return _numeric(number(value, digits), value)


def share(value: float | None, *, best: bool = False) -> Cell:
    """A share in percent."""
    return decimal(None if value is None else 100 * value)._replace(best=best)


def points(gain: float | None) -> Cell:
    """A gain in points, with its sign."""
    cell = share(gain)
    return cell if cell.by is None else cell._replace(text=f"{cell.by:+.1f}")


def share_of(mean: Mean | None, *, best: bool = False, signed: bool = False) -> Cell:
    """A share in percent with its interval, or a gain in points."""
    if mean is None:
        return share(None)
    cell = points(mean.value) if signed else share(mean.value, best=best)
    between = interval_text(mean.low, mean.high)
    return cell._replace(note="" if between == NOTHING else between)


def _numeric(text: str, value: float | None) -> Cell:
    by = None if value is None or is_nan(value) else float(value)
    return Cell(text, by, is_number=True)


def grid_of(frame: pl.DataFrame, caption: str, rest: str) -> Grid:
    """The rows of a frame as they are; `rest` says how to get those that are too many for a page.

    Columns without any value are left out.
    """
    shown = frame.head(_MOST_ROWS)
    columns = [name for name in shown.columns if shown[name].null_count() < len(shown)]
    heads = (Head(name, shown.schema[name].is_numeric()) for name in columns)
    rows = zip(*(_cells(shown[name]) for name in columns), strict=True)
    left = len(frame) - len(shown)
    return Grid.of(caption, heads, rows, f"{left:,} more rows: {rest}" if left else "")


def _cells(column: pl.Series) -> list[Cell]:
    if column.dtype == pl.Boolean:
        return [words({True: "yes", False: "no"}.get(value)) for value in column]
    if column.dtype.is_integer():
        return [count(value) for value in column]
    if column.dtype.is_float():
        return [decimal(value, 4) for value in column]
    return [words(_joined(value)) for value in column.to_list()]


def _joined(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def grid_of_table(table: Table) -> Grid:
    """A table of a command; intervals stand behind their numbers."""
    intervals = {column.interval_of: column for column in table.columns if column.interval_of}
    shown = [column for column in table.columns if column.interval_of not in _names(table)]
    heads = (Head(column.label, column.right) for column in shown)
    rows = zip(*(_of_column(it, intervals.get(it.name)) for it in shown), strict=True)
    notes = " ".join(" ".join(["; ".join(table.below), table.notes]).split())
    return Grid.of(table.caption, heads, rows, notes)


def _names(table: Table) -> set[str | None]:
    return {column.name for column in table.columns}


def _of_column(column: Column, intervals: Column | None) -> Iterator[Cell]:
    for row, cell in enumerate(column.cells):
        known = isinstance(cell.value, int | float) and not isinstance(cell.value, bool)
        beside = intervals.cells[row].text if intervals else NOTHING
        yield Cell(
            cell.text if column.right else named(cell.text),
            float(cell.value) if known and cell.value is not None else None,
            row in column.best,
            "" if beside == NOTHING else beside,
            column.right,
        )
