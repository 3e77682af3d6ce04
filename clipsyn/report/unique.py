"""Images that only one backbone gets right: how many, and which are worth a look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.predicted import Predicted
from clipsyn.evaluation.results.view import WHERE, singles
from clipsyn.methods.numerics.logits import NO_CLASS, NONE_OF_THEM
from clipsyn.methods.numerics.metrics import scored
from clipsyn.report.grids import Cell, Grid, count, grid_of_lines, words
from clipsyn.report.means import main_part
from clipsyn.show.table import percent
from clipsyn.show.titles import common, shortened, title, where


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
        numbers = (
            (text, _count(found.get(name), row["n"], most)) for name, text in names.short.items()
        )
        about = words(title(*where(row, keys)))
        lines.append([("dataset", about), ("images", count(row["n"])), *numbers])
    guess = max(part.filter(metric="unique_correct_floor")["value"], default=None)
    note = f"A backbone that guesses would have at most {percent(guess)} % of a dataset's images."
    caption = title("Images that only this backbone gets right", names.phrase)
    return grid_of_lines(caption, lines, note)


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
