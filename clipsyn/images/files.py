"""Image files: in a folder, or named by a table or JSON; and what opens which layout.

A folder has a sub-folder for each class, or is flat and unlabelled. A table is a CSV or Parquet
file, ``path[,label][,split][,id]``. Images with captions are named by JSON, in COCO's form or in
Karpathy's with splits:

{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
{"images": [{"filename", "filepath" (may lack), "split", "sentences": [{"raw"}]}]}
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.catalog.datasets import find_class_names, imagenet_names
from clipsyn.errors import DatasetError
from clipsyn.images.archives import is_huggingface, is_webdataset, open_huggingface, open_webdataset
from clipsyn.images.source import ImageSource, files_there, no_split, numbered, whole_labels
from clipsyn.methods.pool import NO_LABEL
from clipsyn.show.frames import read_parquet, unguarded
from clipsyn.text import advised, counted, foreign, parse_json, read_text

_PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif")
_RASTERS = (".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset((*_PHOTOS, *_RASTERS))
SPLITS = frozenset(("train", "training", "trainval", "val", "valid", "validation", "dev", "test"))
MANIFESTS = (".csv", ".parquet")
UNDIVIDED = "all"  # the split of images that must have none

COLUMNS = ("path", "label", "split", "id")
_CAPTION = re.compile(r"caption(_duplicated_\d+)?")  # as polars calls a column that is repeated
_FLICKR = {"filename": "path", "raw": "caption"}  # Flickr30k's, whose captions are JSON
_CAPTIONS = "captions"
_WORDNET_ID = re.compile(r"n\d{8}")
_IMAGENET = (1000, "n01440764", "n15075141")  # classes, the first and the last of them
_MOST = 1 << 28  # bytes; those of COCO's training images have 150 million
_Texts = Mapping[str, list[str]]  # of each image, by its file


def open_path(path: Path, name: str, split: str, root: Path | None = None) -> ImageSource:
    """The images of a split of what lies at `path`; tables may name images in `root`, too."""
    found = opener(path, split)
    if found is None:
        raise DatasetError(
            f"'{path}' is no manifest (.csv, .parquet), .json of captions or folder: give one"
        )
    return found(path, name, split, root)


def opener(path: Path, split: str) -> Callable[..., ImageSource] | None:
    """What opens the layout of `path`; None where nothing does, or nothing is there."""
    if is_webdataset(path, split):
        return open_webdataset
    if is_huggingface(path):
        return open_huggingface
    if path.is_dir():
        return open_folder
    if path.suffix.lower() == ".json" and path.is_file():
        return open_captions
    return open_manifest if path.is_file() and path.suffix.lower() in MANIFESTS else None


def open_folder(
    path: Path, name: str, split: str, _root: Path | None = None, *, loose: bool = False
) -> ImageSource:
    """Images of ``PATH/<split>/`` if there is such a split, else of PATH; ids are paths from there.

    Sub-folders are classes in sorted order, taken from all splits together so that a class
    missing in one shifts no label. Without sub-folders the images are unlabelled. Class names are
    those of `classnames.txt` or `classnames.json` inside PATH; else open_clip's if the folders are
    ImageNet-1k's; else the folders'. Hidden files and files without an image suffix are skipped
    and counted in `notes`; a file with image suffix stays, whatever is in it. loose: images beside
    the class folders stay, as unlabelled ones.
    """
    root = _split_root(path, split)
    files = list(_walk(root, (), (root.resolve(),)))
    parts = sorted(part for part, is_image in files if is_image)
    if not parts:
        raise DatasetError(
            f"there is no image in '{root}' ({counted(len(files), 'other file')}); images end in "
            f"{', '.join(_PHOTOS)} or such"
        )
    classes = _class_folders(path, root) if any(len(part) > 1 for part in parts) else []
    kept = [part for part in parts if len(part) > 1] if classes and not loose else parts
    index = {folder: i for i, folder in enumerate(classes)}
    left_out = (
        (len(files) - len(parts), "file without an image suffix in"),
        (len(parts) - len(kept), "image beside the class folders of"),
    )
    ids = tuple("/".join(part) for part in kept)
    return ImageSource(
        name,
        split,
        ids=ids,
        labels=np.array([index.get(part[0], NO_LABEL) for part in kept], dtype=np.int32),
        class_names=_names_of_folder(path, classes),
        notes=tuple(f"{name}: {n:,} {what} '{root}' left out" for n, what in left_out if n),
        is_divided=root != path,
        place=lambda row: (root / ids[row], 0, None),
    )


def _split_root(path: Path, split: str) -> Path:
    """``PATH/<split>`` if that is a split, and not a class of the same name."""
    folders = set(_subfolders(path))
    is_split_layout = folders <= SPLITS | {split}
    if split == UNDIVIDED and (
        splits := [it for it in folders & SPLITS if is_split_layout or _subfolders(path / it)]
    ):
        there = ",".join(sorted(splits))
        raise DatasetError(
            f"'{path}' has splits already: `{advised('extract', 'STORE', '-d', path, '-s', there)}`"
            " takes them"
        )
    if split in folders and (is_split_layout or _subfolders(path / split)):
        return path / split
    if folders and is_split_layout:
        raise no_split(path, split, folders)
    return path


def _subfolders(path: Path) -> list[str]:
    try:
        return sorted(x.name for x in path.iterdir() if x.is_dir() and not x.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"folder '{path}' cannot be read: {error.strerror}") from error


def _class_folders(path: Path, root: Path) -> list[str]:
    classes = set(_subfolders(root))
    if root != path:
        siblings = (set(_subfolders(path)) & SPLITS) - {root.name}
        classes |= {folder for sibling in siblings for folder in _subfolders(path / sibling)}
    return sorted(classes)


def _walk(
    folder: Path, above: tuple[str, ...], ancestors: tuple[Path, ...]
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Files below a folder, and whether each is an image.

    Follows symbolic links, but never into a folder that contains them.
    """
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


