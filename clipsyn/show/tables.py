"""Frames as aligned text."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from textwrap import fill
from typing import Any

import polars as pl

from clipsyn.frames import is_nan
from clipsyn.printable import printable, printable_lines
from clipsyn.show.layout import NOTE, Column, broken, drawn, fitted, is_whole, width_of, wrapped

NOTHING = "\N{EN DASH}"  # for null and NaN
Cell = tuple[int, str]  # row, column
_MANY = 6  # backbones, beyond which columns are narrow
_NUMBERED = 12  # backbones, from which on columns have numbers
WIDTH = 100  # characters of a paragraph


def show(
    frame: pl.DataFrame,
    *,
    title: str = "",
    percent: Collection[str] = (),
    headers: Mapping[str, str] | None = None,
    right: Collection[str] = (),
    bold: Collection[Cell] = (),
    terminal: bool | None = None,
) -> str:
    """`frame` as an aligned text table, nothing cut off; on a terminal it fits the width.

    percent: columns of fractions to show as percent with one decimal. headers: other texts above
    columns. right: text columns to align right as numbers are. bold: cells to set in bold on
    a terminal. terminal: None asks standard output. See `clipsyn.show.layout` for what becomes
    of a table that is wider than the terminal; `layout.NOTE` stands below it.
    """
    terminal = sys.stdout.isatty() if terminal is None else terminal
    columns = [
        Column(
            printable_lines((headers or {}).get(name, name)),
            tuple(_texts(frame[name], name in percent)) if len(frame) else (),
            frame.schema[name].is_numeric() or name in right,
            frozenset(row for row, column in bold if column == name),
        )
        for name in frame.columns
    ]
    width = width_of(terminal)
    tables = fitted(columns, width)
    parts = [broken(printable_lines(title), width)] if title else []
    parts.append("\n\n".join(drawn(table, terminal) for table in tables))
    return "\n".join(parts if is_whole(columns, tables) else [*parts, NOTE])


def interval_text(low: float | None, high: float | None) -> str:
    """Two fractions as percent, with an en dash between them, or "to" beside a minus sign."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return NOTHING
    between = " to " if low < 0 else "\N{EN DASH}"
    return f"{100 * low:.1f}{between}{100 * high:.1f}"


def shortened(names: Sequence[str]) -> tuple[dict[str, str], str]:
    """Short names of backbones, and what was cut off: "tiny-*/zoo", or nothing.

    Cut off is what all names begin with, up to a hyphen, and end with, from a slash.
    """
    prefix, tag = _pattern(names)
    short = {name: name.removeprefix(prefix).removesuffix(tag) for name in names}
    return short, f"{prefix}*{tag}" if prefix or tag else ""


def column_heads(short: Mapping[str, str]) -> dict[str, str]:
    """Heads of columns that are backbones: narrower where there are many, numbers from a dozen on.

    short: what each name is shown as; `legend` says what numbers stand for.
    """
    if len(short) >= _NUMBERED:
        return {name: str(number) for number, name in enumerate(short, 1)}
    width = 9 if len(short) <= _MANY else 7
    return {name: wrapped(text, width) for name, text in short.items()}


def legend(short: Mapping[str, str]) -> str:
    """A paragraph for below the table, or nothing where the heads are names."""
    if len(short) < _NUMBERED:
        return ""
    numbers = (f"{number}\N{NO-BREAK SPACE}{text}" for number, text in enumerate(short.values(), 1))
    return "\n" + fill(", ".join(numbers) + ".", WIDTH).replace("\N{NO-BREAK SPACE}", " ")


def _pattern(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin with, up to a hyphen, and end with, from a slash: "tiny-", "/zoo".

    What is left of each name begins with a letter: "ViT-B-16" and "ViT-B-32" share "ViT-" only.
    """
    if len(names) < 2:
        return "", ""
    prefix = ""
    for parts in zip(*(name.split("-")[:-1] for name in names), strict=False):
        longer = f"{prefix}{parts[0]}-"
        if len(set(parts)) > 1:
            break
        if all(name.removeprefix(longer)[:1].isalpha() for name in names):
            prefix = longer
    tags = {"/" + name.rpartition("/")[2] if "/" in name else "" for name in names}
    return prefix, tags.pop() if len(tags) == 1 else ""


def _texts(column: pl.Series, percent: bool) -> list[str]:
    if percent:
        return [_text(value, 1) for value in (100.0 * column).to_list()]
    values = column.to_list()
    decimals = _decimals(values)
    return [_text(value, decimals) for value in values]


def _text(value: Any, decimals: int) -> str:
    if value is None or is_nan(value):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{round(value, decimals) + 0.0:,.{decimals}f}"  # no -0.0
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _decimals(values: list[Any]) -> int:
    """Decimals that keep three digits of the largest number, fewer where all are round."""
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(map(abs, floats), default=0)
    most = next((places for bound, places in ((100, 1), (1, 2)) if largest >= bound), 3)
    rounded = [round(v, most) for v in floats]
    return next((p for p in range(most) if all(round(v, p) == v for v in rounded)), most)
