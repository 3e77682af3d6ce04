"""Folders as clip-retrieval's inference writes them: img_emb/*.npy beside metadata/*.parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.documents import foreign
from clipsyn.errors import DatasetError, UsageError
from clipsyn.frames import read_parquet
from clipsyn.importing.numpy_files import load
from clipsyn.importing.parts import Part, short
from clipsyn.importing.settings import ImportSettings
from clipsyn.importing.tables import texts_of
from clipsyn.specs import parse_perturbation

IDS = ("image_path", "sample_id", "id", "key", "url")  # columns that name an image
_LABELS = ("label", "target")


def is_clip_retrieval(path: Path) -> bool:
    return (path / "img_emb").is_dir()


def read_clip_retrieval(path: Path, wanted: ImportSettings) -> Part:
    """Image embeddings with the ids and, where a column has them, labels of the metadata."""
    if wanted.kind not in ("auto", "embeddings"):
        raise UsageError(f"{path} has image embeddings, no {wanted.kind}: leave kind=… away")
    files, embeddings = image_embeddings(path)
    table = metadata(path)
    if len(table) != len(embeddings):
        raise DatasetError(
            f"{path}: {len(embeddings):,} image embeddings, and metadata of {len(table):,} images"
        )
    labels = _column(path, table, "label", _LABELS, wanted)
    return Part(
        wanted.backbone or path.resolve().name,
        parse_perturbation(wanted.perturbation).label,
        "embeddings",
        None if wanted.row_order else _ids(path, table, wanted),
        embeddings.astype(np.float32),
        labels,
        files=files,
        prompts=wanted.prompts,
    )


def image_embeddings(path: Path) -> tuple[tuple[Path, ...], NDArray[np.floating]]:
    """The files of `img_emb` in the order of their numbers, and all their rows."""
    files = _numbered(path / "img_emb", "npy")
    parts = [load(file)[file.name] for file in files]
    for file, rows in zip(files, parts, strict=True):
        if rows.ndim != 2 or rows.dtype.kind != "f" or rows.shape[1:] != parts[0].shape[1:]:
            raise DatasetError(
                f"{file}: image embeddings are numbers (row, embed), as wide in all files, not "
                f"{rows.dtype} {rows.shape}"
            )
    return files, np.concatenate(parts)


def metadata(path: Path) -> pl.DataFrame:
    """The rows of `metadata`, in the order of the embeddings."""
    files = _numbered(path / "metadata", "parquet")
    told = f"the metadata of {path} cannot be read"
    with foreign(lambda reason: DatasetError(f"{told}: {reason}")):
        return pl.concat([read_parquet(file) for file in files])


def _ids(path: Path, table: pl.DataFrame, wanted: ImportSettings) -> tuple[str, ...]:
    ids = _column(path, table, "id", IDS, wanted)
    if ids is None:
        raise DatasetError(
            f"{path}: its metadata have no column {' or '.join(IDS)}: say which it is with "
            f"columns=… (id=NAME), or give row_order=True; the columns are {short(table.columns)}"
        )
    return ids


def _column(
    path: Path, table: pl.DataFrame, role: str, guesses: tuple[str, ...], wanted: ImportSettings
) -> tuple[str, ...] | None:
    asked = wanted.columns.get(role)
    if asked and asked not in table.columns:
        raise DatasetError(
            f"{path}: its metadata have no column {asked} for {role}; the columns are "
            f"{short(table.columns)}"
        )
    name = asked or next((name for name in guesses if name in table.columns), None)
    return None if name is None else texts_of(path, table[name])


def _numbered(folder: Path, ending: str) -> tuple[Path, ...]:
    """img_emb_0.npy, img_emb_1.npy, … img_emb_10.npy: by number, not by name."""
    files = [path for path in folder.glob(f"*.{ending}") if path.is_file()]
    if not files:
        raise DatasetError(f"{folder} has no {ending} files")
    return tuple(sorted(files, key=_number))


def _number(path: Path) -> tuple[int, str]:
    digits = path.stem.rpartition("_")[2]
    return (int(digits) if digits.isdecimal() else -1, path.name)
