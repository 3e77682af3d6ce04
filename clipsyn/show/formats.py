"""The formats that tables are written in: text, Markdown, LaTeX; and tables in documents.

As text nothing is cut off, and on a terminal tables fit its width: heads take several lines, then
texts, then the table becomes several, each of which begins with the columns that name the rows.
Files and pipes have no width. Names are text of others: nothing in one is read as Markdown, as HTML
or as a command of TeX.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap

from clipsyn.errors import UsageError
from clipsyn.show.table import Cell, Column, Table, Tables, wrapped
from clipsyn.text import cells, cut

_GAP = 2  # spaces between columns
_LEAST = 40  # characters of the narrowest terminal that tables are fitted to
_LONG = 20  # characters; longer texts may take several lines
_NARROW = 9  # characters of a head that stays on one line
_WORD = 20  # letters of a word in a head that stay together, or numbers would have no room


def written(shown: Mapping[str, Tables], format: str) -> str:
    """Tables by name as "text", which is as wide as standard output is, "markdown" or "latex"."""
    if format == "latex":
        return latex_of(shown)
    tables = tuple(table for some in shown.values() for table in some)
    return markdown_of(tables) if format == "markdown" else text_of(tables)


# text


def text_of(tables: Sequence[Table], *, terminal: bool | None = None) -> str:
    """Tables below each other, with their titles and notes.

    terminal: None asks standard output.
    """
    terminal = sys.stdout.isatty() if terminal is None else terminal
    return "\n\n".join(_text(table, width_of(terminal)) for table in _noted_once(tables))


def _noted_once(tables: Sequence[Table]) -> Iterator[Table]:
    """A note that the next table has, too, stands below that one alone."""
    for table, after in zip_longest(tables, tables[1:]):
        yield replace(table, notes="") if after and after.notes == table.notes else table


def width_of(terminal: bool | None) -> int | None:
    """Characters of a line; None for as many as there are. terminal: None asks standard output."""
    if not (sys.stdout.isatty() if terminal is None else terminal):
        return None
    return max(_LEAST, shutil.get_terminal_size().columns)


def _text(table: Table, width: int | None) -> str:
    lines = ["\n".join(_words(table.title, width))] if table.title else []
    if table.columns:
        parts = _fitted(table.columns, width)
        lines.append("\n\n".join(_drawn(columns, width) for columns in parts))
    return "\n\n".join(filter(None, ["\n".join([*lines, *table.below]), table.notes]))


def _fitted(columns: Sequence[Column], width: int | None) -> list[Sequence[Column]]:
    """The columns within a width, as one table or as several: the first columns name the rows."""
    if width is None or _total(map(_wide, columns)) <= width:
        return [columns]
    columns = [replace(column, head=_narrow_head(column)) for column in columns]
    count = max(1, next((at for at, column in enumerate(columns) if column.right), len(columns)))
    share = max(_NARROW, width // (2 * count))
    least = [
        wide if column.right else min(wide, share if at < count else _LONG)
        for at, (column, wide) in enumerate(zip(columns, map(_wide, columns), strict=True))
    ]
    names, taken = columns[:count], _total(least[:count])
    parts, room = [[*names]], width - taken
    for at in range(count, len(columns)):
        needed = least[at] + _GAP
        if columns[at].name in (of.interval_of for of in columns[at + 1 : at + 2]):
            needed += least[at + 1] + _GAP  # a number stays beside its interval
        if room < needed and len(parts[-1]) > count and not columns[at].interval_of:
            parts.append([*names])
            room = width - taken
        parts[-1].append(columns[at])
        room -= least[at] + _GAP
    return [*parts]


def _wide(column: Column) -> int:
    return max(cells(column.head), *(cells(cell.text) for cell in column.cells), 0)


def _total(widths: Iterable[int]) -> int:
    every = [*widths]
    return sum(every) + _GAP * (len(every) - 1)


def _narrow_head(column: Column) -> str:
    body = max((cells(cell.text) for cell in column.cells), default=0)
    lines = re.sub(rf"([^-_/\s]{{{_WORD}}})(?=[^-_/\s])", r"\1\n", column.head).split("\n")
    return "\n".join(wrapped(line, max(_NARROW, body), "-_/ ") for line in lines)


def _drawn(columns: Sequence[Column], width: int | None) -> str:
    """The columns side by side, with a rule below their heads; bold cells on a terminal only."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style=""
    )
    for column in columns:
        table.add_column(
            column.head,
            justify="right" if column.right else "left",
            no_wrap=column.right,
            overflow="fold",
        )
    for row in range(len(columns[0].cells)):
        styles = ("bold" if row in column.best else "" for column in columns)
        texts = (column.cells[row].text for column in columns)
        table.add_row(*map(Text, texts, styles))
    console = Console(
        file=StringIO(),
        width=width or 100_000,
        force_terminal=width is not None,
        color_system=None if width is None else "standard",
        highlight=False,
        markup=False,  # [red] in a name is no colour
        legacy_windows=False,
    )
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().rstrip("\n").split("\n")]
    rule = next(at for at, line in enumerate(lines) if line and not line.strip("─"))
    lines[rule] = "─" * max(cells(line) for at, line in enumerate(lines) if at != rule)
    return "\n".join(lines)


