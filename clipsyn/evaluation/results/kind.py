"""What a file that rows are added to may hold: results, or predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.evaluation.results.frame import ABOUT, Row, subject
from clipsyn.show.frames import scan_parquet

DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)  # of a Parquet file


class Kind(NamedTuple):
    """What such a file holds."""

    what: str  # results, predictions
    columns: dict[str, Any]
    line: str  # the command that makes one
    checked: Callable[[pl.LazyFrame, Path], pl.LazyFrame]  # rows that have these columns


def opened(file: Path, path: Path, kind: Kind) -> pl.LazyFrame:
    """The rows of a file; raises UsageError for one of something else. Those beside it are ours."""
    if file != path:
        return pl.scan_parquet(file, glob=False)
    try:
        rows = scan_parquet(file)
        names = rows.collect_schema().names()
    except FileNotFoundError:
        raise
    except (OSError, *DAMAGE) as error:
        said = str(error).partition("\n")[0]  # below it polars lists its own steps
        raise UsageError(
            f"{file} cannot be read as {kind.what}: {said}; make such a file with `{kind.line}`"
        ) from error
    if {*names} != {*kind.columns}:
        raise UsageError(
            f"{file} holds something else than {kind.what}: write to another file, or make such a "
            f"file with `{kind.line}`"
        )
    declared = as_declared(rows.select(*kind.columns), kind.columns, file)
    return kind.checked(declared, file)


def as_declared(rows: pl.LazyFrame, columns: Mapping[str, Any], path: Path) -> pl.LazyFrame:
    """Rows whose columns have these types: a text may be a category, and nothing at all null."""
    there = rows.collect_schema()
    for name, dtype in columns.items():
        like = (dtype, pl.Null, *((pl.Categorical, pl.Enum) if dtype == pl.String else ()))
        if there[name] not in like:
            raise UsageError(
                f"{path} is not what it should be: {name} is {there[name]}, not {dtype}"
            )
    other = [name for name, dtype in columns.items() if there[name] != dtype]
    return rows.with_columns(pl.col(name).cast(columns[name]) for name in other)


def subject_of(row: Row) -> tuple[Any, ...]:
    """What the rows of one fingerprint are about."""
    return tuple(tuple(it) if isinstance(it := row[name], list) else it for name in ABOUT)


def conflict(path: Path, kind: Kind, row: Row) -> ConflictingResults:
    """Two fingerprints have the names of this row."""
    return ConflictingResults(
        f"{path} already holds {kind.what} of {subject(row)} on {row['dataset']}/{row['split']} "
        f"({row['perturbation']}, head {row['head']}) from other features, labels, prompts or "
        "settings, or on other samples (fingerprint): write to another file, or give replace=True"
    )
