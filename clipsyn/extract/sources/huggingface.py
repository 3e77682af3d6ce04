"""Image sets of Hugging Face's library `datasets`, as they lie on disk, read without it.

    ROOT/dataset_dict.json  ROOT/<split>/state.json  …/data-00000-of-00002.arrow      save_to_disk
    ROOT/[data/]<split>-00000-of-00002.parquet, or ROOT/<split>.parquet               the hub's

A row has a struct of encoded bytes and path. Nothing is downloaded, and no code of the set is run.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.catalog.class_names import find_class_names
from clipsyn.documents import foreign, parse_json
from clipsyn.errors import DatasetError
from clipsyn.extract.sources.base import UNLABELLED, EncodedSource
from clipsyn.frames import scan_parquet

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_IMAGES = ("image", "img", "jpg", "png", "webp")
_LABELS = ("label", "labels", "fine_label", "target", "cls")
_IDS = ("sample_id", "image_id", "id", "__key__")
_PARQUET = ".parquet"
_AT_ONCE = 256  # rows of a table: images are asked for in order, by several threads
_KEPT_GROUPS, _KEPT_FILES = 4, 2
_SHARD = re.compile(r"(?P<split>.+?)(?:-\d{5}-of-\d{5}(?:-[0-9a-f]+)?)?")


class _Piece(NamedTuple):
    """A file and the number of its rows."""

    path: Path
    rows: int


@dataclass(frozen=True, eq=False)
class _Images:
    """The encoded images of some files by row; what was read last stays in memory.

    Of parquet that are some rows, of Arrow's streams, which have no index, whole files.
    """

    pieces: tuple[_Piece, ...]
    column: str
    folder: Path  # where images lie that are named and not held
    _lock: Lock = field(default_factory=Lock)
    _kept: OrderedDict[tuple[Path, int], pl.Series] = field(default_factory=OrderedDict)

    def __getitem__(self, index: int) -> bytes:
        piece, row = self._place(index)
        cell = self._cell(piece, row)
        if isinstance(cell, Mapping):  # a struct
            content, path = cell.get("bytes"), cell.get("path")
            return (
                (self.folder / path).read_bytes() if content is None and path else _whole(content)
            )
        return _whole(cell)

    def _place(self, index: int) -> tuple[_Piece, int]:
        for piece in self.pieces:
            if index < piece.rows:
                return piece, index
            index -= piece.rows
        raise IndexError(index)

    def _cell(self, piece: _Piece, row: int) -> Any:
        is_table = piece.path.suffix == _PARQUET
        start = row - row % _AT_ONCE if is_table else 0
        with self._lock:
            key = piece.path, start
            if key not in self._kept:
                while len(self._kept) >= (_KEPT_GROUPS if is_table else _KEPT_FILES):
                    self._kept.popitem(last=False)
                rows = _scan(piece.path).select(self.column)
                rows = rows.slice(start, _AT_ONCE) if is_table else rows
                self._kept[key] = rows.collect()[self.column]
            return self._kept[key][row - start]


def _whole(content: Any) -> bytes:
    if content is None:
        raise OSError("the row has no image")
    return bytes(content)


@dataclass(frozen=True, eq=False)
class HuggingFaceSource(EncodedSource):
    images: _Images = field(kw_only=True)

    def read(self, index: int) -> bytes:
        try:
            return self.images[index]
        except pl.exceptions.PolarsError as error:
            raise OSError(f"its file is damaged: {error}") from error


def is_huggingface(path: Path) -> bool:
    """Whether a folder, or a file, is an image set of `datasets`."""
    if path.is_file():
        return path.suffix == _PARQUET and _image_column(_schema(path)) is not None
    if (path / _DICT).is_file() or (path / _STATE).is_file():
        return True
    tables = next(iter(_parquet(path).values()), [])
    return bool(tables) and _image_column(_schema(tables[0])) is not None


def open_huggingface(path: Path, name: str, split: str) -> HuggingFaceSource:
    """The images of a split; of a file, or of a folder without splits, all.

    Order is that of the files. Ids are a column of them, else the images' paths, else row numbers.
    Class names are those of `classnames.txt` beside the files, else of the set's own features.
    Raises DatasetError for a split that is not there and for files that cannot be read.
    """
    files, features = _files_of(path, split)
    schema = _schema(files[0])
    column = _image_column(schema)
    if column is None:
        raise DatasetError(
            f"'{files[0]}' has no column of images (a struct of bytes and path); its columns are "
            f"{', '.join(schema)}"
        )
    names, label = _classes(path, name, features), _label_column(schema, features)
    table = _small_columns(files, schema, column)
    labels = _labels(table, label)
    if not names:
        names = tuple(map(str, range(int(labels.max(initial=UNLABELLED)) + 1)))
    pieces = tuple(_Piece(file, rows) for file, rows in table.group_rows)
    return HuggingFaceSource(
        name,
        split,
        ids=_ids(table.frame, schema),
        labels=labels,
        class_names=names,
        images=_Images(pieces, column, path if path.is_dir() else path.parent),
    )


class _Table(NamedTuple):
    """Everything of the files but the images, and how many rows each file has."""

    frame: pl.DataFrame
    group_rows: list[tuple[Path, int]]


def _files_of(path: Path, split: str) -> tuple[list[Path], Mapping[str, Any]]:
    """The files of a split in their order, and the features that the set declares."""
    if path.is_file():
        return [path], _parquet_features(path)
    if (path / _DICT).is_file():
        known = [str(known) for known in _json(path / _DICT).get("splits", [])]
        if split not in known:
            raise _no_split(path, split, known)
        return _saved(path / split)
    if (path / _STATE).is_file():
        return _saved(path)
    tables = _parquet(path)
    if split not in tables:
        raise _no_split(path, split, tables)
    return tables[split], _parquet_features(tables[split][0])


def _saved(folder: Path) -> tuple[list[Path], Mapping[str, Any]]:
    """What save_to_disk has written."""
    state = _json(folder / _STATE)
    names = [Path(str(entry["filename"])).name for entry in state.get("_data_files", [])]
    if state.get("_indices_data_files"):
        raise DatasetError(f"'{folder}' has rows by indices: save flatten_indices() of it anew")
    files = [folder / name for name in names]
    if missing := [file for file in files if not file.is_file()]:
        raise DatasetError(f"'{missing[0]}' is missing: copy the set again")
    if not files:
        raise DatasetError(f"'{folder}' has no data files")
    features = _json(folder / _INFO).get("features") if (folder / _INFO).is_file() else {}
    return files, features if isinstance(features, dict) else {}


def _parquet(path: Path) -> dict[str, list[Path]]:
    """Parquet files by split: their names, or their folders', say which."""
    found: dict[str, list[Path]] = {}
    for folder in (path, path / "data"):
        for file in sorted(folder.glob("*.parquet")):
            if match := _SHARD.fullmatch(file.stem):
                found.setdefault(match["split"], []).append(file)
    for file in sorted(path.glob("*/*.parquet")):
        if file.parent.name != "data":
            found.setdefault(file.parent.name, []).append(file)
    return found