def _names_of_folder(path: Path, classes: list[str]) -> tuple[str, ...]:
    names, source = find_class_names(path / "classnames", classes)
    if source and classes and len(names) != len(classes):
        raise DatasetError(
            f"'{source}' has {len(names)} class names for {len(classes)} class folders in '{path}'"
        )
    if source or not classes:
        return names
    # A WordNet id would make a prompt that no text tower understands.
    is_imagenet = (len(classes), classes[0], classes[-1]) == _IMAGENET
    return imagenet_names() if is_imagenet else tuple(classes)


def open_manifest(path: Path, name: str, split: str, root: Path | None = None) -> ImageSource:
    """The rows of a manifest whose `split` is the one asked for (all rows without that column).

    Order is the manifest's. Relative paths are relative to its folder, and all lead to files in it
    or in `root`. A label is a class index or a class name; an empty one is unlabelled. Ids are the
    `id` column, else the path as written. Class names are those of ``<manifest>.classnames.txt`` or
    ``.json``, else the sorted distinct labels over all splits, else numbers.
    """
    table = _read(path)
    names, names_path = find_class_names(path.with_name(f"{path.name}.classnames"))
    indices, class_names = _labels(table, names, path, names_path)
    chosen = _rows_of_split(table, split, path)
    key = "id" if "id" in table.columns else "path"
    captions: list[list[str]] = []
    if _CAPTIONS in table.columns:
        chosen, captions = _by_image(table, key, chosen, path)
    paths = _texts(table, "path", path, chosen)
    files = files_there(f"manifest '{path}'", paths, (path.parent, root))
    return ImageSource(
        name,
        split,
        _texts(table, key, path, chosen),
        indices[chosen.to_numpy()],
        class_names,
        captions=captions,
        is_divided="split" in table.columns,
        place=lambda row: (files[row], 0, None),
    )


def _read(path: Path) -> pl.DataFrame:
    """The table, columns as text: an id of ``007`` keeps its zeros."""
    with foreign(lambda reason: DatasetError(f"manifest '{path}' cannot be read: {reason}")):
        if path.suffix.lower() == ".parquet":
            table = read_parquet(path)
        else:
            table = unguarded(pl.read_csv(path, infer_schema=False, glob=False))
        if {*_FLICKR} <= {*table.columns}:
            table = table.rename(_FLICKR).with_columns(
                pl.col("caption").str.json_decode(pl.List(pl.String))
            )
        known = [name for name in COLUMNS if name in table.columns]
        captions = [pl.col(name) for name in table.columns if _CAPTION.fullmatch(name)]
        lists = [pl.concat_list(it).cast(pl.List(pl.String)) for it in captions]
        texts = table.select(
            pl.col(known).cast(pl.String), **{_CAPTIONS: pl.concat_list(lists)} if lists else {}
        )
    if "path" not in known:
        raise DatasetError(
            f"manifest '{path}' has no column 'path'; it has {', '.join(table.columns) or 'none'} "
            f"(known: {', '.join(COLUMNS)})"
        )
    return texts


