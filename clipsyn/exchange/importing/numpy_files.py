"""Arrays: logits (row, class), embeddings (row, embed) or predictions (row,).

From npy, npz and files with one tensor of torch's; CLIP_benchmark's feature cache is a folder of
these, ``features_SPLIT.pt`` beside ``targets_SPLIT.pt``. What npy and npz say of their size is held
against what there is before any is read: a header of a hundred bytes may declare a million times a
million numbers, and a small archive may hold gigabytes of zeros.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange.importing.parts import Part, as_logits, short, text_of
from clipsyn.exchange.importing.settings import ImportSettings
from clipsyn.exchange.importing.tables import SUFFIXES as TABLES
from clipsyn.exchange.importing.tables import read_column
from clipsyn.exchange.importing.torch_files import SUFFIXES as TORCH
from clipsyn.exchange.importing.torch_files import read_tensor
from clipsyn.names import parse_perturbation
from clipsyn.show.frames import most_bytes
from clipsyn.store.folders import PROMPTS
from clipsyn.text import foreign

SUFFIXES = (".npy", ".npz", *TORCH)
_KINDS: dict[str, tuple[str, ...]] = {  # what arrays in an npz are called
    "predictions": ("predictions", "prediction", "preds"),
    "logits": ("logits", "logit", "scores"),
    "probabilities": ("probabilities", "probs", "softmax"),
    "embeddings": ("embeddings", "embedding", "features", "image_embedding"),
}
_IDS = ("ids", "id", "sample_id", "sample_ids", "filenames")
_LABELS = ("labels", "label", "targets", "y")


def read_numpy(path: Path, wanted: ImportSettings, known: Sequence[str]) -> Part:
    """The part of one file; `known` are class names, where there are any."""
    arrays = load(path)
    kind, values = _find(path, arrays, wanted)
    ids = read_texts(wanted.ids, "id", wanted) if wanted.ids else _inside(path, arrays, _IDS)
    cached = _cached_labels(path)
    beside = wanted.labels or cached
    labels = read_texts(beside, "label", wanted) if beside else _inside(path, arrays, _LABELS)
    if ids is None and not wanted.row_order:
        raise UsageError(
            f"{path} has no ids: give ids=FILE (one a line, an npy, or a table with them), or "
            "row_order=True if its rows are the samples in the store's order"
        )
    if ids and "" in ids:
        raise DatasetError(f"{path}: row {ids.index('')} has no id")
    kind, values = checked(path, kind, values, known)
    for name, texts in (("ids", ids), ("labels", labels)):
        if texts is not None and len(texts) != len(values):
            raise DatasetError(f"{path}: {len(values):,} rows have {len(texts):,} {name}")
    perturbation = parse_perturbation(wanted.perturbation).label
    backbone = wanted.backbone or (path.parent if cached else path).stem
    files = (path, cached) if cached else (path,)
    text = text_of(path, arrays, wanted) if kind == "embeddings" else None
    return Part(
        backbone,
        perturbation,
        kind,
        ids,
        values,
        labels,
        files=files,
        prompts=wanted.prompts,
        texts={wanted.prompts or PROMPTS: text} if text else {},
    )


def cached_features(folder: Path, split: str) -> Path | None:
    """CLIP_benchmark's features of a split in its cache; None where a folder is no such cache.

    It calls what it tests on ``val`` where there is no ``test``. Raises DatasetError for a split
    that is not in the cache.
    """
    there = {path.stem.removeprefix("features_"): path for path in folder.glob("features_*.pt")}
    if not there:
        return None
    for name in (split, "val") if split == "test" else (split,):
        if name in there:
            return there[name]
    raise DatasetError(
        f"{folder} has no features_{split}.pt: choose one of {short(sorted(there))} with split=…"
    )


def _cached_labels(features: Path) -> Path | None:
    """What CLIP_benchmark has written beside ``features_SPLIT.pt``."""
    labels = features.with_name(features.name.replace("features_", "targets_", 1))
    return labels if labels != features and labels.exists() else None


def read_texts(path: Path, role: str, wanted: ImportSettings) -> tuple[str, ...]:
    """Ids or labels from a text file with one a line, an npy, or that column of a table."""
    if path.suffix in TABLES:
        return read_column(path, role, wanted)
    if path.suffix in (".npy", *TORCH):
        return _texts(path, role, load(path)[path.name])
    told = f"{path} cannot be read as {role}s, one a line"
    with foreign(lambda reason: DatasetError(f"{told}: {reason}")):
        text = path.read_text(encoding="utf-8-sig")
    lines = (text.rstrip() if role == "id" else text).splitlines()  # a last label may be none
    return tuple(line.strip() for line in lines)


def load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name; nothing pickled is ever run."""
    if path.suffix in TORCH:
        return {path.name: read_tensor(path)}
    with (
        foreign(
            lambda reason: DatasetError(
                f"{path} cannot be read as plain numpy arrays ({reason}): pickled objects are "
                "never opened; save numbers and texts with np.save(…, allow_pickle=False)"
            )
        ),
        path.open("rb") as file,  # numpy leaves a damaged archive open
    ):
        check_declared(file)
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {path.name: loaded}
        return {name: loaded[name] for name in loaded.files}


