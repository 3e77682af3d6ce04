"""Tables for papers: LaTeX with booktabs.

The best is bold, what ties with it underlined, and intervals stand in brackets behind their
numbers. A table that is wider than the text is scaled to its width: only TeX knows both. Names are
text of others: nothing in one is read as a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from clipsyn.show.table import NOTHING, Cell, Column, Table, Tables, hyphened, number, one_line

_BARS = {bar: rf"\rule{{0.3em}}{{{(n + 1) / 5:g}ex}}\," for n, bar in enumerate("▁▂▃▄▅▆▇█")}
_SPECIAL: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "`": r"\char96{}",
    "[": "{[}",  # after the end of a row it would be a distance
    "]": "{]}",
    "*": "{*}",  # after the end of a row it would be a command
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{MIDDLE DOT}": r"\textperiodcentered{}",
    "\N{BLACK CIRCLE}": r"\textbullet{}",
    "\N{GREEK SMALL LETTER THETA}": r"$\theta$",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{NO-BREAK SPACE}": "~",
    **_BARS,
}
_DASHES = r"[-\N{EN DASH}\N{EM DASH}]"
# between two signs that would be one
_LIGATURES = re.compile(rf"(?<={_DASHES})(?={_DASHES})|(?<=,)(?=,)|(?<=')(?=')")
_NUMBER = re.compile(r"([+-]?)([\d.,]+)([*=]?)")
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")
_TIES = r"Bold: the best; underlined: as good as it in the digits shown."
_PREAMBLE = r"% \usepackage{adjustbox,booktabs}"


def latex_of(shown: Mapping[str, Tables]) -> str:
    """A `table` for each, with its title as the caption, its notes below and its name above it."""
    parts = (_remark(name) + _float(table) for name, tables in shown.items() for table in tables)
    return "\n\n".join([_PREAMBLE, *parts])


def escaped(text: str) -> str:
    """Text that is read as itself, in a table or in a sentence."""
    apart = _LIGATURES.split(text)
    return "{}".join("".join(_SPECIAL.get(sign, sign) for sign in part) for part in apart)


class _Group(NamedTuple):
    """Columns that share a head: one, or numbers with their intervals behind them."""

    numbers: Column
    intervals: Column | None = None

    @property
    def kind(self) -> str:
        if self.intervals:
            return "r@{ }l"
        return "r" if self.numbers.right else "l"

    @property
    def head(self) -> str:
        text = _stacked(self.numbers)
        return rf"\multicolumn{{2}}{{c}}{{{text}}}" if self.intervals and text else text

    def cells(self, row: int) -> list[str]:
        column, cell = self.numbers, self.numbers.cells[row]
        cells = [_bracket(cell) if column.is_interval else _number(column, row)]
        return cells if self.intervals is None else [*cells, _bracket(self.intervals.cells[row])]


def _remark(name: str) -> str:
    return f"% {name}\n" if name else ""


def _float(table: Table) -> str:
    sentences = [escaped(" ".join(text.split())) for text in table.below]
    notes = [*filter(None, ["\\\\\n".join(sentences), escaped(table.notes)])]
    if not table.columns:
        return "\n\n".join(notes)
    groups = _groups(table.columns)
    notes += _brackets(group.intervals for group in groups if group.intervals)
    notes += [_TIES] if table.has_ties else []
    lines = [r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{escaped(table.caption)}}}"] if table.caption else []
    lines += [r"\begin{adjustbox}{max width=\linewidth}", *_tabular(groups, len(table))]
    lines += [r"\end{adjustbox}"]
    if notes:
        lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize"]
        lines += ["\n\n".join(notes), r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"])


def _brackets(intervals: Iterable[Column]) -> list[str]:
    """What stands in brackets, for want of a head above it."""
    heads = dict.fromkeys(one_line(column.head) for column in intervals)
    said = ", ".join("95 % intervals" if head == "95 %" else head for head in heads)
    return [f"In brackets: {escaped(said)}."] if said else []


def _tabular(groups: Sequence[_Group], rows: int) -> Iterable[str]:
    yield rf"\begin{{tabular}}{{{''.join(group.kind for group in groups)}}}"
    yield r"\toprule"
    yield _row(group.head for group in groups)
    yield r"\midrule"
    for row in range(rows):
        yield _row(cell for group in groups for cell in group.cells(row))
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _row(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _groups(columns: Sequence[Column]) -> list[_Group]:
    groups: list[_Group] = []
    for column in columns:
        last = groups[-1] if groups else None
        if last and column.interval_of == last.numbers.name:
            groups[-1] = _Group(last.numbers, column)
        else:
            groups.append(_Group(column))
    return groups


def _stacked(column: Column) -> str:
    """A head with its line breaks."""
    lines = [escaped(" ".join(line.split())) for line in hyphened(column.head).split("\n")]
    if len(lines) == 1:
        return lines[0]
    side, stack = "r" if column.right else "l", r"\\".join(lines)
    return rf"\shortstack[{side}]{{{stack}}}"


def _number(column: Column, row: int) -> str:
    cell = column.cells[row]
    text = _text(cell)
    marks: dict[str, frozenset[int]] = {"textbf": column.best, "underline": column.tied}
    return next((rf"\{mark}{{{text}}}" for mark, rows in marks.items() if row in rows), text)


def _text(cell: Cell) -> str:
    """A minus sign is longer than a hyphen; a mark stands above."""
    text = " ".join(cell.text.split())
    if not isinstance(cell.value, int | float):  # names may look like numbers
        return escaped(text)
    alone = _NUMBER.fullmatch(text)
    if alone is None:
        return "$-$".join(map(escaped, _MINUS.split(text)))
    sign, digits, mark = alone.groups()
    return f"{f'${sign}$' if sign else ''}{digits}{_above(mark) if mark else ''}"


def _above(mark: str) -> str:
    return f"$^{{{mark}}}$"


def _bracket(cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return "" if cell.text == NOTHING else _text(cell)
    digits = _decimals(cell.text)
    low, high = (_text(Cell(number(end, digits), end)) for end in (cell.low, cell.high))
    return f"[{low}, {high}]"


def _decimals(text: str) -> int:
    """Of the last number of a text."""
    return len(re.split(r"\D", text)[-1]) if "." in text else 0
