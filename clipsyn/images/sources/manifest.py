"""A CSV or parquet table of image files: ``path[,label][,split][,id]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.catalog.texts import find_class_names
from clipsyn.errors import DatasetError
from clipsyn.images.sources.base import (
    UNLABELLED,
    EncodedSource,
    inside,
    numbered,
    read_at,
    whole_labels,
)
from clipsyn.show.frames import read_parquet, unguarded
from clipsyn.text import advised, foreign

COLUMNS = ("path", "label", "split", "id")


@dataclass(frozen=True, eq=False)
class ManifestSource(EncodedSource):
    paths: tuple[Path, ...] = field(default=(), kw_only=True)

    def read(self, index: int) -> bytes:
        return read_at(self.paths[index])


def open_manifest(path: Path, name: str, split: str, root: Path | None = None) -> ManifestSource:
    """The rows of a manifest whose `split` is the one asked for (all rows without that column).

    Order is the manifest's. Relative paths are relative to its folder, and all lead to files in it
    or in `root`. A label is a class index
    or a class name; an empty one is unlabelled. Ids are the `id` column, else the path as
    written. Class names are those of ``<manifest>.classnames.txt`` or of `classnames.txt` in its
    folder (or ``.json``), else the sorted distinct labels over all splits, else numbers.
    """
    table = _read(path)
    stems = (f"{path.name}.classnames", f"{path.stem}.classnames", "classnames")
    names, names_path = find_class_names(map(path.with_name, stems), name)
    indices, class_names = _labels(table, names, path, names_path)
    chosen = _rows_of_split(table, split, path)
    texts = _texts(table, "path", path)[chosen]
    files = inside(f"manifest '{path}'", texts, (path.parent, root))
    if missing := [file for file in files if not (file.exists() or file.is_symlink())]:
        raise DatasetError(
            f"manifest '{path}': {len(missing)} of {len(files)} files do not exist, the first is "
            f"'{missing[0]}' (paths are relative to the manifest's folder)"
        )
    ids = _texts(table, "id" if "id" in table.columns else "path", path)[chosen]
    numbered = bool(class_names) and not names and class_names[0] == "0"
    notes = (f"{name}: no class names given, so the classes are called 0, 1, …",) * numbered
    return ManifestSource(
        name,
        split,
        tuple(ids.tolist()),
        indices[chosen],
        class_names,
        notes=notes,
        paths=files,
        is_divided="split" in table.columns,
    )


def open_undivided_manifest(path: Path, name: str, root: Path | None = None) -> ManifestSource:
    """All rows of a manifest without splits; raises DatasetError for one with a column of them."""
    if "split" in _read(path).columns:
        raise DatasetError(
            f"manifest '{path}' has a column 'split' already: "
            f"`{advised('extract', 'STORE', '-d', path, '-s', 'SPLIT')}` takes its rows; without "
            "the column they can be split anew"
        )
    return open_manifest(path, name, "all", root)


def _read(path: Path) -> pl.DataFrame:
    """The table, CSV columns as text: an id of ``007`` keeps its zeros."""
    with foreign(lambda reason: DatasetError(f"manifest '{path}' cannot be read: {reason}")):
        if path.suffix.lower() == ".parquet":
            table = read_parquet(path)
        else:
            table = unguarded(pl.read_csv(path, infer_schema=False, glob=False))
    nested = [x for x in COLUMNS if x in table.columns and table.schema[x].is_nested()]
    if nested:
        raise DatasetError(f"manifest '{path}': the column {nested[0]} has lists: give it texts")
    if "path" not in table.columns:
        raise DatasetError(
            f"manifest '{path}' has no column 'path'; it has {', '.join(table.columns) or 'none'} "
            f"(known: {', '.join(COLUMNS)})"
        )
    return table


def _texts(table: pl.DataFrame, column: str, path: Path) -> NDArray[np.object_]:
    values = table[column].cast(pl.String)
    if values.null_count() or (values == "").any():
        empty = values.is_null() | (values == "")
        row = int(empty.fill_null(value=True).arg_max() or 0) + 1
        raise DatasetError(f"manifest '{path}': row {row} has no {column}")
    return np.array(values.to_list(), dtype=object)


def _rows_of_split(table: pl.DataFrame, split: str, path: Path) -> NDArray[np.bool_]:
    if "split" not in table.columns:
        return np.ones(len(table), dtype=np.bool_)
    splits = np.array(table["split"].cast(pl.String).fill_null("").to_list(), dtype=object)
    chosen = np.asarray(splits == split, dtype=np.bool_)
    if not chosen.any():
        known = ", ".join(sorted({str(s) for s in splits} - {""})) or "none"
        raise DatasetError(f"manifest '{path}' has no rows of split '{split}'; it has {known}")
    return chosen


def _labels(
    table: pl.DataFrame, names: tuple[str, ...], path: Path, names_path: Path | None
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Class index of every row of the manifest, and the class names."""
    if "label" not in table.columns or table["label"].null_count() == len(table):
        return np.full(len(table), UNLABELLED, dtype=np.int32), names
    column = table["label"]
    as_index = column if column.dtype.is_integer() else _as_integers(column)
    if as_index is not None:
        indices = whole_labels(f"manifest '{path}'", as_index)
        return indices, names or numbered(indices)
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise DatasetError(
            f"manifest '{path}': labels are {column.dtype}, neither class indices nor names"
        )
    return _named_labels(column.cast(pl.String).to_list(), names, path, names_path)


def _as_integers(column: pl.Series) -> pl.Series | None:
    if column.dtype != pl.String:
        return None
    numbers = column.cast(pl.Int64, strict=False)
    return numbers if numbers.null_count() == column.null_count() else None


def _named_labels(
    labels: list[str | None], names: tuple[str, ...], path: Path, names_path: Path | None
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    classes = names or tuple(sorted({label for label in labels if label is not None}))
    index: dict[str | None, int] = {None: UNLABELLED}
    for i, name in enumerate(classes):
        index.setdefault(name, i)
    if unknown := [label for label in labels if label not in index]:
        raise DatasetError(
            f"manifest '{path}': label '{unknown[0]}' is not among the {len(classes)} class names "
            f"of '{names_path}'"
        )
    return np.array([index[label] for label in labels], dtype=np.int32), classes
