"""Folders of features as others publish them: every dataset, split and backbone at once.

- ZLaP (github.com/vladan-stojnic/ZLaP): ``DATASET/BACKBONE_SPLIT_feats.npy`` of any norm with
  ``_targets.npy``, and ``DATASET/classifiers/BACKBONE_text_classifier.npy``, (embed, class).
- Tip-Adapter (github.com/gaopengcuhk/Tip-Adapter): ``DATASET/SPLIT_f.pt`` with ``_l.pt``, and of
  labelled images ``keys_16shots.pt``, (embed, row), with ``values_16shots.pt``, one-hot.
- CLIP_benchmark (github.com/LAION-AI/CLIP_benchmark): ``BACKBONE/features_SPLIT.pt`` with
  ``targets_SPLIT.pt``.

All of them test on ``val`` where there is no ``test``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.arrays import array_of, part_of
from clipsyn.exchange.parts import Part
from clipsyn.text import few

_LOG = logging.getLogger("clipsyn")
_SCALE = np.array(
    100.0
)  # none of them holds the logit scale: OpenAI's and LAION's models have this
_UNUSED = ("split", "kind", "columns", "intersect")


class _Layout(NamedTuple):
    features: str  # the name of a file, with its split and maybe its backbone
    labels: str  # the file beside it
    folder: str = "dataset"  # what the folder is called after
    texts: str = ""  # the file of class embeddings, (embed, class)
    is_cache: bool = False  # features are (embed, row), and labels one-hot


_LAYOUTS = (
    _Layout(
        r"(?P<backbone>.+)_(?P<split>train|val|test)_feats\.npy",
        "{backbone}_{split}_targets.npy",
        texts="classifiers/{backbone}_text_classifier.npy",
    ),
    _Layout(r"(?P<split>val|test)_f\.pt", "{split}_l.pt"),
    _Layout(r"keys_(?P<split>\d+shots)\.pt", "values_{split}.pt", is_cache=True),
    _Layout(r"features_(?P<split>\w+)\.pt", "targets_{split}.pt", folder="backbone"),
)


class _Found(NamedTuple):
    """A file of features: its layout, what its name says, and what the features are of."""

    path: Path
    layout: _Layout
    names: Mapping[str, str]
    dataset: str
    backbone: str

    @property
    def labels(self) -> Path:
        return self.path.with_name(self.layout.labels.format(**self.names))


Laid = tuple[str, str, Part]  # dataset, split and what is of it


def read_layouts(folder: Path, wanted: ImportSettings) -> list[Laid]:
    """All features in a folder that has one of the layouts; [] for another.

    What is left out is logged with its reason. Raises DatasetError for files that cannot be, and
    where nothing is left; UsageError for options that go with no layout, and for a name that the
    layout lacks.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = [it for path in paths for it in _found(path, wanted)]
    if not found:
        return []
    wanted.check_unset(folder, _UNUSED)
    parts = [(it, part) for it in found if (part := _part(it, wanted))]
    told = {file for it in found for file in (it.path, it.labels)}
    told |= {file for _, part in parts for file in part.files}
    if others := [str(path.relative_to(folder)) for path in paths if path not in told]:
        _LOG.info(f"{folder}: {len(others):,} files are not read ({few(others)})")
    if not parts:
        raise DatasetError(f"{folder}: none of its features can be imported")
    tested = {it.dataset for it in found if it.names["split"] == "test"}

    def is_test(it: _Found) -> bool:
        return it.names["split"] == "val" and it.dataset not in tested

    return [(it.dataset, "test" if is_test(it) else it.names["split"], part) for it, part in parts]


def _found(path: Path, wanted: ImportSettings) -> Iterator[_Found]:
    for layout in _LAYOUTS:
        if match := re.fullmatch(layout.features, path.name):
            names, of = match.groupdict(), {}
            for what in ("dataset", "backbone"):
                there = {layout.folder: path.resolve().parent.name, **names}.get(what, "")
                of[what] = getattr(wanted, what) or there
                if not of[what].strip():
                    raise UsageError(f"{path} does not say its {what}: give one with {what}=…")
            yield _Found(path, layout, names, **of)


def _part(found: _Found, wanted: ImportSettings) -> Part | None:
    """The features with their labels and class embeddings; None, logged, if they have no label."""
    if not found.labels.exists():
        _LOG.warning(f"{found.path} is left out: there is no {found.labels.name}")
        return None
    values, labels = array_of(found.path), array_of(found.labels)
    if found.layout.is_cache:
        values, labels = values.T, _of_one_hot(found.labels, labels)
    if labels.ndim == 2:
        _LOG.warning(f"{found.path} is left out: its images have several labels each")
        return None
    arrays, files = {"embeddings": values, "labels": labels}, [found.path, found.labels]
    texts = found.path.parent / found.layout.texts.format(**found.names)
    if texts.is_file():
        arrays |= {"class_embeddings": array_of(texts).T, "logit_scale": _SCALE}
        files.append(texts)
    else:
        _LOG.info(f"{found.path}: no class embeddings, so no zero-shot predictions")
    asked = wanted.replaced(backbone=found.backbone, kind="embeddings", row_order=True)
    return replace(part_of(found.path, arrays, asked, ()), files=tuple(files))


def _of_one_hot(path: Path, values: NDArray[Any]) -> NDArray[np.intp]:
    """The classes of rows that are 1 for one class and 0 for the others."""
    if values.ndim != 2 or ((values != 0).sum(axis=1) != 1).any():
        raise DatasetError(f"{path}: {values.shape} are not one class a row, as a cache has them")
    return np.nonzero(values)[1]
