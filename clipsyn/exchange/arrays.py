"""Arrays: logits (row, class), embeddings (row, embed) or predictions (row,).

From npy, npz and files with one tensor of torch's; CLIP_benchmark's feature cache is a folder of
these, ``features_SPLIT.pt`` beside ``targets_SPLIT.pt``, and clip-retrieval's inference writes one
of ``img_emb/*.npy`` beside ``metadata/*.parquet``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange.export import ARRAYS, NAME, Cell, Classes, Manifest, Split, read_manifest
from clipsyn.exchange.parts import Part, Text, as_logits, short, text_of
from clipsyn.exchange.settings import ImportSettings
from clipsyn.exchange.tables import SUFFIXES as TABLES
from clipsyn.exchange.tables import Table, read_column, texts_of
from clipsyn.exchange.torch_files import SUFFIXES as TORCH
from clipsyn.exchange.torch_files import read_tensor
from clipsyn.methods.pool import as_labels
from clipsyn.names import parse_perturbation
from clipsyn.settings import defaults
from clipsyn.show.frames import read_parquet
from clipsyn.store.rows import class_indices
from clipsyn.store.schema import PROMPTS
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
    told = (
        f"{path} cannot be read as plain numpy arrays (%s): pickled objects are never opened; save "
        "numbers and texts with np.save(…, allow_pickle=False)"
    )
    with foreign(lambda reason: DatasetError(told.replace("%s", reason))):
        if path.suffix == ".npy":  # mapped: a header that declares too much takes no memory
            return {path.name: np.array(np.load(path, mmap_mode="r", allow_pickle=False))}
        with path.open("rb") as file:  # numpy leaves a damaged archive open
            loaded = np.load(file, allow_pickle=False)
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


# clip-retrieval


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


# Exports


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
        return class_indices(str(path), values).astype(np.int64)
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
