"""Folders as clip-retrieval's inference writes them: img_emb/*.npy beside metadata/*.parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange.importing.numpy_files import load
from clipsyn.exchange.importing.parts import Part
from clipsyn.exchange.importing.settings import ImportSettings
from clipsyn.exchange.importing.tables import Table
from clipsyn.show.frames import read_parquet
from clipsyn.text import foreign


def is_clip_retrieval(path: Path) -> bool:
    return (path / "img_emb").is_dir()


def read_clip_retrieval(path: Path, wanted: ImportSettings) -> list[Part]:
    """Image embeddings, of which the metadata are the table."""
    if wanted.kind not in ("auto", "embeddings"):
        raise UsageError(f"{path} has image embeddings, no {wanted.kind}: leave kind=… away")
    files = _numbered(path / "img_emb", "npy")
    embeddings, told = _embeddings(files), f"the metadata of {path} cannot be read"
    with foreign(lambda reason: DatasetError(f"{told}: {reason}")):
        frame = pl.concat([read_parquet(file) for file in _numbered(path / "metadata", "parquet")])
    if len(frame) != len(embeddings):
        raise DatasetError(
            f"{path}: {len(embeddings):,} image embeddings, and metadata of {len(frame):,} images"
        )
    return Table(path, wanted, (), frame, embeddings, files).parts()


def _embeddings(files: tuple[Path, ...]) -> NDArray[np.float32]:
    """The rows of all files, (image, embed)."""
    parts = [load(file)[file.name] for file in files]
    for file, rows in zip(files, parts, strict=True):
        if rows.ndim != 2 or rows.dtype.kind != "f" or rows.shape[1:] != parts[0].shape[1:]:
            raise DatasetError(
                f"{file}: image embeddings are numbers (row, embed), as wide in all files, not "
                f"{rows.dtype} {rows.shape}"
            )
    return np.concatenate(parts).astype(np.float32)


def _numbered(folder: Path, ending: str) -> tuple[Path, ...]:
    """img_emb_0.npy, img_emb_1.npy, … img_emb_10.npy: by number, not by name."""
    files = [path for path in folder.glob(f"*.{ending}") if path.is_file()]
    if not files:
        raise DatasetError(f"{folder} has no {ending} files")
    return tuple(sorted(files, key=_number))


def _number(path: Path) -> tuple[int, str]:
    digits = path.stem.rpartition("_")[2]
    return (int(digits) if digits.isdecimal() else -1, path.name)
