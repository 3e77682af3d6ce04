"""What `clipsyn export` has written becomes cells again, of the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.documents import foreign
from clipsyn.errors import DatasetError, UsageError
from clipsyn.exporting.layouts import ARRAYS
from clipsyn.exporting.manifest import NAME, Cell, Classes, Manifest, Split, read_manifest
from clipsyn.frames import read_parquet
from clipsyn.importing.cells import Aligned, NewCell
from clipsyn.importing.numpy_files import load
from clipsyn.importing.parts import Text
from clipsyn.importing.settings import ImportSettings
from clipsyn.importing.tables import texts_of
from clipsyn.pool import as_labels
from clipsyn.printable import few
from clipsyn.settings import defaults
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import exists
from clipsyn.store.samples import SampleTable
from clipsyn.store.writer import NO_VALUE

_STORED = {name: array for array, name in ARRAYS.items()}


class _Rows(NamedTuple):
    """What the files of a cell hold."""

    ids: tuple[str, ...]
    labels: NDArray[np.int32]
    valid: NDArray[np.bool_]
    arrays: dict[str, NDArray[Any]]
    path: Path


def is_export(path: Path) -> bool:
    return (path / NAME).is_file()


def read_export(
    there: FeatureStore | None, folder: Path, wanted: ImportSettings
) -> Iterator[Aligned]:
    """The cells of an export by split, aligned with the store's samples where it has them.

    Raises DatasetError for files that cannot be, UsageError for options that an export needs none
    of: it says itself what it holds.
    """
    usual = defaults(ImportSettings) | {"replace": wanted.replace}
    if asked := [name for name, value in usual.items() if getattr(wanted, name) != value]:
        raise UsageError(
            f"{folder} is an export, which says itself what it holds: leave {asked[0]}=… away"
        )
    manifest = read_manifest(folder)
    for split in manifest.splits:
        yield _read_split(there, folder, manifest, split)


def _read_split(
    there: FeatureStore | None, folder: Path, manifest: Manifest, split: Split
) -> Aligned:
    place = split.dataset, split.split
    known = there.samples(*place) if there and exists(there.samples_path(*place)) else None
    table, cells = known, []
    for cell in manifest.cells:
        if (cell.key.dataset, cell.key.split) == place:
            rows = _read(folder / cell.file, manifest.layout, cell)
            table = table or _table(split, rows)
            texts = {it.prompts: _text(folder, it) for it in manifest.classes_of(cell.key)}
            cells.append(_new_cell(cell, rows, table, texts))
    assert table is not None  # `read_manifest` refuses a split that nothing is of
    return Aligned(table, known is None, cells)


def _table(split: Split, rows: _Rows) -> SampleTable:
    unseen = np.zeros((len(rows.ids), 32), np.uint8)
    about = split.class_names, split.metric, split.licence
    return SampleTable(split.dataset, split.split, rows.ids, rows.labels, unseen, *about)


def _new_cell(cell: Cell, rows: _Rows, table: SampleTable, texts: Mapping[str, Text]) -> NewCell:
    at = _order(cell, rows, table)
    arrays = {name: values[at] for name, values in rows.arrays.items()}
    valid = rows.valid[at]
    invalid = {NO_VALUE: int((~valid).sum())} if not valid.all() else {}
    if cell.kind != "embeddings":
        texts = {}
    prompts = next(iter(texts), cell.prompts)
    files = (rows.path, *(text.file for text in texts.values()))
    return NewCell(cell.key, prompts, cell.kind, texts, {**arrays, "valid": valid}, invalid, files)


def _order(cell: Cell, rows: _Rows, table: SampleTable) -> NDArray[np.intp]:
    """The row of each of the table's samples; DatasetError where they are others."""
    found = {name: row for row, name in enumerate(rows.ids)}
    missing = [name for name in table.ids if name not in found]
    if missing or len(found) != len(rows.ids) or len(rows.ids) != len(table):
        raise DatasetError(
            f"{cell.file} has {len(rows.ids):,} ids, which are not the {len(table):,} samples of "
            f"{table.name}{f' ({few(missing)} are missing)' if missing else ''}"
        )
    at = np.array([found[name] for name in table.ids], np.intp)
    both = (rows.labels[at] >= 0) & (table.labels >= 0)
    if (wrong := np.flatnonzero(both & (rows.labels[at] != table.labels))).size:
        raise DatasetError(
            f"{cell.file}: {len(wrong):,} labels are others than those of {table.name} "
            f"({table.ids[wrong[0]]})"
        )
    return at


def _text(folder: Path, classes: Classes) -> Text:
    path = folder / classes.file
    arrays = load(path)
    with foreign(lambda reason: DatasetError(f"{path} has no such class embeddings: {reason}")):
        embeddings, scale = arrays["class_embeddings"], float(arrays["logit_scale"])
    return Text(embeddings, scale, path)


def _read(path: Path, layout: str, cell: Cell) -> _Rows:
    """The rows of a cell; DatasetError where its files do not hold them."""
    with foreign(lambda reason: DatasetError(f"{path} does not hold what was exported: {reason}")):
        rows = _READERS[layout](path)
        expected = {"embeddings": "image_embedding", "logits": "logit"}
        needed = expected.get(cell.kind, "prediction")
        if needed not in rows.arrays:
            raise ValueError(f"it has no {ARRAYS[needed]}")
        lengths = {values.shape[:1] for values in rows.arrays.values()}
        if {rows.labels.shape, rows.valid.shape, *lengths} != {(len(rows.ids),)} or (
            rows.valid.dtype != np.bool_
        ):
            raise ValueError("its arrays have not one row for each id")
        return rows


def _read_npz(path: Path) -> _Rows:
    arrays = load(path)
    held = {_STORED[name]: arrays[name] for name in _STORED if name in arrays}
    ids = tuple(map(str, arrays["ids"]))
    return _Rows(ids, as_labels(arrays["labels"]), arrays["valid"], held, path)


def _read_huggingface(path: Path) -> _Rows:
    frame = read_parquet(path)
    valid = frame["valid"].to_numpy()
    held = {name: _values(frame[name], name) for name in _STORED.values() if name in frame.columns}
    ids = texts_of(path, frame["sample_id"])
    return _Rows(ids, as_labels(frame["label"].to_numpy()), valid, held, path)


def _values(column: pl.Series, name: str) -> NDArray[Any]:
    """A column as it was stored: null is NaN, or no prediction, which the writer fills in."""
    if isinstance(column.dtype, pl.Array):
        width = column.dtype.shape[0]
        rows = np.full((len(column), width), np.nan, np.float32)
        known = ~column.is_null().to_numpy()
        rows[known] = column.drop_nulls().to_numpy()
        return rows.astype(np.float16) if name == "image_embedding" else rows
    if name == "prediction":
        return column.fill_null(0).to_numpy().astype(np.int64)
    return column.fill_null(float("nan")).to_numpy()


_READERS = {
    "npz": _read_npz,
    "huggingface": _read_huggingface,
}
