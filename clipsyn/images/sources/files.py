"""Image files: in a folder, or named by a table; and what opens which layout.

A folder has a sub-folder for each class, or is flat and unlabelled. A table is a CSV or Parquet
file, ``path[,label][,split][,id]``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.catalog.texts import find_class_names, imagenet_names
from clipsyn.errors import DatasetError
from clipsyn.images.sources import (
    UNLABELLED,
    EncodedSource,
    inside,
    numbered,
    read_at,
    whole_labels,
)
from clipsyn.images.sources.huggingface import is_huggingface, open_huggingface
from clipsyn.images.sources.webdataset import is_webdataset, open_webdataset
from clipsyn.show.frames import read_parquet, unguarded
from clipsyn.text import advised, counted, foreign

_PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif")
_RASTERS = (".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset((*_PHOTOS, *_RASTERS))
SPLITS = frozenset(("train", "training", "trainval", "val", "valid", "validation", "dev", "test"))

COLUMNS = ("path", "label", "split", "id")
_WORDNET_ID = re.compile(r"n\d{8}")
_IMAGENET = (1000, "n01440764", "n15075141")  # classes, the first and the last of them


@dataclass(frozen=True, eq=False)
class FolderSource(EncodedSource):
    """Files below `root`; ids are their paths from there, with ``/``."""

    root: Path = field(default=Path(), kw_only=True)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(map(self.root.resolve().joinpath, self.ids))

    def read(self, index: int) -> bytes:
        return read_at(self.root / self.ids[index])


def open_folder(path: Path, name: str, split: str, _root: Path | None = None) -> FolderSource:
    """Images of ``PATH/<split>/`` if there is such a split, else of PATH.

    Sub-folders are classes in sorted order, taken from all splits together so that a class
    missing in one shifts no label. Without sub-folders the images are unlabelled. Class names are
    those of a `classnames.txt` or `classnames.json` inside PATH, or beside it as
    ``PATH.classnames.txt``; else open_clip's if the folders are ImageNet-1k's; else the
    folders'. Hidden files and files without an image suffix are skipped
    and counted in `notes`; a file with image suffix stays, whatever is in it.
    """
    return _opened(path, _split_root(path, split), name, split)


def open_undivided(path: Path, name: str) -> FolderSource:
    """All images of a folder that has no splits; those beside the class folders are unlabelled.

    Raises DatasetError for a folder with splits.
    """
    folders = _subfolders(path)
    is_split_layout = set(folders) <= SPLITS
    if splits := [
        name for name in folders if name in SPLITS and (is_split_layout or _subfolders(path / name))
    ]:
        raise DatasetError(
            f"'{path}' has splits already ({', '.join(splits)}): "
            f"`{advised('extract', 'STORE', '-d', path, '-s', ','.join(splits))}` takes them"
        )
    return _opened(path, path, name, "all", loose=True)


def _opened(path: Path, root: Path, name: str, split: str, loose: bool = False) -> FolderSource:
    """loose: whether images beside the class folders stay, as unlabelled ones."""
    parts, skipped = _list_images(root)
    classes = _class_folders(path, root, parts)
    if not any(len(part) > 1 for part in parts):
        classes = []
    kept = [part for part in parts if len(part) > 1] if classes and not loose else parts
    class_names, remark = _names_of_folder(path, name, classes)
    index = {folder: i for i, folder in enumerate(classes)}
    beside = len(parts) - len(kept)
    left_out = (
        (skipped, f"{counted(skipped, 'file')} without an image suffix in"),
        (beside, f"{counted(beside, 'image')} beside the class folders of"),
    )
    return FolderSource(
        name,
        split,
        ids=tuple("/".join(part) for part in kept),
        labels=np.array([index.get(part[0], UNLABELLED) for part in kept], dtype=np.int32),
        class_names=class_names,
        notes=(*remark, *(f"{name}: {what} '{root}' left out" for n, what in left_out if n)),
        root=root,
        is_divided=root != path,
    )


def _split_root(path: Path, split: str) -> Path:
    """``PATH/<split>`` if that is a split, and not a class of the same name."""
    folders = set(_subfolders(path))
    is_split_layout = folders <= SPLITS | {split}
    if split in folders and (is_split_layout or _subfolders(path / split)):
        return path / split
    if folders and is_split_layout:
        raise DatasetError(
            f"'{path}' has no split '{split}'; it has {', '.join(sorted(folders))} "
            "(give one with splits=…)"
        )
    return path


def _subfolders(path: Path) -> list[str]:
    try:
        return sorted(x.name for x in path.iterdir() if x.is_dir() and not x.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"folder '{path}' cannot be read: {error.strerror}") from error


def _class_folders(path: Path, root: Path, parts: list[tuple[str, ...]]) -> list[str]:
    classes = set(_subfolders(root))
    if root != path:
        siblings = (set(_subfolders(path)) & SPLITS) - {root.name}
        classes |= {folder for sibling in siblings for folder in _subfolders(path / sibling)}
    return sorted(classes)


def _list_images(root: Path) -> tuple[list[tuple[str, ...]], int]:
    """Path parts of every image below `root`, sorted by class, and the number of other files."""
    files = list(_walk(root, (), (root.resolve(),)))
    parts = [part for part, is_image in files if is_image]
    skipped = len(files) - len(parts)
    if not parts:
        held = f"{skipped} other files" if skipped else "it is empty"
        raise DatasetError(
            f"there is no image in '{root}' ({held}); images end in {', '.join(_PHOTOS)} or such"
        )
    return sorted(parts), skipped


def _walk(
    folder: Path, above: tuple[str, ...], ancestors: tuple[Path, ...]
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Files below a folder; follows symbolic links, but never into a folder that contains them."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"folder '{folder}' cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith(".") or (not above and entry.name.startswith("classnames.")):
            continue
        part = (*above, entry.name)
        if entry.is_dir():
            target = Path(entry.path).resolve()
            if target not in ancestors:
                yield from _walk(Path(entry.path), part, (*ancestors, target))
        else:
            # A dangling link is a row that cannot be read; a pipe or socket is no row at all.
            is_file = entry.is_file() or not Path(entry.path).exists()
            yield part, is_file and Path(entry.name).suffix.lower() in SUFFIXES


def _names_of_folder(
    path: Path, name: str, classes: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    here = path.absolute()  # "." has no name
    beside = here.with_name(f"{here.name}.classnames")
    names, source = find_class_names((path / "classnames", beside), name, classes)
    if source and classes and len(names) != len(classes):
        raise DatasetError(
            f"'{source}' has {len(names)} class names for {len(classes)} class folders in '{path}'"
        )
    if source or not classes or not all(map(_WORDNET_ID.fullmatch, classes)):
        return names if source else tuple(classes), ()
    # A WordNet id would make a prompt that no text tower understands.
    if (len(classes), classes[0], classes[-1]) == _IMAGENET:
        note = f"{name}: the folders are ImageNet-1k's, so the class names are open_clip's"
        return imagenet_names(), (note,)
    return tuple(classes), (
        f"{name}: the class names are WordNet ids such as {classes[0]}, which make poor prompts: "
        "give names in a classnames.txt or classnames.json",
    )


@dataclass(frozen=True, eq=False)
class ManifestSource(EncodedSource):
    paths: tuple[Path, ...] = field(default=(), kw_only=True)

    def read(self, index: int) -> bytes:
        return read_at(self.paths[index])


def open_manifest(path: Path, name: str, split: str, root: Path | None = None) -> ManifestSource:
    """The rows of a manifest whose `split` is the one asked for (all rows without that column).

    Order is the manifest's. Relative paths are relative to its folder, and all lead to files in it
    or in `root`. A label is a class index
    or a class name; an empty one is unlabelled. Ids are the `id` column, else the path as
    written. Class names are those of ``<manifest>.classnames.txt`` or of `classnames.txt` in its
    folder (or ``.json``), else the sorted distinct labels over all splits, else numbers.
    """
    table = _read(path)
    stems = (f"{path.name}.classnames", "classnames")
    names, names_path = find_class_names(map(path.with_name, stems), name)
    indices, class_names = _labels(table, names, path, names_path)
    chosen = _rows_of_split(table, split, path)
    texts = _texts(table, "path", path)[chosen]
    files = inside(f"manifest '{path}'", texts, (path.parent, root))
    if missing := [file for file in files if not (file.exists() or file.is_symlink())]:
        raise DatasetError(
            f"manifest '{path}': {len(missing)} of {len(files)} files do not exist, the first is "
            f"'{missing[0]}' (paths are relative to the manifest's folder)"
        )
    ids = _texts(table, "id" if "id" in table.columns else "path", path)[chosen]
    numbered = bool(class_names) and not names and class_names[0] == "0"
    notes = (f"{name}: no class names given, so the classes are called 0, 1, …",) * numbered
    return ManifestSource(
        name,
        split,
        tuple(ids.tolist()),
        indices[chosen],
        class_names,
        notes=notes,
        paths=files,
        is_divided="split" in table.columns,
    )


def open_undivided_manifest(path: Path, name: str, root: Path | None = None) -> ManifestSource:
    """All rows of a manifest without splits; raises DatasetError for one with a column of them."""
    if "split" in _read(path).columns:
        raise DatasetError(
            f"manifest '{path}' has a column 'split' already: "
            f"`{advised('extract', 'STORE', '-d', path, '-s', 'SPLIT')}` takes its rows; without "
            "the column they can be split anew"
        )
    return open_manifest(path, name, "all", root)


def _read(path: Path) -> pl.DataFrame:
    """The table, CSV columns as text: an id of ``007`` keeps its zeros."""
    with foreign(lambda reason: DatasetError(f"manifest '{path}' cannot be read: {reason}")):
        if path.suffix.lower() == ".parquet":
            table = read_parquet(path)
        else:
            table = unguarded(pl.read_csv(path, infer_schema=False, glob=False))
    nested = [x for x in COLUMNS if x in table.columns and table.schema[x].is_nested()]
    if nested:
        raise DatasetError(f"manifest '{path}': the column {nested[0]} has lists: give it texts")
    if "path" not in table.columns:
        raise DatasetError(
            f"manifest '{path}' has no column 'path'; it has {', '.join(table.columns) or 'none'} "
            f"(known: {', '.join(COLUMNS)})"
        )
    return table


def _texts(table: pl.DataFrame, column: str, path: Path) -> NDArray[np.object_]:
    values = table[column].cast(pl.String)
    if values.null_count() or (values == "").any():
        empty = values.is_null() | (values == "")
        row = int(empty.fill_null(value=True).arg_max() or 0) + 1
        raise DatasetError(f"manifest '{path}': row {row} has no {column}")
    return np.array(values.to_list(), dtype=object)


def _rows_of_split(table: pl.DataFrame, split: str, path: Path) -> NDArray[np.bool_]:
    if "split" not in table.columns:
        return np.ones(len(table), dtype=np.bool_)
    splits = np.array(table["split"].cast(pl.String).fill_null("").to_list(), dtype=object)
    chosen = np.asarray(splits == split, dtype=np.bool_)
    if not chosen.any():
        known = ", ".join(sorted({str(s) for s in splits} - {""})) or "none"
        raise DatasetError(f"manifest '{path}' has no rows of split '{split}'; it has {known}")
    return chosen


def _labels(
    table: pl.DataFrame, names: tuple[str, ...], path: Path, names_path: Path | None
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Class index of every row of the manifest, and the class names."""
    if "label" not in table.columns or table["label"].null_count() == len(table):
        return np.full(len(table), UNLABELLED, dtype=np.int32), names
    column = table["label"]
    as_index = column if column.dtype.is_integer() else _as_integers(column)
    if as_index is not None:
        indices = whole_labels(f"manifest '{path}'", as_index)
        return indices, names or numbered(indices)
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise DatasetError(
            f"manifest '{path}': labels are {column.dtype}, neither class indices nor names"
        )
    return _named_labels(column.cast(pl.String).to_list(), names, path, names_path)


