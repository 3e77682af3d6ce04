"""Train and test splits for labelled images that have none, as a manifest.

A split is a function of the images, the share and the seed: whatever the files are called and in
which order they come, the same images are on the same sides.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.catalog.datasets import look_up
from clipsyn.errors import DatasetError, UsageError
from clipsyn.images import KEEP, SplitSettings
from clipsyn.images.sources import sample_table
from clipsyn.images.sources.files import (
    FolderSource,
    ManifestSource,
    open_undivided,
    open_undivided_manifest,
)
from clipsyn.images.sources.webdataset import is_webdataset
from clipsyn.methods.numerics.samples import CONFLICTING, TEST, TRAIN, UNLABELLED, sides
from clipsyn.methods.pool import NO_LABEL
from clipsyn.registry import unknown_name
from clipsyn.settings import refuse_overwriting
from clipsyn.show.frames import check_place, write, written_whole
from clipsyn.show.progress import progress
from clipsyn.text import few

SPLITS = {TRAIN: "train", TEST: "test", UNLABELLED: "unlabelled", CONFLICTING: "conflicting"}
_DROPPED = -1  # a copy, which is on no side
_NOTHING = hashlib.sha256(b"").digest()  # of an empty file, and of one that cannot be read


@dataclass(frozen=True, eq=False)
class Division:
    """Which image is of which class and on which side; a row an image, in the source's order."""

    source: FolderSource | ManifestSource
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    content: Sequence[bytes]
    side: NDArray[np.int8]

    def manifest(self, folder: Path) -> pl.DataFrame:
        """Path from `folder`, label, split and id of each image that is on a side."""
        return self._table(folder).drop_nulls("split")

    def _table(self, folder: Path) -> pl.DataFrame:
        columns = {
            "path": _seen_from(folder, self.source.paths),
            "label": self._label_texts(),
            "split": [SPLITS.get(side) for side in self.side.tolist()],
            "id": self.source.ids,
        }
        return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))

    def _label_texts(self) -> list[str | None]:
        """The class of each image by its name, or by its index where names can be mistaken."""
        names, labels = self.class_names, self.labels.tolist()
        is_plain = len({name.strip() for name in names}) == len(names)
        is_plain &= all(name == name.strip() for name in names)
        written = pl.Series([names[at] for at in labels if at != NO_LABEL], dtype=pl.String)
        if not is_plain or not written.cast(pl.Int64, strict=False).null_count():
            names = tuple(map(str, range(len(names))))
        return [None if label == NO_LABEL else names[label] for label in labels]

    def root_beyond(self, folder: Path) -> Path | None:
        """The folder with all images, if it is not in that of the manifest: `data_root`."""
        root = Path(os.path.commonpath([path.parent for path in self.source.paths]))
        return None if root.is_relative_to(folder.resolve()) else root

    def notes(self) -> tuple[str, ...]:
        """What a reader of the manifest might not expect."""
        return (*self.source.notes, *self._of_images(), *self._of_classes())

    def _of_images(self) -> Iterator[str]:
        split, content = pl.col("split"), pl.col("content")
        is_empty, is_labelled = content == _NOTHING, split != SPLITS[UNLABELLED]
        found = {
            "copies of other images, left out": split.is_null(),
            "copies of other images, on the same side as these": ~is_empty
            & split.is_in([SPLITS[TRAIN], SPLITS[TEST]])
            & (split.cum_count().over("content", "split") > 1),
            "copies with different labels, kept apart as conflicting": split == SPLITS[CONFLICTING],
            "unlabelled copies of labelled images": ~is_empty
            & ~is_labelled
            & is_labelled.any().over("content"),
            "files that are empty or cannot be read": is_empty,
        }
        table = self._table(Path()).with_columns(content=pl.Series(self.content))
        for what, which in found.items():
            if names := table.filter(which)["id"].to_list():
                yield f"{what}: {len(names):,} ({few(names)})"

    def _of_classes(self) -> Iterator[str]:
        tested, known = (
            set(self.labels[np.isin(self.side, these)].tolist())
            for these in ([TEST], [TRAIN, TEST])
        )
        found = {
            "classes with one image, or copies of one, which is in train": known - tested,
            "classes without a labelled image": {*range(len(self.class_names))} - known,
        }
        for what, which in found.items():
            if names := [self.class_names[label] for label in sorted(which)]:
                yield f"{what}, so nothing tests them: {len(names):,} ({few(names)})"


