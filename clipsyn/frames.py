"""Frames as files and text that other programs read: CSV, Parquet, JSON."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from clipsyn.errors import UsageError


def to_json(frame: pl.DataFrame) -> str:
    """The rows as a JSON list of objects; null stands for NaN too, which JSON has not."""
    rows = [
        {name: None if is_nan(value) else value for name, value in row.items()}
        for row in frame.to_dicts()
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def write(frame: pl.DataFrame, *, csv: Path | None = None, parquet: Path | None = None) -> None:
    """Write the frame to files, each complete or not at all; raises UsageError if it cannot."""
    for path, method in ((csv, frame.write_csv), (parquet, frame.write_parquet)):
        if path is None:
            continue
        partial = path.with_name(f"{path.name}.partial")
        try:
            method(partial)
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise UsageError(
                f"cannot write {path}: {error.strerror or error}; choose an existing folder that "
                "you may write to"
            ) from error


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
