"""`export.json`: what the files of an export are, so that an import needs no options.

    {"format": "1.0", "layout": …, "splits": […], "classes": […], "cells": […]}

Every file is named by its path from there. What another program wrote is read with suspicion: no
path leaves the folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from clipsyn.errors import DatasetError
from clipsyn.names import FeatureKey
from clipsyn.text import first_problem, foreign, parse_json

NAME = "export.json"
_FORMAT = "1.0"


@dataclass(frozen=True)
class Split:
    """A split's samples, beside their ids and labels, which stand in each cell."""

    dataset: str
    split: str
    class_names: tuple[str, ...]
    metric: str
    licence: str


@dataclass(frozen=True)
class Classes:
    """A file with the class embeddings of a backbone, and the factor of its logits."""

    file: str
    dataset: str
    prompts: str
    backbone: str


@dataclass(frozen=True)
class Cell:
    """One cell, and its file or the folder of its files."""

    file: str
    key: FeatureKey
    kind: str  # what it holds
    prompts: str | None  # of logits and predictions, where it is known
    fingerprint: str  # in the store that it is from


@dataclass(frozen=True)
class Manifest:
    layout: str
    splits: tuple[Split, ...]
    classes: tuple[Classes, ...]
    cells: tuple[Cell, ...]

    def dumps(self) -> bytes:
        content = {"format": _FORMAT, **asdict(self)}
        return json.dumps(content, ensure_ascii=False, indent=1).encode()

    def classes_of(self, cell: Cell) -> list[Classes]:
        """Those that make logits of the image embeddings of a cell."""
        names = cell.key.dataset, cell.key.backbone
        of_names = [it for it in self.classes if (it.dataset, it.backbone) == names]
        return of_names if cell.kind == "embeddings" else []


def read_manifest(folder: Path) -> Manifest:
    """What an export holds; raises DatasetError where that cannot be."""
    from pydantic import TypeAdapter, ValidationError

    path = folder / NAME
    with foreign(lambda reason: DatasetError(f"{path} cannot be read: {reason}")):
        content = parse_json(path.read_bytes())
        version = str(content["format"])
        if version.partition(".")[0] != _FORMAT.partition(".")[0]:
            raise ValueError(f"it has format {version}, and this clipsyn reads {_FORMAT}")
        try:
            return _checked(TypeAdapter(Manifest).validate_python(content))
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None


def _checked(manifest: Manifest) -> Manifest:
    """What an import would pass over; what else cannot be, it finds in the files."""
    for file in [cell.file for cell in manifest.cells] + [it.file for it in manifest.classes]:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\0" in file or not path.parts:
            raise ValueError(f"the path '{file}' leads out of the export")
    if not manifest.cells:
        raise ValueError("it lists no cells")
    splits = {(it.dataset, it.split) for it in manifest.splits}
    if unlisted := {(it.key.dataset, it.key.split) for it in manifest.cells} - splits:
        raise ValueError(f"there are cells of {'/'.join(min(unlisted))}, and no such split")
    return manifest
