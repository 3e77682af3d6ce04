"""The files of a cell in each layout. What they hold has the bits that the store has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.exporting.held import Held
from clipsyn.store.folders import folder_name

PART_ROWS = 1_000_000  # of clip-retrieval's files
ARRAYS = {  # what the store's arrays are called in an npz, as `clipsyn import` knows them
    "image_embedding": "embeddings",
    "logit": "logits",
    "prediction": "predictions",
    "confidence": "confidences",
}


def write_npz(folder: Path, cell: Held) -> str:
    """All of a cell in one file."""
    name = _place(cell, ".npz")
    arrays = {ARRAYS[array]: values for array, values in cell.arrays.items()}
    _save(folder / name, {**arrays, "valid": cell.valid, **_samples(cell)})
    return name


def write_clip_retrieval(folder: Path, cell: Held) -> str:
    """Image embeddings as clip-retrieval's inference writes them: npy beside parquet, row by row.

    An image without an embedding keeps its row, of zeros: an index finds such a row for no query,
    and the rows of all backbones stay the same.
    """
    name = _place(cell, "")
    embeddings = np.where(cell.valid[:, None], cell.arrays["image_embedding"], np.float16(0))
    frame = _frame(cell).rename({"sample_id": "image_path", "class_name": "caption"})
    for part, start in enumerate(range(0, len(embeddings), PART_ROWS)):
        of_part = slice(start, start + PART_ROWS)
        _save(folder / name / "img_emb" / f"img_emb_{part}.npy", embeddings[of_part])
        path = folder / name / "metadata" / f"metadata_{part}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame[of_part].write_parquet(path)
    return name


def write_huggingface(folder: Path, cell: Held) -> str:
    """A table with a row an image; arrays of several columns are lists, null where not valid."""
    names = (cell.key.dataset, cell.key.perturbation, cell.key.backbone, cell.prompts)
    folders = [folder_name(name) for name in names if name is not None]
    name = "/".join(("data", *folders, f"{folder_name(cell.key.split)}.parquet"))
    columns = {array: _column(values, cell.valid) for array, values in cell.arrays.items()}
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    _frame(cell).with_columns(**columns).write_parquet(folder / name)
    return name


WRITERS: Mapping[str, Callable[[Path, Held], str]] = {
    "clip-retrieval": write_clip_retrieval,
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


def _place(cell: Held, ending: str) -> str:
    names = [*cell.key.names, *([] if cell.prompts is None else [cell.prompts])]
    return "/".join(map(folder_name, names)) + ending


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


def _save(path: Path, values: NDArray[Any] | Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        if isinstance(values, np.ndarray):
            np.save(file, values, allow_pickle=False)
        else:
            np.savez(file, **values)
