"""Frames as files and text that other programs read: CSV, Parquet, JSON."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        # a name that no other process has: two that write one file must not write into each other
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        with _or_sentence(path):
            try:
                method(partial)
                partial.replace(path)
            finally:
                with suppress(OSError):
                    partial.unlink()


def make_folder_of(path: Path) -> None:
    """Make the folder that a file is to be in; raises UsageError if it cannot."""
    with _or_sentence(path):
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep out all others who want to read, change and write a file that is to be `path`.

    By a hidden file beside it, which is gone afterwards. Raises UsageError if it cannot be made.
    """
    name = path.with_name(f".{path.name}.lock")
    while True:
        with _or_sentence(path):
            file = name.open("a")
        with file:
            with suppress(ImportError, OSError):  # Windows, and some network file systems
                from fcntl import LOCK_EX, flock

                flock(file, LOCK_EX)
            if not _is_at(name, file.fileno()):
                continue  # removed by who had it before: another may have made a new one
            try:
                yield
            finally:
                with suppress(OSError):
                    name.unlink()
            return


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


@contextmanager
def _or_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}; choose an existing folder that you "
            "may write to"
        ) from error


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
