"""What a table is: numbers as text, in cells, in columns.

A table of clipsyn is made once, by `clipsyn.show.tables`, and written in several formats: see
`clipsyn.show.formats`. Numbers of cells have the units of their texts, unrounded, so that tables
can be sorted and read by programs. A number has the same text in all tables, and none is -0.00.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any, NamedTuple

from clipsyn.settings import FULL
from clipsyn.text import counted

NOTHING = "\N{EN DASH}"  # for null and NaN
Value = float | int | str | bool | None


class Cell(NamedTuple):
    """What stands in one place of a table."""

    text: str
    value: Value = None  # what the text says; None: it is not known, or the text says it all
    low: float | None = None  # of a 95 % interval
    high: float | None = None


UNKNOWN = Cell(NOTHING)


def number_cell(value: float | None, digits: int = 2) -> Cell:
    """A number, written as `clipsyn.show.table.number` does."""
    return Cell(number(value, digits), known(value))


def p_cell(value: float | None) -> Cell:
    """A p-value, written as `clipsyn.show.table.p_value` does."""
    return Cell(p_value(value), known(value))


def percent_cell(share: float | None, digits: int = 1) -> Cell:
    """A share as percent."""
    return Cell(percent(share, digits), None if share is None else known(100 * share))


def points_cell(difference: float | None, mark: str = "") -> Cell:
    """A difference of shares in points, with its sign, and a mark behind it: "+1.2="."""
    points = None if difference is None else known(100 * difference)
    return UNKNOWN if points is None else Cell(f"{round(points, 1) + 0.0:+.1f}{mark}", points)


def interval_cell(row: Mapping[str, Any], digits: int | None = None) -> Cell:
    """The 95 % interval of a row of results, as `interval_text` writes it; the row may be empty."""
    low, high = known(row.get("ci_low")), known(row.get("ci_high"))
    if low is None or high is None:
        return UNKNOWN
    scale = 100 if digits is None else 1
    return Cell(interval_text(low, high, digits), None, scale * low, scale * high)


def known(value: Any) -> Any:
    """The value, or None for NaN."""
    return None if isinstance(value, float) and isnan(value) else value


@dataclass(frozen=True)
class Column:
    """One column of a table.

    name: of the numbers, unlike those of all other columns. head: what stands above; it may have
    line breaks. best: rows; those that read the same are among them.
    interval_of: the name of the column whose intervals these are.
    """

    name: str
    head: str
    cells: tuple[Cell, ...]
    right: bool = False  # aligned, as numbers are
    best: frozenset[int] = frozenset()
    interval_of: str | None = None

    @property
    def line(self) -> str:
        """The head on one line."""
        return one_line(self.head)


@dataclass(frozen=True)
class Table:
    """One table with what it is about and what it means; without columns, a paragraph.

    below: sentences that belong to the numbers and stand right below them, each on a line of its
    own; it may have line breaks. notes: paragraphs that say how to read the numbers.
    """

    columns: tuple[Column, ...] = ()
    title: str = ""
    below: tuple[str, ...] = ()
    notes: str = ""

    def __len__(self) -> int:
        """Rows."""
        return len(self.columns[0].cells) if self.columns else 0

    @property
    def caption(self) -> str:
        """The title on one line."""
        parts = (" ".join(part.split()) for part in self.title.split("\n", 1))
        return " \N{MIDDLE DOT} ".join(filter(None, parts))


Tables = tuple[Table, ...]  # what one name stands for


class Shown(dict[str, Tables]):
    """Tables by name, which a notebook shows."""

    def _repr_markdown_(self) -> str:
        from clipsyn.show.formats import written

        return written(self, "markdown")


def paragraph(text: str) -> Table:
    return Table(notes=text)


def one_line(head: str) -> str:
    """A head without its line breaks: a name that went on is whole again."""
    line = ""
    for part in head.split("\n"):
        line += part if line.endswith(("-", "_", "/")) or not line else f" {part}"
    return " ".join(line.split())


def wrapped(name: str, width: int, after: str = "-") -> str:
    """A long name on several lines, broken after hyphens: for the head of a narrow column."""
    lines = [""]
    for part in re.findall(rf"[^{after}]*[{after}]|[^{after}]+", name):
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals; `NOTHING` for null and NaN."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}"


def p_value(value: float | None) -> str:
    """A p-value with three decimals; "<0.001" below, however far."""
    return "<0.001" if value is not None and value < 0.001 else number(value, 3)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as percent, without the sign."""
    return number(None if share is None else 100 * share, digits)


def interval_text(low: float | None, high: float | None, digits: int | None = None) -> str:
    """Two shares as percent, or two numbers with `digits`; `NOTHING` where one is not known.

    Percents have an en dash between them, or "to" where the first is negative: "-1.2 to 3.4".
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return NOTHING
    if digits is not None:
        return f"{number(low, digits)} to {number(high, digits)}"
    between = " to " if low < 0 else "\N{EN DASH}"
    return f"{100 * low:.1f}{between}{100 * high:.1f}"


def points(row: Mapping[str, Any]) -> str:
    """A gain with its 95 % interval: "+3.1 points (-0.2 to 4.9)"."""
    between = interval_text(row["ci_low"], row["ci_high"])
    return f"{100 * row['value']:+.1f} points ({between})"


def shots_text(shots: str) -> str:
    """ "16 shots", or "the whole support" for "full"."""
    return "the whole support" if shots == FULL else counted(int(shots), "shot")


# means over datasets, as tables and sentences have them

Ends = tuple[float, float | None, float | None]  # a value, and the ends of its interval


class Mean(NamedTuple):
    """A mean over datasets. low, high: None where the interval of any dataset is not known."""

    value: float
    low: float | None
    high: float | None
    datasets: int

    @property
    def is_sure(self) -> bool:
        """Whether its interval leaves 0 out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def percent(self) -> str:
        return percent(self.value)

    @property
    def interval(self) -> str:
        """In percent; empty where it is not known."""
        between = interval_text(self.low, self.high)
        return "" if between == NOTHING else between


def mean_of(rows: Iterable[Ends]) -> Mean | None:
    """Of the numbers of each dataset; those without a value are left out, None if all are.

    The interval is that of a mean of independent numbers: the distances from the value to its
    bounds add up as squares. Of one dataset it is that dataset's.
    """
    there = [row for row in rows if known(row[0]) is not None]
    if not there:
        return None
    values, *ends = zip(*there, strict=True)
    count, value = len(there), math.fsum(values) / len(there)
    below, above = (_distance(values, bounds) for bounds in ends)
    low = None if below is None else value - below / count
    high = None if above is None else value + above / count
    return Mean(value, low, high, count)


def _distance(values: Iterable[float], bounds: Iterable[float | None]) -> float | None:
    pairs = list(zip(values, map(known, bounds), strict=True))
    if any(bound is None for _, bound in pairs):
        return None
    return math.hypot(*(value - bound for value, bound in pairs))