def split(
    images: Path | str, output: Path | str, *, replace: bool = False, **settings: Any
) -> Division:
    """Write a manifest that divides the images of a folder or manifest into train and test.

    settings: those of `clipsyn split`. Beside `output`, ``.csv`` or ``.parquet``, the class names
    are written. Raises UsageError for an output that cannot be, DatasetError for images that cannot
    be divided, UnknownName for a class that is not there.
    """
    output, wanted = Path(output), SplitSettings(**settings)
    check_output(Path(images), output, replace=replace)
    division = divide(Path(images), wanted)
    frame = division.manifest(output.parent)
    with written_whole(_names_of(output)) as file:
        file.write(json.dumps(division.class_names, ensure_ascii=False, indent=1).encode())
    write(frame, **{output.suffix.lower().removeprefix("."): output})
    return division


def check_output(images: Path, output: Path, *, replace: bool) -> None:
    """Raise UsageError unless the manifest may be written there."""
    if output.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"{output} is no name of a manifest: end it in .csv or .parquet")
    check_place(output)
    refuse_overwriting([("output=…", output), ("class names", _names_of(output))], [images])
    if output.exists() and not replace:
        raise UsageError(f"{output} is there already: add replace=True, or choose another output")
    if (other := _names_of(output).with_suffix(".txt")).exists():
        raise UsageError(
            f"{other} would be taken for the class names of {output}: remove it, or choose another "
            "output"
        )


def divide(images: Path, wanted: SplitSettings) -> Division:
    """Read and hash all images, and divide them."""
    source = _opened(images, wanted.data_root)
    labels, names = _without(source, wanted.unlabelled)
    if not (labels != NO_LABEL).any():
        raise DatasetError(
            f"'{images}' has no labelled image: put the images of each class into a folder of its "
            "name, or write a manifest with a column 'label'"
        )
    with progress() as counters:
        table = sample_table(source, counters)
    content = [row.tobytes() for row in table.content]
    keys = _keys(content, source.ids, wanted.seed)
    kept = slice(None) if wanted.copies == KEEP else _first(labels, keys)
    side = np.full(len(labels), _DROPPED, np.int8)
    side[kept] = sides(labels[kept], keys[kept], wanted.test)
    if not (side == TEST).any():
        raise DatasetError(
            f"no class of '{images}' has two different images, so none can be in train and in test"
        )
    return Division(source, labels, names, content, side)


def _opened(images: Path, root: Path | None) -> FolderSource | ManifestSource:
    name = images.resolve().name if images.is_dir() else images.stem
    if images.is_dir():
        if is_webdataset(images, SPLITS[TEST]):
            raise DatasetError(
                f"'{images}' is a webdataset, whose folders are its splits: unpack its tars into a "
                "folder for each class first"
            )
        return open_undivided(images, name)
    if images.is_file():
        return open_undivided_manifest(images, name, root)
    if info := look_up(str(images)):
        raise DatasetError(f"'{images}' has splits already: {', '.join(info.splits)}")
    raise DatasetError(f"there is no folder or manifest '{images}'")


def _without(
    source: FolderSource | ManifestSource, unlabelled: Sequence[str]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Labels and class names when some of the classes stand for no label."""
    for name in unlabelled:
        if name not in source.class_names:
            raise unknown_name("class", name, source.class_names)
    kept = [at for at, name in enumerate(source.class_names) if name not in unlabelled]
    labels = np.full(len(source.class_names) + 1, NO_LABEL, np.int32)  # the last is of no label
    labels[kept] = np.arange(len(kept))
    return labels[source.labels], tuple(source.class_names[at] for at in kept)


def _keys(content: Sequence[bytes], ids: Sequence[str], seed: int) -> NDArray[np.bytes_]:
    """(sample,) equal for equal images; files of no content are not copies of each other."""
    whats = (
        data if data != _NOTHING else name.encode() for data, name in zip(content, ids, strict=True)
    )
    return np.array([hashlib.sha256(b"%d:%b" % (seed, what)).hexdigest() for what in whats], "S64")


def _first(labels: NDArray[np.int32], keys: NDArray[np.bytes_]) -> NDArray[np.intp]:
    """Rows of the first image of each content and label: copies with other labels conflict."""
    pairs = np.rec.fromarrays([keys, labels])
    return np.sort(np.unique(pairs, return_index=True)[1])


def _seen_from(folder: Path, files: Sequence[Path]) -> list[str]:
    start = folder.resolve()
    relative = cache(lambda parent: os.path.relpath(parent, start))
    return [os.path.normpath(f"{relative(file.parent)}/{file.name}") for file in files]


def _names_of(output: Path) -> Path:
    """Where a manifest's class names are looked for."""
    return output.with_name(f"{output.name}.classnames.json")
