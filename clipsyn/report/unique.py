"""Images that only one backbone gets right: how many, and small pictures of some.

An image is shown only if it is the one that the store knows: its bytes are those that were
encoded. Pictures are made anew as JPEG, so that nothing of the file but its pixels gets into the
page.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.predicted import Predicted
from clipsyn.catalog.datasets import look_up
from clipsyn.errors import ClipsynError, UsageError
from clipsyn.evaluation.results.view import WHERE, singles
from clipsyn.methods.numerics.logits import NO_CLASS, NONE_OF_THEM
from clipsyn.methods.numerics.metrics import scored
from clipsyn.report.standings import main_part
from clipsyn.report.tables import Cell, Grid, count, words
from clipsyn.show.table import percent
from clipsyn.show.titles import common, shortened, title, where

if TYPE_CHECKING:
    from clipsyn.images.sources.base import ImageSource

_SIDE = 112  # pixels of a thumbnail
_QUALITY = 72  # of its JPEG


@dataclass(frozen=True)
class Example:
    """An image that one backbone gets right and all others get wrong."""

    dataset: str
    split: str
    row: int  # of the sample table
    id: str
    content: bytes  # SHA-256; zeros where nobody has read it
    backbone: str
    truth: str
    others: str  # what most of the others say
    agreeing: int  # how many of the others say so


def unique_grid(oracle: pl.DataFrame) -> Grid | None:
    """How many images only one backbone gets right: a line a dataset, a column a backbone."""
    part = singles(main_part(oracle)).filter(pl.col("value").is_not_nan())
    images = part.filter(metric="unique_correct")
    if images["backbone"].n_unique() < 2:
        return None
    names = shortened(images["backbone"].unique(maintain_order=True).to_list())
    keys = [name for name in WHERE if name not in common(images, WHERE)] or ["dataset"]
    lines = []
    for _, group in images.group_by(WHERE, maintain_order=True):
        row = group.row(0, named=True)
        found = dict(group.select("backbone", "value").iter_rows())
        most = max(found.values())
        numbers = {
            text: _count(found.get(name), row["n"], most) for name, text in names.short.items()
        }
        about = words(title(*where(row, keys)))
        lines.append({"dataset": about, "images": count(row["n"]), **numbers})
    guess = max(part.filter(metric="unique_correct_floor")["value"], default=None)
    note = f"A backbone that guesses would have at most {percent(guess)} % of a dataset's images."
    caption = title("Images that only this backbone gets right", names.phrase)
    return Grid(caption, lines, note)


def _count(share: float | None, n: int, most: float) -> Cell:
    """A number of images, and the share that they are."""
    if share is None:
        return count(None)
    return count(round(share * n))._replace(note=f"{percent(share)} %", best=0 < share == most)


def examples(group: Predicted, most: int) -> Iterator[Example]:
    """Up to `most` images for each backbone of a group.

    First come those for which most of the other backbones give one and the same wrong answer.
    """
    predictions, labels = group.predictions, group.labels
    if len(predictions) < 2:
        return
    right = (predictions == labels) & scored(predictions, labels)
    alone = right.sum(axis=0) == 1
    for b, backbone in enumerate(group.backbones):
        rows = np.flatnonzero(alone & right[b])
        others = np.delete(predictions[:, rows], b, axis=0)
        said, times = _majority(others)
        for place in np.lexsort((rows, -times))[:most]:
            row = int(rows[place])
            yield Example(
                group.samples.dataset,
                group.samples.split,
                row,
                group.samples.ids[row],
                group.samples.content[row].tobytes(),
                backbone,
                group.samples.class_names[labels[row]],
                _class_name(group.samples.class_names, int(said[place])),
                int(times[place]),
            )


def _majority(answers: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], NDArray[np.intp]]:
    """The most frequent of the answers (backbone, image), of equals the first, and how often."""
    times = (answers[:, None] == answers[None]).sum(axis=1)
    first = times.argmax(axis=0)
    columns = np.arange(answers.shape[1])
    return answers[first, columns], times[first, columns]


def _class_name(names: tuple[str, ...], index: int) -> str:
    return NONE_OF_THEM if index == NO_CLASS else names[index]


def spread(found: Mapping[str, list[Example]], most: int) -> list[Example]:
    """Up to `most` of the examples of all groups: as many of each group and backbone as there are
    for the others."""
    queues: dict[tuple[str, str], list[Example]] = {}
    for group, every in found.items():
        for example in every:
            queues.setdefault((group, example.backbone), []).append(example)
    rounds = max(map(len, queues.values()), default=0)
    order = [(turn, key) for turn in range(rounds) for key in queues if turn < len(queues[key])]
    kept = set(order[:most])
    return [
        example
        for key, queue in queues.items()
        for turn, example in enumerate(queue)
        if (turn, key) in kept
    ]


class Thumbnails:
    """Pictures of images in a folder, a tar, a manifest, or the folder of several datasets."""

    def __init__(self, path: Path, places: Iterable[tuple[str, str]]) -> None:
        """places: dataset and split of the images that are looked for.

        Raises UsageError where none of them is there.
        """
        if not path.exists():
            raise UsageError(f"there is no {path}: images=… is a folder, a tar or a manifest")
        self._sources = {place: [*_sources(path, *place)] for place in places}
        self._by_name: dict[tuple[str, str], dict[str, list[tuple[ImageSource, int]]]] = {}
        if not any(self._sources.values()):
            names = ", ".join("/".join(place) for place in self._sources)
            raise UsageError(
                f"{path} has no images of {names}: images=… is the folder, tar or manifest that "
                "they were extracted from, or the folder that has one of these for each dataset"
            )

    def of(self, example: Example) -> str | None:
        """A JPEG in base64; None where the image is not there, or is another one."""
        for source, row in self._found(example):
            if not any(example.content) or source.digest(row) == example.content:
                return _jpeg(source, row)
        return None

    def _found(self, example: Example) -> list[tuple[ImageSource, int]]:
        """Images of that id, with or without an ending; those in a folder of their own come last.

        A tar of a folder has the folder's name before each id.
        """
        place = example.dataset, example.split
        if place not in self._by_name:
            self._by_name[place] = _by_name(self._sources.get(place, []))
        wanted = _bare(example.id)
        there = self._by_name[place].get(wanted.rpartition("/")[2], [])
        same = [it for it in there if _bare(it[0].ids[it[1]]) == wanted]
        return same + [it for it in there if _bare(it[0].ids[it[1]]).endswith(f"/{wanted}")]


def _by_name(sources: Iterable[ImageSource]) -> dict[str, list[tuple[ImageSource, int]]]:
    """Where each image is, by the last part of its id."""
    found: dict[str, list[tuple[ImageSource, int]]] = {}
    for source in sources:
        for row, name in enumerate(source.ids):
            found.setdefault(_bare(name).rpartition("/")[2], []).append((source, row))
    return found


def _bare(name: str) -> str:
    """An id without the ending of an image file."""
    from clipsyn.images.sources.folder import SUFFIXES

    stem, _, ending = name.rpartition(".")
    return stem if stem and f".{ending.lower()}" in SUFFIXES else name


def _jpeg(source: ImageSource, row: int) -> str | None:
    from clipsyn.images.decode import UndecodableImage

    try:
        image = source.image(row)
    except UndecodableImage:
        return None
    image.info.clear()  # JPEG's comment among it
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return b64encode(file.getvalue()).decode()


def _sources(path: Path, dataset: str, split: str) -> Iterator[ImageSource]:
    """Every reading of a path that has images for a dataset and split, whose names may be any."""
    from clipsyn.extract.sources import open_source
    from clipsyn.images.sources import open_path
    from clipsyn.images.sources.base import inside
    from clipsyn.images.sources.webdataset import open_tar

    if path.suffix == ".tar":
        yield open_tar(path, dataset, split)
        return
    if look_up(dataset):
        with suppress(ClipsynError, OSError):
            yield open_source(dataset, split, root=path)
    for name in (dataset, ""):
        with suppress(ClipsynError, OSError):
            (place,) = inside("images", [name], [path])
            inside("images", [split], [place])
            yield open_path(place, dataset, split, path)
