"""Draws of labelled images in CoOp's files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from clipsyn.errors import DatasetError
from clipsyn.methods.numerics import Rows
from clipsyn.store.samples import SampleTable
from clipsyn.text import foreign, parse_json, read_text


def read_indices(folder: Path, samples: SampleTable, shots: int, seed: int) -> Rows:
    """Sorted rows of `samples` that ``shot_K-seed_S.json`` has drawn, as CoOp writes its splits.

    folder: has the files, or a folder for each dataset. Images are found by the end of their path;
    the labels must group them as the store's do. Raises DatasetError for a missing or foreign
    file, and for an image that is not there.
    """
    place = of_dataset if (of_dataset := folder / samples.dataset).is_dir() else folder
    path = place / f"shot_{shots}-seed_{seed}.json"
    rows = {name: row for row, name in enumerate(samples.ids)}
    rows |= {_without_suffix(PurePosixPath(name)): row for name, row in rows.items()}
    drawn: list[int] = []
    ours: dict[int, int] = {}  # the file's label -> the store's
    for image, label in _items(path):
        row = next((rows[name] for name in _endings(image) if name in rows), None)
        if row is None:
            raise DatasetError(f"{path}: {image} is not among the images of {samples.name}")
        truth = int(samples.labels[row])
        if ours.setdefault(label, truth) != truth:
            raise DatasetError(
                f"{path}: {image} has label {label}, whose other images have label {ours[label]} "
                f"in the store, not {truth}: these are other classes"
            )
        drawn.append(row)
    return np.unique(np.array(drawn, np.intp))


def _endings(image: str) -> list[str]:
    """Ends of a path, the longest first, with and without the suffix."""
    parts = PurePosixPath(image.replace("\\", "/")).parts
    ends = (PurePosixPath(*parts[start:]) for start in range(len(parts)))
    return [name for end in ends for name in (end.as_posix(), _without_suffix(end))]


def _without_suffix(path: PurePosixPath) -> str:
    return (path.with_suffix("") if path.name else path).as_posix()  # "/" has no name


def _items(path: Path) -> list[tuple[str, int]]:
    """The path of each image, and its label: ``{"train": [[path, label, class name], …]}``."""
    if not path.exists():
        there = ", ".join(sorted(it.name for it in path.parent.glob("shot_*-seed_*.json")))
        raise DatasetError(
            f"there is no {path}: give a folder with it, or the shots and seeds of the files that "
            f"are there ({there or 'none'})"
        )
    with foreign(lambda why: DatasetError(f"{path} is no draw of the shots: {why}")):
        drawn = parse_json(read_text(path))["train"]
        return [(str(image), int(label)) for image, label, *_ in drawn]