def _no_split(path: Path, split: str, known: Any) -> DatasetError:
    there = ", ".join(sorted(known)) or "none"
    return DatasetError(f"'{path}' has no split '{split}'; it has {there} (give one with splits=…)")


def _json(path: Path) -> dict[str, Any]:
    with foreign(lambda reason: DatasetError(f"'{path}' cannot be read: {reason}")):
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return content


def _parquet_features(path: Path) -> Mapping[str, Any]:
    """The features that the library writes beside the schema; none where another wrote the file."""
    with foreign(partial(_unreadable, path)):
        text = pl.read_parquet_metadata(path).get("huggingface")
        features = parse_json(text).get("info", {}).get("features", {}) if text else {}
        return features if isinstance(features, dict) else {}


def _unreadable(path: Path, reason: str) -> DatasetError:
    return DatasetError(f"'{path}' cannot be read ({reason}): copy or download it again")


def _schema(path: Path) -> Mapping[str, Any]:
    with foreign(partial(_unreadable, path)):
        return _scan(path).collect_schema()


def _scan(path: Path) -> pl.LazyFrame:
    """The table of a file: parquet, or Arrow's stream, of which the library makes its files."""
    if path.suffix == _PARQUET:
        return scan_parquet(path)
    return pl.read_ipc_stream(path).lazy()


def _image_column(schema: Mapping[str, Any]) -> str | None:
    """The column with images: a struct with bytes, or bytes that are called so."""
    named = [name for name in _IMAGES if name in schema]
    for name in (*named, *schema):
        dtype = schema[name]
        if isinstance(dtype, pl.Struct) and "bytes" in {field.name for field in dtype.fields}:
            return name
        if name in _IMAGES and dtype == pl.Binary:
            return name
    return None


def _label_column(schema: Mapping[str, Any], features: Mapping[str, Any]) -> str | None:
    """A column of class indices: one that is called so, or the only one of classes."""
    if usual := next((name for name in _LABELS if name in schema), None):
        return usual
    classes = [name for name, it in features.items() if _is_class_label(it) and name in schema]
    return classes[0] if len(classes) == 1 else None


def _is_class_label(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "ClassLabel"


def _classes(path: Path, name: str, features: Mapping[str, Any]) -> tuple[str, ...]:
    folder = path if path.is_dir() else path.parent
    names, source = find_class_names([folder / "classnames"], name)
    if source is not None:
        return names
    label = _label_column(features, features)
    feature = features.get(label) if label else None
    own = feature.get("names") if isinstance(feature, dict) and _is_class_label(feature) else None
    return tuple(map(str, own)) if isinstance(own, list) else ()


def _small_columns(files: Sequence[Path], schema: Mapping[str, Any], image: str) -> _Table:
    kept = [name for name in (*_LABELS, *_IDS) if name in schema and name != image]
    kept += [name for name, dtype in schema.items() if dtype.is_integer() and name not in kept]
    is_struct = isinstance(schema[image], pl.Struct)
    path = pl.col(image).struct.field("path") if is_struct else pl.lit(None, pl.String)
    frames = []
    for file in files:
        with foreign(partial(_unreadable, file)):
            frames.append(_scan(file).select(*kept, path.alias("path of the image")).collect())
    rows = [(file, len(frame)) for file, frame in zip(files, frames, strict=True)]
    return _Table(pl.concat(frames), rows)


def _labels(table: _Table, label: str | None) -> NDArray[np.int32]:
    if label is None:
        return np.full(len(table.frame), UNLABELLED, np.int32)
    column = table.frame[label]
    if not column.dtype.is_integer():
        raise DatasetError(
            f"'{table.group_rows[0][0]}': the column {label} has no class indices but "
            f"{column.dtype}: cast it to ClassLabel first"
        )
    return column.fill_null(UNLABELLED).to_numpy().astype(np.int32)


def _ids(frame: pl.DataFrame, schema: Mapping[str, Any]) -> tuple[str, ...]:
    """A column of ids or the images' paths, if each is there once; else the numbers of the rows."""
    for name in (*(name for name in _IDS if name in schema), "path of the image"):
        texts = frame[name].cast(pl.String)
        if not texts.null_count() and texts.n_unique() == len(texts):
            return tuple(texts)
    width = max(6, len(str(len(frame))))
    return tuple(f"{row:0{width}d}" for row in range(len(frame)))
