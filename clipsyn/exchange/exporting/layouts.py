"""The files of a cell in each layout. What they hold has the bits that the store has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.exchange.exporting.held import Held
from clipsyn.store.folders import folder_name

ARRAYS = {  # what the store's arrays are called in an npz, as `clipsyn import` knows them
    "image_embedding": "embeddings",
    "logit": "logits",
    "prediction": "predictions",
    "confidence": "confidences",
}


def write_npz(folder: Path, cell: Held) -> str:
    """All of a cell in one file."""
    names = [*cell.key.names, *([] if cell.prompts is None else [cell.prompts])]
    name = "/".join(map(folder_name, names)) + ".npz"
    arrays = {ARRAYS[array]: values for array, values in cell.arrays.items()}
    _save(folder / name, {**arrays, "valid": cell.valid, **_samples(cell)})
    return name


def write_huggingface(folder: Path, cell: Held) -> str:
    """A table with a row an image; arrays of several columns are lists, null where not valid."""
    names = (cell.key.dataset, cell.key.perturbation, cell.key.backbone, cell.prompts)
    folders = [folder_name(name) for name in names if name is not None]
    name = "/".join(("data", *folders, f"{folder_name(cell.key.split)}.parquet"))
    columns = {array: _column(values, cell.valid) for array, values in cell.arrays.items()}
    with _new(folder / name) as file:
        _frame(cell).with_columns(**columns).write_parquet(file)
    return name


WRITERS: Mapping[str, Callable[[Path, Held], str]] = {
    "npz": write_npz,
    "huggingface": write_huggingface,
}


def write_classes(
    folder: Path, names: tuple[str, str, str], embeddings: NDArray[np.float32], scale: float
) -> str:
    """The class embeddings of a dataset, prompt set and backbone."""
    name = "/".join(("classes", *map(folder_name, names))) + ".npz"
    _save(folder / name, {"class_embeddings": embeddings, "logit_scale": np.array(scale)})
    return name


def _samples(cell: Held) -> dict[str, NDArray[Any]]:
    """Ids, labels and class names as plain arrays: nothing is pickled."""
    table = cell.samples
    texts = {"ids": table.ids, "class_names": table.class_names}
    arrays = {name: np.array(values, np.str_) for name, values in texts.items()}
    return {**arrays, "labels": table.labels}


def _frame(cell: Held) -> pl.DataFrame:
    columns = {
        "sample_id": pl.Series(cell.samples.ids, dtype=pl.String),
        "label": pl.Series(cell.samples.labels),
        "class_name": pl.Series(cell.captions, dtype=pl.String),
        "valid": pl.Series(cell.valid),
    }
    return pl.DataFrame(columns)


def _column(values: NDArray[Any], valid: NDArray[np.bool_]) -> pl.Series:
    """float32 for float16, which not every reader of parquet knows: the same numbers."""
    wide = values.astype(np.float32) if values.dtype == np.float16 else values
    dtype = pl.Array(pl.Float32, wide.shape[1]) if wide.ndim > 1 else None
    column = pl.Series(wide, dtype=dtype)
    return pl.select(pl.when(pl.Series(valid)).then(column)).to_series()


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with _new(path) as file:
        np.savez(file, **arrays)


def _new(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")
