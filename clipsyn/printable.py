"""Makes text of others safe for a terminal: no control character in it takes effect.

Class names, ids, datasets and backbones come from files and stores of others. A control character
in one could move the cursor, rewrite lines above or break a table; an override of the direction of
writing could show another name than the one that is there. Files that programs read, CSV, JSON and
Parquet, keep every name as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

# controls, line and paragraph separators, overrides of the direction of writing, lone surrogates
_UNSAFE = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_IN_TEXT = re.compile(rf"[\t\n{_UNSAFE}]")
_IN_LINES = re.compile(rf"(\x1b\[[0-9;]*m)|[{_UNSAFE}]")


def printable(text: str) -> str:
    """A name or a sentence: unsafe characters become ``\\u001b``, a line break is one of them.

    That is what JSON writes for them too: JSON stays JSON of the same data.
    """
    return _IN_TEXT.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """Lines of clipsyn's own: line breaks and colours stay, other unsafe characters go."""
    return _IN_LINES.sub(lambda match: match[1] or _escaped(match), text)


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names for a sentence, with … where there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def counted(count: int, one: str, several: str = "") -> str:
    """ "1 group is", "1,200 groups are": a number with what it is of; `several` adds an s."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def html_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table for notebooks; every name in it is escaped."""
    lines = [
        "".join(f"<{tag}>{escape(printable(str(cell)))}</{tag}>" for cell in row)
        for tag, row in (("th", heads), *(("td", row) for row in rows))
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{escape(printable(caption))}</caption>{body}</table>"


def cells(text: str) -> int:
    """The width of the widest line on a terminal: some characters are two columns wide."""
    from rich.cells import cell_len

    return max(cell_len(line) for line in _COLOUR.sub("", text).split("\n"))


def cut(text: str, width: int) -> str:
    """The text, its middle replaced by … if it is too long."""
    from rich.cells import set_cell_size

    if cells(text) <= width:
        return text
    first = (width - 1) // 2
    last = set_cell_size(text[::-1], width - 1 - first)[::-1]
    return f"{set_cell_size(text, first)}…{last}"


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
