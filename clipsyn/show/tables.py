"""Frames and rows as tables, and as aligned text."""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from clipsyn.show.formats import text_of
from clipsyn.show.table import NOTHING, UNKNOWN, Cell, Column, Table, interval_cell, known
from clipsyn.show.titles import ShortNames
from clipsyn.text import printable, printable_lines

if TYPE_CHECKING:
    import polars as pl

Place = tuple[int, str]  # row, column
Best = Mapping[Place, Collection[Place]]  # the best cells, and what each was compared with


def show(
    table: pl.DataFrame | Sequence[Mapping[str, Any]], *, terminal: bool | None = None, **about: Any
) -> str:
    """A frame, or rows, as an aligned text table; `about` as `table_of` has it.

    terminal: None asks standard output. See `clipsyn.show.formats` for what becomes of a table that
    is wider than the terminal.
    """
    return text_of((table_of(table, **about),), terminal=terminal)


def table_of(
    table: pl.DataFrame | Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    percent: Collection[str] = (),
    digits: Mapping[str, int] | None = None,
    headers: Mapping[str, str] | None = None,
    names: ShortNames | None = None,
    right: Collection[str] = (),
    best: Best | None = None,
    below: Iterable[str] = (),
    notes: str = "",
) -> Table:
    """A frame, or rows whose values may be a `Cell`, as a table.

    percent: columns of shares, shown as percent with one decimal. digits: decimals of columns of
    numbers that shall have so many, of percents too; others have as many as their largest number
    needs. headers: other texts above columns; `interval_of` another column is headed "95 %"
    without. names: backbones that have columns of their own, which are headed so. right: text
    columns to align right as numbers are. best: cells to point out, and what each was compared
    with, of which those that read the same are pointed out, too.
    """
    decimals = dict(digits or {})
    values = _values(table)
    intervals = {interval_of(name): name for name in (*values, *percent, *decimals)}
    heads = dict.fromkeys(intervals, "95 %") | dict(headers or {}) | (names.heads if names else {})
    numbers = {*percent, *decimals, *intervals, *right}
    cells = {name: _cells(of, name in percent, decimals.get(name)) for name, of in values.items()}
    marked = {
        (row, column)
        for place, rivals in (best or {}).items()
        for row, column in (place, *rivals)
        if {column, place[1]} <= cells.keys()
        if cells[column][row].text == cells[place[1]][place[0]].text
    }
    columns = (
        Column(
            name,
            printable_lines(heads.get(name, name)),
            cells[name],
            _is_numeric(of) or name in numbers,
            frozenset(row for row, column in marked if column == name),
            intervals[name] if intervals.get(name) in values else None,
        )
        for name, of in values.items()
    )
    return Table(tuple(columns), printable_lines(title), tuple(filter(None, below)), notes)


class Measure(NamedTuple):
    """A column of a table as data: the values of one metric.

    metric: the key of its row in the numbers of a line. head: see `Column`. interval: whether the
    95 % interval stands beside; with "known" it is left out where no line knows its own. percent:
    whether values are shares. best: "most" or "least" to point these out, of the column, or of each
    line among all columns that ask for it. optional: left out where no line knows a value. cell:
    how a row, which may be empty, is written where a number is not enough.
    """

    name: str
    metric: Any
    head: str = ""
    interval: bool | Literal["known"] = False
    percent: bool = True
    digits: int | None = None
    best: Literal["most", "least", "most of line", "least of line", ""] = ""
    optional: bool = False
    cell: Callable[[Mapping[str, Any]], Cell] | None = None

    def of(self, numbers: Numbers) -> dict[str, Any]:
        """Its cells of one line: the value, and the interval beside it."""
        row = numbers.get(self.metric, {})
        value = self.cell(row) if self.cell else row.get("value")
        if not self.interval:
            return {self.name: value}
        between = interval_cell(row, None if self.percent else self.digits)
        return {self.name: value, interval_of(self.name): between}


def measures_of(names: ShortNames, **how: Any) -> list[Measure]:
    """A column for each backbone, of the row that numbers have by its name; how: see `Measure`."""
    return [Measure(column, name, **how) for name, column in names.columns.items()]


Numbers = Mapping[Any, Mapping[str, Any]]  # rows of results by metric, or by what else they are of
Line = tuple[Mapping[str, Any], Numbers]  # what it is about, and other cells; its numbers


def measures_table(
    lines: Sequence[Line], columns: Sequence[Measure | str], fair: int | None = None, **about: Any
) -> Table:
    """A pivot of rows of results: a column for each measure; `about` as `table_of` has it.

    columns: other cells have their place in it by name, or come first. fair: how many lines, the
    first ones, are compared for the best.
    """
    measures = [column for column in columns if isinstance(column, Measure)]
    rows = [_line(cells, numbers, columns) for cells, numbers in lines]
    if_known = {interval_of(it.name) for it in measures if it.interval == "known"}
    if_known |= {it.name for it in measures if it.optional}
    nothing = (None, UNKNOWN)
    unknown = {it for it in if_known if all(known(row[it]) in nothing for row in rows)}
    return table_of(
        [{name: cell for name, cell in row.items() if name not in unknown} for row in rows],
        percent=[it.name for it in measures if it.percent],
        digits={it.name: it.digits for it in measures if it.digits is not None},
        headers={it.name: it.head for it in measures if it.head} | about.pop("headers", {}),
        right=[*(it.name for it in measures), *about.pop("right", ())],
        best=_best(measures, [numbers for _, numbers in lines[:fair]]),
        **about,
    )


