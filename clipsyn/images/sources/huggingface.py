"""Image sets of the Hugging Face hub: Parquet files, read without its library.

    ROOT/[data/]<split>-00000-of-00002.parquet, ROOT/<split>.parquet or ROOT/<split>/0000.parquet

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
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.catalog.texts import find_class_names
from clipsyn.errors import DatasetError
from clipsyn.images.sources import (
    UNLABELLED,
    EncodedSource,
    numbered,
    row_ids,
    whole_labels,
)
from clipsyn.show.frames import scan_parquet
from clipsyn.text import foreign, parse_json

_IMAGES = ("image", "img", "jpg", "png", "webp")
_LABELS = ("label", "labels", "fine_label", "target", "cls")
_IDS = ("sample_id", "image_id", "id", "__key__")
_SUFFIX = ".parquet"
_AT_ONCE = 256  # rows of a table: images are asked for in order, by several threads
_KEPT_GROUPS = 4
_SHARD = re.compile(r"(?P<split>.+?)(?:-\d{5}-of-\d{5}(?:-[0-9a-f]+)?)?")


@dataclass(frozen=True, eq=False)
class HuggingFaceSource(EncodedSource):
    """Images in rows of files; the rows that were read last stay in memory."""

    files: tuple[Path, ...] = field(kw_only=True)
    ends: NDArray[np.int64] = field(kw_only=True)  # of each file's rows among all
    column: str = field(kw_only=True)
    _lock: Lock = field(default_factory=Lock, init=False)
    _kept: OrderedDict[tuple[Path, int], pl.Series] = field(default_factory=OrderedDict, init=False)

    def read(self, index: int) -> bytes:
        at = int(np.searchsorted(self.ends, index, side="right"))
        file, first = self.files[at], int(self.ends[at - 1]) if at else 0
        try:
            cell = self._cell(file, index - first)
        except pl.exceptions.PolarsError as error:
            raise OSError(f"its file is damaged: {error}") from error
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None:
            raise OSError("the row has no image")
        return bytes(content)

    def _cell(self, file: Path, row: int) -> Any:
        start = row - row % _AT_ONCE
        with self._lock:
            key = file, start
            if key not in self._kept:
                while len(self._kept) >= _KEPT_GROUPS:
                    self._kept.popitem(last=False)
                rows = pl.scan_parquet(file, glob=False).select(self.column)
                self._kept[key] = rows.slice(start, _AT_ONCE).collect()[self.column]
            return self._kept[key][row - start]


def is_huggingface(path: Path) -> bool:
    """Whether a folder, or a file, is an image set of `datasets`."""
    if path.is_file():
        return path.suffix == _SUFFIX and _image_column(_schema(path)) is not None
    tables = next(iter(_parquet(path).values()), [])
    return bool(tables) and _image_column(_schema(tables[0])) is not None


def open_huggingface(
    path: Path, name: str, split: str, _root: Path | None = None
) -> HuggingFaceSource:
    """The images of a split; of a file all.

    Order is that of the files. Ids are a column of them, else the images' paths, else row numbers.
    Class names are those of `classnames.txt` beside the files, else of the set's own features.
    Raises DatasetError for a split that is not there and for files that cannot be read.
    """
    tables = {split: [path]} if path.is_file() else _parquet(path)
    if split not in tables:
        known = ", ".join(sorted(tables)) or "none"
        raise DatasetError(
            f"'{path}' has no split '{split}'; it has {known} (give one with splits=…)"
        )
    files = tables[split]
    features, schema = _parquet_features(files[0]), _schema(files[0])
    column = _image_column(schema)
    if column is None:
        raise DatasetError(
            f"'{files[0]}' has no column of images (a struct of bytes and path); its columns are "
            f"{', '.join(schema)}"
        )
    folder = path if path.is_dir() else path.parent
    label = next((name for name in _LABELS if name in schema), None)
    names = _classes(folder, name, features.get(label or ""))
    frame, ends = _small_columns(files, schema, column)
    labels = _labels(files[0], frame, label)
    return HuggingFaceSource(
        name,
        split,
        ids=_ids(frame),
        labels=labels,
        class_names=names or numbered(labels),
        is_divided=path.is_dir(),
        files=tuple(files),
        ends=ends,
        column=column,
    )


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
        return scan_parquet(path).collect_schema()


def _image_column(schema: Mapping[str, Any]) -> str | None:
    """The column with images: a struct with bytes, or bytes that are called so."""
    named = [name for name in _IMAGES if name in schema]
    for name in (*named, *schema):
        if _fields(schema[name]).get("bytes") == pl.Binary:
            return name
        if name in _IMAGES and schema[name] == pl.Binary:
            return name
    return None


def _fields(dtype: pl.DataType) -> dict[str, Any]:
    """The fields of a struct."""
    return (
        {field.name: field.dtype for field in dtype.fields} if isinstance(dtype, pl.Struct) else {}
    )


def _classes(folder: Path, name: str, feature: Any) -> tuple[str, ...]:
    names, source = find_class_names([folder / "classnames"], name)
    own = feature.get("names") if source is None and isinstance(feature, dict) else None
    return tuple(map(str, own)) if isinstance(own, list) else names


def _small_columns(
    files: Sequence[Path], schema: Mapping[str, Any], image: str
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """What may be labels and ids, and where the rows of each file end."""
    small = [name for name in (*_LABELS, *_IDS) if name in schema]
    has_path = _fields(schema[image]).get("path") == pl.String
    path = pl.col(image).struct.field("path") if has_path else pl.lit(None, pl.String)
    frames = []
    for file in files:
        with foreign(partial(_unreadable, file)):
            rows = scan_parquet(file).select(*small, path.alias("path of the image"))
            frames.append(rows.collect())
    with foreign(partial(_unreadable, files[0].parent)):
        frame = pl.concat(frames)
    return frame, np.cumsum([len(rows) for rows in frames])


def _labels(file: Path, frame: pl.DataFrame, label: str | None) -> NDArray[np.int32]:
    if label is None:
        return np.full(len(frame), UNLABELLED, np.int32)
    column = frame[label]
    if not column.dtype.is_integer():
        raise DatasetError(
            f"'{file}': the column {label} has no class indices but {column.dtype}: cast it to "
            "ClassLabel first"
        )
    return whole_labels(f"'{file}'", column)


def _ids(frame: pl.DataFrame) -> tuple[str, ...]:
    """A column of ids or the images' paths, if each is there once; else the numbers of the rows."""
    for name in (*_IDS, "path of the image"):
        if name in frame.columns and (
            frame[name].dtype.is_integer() or frame[name].dtype == pl.String
        ):
            texts = frame[name].cast(pl.String)
            if not texts.null_count() and texts.n_unique() == len(texts):
                return tuple(texts)
    return row_ids(len(frame))
