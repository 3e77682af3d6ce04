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
from clipsyn.images.files import UNDIVIDED, open_folder, open_manifest, opener
from clipsyn.images.source import NOTHING, ImageSource, sample_table
from clipsyn.methods.numerics.samples import CONFLICTING, TEST, TRAIN, UNLABELLED, sides
from clipsyn.methods.pool import NO_LABEL
from clipsyn.registry import unknown_name
from clipsyn.settings import refuse_overwriting
from clipsyn.show.files import check_place, written_whole
from clipsyn.show.frames import write
from clipsyn.show.progress import progress
from clipsyn.text import few

SPLITS = {TRAIN: "train", TEST: "test", UNLABELLED: "unlabelled", CONFLICTING: "conflicting"}
_DROPPED = -1  # a copy, which is on no side


@dataclass(frozen=True, eq=False)
class Division:
    """Which image is of which class and on which side; a row an image, in the source's order."""

    source: ImageSource
    paths: Sequence[Path]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    content: Sequence[bytes]
    side: NDArray[np.int8]

    def manifest(self, folder: Path) -> pl.DataFrame:
        """Path from `folder`, class index, split and id of each image that is on a side.

        Where there are captions, a row for each of them.
        """
        start = folder.resolve()
        relative = cache(lambda parent: os.path.relpath(parent, start))
        columns = {
            "path": [os.path.normpath(f"{relative(it.parent)}/{it.name}") for it in self.paths],
            "label": [None if label == NO_LABEL else str(label) for label in self.labels.tolist()],
            "split": [SPLITS.get(side) for side in self.side.tolist()],
            "id": self.source.ids,
        }
        frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
        if captions := self.source.captions:
            of_images = pl.Series(captions, dtype=pl.List(pl.String))
            frame = frame.with_columns(caption=of_images).explode("caption")
        return frame.drop_nulls("split")

    def root_beyond(self, folder: Path) -> Path | None:
        """The folder with all images, if it is not in that of the manifest: `data_root`."""
        root = Path(os.path.commonpath([path.parent for path in self.paths]))
        return None if root.is_relative_to(folder.resolve()) else root

    def notes(self) -> Iterator[str]:
        """What a reader of the manifest might not expect."""
        yield from self.source.notes
        tested, known = (
            set(self.labels[np.isin(self.side, these)].tolist())
            for these in ([TEST], [TRAIN, TEST])
        )
        ids, classes = self.source.ids, self.class_names
        found = {
            "copies of other images, left out": _names(ids, self.side == _DROPPED),
            "copies with different labels, kept apart as conflicting": _names(
                ids, self.side == CONFLICTING
            ),
            "files that are empty or cannot be read": _names(
                ids, np.array([content == NOTHING for content in self.content])
            ),
            "classes with one image, or copies of one, which is in train, so nothing tests them": [
                classes[label] for label in sorted(known - tested)
            ],
            "classes without a labelled image, so nothing tests them": [
                classes[label] for label in sorted({*range(len(classes))} - known)
            ],
        }
        for what, names in found.items():
            if names:
                yield f"{what}: {len(names):,} ({few(names)})"


def _names(ids: Sequence[str], which: NDArray[np.bool_]) -> list[str]:
    return [ids[row] for row in np.flatnonzero(which).tolist()]


def split(
    images: Path | str, output: Path | str, *, replace: bool = False, **settings: Any
) -> Division:
    """Write a manifest that divides the images of a folder or manifest into train and test.

    settings: those of `clipsyn split`. Beside `output`, ``.csv`` or ``.parquet``, the class names
    are written. Raises UsageError for an output that cannot be, DatasetError for images that cannot
    be divided, UnknownName for a class that is not there.
    """
    output, wanted = Path(output), SplitSettings(**settings)
    names = output.with_name(f"{output.name}.classnames.json")  # where they are looked for
    if output.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"{output} is no name of a manifest: end it in .csv or .parquet")
    check_place(output)
    refuse_overwriting([("output=…", output), ("class names", names)], [Path(images)])
    if output.exists() and not replace:
        raise UsageError(f"{output} is there already: add replace=True, or choose another output")
    division = divide(Path(images), wanted)
    frame = division.manifest(output.parent)
    with written_whole(names) as file:
        file.write(json.dumps(division.class_names, ensure_ascii=False, indent=1).encode())
    write(frame, **{output.suffix.lower().removeprefix("."): output})
    return division


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
    assert source.place
    paths = [source.place(row)[0].absolute() for row in range(len(source))]
    return Division(source, paths, labels, names, content, side)


def _opened(images: Path, root: Path | None) -> ImageSource:
    name = images.resolve().name if images.is_dir() else images.stem
    found = opener(images, UNDIVIDED)
    if found is open_folder:
        return open_folder(images.resolve(), name, UNDIVIDED, loose=True)
    if found is open_manifest:
        return open_manifest(images, name, UNDIVIDED, root)
    if info := look_up(str(images)):
        raise DatasetError(f"'{images}' has splits already: {', '.join(info.splits)}")
    raise DatasetError(
        f"'{images}' is no folder and no manifest: unpack it into a folder for each class first"
    )


def _without(
    source: ImageSource, unlabelled: Sequence[str]
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
        data if data != NOTHING else name.encode() for data, name in zip(content, ids, strict=True)
    )
    return np.array([hashlib.sha256(b"%d:%b" % (seed, what)).hexdigest() for what in whats], "S64")


def _first(labels: NDArray[np.int32], keys: NDArray[np.bytes_]) -> NDArray[np.intp]:
    """Rows of the first image of each content and label: copies with other labels conflict."""
    pairs = np.rec.fromarrays([keys, labels])
    return np.sort(np.unique(pairs, return_index=True)[1])
