"""Frames as CSV, Parquet and JSON.

`read_parquet` and `scan_parquet` are how a Parquet file that another may have written is opened.
"""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import polars as pl
from polars import selectors

from clipsyn.show.files import written_whole
from clipsyn.text import printable


def read_parquet(path: Path, *what: pl.Expr, rows: slice | None = None) -> pl.DataFrame:
    """A table that another may have written, or some columns or rows of it.

    Raises OSError or polars' own error for what is none.
    """
    table = scan_parquet(path).select(what or pl.all())
    try:
        return (table.slice(rows.start, rows.stop - rows.start) if rows else table).collect()
    except pl.exceptions.PanicException as error:  # which is no Exception
        raise pl.exceptions.ComputeError(f"it is damaged: {error}") from error


def scan_parquet(path: Path) -> pl.LazyFrame:
    """Like `read_parquet`, of a table that need not fit into memory."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is no file")
    try:
        pl.read_parquet_schema(path)
    except pl.exceptions.PanicException as error:
        raise pl.exceptions.ComputeError(f"it is damaged: {error}") from error
    return pl.scan_parquet(path, glob=False)


def to_json(frame: pl.DataFrame) -> str:
    """The rows as a JSON list of objects; null stands for NaN too, which JSON has not."""
    return json.dumps(frame.fill_nan(None).to_dicts(), indent=2, ensure_ascii=False)


def printable_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with texts and column names that may go to a terminal."""
    lists = _lists(frame)
    shown = {}
    for name in (*frame.select(pl.col(pl.String)).columns, *lists):
        texts = (frame[name].explode() if name in lists else frame[name]).unique().drop_nulls()
        if unsafe := {text: said for text in texts if (said := printable(text)) != text}:
            in_list = pl.col(name).list.eval(pl.element().replace(unsafe))
            shown[name] = in_list if name in lists else pl.col(name).replace(unsafe)
    return frame.with_columns(**shown).rename({name: printable(name) for name in frame.columns})


def _lists(frame: pl.DataFrame) -> list[str]:
    return frame.select(pl.col(pl.List(pl.String))).columns


def write(frame: pl.DataFrame, *, csv: Path | None = None, parquet: Path | None = None) -> None:
    """Write the frame to files, each complete or not at all; raises UsageError if it cannot."""
    if csv:
        with written_whole(csv) as file:
            guarded(flat(frame)).write_csv(file)
    if parquet:
        with written_whole(parquet) as file:
            frame.write_parquet(file)


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame for a CSV file: a list of names is the text of a JSON list, ``["a", "b"]``.

    Columns of structs are for programs, and left out.
    """
    texts = {
        column: [
            None if names is None else json.dumps(names, ensure_ascii=False)
            for names in frame[column].to_list()
        ]
        for column in _lists(frame)
    }
    flattened = (pl.Series(name, of_rows, pl.String) for name, of_rows in texts.items())
    return frame.with_columns(flattened).drop(selectors.struct())


def guarded(frame: pl.DataFrame) -> pl.DataFrame:
    """Texts that a spreadsheet would run as formulas, after a ``'``.

    These begin with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return and are no number. So
    that `unguarded` finds them again, one that has such marks before it gets one more.
    """
    texts = pl.col(pl.String)
    runs = texts.str.contains(_FORMULA) & ~texts.str.contains(_NUMBER)
    return frame.with_columns(pl.when(runs).then(texts.str.replace("^", "'")).otherwise(texts))


def unguarded(frame: pl.DataFrame) -> pl.DataFrame:
    """What `guarded` was given."""
    return frame.with_columns(pl.col(pl.String).str.replace(_GUARDED, "$1"))


_FORMULA, _GUARDED = r"^'*[=+\-@\t\r]", r"^'('*[=+\-@\t\r])"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
