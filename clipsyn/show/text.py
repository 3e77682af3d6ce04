"""Tables as aligned text: nothing is cut off, and on a terminal they fit its width."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from clipsyn.show.layout import NOTE, Texts, broken, drawn, fitted, is_whole, width_of
from clipsyn.show.table import Column, Table, hyphened


def text_of(tables: Sequence[Table], *, terminal: bool | None = None) -> str:
    """Tables below each other, with their titles and notes.

    terminal: None asks standard output. See `clipsyn.show.layout` for what becomes of a table that
    is wider than the terminal; `layout.NOTE` stands below it.
    """
    terminal = sys.stdout.isatty() if terminal is None else terminal
    return "\n\n".join(_text(table, terminal) for table in tables)


def _text(table: Table, terminal: bool) -> str:
    lines = _lines(table, terminal) if table.columns or table.title else []
    lines += table.below
    return "\n\n".join(filter(None, ["\n".join(lines), table.notes]))


def _lines(table: Table, terminal: bool) -> list[str]:
    width = width_of(terminal)
    columns = [_texts(column) for column in table.columns]
    tables = fitted(columns, width)
    lines = [broken(table.title, width)] if table.title else []
    lines.append("\n\n".join(drawn(columns, terminal) for columns in tables))
    return lines if is_whole(columns, tables) else [*lines, NOTE]


def _texts(column: Column) -> Texts:
    texts = tuple(cell.text for cell in column.cells)
    return Texts(hyphened(column.head), texts, column.right, column.best)
