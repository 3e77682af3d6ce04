"""Tables as Markdown, as GitHub and most other readers know it: a line a row, bars between cells.

Names are text of others: nothing in one is read as Markdown or as HTML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clipsyn.show.table import Column, Table, one_line

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#~|$&]")
_LINK = re.compile(r"(?<=:)//|(?<=www)\.", re.IGNORECASE)  # which would become links by themselves
_BLOCK = re.compile(r"^(\s*)([-+=]|\d+(?=[.)]))", re.MULTILINE)  # which would begin a list
_TIES = "Bold: the best; in italics: as good as it in the digits shown."


def markdown_of(tables: Sequence[Table]) -> str:
    """Tables below each other, with their titles and notes."""
    return "\n\n".join(part for table in tables for part in _parts(table))


def escaped(text: str) -> str:
    """Text that is read as itself."""
    return _LINK.sub(lambda match: f"\\{match[0]}", _SPECIAL.sub(r"\\\g<0>", text))


def _parts(table: Table) -> list[str]:
    parts = [f"**{escaped(table.caption)}**"] if table.caption else []
    parts += [_grid(table.columns)] if table.columns else []
    parts += ["\\\n".join(_prose(" ".join(it.split())) for it in table.below)]
    parts += [_prose(table.notes), _TIES if table.has_ties else ""]
    return [part for part in parts if part]


def _prose(text: str) -> str:
    return _BLOCK.sub(_not_a_list, escaped(text))


def _grid(columns: Sequence[Column]) -> str:
    heads = [escaped(one_line(column.head)) for column in columns]
    rules = ["---:" if column.right else "---" for column in columns]
    rows = zip(*map(_texts, columns), strict=True)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows))


def _texts(column: Column) -> list[str]:
    return [_text(column, row) for row in range(len(column.cells))]


def _text(column: Column, row: int) -> str:
    text = escaped(" ".join(column.cells[row].text.split()))
    marks = {"**": column.best, "*": column.tied}
    return next((f"{mark}{text}{mark}" for mark, rows in marks.items() if row in rows), text)


def _not_a_list(match: re.Match[str]) -> str:
    space, mark = match.groups()
    return f"{space}{mark}\\" if mark.isdecimal() else f"{space}\\{mark}"
