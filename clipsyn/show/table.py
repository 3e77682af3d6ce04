"""What a table is: cells with their numbers and how these are written, in columns.

A table of clipsyn is made once, by `clipsyn.show.tables.table_of`, and written in several formats:
see `clipsyn.show.formats`. Numbers of cells have the units of their texts, unrounded, so that
tables can be sorted and read by programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any, NamedTuple

from clipsyn.show.numbers import NOTHING, interval, number, p_value, percent

Value = float | int | str | bool | None
SOFT_HYPHEN = "\N{SOFT HYPHEN}"  # before a line break in a head: where a word goes on


class Cell(NamedTuple):
    """What stands in one place of a table."""

    text: str
    value: Value = None  # what the text says; None: it is not known, or the text says it all
    low: float | None = None  # of a 95 % interval
    high: float | None = None


UNKNOWN = Cell(NOTHING)


def number_cell(value: float | None, digits: int = 2) -> Cell:
    """A number, written as `clipsyn.show.numbers.number` does."""
    return Cell(number(value, digits), known(value))


def p_cell(value: float | None) -> Cell:
    """A p-value, written as `clipsyn.show.numbers.p_value` does."""
    return Cell(p_value(value), known(value))


def percent_cell(share: float | None, digits: int = 1) -> Cell:
    """A share as percent."""
    return Cell(percent(share, digits), None if share is None else known(100 * share))


def interval_cell(row: Mapping[str, Any], digits: int | None = None) -> Cell:
    """The 95 % interval of a row of results, as `clipsyn.show.numbers.interval` writes it."""
    low, high = known(row.get("ci_low")), known(row.get("ci_high"))
    if low is None or high is None:
        return UNKNOWN
    scale = 100 if digits is None else 1
    return Cell(interval(row, digits), None, scale * low, scale * high)


def known(value: Any) -> Any:
    """The value, or None for NaN."""
    return None if isinstance(value, float) and isnan(value) else value


@dataclass(frozen=True)
class Column:
    """One column of a table.

    name: of the numbers, unlike those of all other columns. head: what stands above; it may have
    line breaks, and `SOFT_HYPHEN` before them. label: the head where there is room and a meaning
    must not be lost: on one line, in full and unlike all others. interval_of: the name of the
    column whose intervals these are.
    """

    name: str
    head: str
    label: str
    cells: tuple[Cell, ...]
    right: bool = False  # aligned, as numbers are
    best: frozenset[int] = frozenset()  # rows
    tied: frozenset[int] = frozenset()  # rows that cannot be told from the best
    interval_of: str | None = None

    @property
    def has_ends(self) -> bool:
        """Whether any cell has the ends of an interval."""
        return any(cell.low is not None for cell in self.cells)

    @property
    def is_interval(self) -> bool:
        """Whether its cells are intervals and nothing else."""
        alone = self.has_ends and all(cell.value is None for cell in self.cells)
        return alone or self.interval_of is not None


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

    @property
    def has_ties(self) -> bool:
        return any(column.tied for column in self.columns)


Tables = tuple[Table, ...]  # what one name stands for


def paragraph(text: str) -> Table:
    return Table(notes=text)


def one_line(head: str) -> str:
    """A head without its line breaks: a word or a name that went on is whole again."""
    line = ""
    for part in head.split("\n"):
        if line.endswith(SOFT_HYPHEN):
            line = line.removesuffix(SOFT_HYPHEN) + part
        elif line.endswith(("-", "_", "/")) or not line:
            line += part
        else:
            line = f"{line} {part}"
    return " ".join(line.split())


def hyphened(head: str) -> str:
    """A head with its line breaks, and a hyphen where a word goes on."""
    return head.replace(f"{SOFT_HYPHEN}\n", "-\n")
