"""What `clipsyn export` has written becomes cells again, of the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange.exporting.export import ARRAYS
from clipsyn.exchange.exporting.manifest import NAME, Cell, Classes, Manifest, Split, read_manifest
from clipsyn.exchange.importing.numpy_files import checked, load
from clipsyn.exchange.importing.parts import Part, Text
from clipsyn.exchange.importing.settings import ImportSettings
from clipsyn.exchange.importing.tables import texts_of
from clipsyn.methods.pool import as_labels
from clipsyn.names import parse_perturbation
from clipsyn.settings import defaults
from clipsyn.show.frames import read_parquet
from clipsyn.store.rows import class_indices as class_indices_given
from clipsyn.text import foreign


def is_export(path: Path) -> bool:
    return (path / NAME).is_file()


def read_export(folder: Path, wanted: ImportSettings) -> Iterator[tuple[Split, list[Part]]]:
    """The splits of an export, and the parts of each.

    Raises DatasetError for files that cannot be, UsageError for options that an export needs none
    of: it says itself what it holds.
    """
    usual = defaults(ImportSettings)
    asked = [name for name, value in usual.items() if getattr(wanted, name) != value]
    if asked := [name for name in asked if name not in ("replace", "intersect")]:
        raise UsageError(
            f"{folder} is an export, which says itself what it holds: leave {asked[0]}=… away"
        )
    manifest = read_manifest(folder)
    for split in manifest.splits:
        place = split.dataset, split.split
        cells = [it for it in manifest.cells if (it.key.dataset, it.key.split) == place]
        yield split, [_part(folder, manifest, split, cell) for cell in cells]


def _part(folder: Path, manifest: Manifest, split: Split, cell: Cell) -> Part:
    """What the file of a cell holds; DatasetError where it does not hold that."""
    path, key = folder / cell.file, cell.key
    with foreign(lambda reason: DatasetError(f"{path} does not hold what was exported: {reason}")):
        arrays = _READERS[manifest.layout](path)
        if cell.kind not in arrays:
            raise ValueError(f"it has no {cell.kind}")
        ids, labels = tuple(map(str, arrays["ids"])), as_labels(arrays["labels"])
        valid, confidence = arrays["valid"], arrays.get("confidences")
        if confidence is not None:
            if confidence.dtype.kind not in "fiu" or confidence.shape != (len(ids),):
                raise ValueError("its confidences are not one number for each id")
            if confidence.dtype.kind != "f":  # whole numbers cannot be NaN
                confidence = confidence.astype(np.float32)
        shapes = {labels.shape, valid.shape, arrays[cell.kind].shape[:1]}
        if shapes != {(len(ids),)} or valid.dtype != np.bool_:
            raise ValueError("its arrays have not one row for each id")
        values = _values(path, cell.kind, arrays[cell.kind], split.class_names)
        values[~valid] = -1 if cell.kind == "predictions" else np.nan
        texts = {it.prompts: _text(folder, it) for it in manifest.classes_of(cell)}
    return Part(
        key.backbone,
        parse_perturbation(key.perturbation).label,
        cell.kind,
        ids,
        values,
        labels,
        files=(path,),
        confidence=confidence,
        prompts=cell.prompts,
        texts=texts,
    )


def _values(
    path: Path, kind: str, values: NDArray[Any], class_names: tuple[str, ...]
) -> NDArray[Any]:
    """A copy, of the type that a part has."""
    if kind == "predictions":
        return class_indices_given(str(path), values).astype(np.int64)
    _, matrix = checked(path, kind, values, class_names)
    return (values if values.dtype == np.float16 and kind == "embeddings" else matrix).copy()


def _text(folder: Path, classes: Classes) -> Text:
    path = folder / classes.file
    arrays = load(path)
    with foreign(lambda reason: DatasetError(f"{path} has no such class embeddings: {reason}")):
        embeddings, scale = arrays["class_embeddings"], float(arrays["logit_scale"])
    return Text(embeddings, scale, path)


def _read_huggingface(path: Path) -> dict[str, NDArray[Any]]:
    """The columns as the arrays of an npz."""
    frame = read_parquet(path)
    columns = {ARRAYS[name]: _column(frame[name]) for name in ARRAYS if name in frame.columns}
    if "embeddings" in columns:
        columns["embeddings"] = columns["embeddings"].astype(np.float16)
    return {
        **columns,
        "ids": np.array(texts_of(path, frame["sample_id"]), object),
        "labels": frame["label"].to_numpy(),
        "valid": frame["valid"].to_numpy(),
    }


def _column(column: pl.Series) -> NDArray[Any]:
    """A column with something in place of null: there is no value."""
    if isinstance(column.dtype, pl.Array):
        rows = np.full((len(column), column.dtype.shape[0]), np.nan, np.float32)
        rows[~column.is_null().to_numpy()] = column.drop_nulls().to_numpy()
        return rows
    return column.fill_null(0).to_numpy()


_READERS = {
    "npz": load,
    "huggingface": _read_huggingface,
}