def _line(
    cells: Mapping[str, Any], numbers: Numbers, columns: Sequence[Measure | str]
) -> dict[str, Any]:
    line = {name: cell for name, cell in cells.items() if name not in columns}
    for column in columns:
        if isinstance(column, Measure):
            line |= column.of(numbers)
        elif column in cells:
            line[column] = cells[column]
    return line


def _best(measures: Sequence[Measure], lines: Sequence[Numbers]) -> Best:
    """The cells with the largest number of each column or line, or the least; all of equal ones."""
    compared: dict[Any, dict[Place, float]] = {}
    for measure in filter(lambda it: it.best, measures):
        for at, numbers in enumerate(lines):
            value = known(numbers.get(measure.metric, {}).get("value"))
            one_of = at if measure.best.endswith("of line") else measure.name
            if value is not None:
                among = compared.setdefault((measure.best, one_of), {})
                among[at, measure.name] = value
    best: dict[Place, Collection[Place]] = {}
    for (kind, _), values in compared.items():
        end = (min if kind.startswith("least") else max)(values.values())
        best |= {place: values.keys() for place, value in values.items() if value == end}
    return best


def _values(table: pl.DataFrame | Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Of each column; whole numbers among others are numbers like them."""
    if isinstance(table, Sequence):
        names = dict.fromkeys(name for row in table for name in row)
        columns = {name: [row.get(name) for row in table] for name in names}
    else:
        columns = table.to_dict(as_series=False)
    for name, values in columns.items():
        if _is_numeric(values):
            whole = all(isinstance(value, Integral) for value in values if value is not None)
            kind = int if whole else float
            columns[name] = [None if value is None else kind(value) for value in values]
    return columns


def _is_numeric(values: Iterable[Any]) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and all(isinstance(it, Real) and not isinstance(it, bool) for it in there)


def interval_of(column: str) -> str:
    """The name of the column with the 95 % intervals of a column."""
    return f"95 % of {column}"


def _cells(values: list[Any], percent: bool, digits: int | None) -> tuple[Cell, ...]:
    """Cells in the unit that they are shown in."""
    if percent:
        values = [100 * value if isinstance(value, Real) else value for value in values]
        digits = 1 if digits is None else digits
    if digits is None:
        digits = _decimals(values)
    return tuple(_cell(value, digits) for value in values)


def _cell(value: Any, decimals: int) -> Cell:
    if isinstance(value, Cell):
        own = printable(value.value) if isinstance(value.value, str) else value.value
        return value._replace(text=printable(value.text), value=own)
    text = _text(value, decimals)
    return Cell(text, known(value) if isinstance(value, bool | int | float | None) else text)


def _text(value: Any, decimals: int) -> str:
    if known(value) is None:
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


def notes_beside(file: str) -> dict[str, str]:
    """What stands below tables, by name: ``notes.toml`` in the folder of a module."""
    return tomllib.loads(Path(file).with_name("notes.toml").read_text("utf-8"))


class Side(NamedTuple):
    """The measure on one side of the diagonal, and how its values are written."""

    metric: str
    cell: Callable[[float | None], Cell]


def pair_matrix(
    part: pl.DataFrame,
    names: ShortNames,
    *,
    above: Side,
    below: Side,
    diagonal: Mapping[str, Cell],
    title: str,
    note: str,
) -> Table:
    """A line and a column for each backbone; means over datasets.

    part: results, whose rows about a pair have both names in `backbones`, in any order. diagonal:
    the cell there for each name. note: stands below.
    """
    found: dict[tuple[str, frozenset[str]], list[float]] = {}
    for metric, pair, value in part.select("metric", "backbones", "value").iter_rows():
        if known(value) is not None:
            found.setdefault((metric, frozenset(pair)), []).append(value)
    lines = []
    for i, one in enumerate(names.short):
        line = {"backbone": names.cell(one)}
        for j, (other, column) in enumerate(names.columns.items()):
            side = below if j < i else above
            values = found.get((side.metric, frozenset((one, other))))
            mean = math.fsum(values) / len(values) if values else None
            line[column] = diagonal[one] if i == j else side.cell(mean)
        lines.append(line)
    return table_of(
        lines,
        title=title,
        names=names,
        right=list(names.heads),
        notes=f"{note}{_uneven(part, above.metric)}",
    )


def _uneven(part: pl.DataFrame, metric: str) -> str:
    """What to say where some datasets lack a pair."""
    counts = Counter(frozenset(pair) for pair in part.filter(metric=metric)["backbones"])
    if len(set(counts.values())) < 2:
        return ""
    return "\nA pair that some datasets lack: mean over the others."
