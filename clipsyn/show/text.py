"""Tables as aligned text: nothing is cut off, and on a terminal they fit its width.

A table that is too wide is narrowed in this order, only as far as it must be: heads take several
lines; texts take several lines; the table becomes several, each of which begins with the columns
that name the rows. Files and pipes have no width, so tables in them are never narrowed.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from textwrap import wrap
from typing import Literal

from clipsyn.show.table import Column, Table, hyphened
from clipsyn.text import cells, cut

GAP = 2  # spaces between columns
_LEAST = 40  # characters of the narrowest terminal that tables are fitted to
_LONG = 20  # characters; longer texts may take several lines
_NARROW = 9  # characters of a head that stays on one line


def text_of(tables: Sequence[Table], *, terminal: bool | None = None) -> str:
    """Tables below each other, with their titles and notes.

    terminal: None asks standard output.
    """
    terminal = sys.stdout.isatty() if terminal is None else terminal
    return "\n\n".join(_text(table, terminal) for table in tables)


def _text(table: Table, terminal: bool) -> str:
    width = width_of(terminal)
    lines = [broken(table.title, width)] if table.title else []
    if table.columns or table.title:
        parts = fitted([Texts.of(column) for column in table.columns], width)
        lines.append("\n\n".join(drawn(columns, terminal) for columns in parts))
    return "\n\n".join(filter(None, ["\n".join([*lines, *table.below]), table.notes]))


@dataclass(frozen=True)
class Texts:
    """One column of a table, as text."""

    head: str
    texts: tuple[str, ...]
    right: bool  # aligned, as numbers are
    bold: frozenset[int] = frozenset()  # rows
    most: int | None = None  # characters, beyond which texts take several lines

    @classmethod
    def of(cls, column: Column) -> Texts:
        texts = tuple(cell.text for cell in column.cells)
        return cls(hyphened(column.head), texts, column.right, column.best)

    @property
    def body(self) -> int:
        return max(map(cells, self.texts), default=0)

    @property
    def width(self) -> int:
        return min(max(cells(self.head), self.body), self.most or sys.maxsize)

    @property
    def least(self) -> int:
        return self.width if self.right else min(self.width, max(cells(self.head), _LONG))


def width_of(terminal: bool | None) -> int | None:
    """Characters of a line; None for as many as there are. terminal: None asks standard output."""
    if not (sys.stdout.isatty() if terminal is None else terminal):
        return None
    return max(_LEAST, shutil.get_terminal_size().columns)


def fitted(columns: Sequence[Texts], width: int | None) -> list[list[Texts]]:
    """The columns within a width, as one table or as several."""
    if width is None or _total(columns) <= width:
        return [list(columns)]
    columns = [replace(column, head=_narrow_head(column)) for column in columns]
    spare = width - _gaps(columns) - sum(column.least for column in columns)
    if spare >= 0:
        wanted = _shares([column.width - column.least for column in columns], spare)
        pairs = zip(columns, wanted, strict=True)
        return [[replace(column, most=column.least + more) for column, more in pairs]]
    return _split(columns, width)


def drawn(columns: Sequence[Texts], terminal: bool) -> str:
    """The columns side by side, with a rule below their heads; bold cells on a terminal only."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style=""
    )
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.head, justify=justify, max_width=column.most, overflow="fold")
    for row, texts in enumerate(zip(*(column.texts for column in columns), strict=True)):
        styles = ("bold" if row in column.bold else "" for column in columns)
        table.add_row(*(Text(*pair) for pair in zip(texts, styles, strict=True)))
    console = Console(
        file=StringIO(),
        width=100_000,
        force_terminal=terminal,
        color_system="standard" if terminal else None,
        highlight=False,
        markup=False,  # [red] in a name is no colour
        legacy_windows=False,
    )
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().rstrip("\n").split("\n")]
    rule = "─" * _total(columns)  # rich before 15 draws it one longer
    return "\n".join(rule if line.startswith(rule) else line for line in lines)


def paragraphs(text: str, width: int | None) -> str:
    """A text whose long lines are broken between words; the line after one continues it."""
    return text if width is None else "\n".join(_reflowed(iter(text.split("\n")), width))


def broken(text: str, width: int | None) -> str:
    """A text with line breaks between words where it is wider than that."""
    return text if width is None else "\n".join(cut(line, width) for line in _words(text, width))


def _reflowed(lines: Iterator[str], width: int) -> Iterator[str]:
    long: list[str] = []
    for line in lines:
        is_long = cells(line) > width
        if is_long or (long and line):
            long.append(line)
        if not is_long:
            yield from _words(" ".join(long), width) if long else ()
            if not (long and line):
                yield line
            long = []
    yield from _words(" ".join(long), width) if long else ()


def _split(columns: Sequence[Texts], width: int) -> list[list[Texts]]:
    """Several tables: each has the first columns, which name the rows, and some of the others."""
    count = max(1, next((place for place, it in enumerate(columns) if it.right), 0))
    others = columns[count:]
    room = max(width // 2, width - _total(others) - GAP if others else width)
    shares = _shares([column.width for column in columns[:count]], room - _gaps(columns[:count]))
    names = [replace(it, most=most) for it, most in zip(columns[:count], shares, strict=True)]
    tables = [names]
    for column in others:
        narrow = replace(column, most=width - _total(names) - GAP)
        if _total([*tables[-1], narrow]) > width:
            tables.append(names)
        tables[-1] = [*tables[-1], narrow]
    return tables


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """Shares of the room: what each wants, or as much as every other that wants more gets."""
    shares = [0] * len(wanted)
    for done, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[index] = min(wanted[index], room // (len(wanted) - done))
        room -= shares[index]
    return shares


def _narrow_head(column: Texts) -> str:
    width = max(_NARROW, column.body)
    return "\n".join(wrapped(line, width, "-_/ ") for line in column.head.split("\n"))


def wrapped(name: str, width: int, after: str = "-") -> str:
    """A long name on several lines, broken after hyphens: for the head of a narrow column."""
    lines = [""]
    for part in re.findall(rf"[^{after}]*[{after}]|[^{after}]+", name):
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _words(text: str, width: int) -> list[str]:
    """Lines of whole words; a number keeps its per cent sign."""
    lines = (
        wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
        for line in text.replace(" %", "\N{NO-BREAK SPACE}%").split("\n")
    )
    return [line.replace("\N{NO-BREAK SPACE}%", " %") for some in lines for line in some]


def _total(columns: Sequence[Texts]) -> int:
    return sum(column.width for column in columns) + _gaps(columns)


def _gaps(columns: Sequence[Texts]) -> int:
    return GAP * (len(columns) - 1)
