"""`export.json`: what the files of an export are, so that an import needs no options.

    {"format": "1.0", "layout": …, "splits": […], "classes": […], "cells": […]}

Every file is named by its path from there. What another program wrote is read with suspicion: no
path leaves the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from clipsyn.documents import foreign, parse_json
from clipsyn.errors import DatasetError
from clipsyn.exporting import LAYOUTS
from clipsyn.specs import FeatureKey

NAME = "export.json"
_FORMAT = "1.0"
_KINDS = ("embeddings", "logits", "predictions")


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

    def split(self, dataset: str, split: str) -> Split:
        return next(it for it in self.splits if (it.dataset, it.split) == (dataset, split))

    def classes_of(self, cell: Cell) -> list[Classes]:
        """Those that make logits of the image embeddings of a cell."""
        names = cell.key.dataset, cell.key.backbone
        of_names = [it for it in self.classes if (it.dataset, it.backbone) == names]
        return of_names if cell.kind == "embeddings" else []


def read_manifest(folder: Path) -> Manifest:
    """What an export holds; raises DatasetError where that cannot be."""
    path = folder / NAME
    with foreign(lambda reason: DatasetError(f"{path} cannot be read: {reason}")):
        content = parse_json(path.read_bytes())
        version = str(content["format"])
        if version.partition(".")[0] != _FORMAT.partition(".")[0]:
            raise ValueError(f"it has format {version}, and this clipsyn reads {_FORMAT}")
        if content["layout"] not in LAYOUTS:
            raise ValueError(f"there is no layout '{content['layout']}'")
        return _checked(
            Manifest(
                content["layout"],
                tuple(map(_split, content["splits"])),
                tuple(Classes(**_texts(it, Classes)) for it in content["classes"]),
                tuple(map(_cell, content["cells"])),
            )
        )


def _checked(manifest: Manifest) -> Manifest:
    files = [*(cell.file for cell in manifest.cells), *(it.file for it in manifest.classes)]
    for file in files:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\0" in file or not path.parts:
            raise ValueError(f"the path '{file}' leads out of the export")
    splits = [(it.dataset, it.split) for it in manifest.splits]
    if len(set(splits)) < len(splits):
        raise ValueError("a split stands twice")
    if not manifest.cells:
        raise ValueError("it lists no cells")
    of_cells = {(it.key.dataset, it.key.split) for it in manifest.cells}
    if strange := of_cells - set(splits):
        raise ValueError(f"there are cells of {'/'.join(min(strange))}, and no such split")
    if bare := set(splits) - of_cells:
        raise ValueError(f"there is a split {'/'.join(min(bare))}, and no cell of it")
    if len({(it.key, it.prompts) for it in manifest.cells}) < len(manifest.cells):
        raise ValueError("a cell stands twice")
    return manifest


def _split(entry: Mapping[str, Any]) -> Split:
    names = entry["class_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("class names are a list of texts")
    plain = {name: entry[name] for name in ("dataset", "split", "metric", "licence")}
    if not all(isinstance(value, str) for value in plain.values()):
        raise ValueError("what a split says is texts")
    return Split(class_names=tuple(names), **plain)


def _cell(entry: Mapping[str, Any]) -> Cell:
    key, prompts = FeatureKey(**_texts(entry["key"], FeatureKey)), entry["prompts"]
    if entry["kind"] not in _KINDS:
        raise ValueError(f"a cell holds {', '.join(_KINDS)}, not '{entry['kind']}'")
    if prompts is not None and not isinstance(prompts, str):
        raise ValueError("the name of a prompt set is a text")
    return Cell(str(entry["file"]), key, entry["kind"], prompts, str(entry["fingerprint"]))


def _texts(entry: Mapping[str, Any], of: type) -> dict[str, str]:
    """The fields of a dataclass, all of them texts."""
    fields = {name: entry[name] for name in of.__annotations__}
    if not all(isinstance(value, str) for value in fields.values()):
        raise ValueError(f"what a {of.__name__} says is texts")
    return fields
