"""Zero-shot accuracy of the backbones in a store, and of the oracle over them.

Reads predictions and labels, and logits for top-5 alone, which imported predictions have not; no
pixel, no model. docs/analysis.md lists the metrics.

The best single backbone, which the oracle's gain is over, is the one with the highest accuracy *on
these very test samples*, as the paper's phrase implies. It is an optimistic opponent: the gain over
a backbone that was chosen on other data is at least as large in expectation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.accuracy import ZeroshotSettings
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.evaluation.results.frame import (
    Measured,
    Row,
    accuracies,
    estimate,
    frame,
    oracle_numbers,
    share,
)
from clipsyn.methods.numerics import Floats, Labels
from clipsyn.methods.numerics.blocks import usable_cores
from clipsyn.methods.numerics.metrics import correctness, scored, true_class_rank
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore


def measure(store: FeatureStore, settings: ZeroshotSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT`.

    Unlabelled datasets are left out unless they are asked for by name. Raises MissingCell with the
    extract line that helps, UnknownName with near matches, and DatasetError where nothing has
    labels.
    """
    groups = predicted(store, settings, pooled=settings.pooled)
    bare = [key for key in settings.keys(store) if not store.cell(key).has_predictions]
    return frame(row for group in groups for row in (*_rows(group), *_unanswered(group, bare)))


def _unanswered(group: Predicted, bare: Sequence[FeatureKey]) -> Iterator[Row]:
    """Backbones that have no text, and so no answer, beside the group's."""
    place = {replace(key, backbone="") for key in group.keys}
    for key in bare:
        if replace(key, backbone="") in place:
            yield group.row(estimate("acc1", math.nan, 0), (key.backbone,))


@dataclass
class _Five:
    """How often the true class is among the five largest logits of one backbone."""

    labels: Labels
    hits: int = 0
    seen: int = 0  # rows

    def look(self, rows: range, logits: Floats, predictions: NDArray[np.uint16]) -> None:
        """Ranks are counted where top-1 is wrong."""
        labels = self.labels[rows.start : rows.stop]
        wrong = np.flatnonzero(predictions != labels)
        ranks = true_class_rank(logits[wrong], labels[wrong])
        self.hits += len(rows) - len(wrong) + int(np.count_nonzero((ranks >= 0) & (ranks < 5)))
        self.seen += len(rows)

    def read(self, group: Predicted, key: FeatureKey, predictions: NDArray[np.uint16]) -> None:
        """Look at stored logits, some rows at a time."""
        cell = group.store.cell(key)
        for rows in cell.blocks():
            logits = cell.logits(group.prompts, rows)
            self.look(rows, logits, predictions[rows.start : rows.stop])


def _rows(group: Predicted) -> Iterator[Row]:
    """All rows of one dataset, split, perturbation and prompt set."""
    asked = [key for key in group.keys if group.n_classes > 5 and group.has_logits(key)]
    fives = {key: _Five(group.labels) for key in asked}
    group.looks.update({key: five.look for key, five in fives.items()})
    of_each = dict(zip(group.keys, group.predictions, strict=True))
    stored = [key for key in asked if not fives[key].seen]
    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(lambda key: fives[key].read(group, key, of_each[key]), stored))
    for key, predictions in of_each.items():
        alone = {"fingerprint": group.fingerprints[key.backbone]}  # whatever the others are
        for measured in _of_backbone(group, predictions, fives.get(key)):
            yield group.row(measured, (key.backbone,)) | alone
    if len(group.keys) > 1:
        right = correctness(group.predictions, group.labels)
        for measured in oracle_numbers(right, group.labels[group.counted], group.images):
            yield group.row(measured, group.backbones, "oracle")
    chance = estimate("acc1", 1 / group.n_classes, int(np.count_nonzero(group.labels >= 0)))
    yield group.row(chance, (), "chance") | {"fingerprint": None}


def _of_backbone(
    group: Predicted, predictions: NDArray[np.uint16], five: _Five | None
) -> Iterator[Measured]:
    counted = scored(predictions, group.labels)
    of_counted = predictions[counted], group.labels[counted]
    images = group.samples.images.take(counted)
    top1, recall = accuracies(*of_counted, group.n_classes, images)
    yield from (top1, *([share("acc5", five.hits, images)] if five else []), recall)
