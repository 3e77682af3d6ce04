"""The formats that tables are written in: text, Markdown, CSV, LaTeX; and tables in documents.

Names are text of others: nothing in one is read as Markdown or as HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipsyn.errors import UsageError
from clipsyn.show.table import NOTHING, Cell, Column, Table, Tables, Value, one_line
from clipsyn.show.text import text_of

FORMATS = ("text", "markdown", "latex", "csv")
BENCHMARK = "clip-benchmark"  # of numbers, not of tables: see clipsyn.evaluation.results.benchmark


def written(shown: Mapping[str, Tables], format: str) -> str:
    """Tables by name in one of `FORMATS`; text is as wide as standard output is."""
    if format == "latex":
        from clipsyn.show.latex import latex_of

        return latex_of(shown)
    if format == "csv":
        return csv_of(shown)
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


def csv_of(shown: Mapping[str, Tables]) -> str:
    """CSV for spreadsheets and programs: numbers in the unit of the table, whole names.

    Every table with its head, an empty line between; titles and notes stay out.

    Tables that have a name begin with two columns more: `table` is the name, `about` the title.
    """
    parts = (_csv(name, *pair) for name, tables in shown.items() for pair in _titled(tables))
    return "\n".join(parts).rstrip("\n")


def _titled(tables: Sequence[Table]) -> Iterator[tuple[Table, str]]:
    """Tables and what they are about: one without a title continues the one before it."""
    about = ""
    for table in tables:
        about = table.caption or about
        if table.columns:
            yield table, about


def _csv(name: str, table: Table, about: str) -> str:
    import polars as pl  # not for every start of a command

    from clipsyn.show.frames import guarded

    columns: dict[str, list[Any]] = {}
    if name:
        columns = {"table": [name] * len(table), "about": [about] * len(table)}
    labels = {column.name: column.label for column in table.columns}
    for column in table.columns:
        columns |= _values(column, labels)
    series = [pl.Series(label, values, strict=False) for label, values in columns.items()]
    return guarded(pl.DataFrame(series)).write_csv()


def _values(column: Column, labels: Mapping[str, str]) -> dict[str, list[Any]]:
    """The values of a column by its label; an interval becomes two columns."""
    if column.is_interval:
        return _ends(column, labels.get(column.interval_of or "", column.label))
    ends = _ends(column, column.label) if column.has_ends else {}
    return {column.label: _numbers_or_texts(column), **ends}


def _ends(column: Column, label: str) -> dict[str, list[Any]]:
    return {
        f"{label} low": [_number(cell.low) for cell in column.cells],
        f"{label} high": [_number(cell.high) for cell in column.cells],
    }


def _numbers_or_texts(column: Column) -> list[Any]:
    values = [_number(cell.value) for cell in column.cells]
    if any(isinstance(value, str) for value in values) or all(value is None for value in values):
        return [_whole_text(cell) for cell in column.cells]
    return values


def _number(value: Value) -> Value:
    """With twelve digits: 28.5, not 28.499999999999996, for what was a fraction."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _whole_text(cell: Cell) -> str | None:
    text = " ".join((cell.value if isinstance(cell.value, str) else cell.text).split())
    return None if text in ("", NOTHING) else text


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