def _find(
    path: Path, arrays: Mapping[str, NDArray[Any]], wanted: ImportSettings
) -> tuple[str, NDArray[Any]]:
    """The array that is to be imported, and its kind where it is known."""
    if len(arrays) == 1:
        (values,) = arrays.values()
        return wanted.kind, values
    there = {
        kind: arrays[name]
        for kind, names in _KINDS.items()
        if wanted.kind in ("auto", kind)
        for name in names
        if name in arrays
    }
    if len(there) != 1:
        asked = "logits, embeddings or predictions" if wanted.kind == "auto" else wanted.kind
        which = (
            f"several ({', '.join(there)}): choose with kind=…" if there else "none of that name"
        )
        raise DatasetError(
            f"{path} should hold one array of {asked}, and holds {which}; its arrays are "
            f"{short(list(arrays))}"
        )
    return next(iter(there.items()))


def _inside(
    path: Path, arrays: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> tuple[str, ...] | None:
    """Ids or labels that an npz has beside what is imported."""
    name = next((name for name in names if name in arrays and len(arrays) > 1), None)
    if name is None:
        return None
    return _texts(path, name, arrays[name])


def checked(
    path: Path, kind: str, values: NDArray[Any], known: Sequence[str]
) -> tuple[str, NDArray[Any]]:
    """Kind and values of a shape and type that go together; DatasetError if none does."""
    if kind == "auto":
        kind = _kind_of(path, values, known)
    if kind == "predictions":
        return kind, np.array(_texts(path, kind, values), object)
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.size:
        raise DatasetError(
            f"{path}: {kind} are numbers (row, {'embed' if kind == 'embeddings' else 'class'}), "
            f"not {values.dtype} {values.shape}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, and counted so
        matrix = values.astype(np.float32)
    if kind == "embeddings":
        return kind, matrix
    if known and matrix.shape[1] != len(known):
        raise DatasetError(
            f"{path}: {kind} of {len(known)} classes are (row, {len(known)}), not {values.shape}"
        )
    return "logits", as_logits(matrix, kind, str(path))


def _kind_of(path: Path, values: NDArray[Any], known: Sequence[str]) -> str:
    """What an array must be by its shape: (row, class) may only be told where classes are known."""
    if path.suffix in TORCH and path.stem.startswith("features_"):
        return "embeddings"
    if values.ndim == 1:
        return "predictions"
    if values.ndim == 2 and values.shape[1] == len(known):
        return "auto"
    raise DatasetError(
        f"{path}: {values.shape} could be logits or embeddings: say kind=logits, "
        "kind=probabilities or kind=embeddings"
    )


def _texts(path: Path, what: str, values: NDArray[Any]) -> tuple[str, ...]:
    """Numbers and texts as texts: 3, 3.0 and "3" are the same class."""
    if values.ndim != 1 or values.dtype.kind not in "biufSU":
        raise DatasetError(f"{path}: {what} are (row,), not {values.dtype} {values.shape}")
    if values.dtype.kind == "f":
        texts = (f"{v:.0f}" if v.is_integer() else str(v) for v in values)
        return tuple("" if text == "nan" else text for text in texts)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return tuple(str(value).strip() for value in values)


def check_declared(file: IO[bytes]) -> None:
    """Raise ValueError for an npy or npz with an array larger than its content; rewinds `file`.

    What is neither is left for numpy to refuse.
    """
    start = file.read(len(npy.MAGIC_PREFIX))
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if start == npy.MAGIC_PREFIX:
        _check_array(file, size)
    elif start.startswith(b"PK"):
        _check_archive(file, size)
    file.seek(0)


def _check_archive(file: IO[bytes], on_disk: int) -> None:
    with zipfile.ZipFile(file) as archive:
        declared = sum(member.file_size for member in archive.infolist())
        if declared > most_bytes(on_disk):
            raise ValueError(
                f"it has {declared:,} bytes of {on_disk:,} compressed, which no measured numbers "
                "come to: write it with np.savez, uncompressed"
            )
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as stream:
                    _check_array(stream, member.file_size)


def _check_array(file: IO[bytes], size: int) -> None:
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"format {version[0]}.{version[1]} is for records, which are no matrix")
    try:
        shape, _, dtype = readers[version](file)
    except (RecursionError, SyntaxError, TokenError) as error:  # the header is Python's syntax
        raise ValueError(f"its header cannot be read: {error}") from error
    declared, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or (declared > there and not dtype.hasobject):
        raise ValueError(
            f"it declares {dtype} {shape}, {declared:,} bytes, and {max(there, 0):,} follow"
        )