def _by_image(
    table: pl.DataFrame, key: str, chosen: pl.Series, path: Path
) -> tuple[pl.Series, list[list[str]]]:
    """The first of the chosen rows of each image, and the captions of all of them."""
    rows = table.with_row_index("row").filter(chosen & table[key].is_not_null())
    about = [name for name in COLUMNS if name in table.columns and name != key]
    images = rows.group_by(key, maintain_order=True).agg(
        pl.col("row").first(),
        pl.col(_CAPTIONS).explode().drop_nulls().str.strip_chars(),
        alike=pl.max_horizontal(0, *(pl.col(name).n_unique() for name in about)) < 2,
    )
    if not images["alike"].all():
        other = images.filter(~pl.col("alike"))[key][0]
        raise DatasetError(f"manifest '{path}': rows of '{other}' differ in {' or '.join(about)}")
    first = pl.Series(np.isin(np.arange(len(table)), images["row"]))
    return first | (chosen & table[key].is_null()), images[_CAPTIONS].to_list()


def _texts(table: pl.DataFrame, column: str, path: Path, chosen: pl.Series) -> tuple[str, ...]:
    values = table[column].fill_null("")
    if (values == "").any():
        row = int((values == "").arg_max() or 0) + 1
        raise DatasetError(f"manifest '{path}': row {row} has no {column}")
    return tuple(values.filter(chosen))


def _rows_of_split(table: pl.DataFrame, split: str, path: Path) -> pl.Series:
    if "split" not in table.columns:
        return pl.repeat(value=True, n=len(table), eager=True)
    if split == UNDIVIDED and UNDIVIDED not in table["split"]:
        raise DatasetError(
            f"manifest '{path}' has a column 'split' already: "
            f"`{advised('extract', 'STORE', '-d', path, '-s', 'SPLIT')}` takes its rows; without "
            "the column they can be split anew"
        )
    chosen = table["split"].fill_null("") == split
    if not chosen.any():
        raise no_split(path, split, {*table["split"].drop_nulls()} - {""})
    return chosen


def _labels(
    table: pl.DataFrame, names: tuple[str, ...], path: Path, names_path: Path | None
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Class index of every row of the manifest, and the class names."""
    if "label" not in table.columns or table["label"].null_count() == len(table):
        return np.full(len(table), NO_LABEL, dtype=np.int32), names
    labels = table["label"]
    indices = labels.cast(pl.Float64, strict=False)  # whole numbers of any spelling
    if indices.null_count() == labels.null_count() and (indices.drop_nulls() % 1 == 0).all():
        rows = whole_labels(f"manifest '{path}'", indices)
        return rows, names or numbered(rows)
    classes = names or tuple(sorted(labels.drop_nulls().unique()))
    index = {name: place for place, name in reversed([*enumerate(classes)])}
    if unknown := [label for label in labels.drop_nulls() if label not in index]:
        raise DatasetError(
            f"manifest '{path}': label '{unknown[0]}' is not among the names of '{names_path}'"
        )
    found = [NO_LABEL if label is None else index[label] for label in labels]
    return np.array(found, dtype=np.int32), classes


def open_captions(path: Path, name: str, split: str, root: Path | None = None) -> ImageSource:
    """The images of a JSON file, which lie in `root`, or else beside it; of COCO's form all.

    Ids are the files as written. Raises DatasetError for a caption of an image that is not listed.
    """
    with foreign(lambda reason: DatasetError(f"'{path}' cannot be read: {reason}")):
        content = parse_json(read_text(path, _MOST))
        is_divided = "annotations" not in content
        found = _of_split(path, content, split) if is_divided else _annotated(path, content)
    files = files_there(f"'{path}'", found, (root or path.parent,))
    return ImageSource(
        name,
        split,
        tuple(found),
        np.full(len(found), NO_LABEL, np.int32),
        captions=tuple(found.values()),
        is_divided=is_divided,
        place=lambda row: (files[row], 0, None),
    )


def _annotated(path: Path, content: Mapping[str, Any]) -> _Texts:
    names = {image["id"]: str(image["file_name"]) for image in content["images"]}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for number, annotation in enumerate(content["annotations"]):
        if (image := annotation["image_id"]) not in names:
            raise DatasetError(
                f"'{path}': annotation {number} is of image {image}, which is not listed"
            )
        found[names[image]].append(annotation["caption"].strip())
    return found


def _of_split(path: Path, content: Mapping[str, Any], split: str) -> _Texts:
    chosen = [image for image in content["images"] if image["split"] == split]
    if not chosen:
        raise no_split(path, split, {image["split"] for image in content["images"]})
    return {
        "/".join(filter(None, (image.get("filepath"), image["filename"]))): [
            sentence["raw"].strip() for sentence in image["sentences"]
        ]
        for image in chosen
    }
