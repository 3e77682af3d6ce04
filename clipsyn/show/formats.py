"""The formats that tables are written in: text, Markdown, LaTeX; and tables in documents.

Names are text of others: nothing in one is read as Markdown or as HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipsyn.errors import UsageError
from clipsyn.show.table import Column, Table, Tables, one_line
from clipsyn.show.text import text_of

FORMATS = ("text", "markdown", "latex")


def written(shown: Mapping[str, Tables], format: str) -> str:
    """Tables by name in one of `FORMATS`; text is as wide as standard output is."""
    if format == "latex":
        from clipsyn.show.latex import latex_of

        return latex_of(shown)
    tables = tuple(table for some in shown.values() for table in some)
    return markdown_of(tables) if format == "markdown" else text_of(tables)


_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#~|$&]")
_LINK = re.compile(r"(?<=:)//|(?<=www)\.", re.IGNORECASE)  # which would become links by themselves
_BLOCK = re.compile(r"^(\s*)([-+=]|\d+(?=[.)]))", re.MULTILINE)  # which would begin a list
_TIES = "Bold: the best; in italics: as good as it in the digits shown."


def markdown_of(tables: Sequence[Table]) -> str:
    """Markdown as GitHub reads it: tables below each other, with their titles and notes."""
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


_SECTION = re.compile(
    r"(?P<start><!-- clipsyn: (?P<name>[^>]+?) -->\n).*?(?P<end><!-- clipsyn end -->)", re.DOTALL
)


def renew(document: Path, shown: Mapping[str, Tables]) -> list[str]:
    """Put the tables of each name, as text, between the marks with it; the rest stays as it is.

    Marks are ``<!-- clipsyn: NAME -->`` and ``<!-- clipsyn end -->``. Returns the names that have
    marks. Raises UsageError if the document cannot be read or has no mark for any of them.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"document {document} cannot be read: {error.strerror}") from None
    marked: list[str] = []

    def table(match: re.Match[str]) -> str:
        if match["name"] not in shown:
            return match[0]
        marked.append(match["name"])
        text = text_of(shown[match["name"]], terminal=False)
        return f"{match['start']}```text\n{text}\n```\n{match['end']}"

    renewed = _SECTION.sub(table, text)
    if not marked:
        raise UsageError(
            f"{document} has no mark for a table: write <!-- clipsyn: NAME --> and "
            f"<!-- clipsyn end --> where one of these is to stand: {'; '.join(shown)}"
        )
    if renewed != text:
        document.write_text(renewed, encoding="utf-8")
    return marked