def _as_integers(column: pl.Series) -> pl.Series | None:
    if column.dtype != pl.String:
        return None
    numbers = column.cast(pl.Int64, strict=False)
    return numbers if numbers.null_count() == column.null_count() else None


def _named_labels(
    labels: list[str | None], names: tuple[str, ...], path: Path, names_path: Path | None
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    classes = names or tuple(sorted({label for label in labels if label is not None}))
    index: dict[str | None, int] = {None: UNLABELLED}
    for i, name in enumerate(classes):
        index.setdefault(name, i)
    if unknown := [label for label in labels if label not in index]:
        raise DatasetError(
            f"manifest '{path}': label '{unknown[0]}' is not among the {len(classes)} class names "
            f"of '{names_path}'"
        )
    return np.array([index[label] for label in labels], dtype=np.int32), classes


MANIFESTS = (".csv", ".parquet")


def open_path(path: Path, name: str, split: str, root: Path | None = None) -> EncodedSource:
    """The images of a split of what lies at `path`; tables may name images in `root`, too."""
    found = opener(path, split)
    if found is None:
        raise DatasetError(
            f"'{path}' is a file but no .csv or .parquet manifest: give a folder or a manifest"
        )
    return found(path, name, split, root)


def opener(path: Path, split: str) -> Callable[..., EncodedSource] | None:
    """What opens the layout of `path`; None where nothing does, or nothing is there."""
    if is_webdataset(path, split):
        return open_webdataset
    if is_huggingface(path):
        return open_huggingface
    if path.is_dir():
        return open_folder
    return open_manifest if path.is_file() and path.suffix.lower() in MANIFESTS else None