def paragraphs(text: str, width: int | None) -> str:
    """A text whose long lines are broken between words; the line after one continues it."""
    return text if width is None else "\n".join(_reflowed(iter(text.split("\n")), width))


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


def _words(text: str, width: int | None) -> list[str]:
    """Lines of whole words; a number keeps its per cent sign."""
    if width is None:
        return [text]
    bound = text.replace(" %", "\N{NO-BREAK SPACE}%").split("\n")
    lines = (
        wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""] for line in bound
    )
    return [
        cut(line.replace("\N{NO-BREAK SPACE}%", " %"), width) for some in lines for line in some
    ]


# Markdown as GitHub reads it

_MARKS = re.compile(r"[\\`*_{}\[\]<>#~|$&]")
_BLOCK = re.compile(r"^(\s*\d*)([-+=.)])", re.MULTILINE)  # which would begin a list
_LINK = re.compile(r"(?<=:)//|(?<=www)\.", re.IGNORECASE)  # which would become links by themselves


def markdown_of(tables: Sequence[Table]) -> str:
    """Tables below each other, with their titles and notes."""
    parts = (part for table in _noted_once(tables) for part in _markdown(table))
    return "\n\n".join(filter(None, parts))


def escaped(text: str) -> str:
    """Text that Markdown reads as itself."""
    return _LINK.sub(r"\\\g<0>", _MARKS.sub(r"\\\g<0>", text))


def _markdown(table: Table) -> Iterator[str]:
    if table.caption:
        yield f"**{escaped(table.caption)}**"
    if table.columns:
        heads = [escaped(column.line) for column in table.columns]
        rules = ["---:" if column.right else "---" for column in table.columns]
        rows = _rows(table, lambda cell: escaped(" ".join(cell.text.split())), "**{}**")
        yield "\n".join(f"| {' | '.join(texts)} |" for texts in (heads, rules, *rows))
    yield "\\\n".join(_prose(" ".join(it.split())) for it in table.below)
    yield _prose(table.notes)


def _rows(table: Table, text: Callable[[Cell], str], best: str) -> Iterator[list[str]]:
    for row in range(len(table)):
        texts = [(column, text(column.cells[row])) for column in table.columns]
        yield [best.format(it) if row in column.best else it for column, it in texts]


def _prose(text: str) -> str:
    return _BLOCK.sub(r"\1\\\2", escaped(text))


# LaTeX with booktabs

_SIGNS: Mapping[str, str] = {
    **{sign: rf"\{sign}" for sign in "{}%&$#_"},
    "\\": r"\textbackslash{}",
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
    **{bar: rf"\rule{{0.3em}}{{{(n + 1) / 5:g}ex}}\," for n, bar in enumerate("▁▂▃▄▅▆▇█")},
}
_DASHES = r"[-\N{EN DASH}\N{EM DASH}]"
# between two signs that would be one
_LIGATURES = re.compile(rf"(?<={_DASHES})(?={_DASHES})|(?<=,)(?=,)|(?<=')(?=')")
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def latex_of(shown: Mapping[str, Tables]) -> str:
    """A `table` for each, with its title as the caption, its notes below and its name above it.

    One that is wider than the text is scaled to its width: only TeX knows both.
    """
    parts = (
        (f"% {name}\n" if name else "") + _latex(table)
        for name, tables in shown.items()
        for table in tables
    )
    return "\n\n".join([r"% \usepackage{adjustbox,booktabs}", *parts])


def in_tex(text: str) -> str:
    """Text that TeX reads as itself, in a table or in a sentence."""
    apart = _LIGATURES.split(text)
    return "{}".join("".join(_SIGNS.get(sign, sign) for sign in part) for part in apart)


def _latex(table: Table) -> str:
    sentences = "\\\\\n".join(in_tex(" ".join(text.split())) for text in table.below)
    notes = "\n\n".join(filter(None, [sentences, in_tex(table.notes)]))
    if not table.columns:
        return notes
    kinds = "".join("r" if column.right else "l" for column in table.columns)
    rows = _rows(table, _tex, r"\textbf{{{}}}")
    lines = [r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{in_tex(table.caption)}}}"] if table.caption else []
    lines += [r"\begin{adjustbox}{max width=\linewidth}", rf"\begin{{tabular}}{{{kinds}}}"]
    lines += [r"\toprule", _tex_row(map(_tex_head, table.columns)), r"\midrule"]
    lines += [*map(_tex_row, rows), r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}"]
    if notes:
        lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize"]
        lines += [notes, r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"])


def _tex_row(texts: Iterable[str]) -> str:
    return rf"{' & '.join(texts)} \\"


def _tex_head(column: Column) -> str:
    """A head with its line breaks."""
    lines = [in_tex(" ".join(line.split())) for line in column.head.split("\n")]
    side, stack = "r" if column.right else "l", r"\\".join(lines)
    return rf"\shortstack[{side}]{{{stack}}}" if len(lines) > 1 else stack


def _tex(cell: Cell) -> str:
    """A minus sign is longer than a hyphen; names may look like numbers."""
    text = " ".join(cell.text.split())
    is_number = isinstance(cell.value, int | float) or cell.low is not None
    return "$-$".join(map(in_tex, _MINUS.split(text))) if is_number else in_tex(text)


# documents

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
