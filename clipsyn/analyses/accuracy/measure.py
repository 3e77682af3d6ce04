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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

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
from clipsyn.methods.numerics.blocks import usable_cores
from clipsyn.methods.numerics.metrics import correctness, scored, true_class_rank
from clipsyn.names import FeatureKey
from clipsyn.store.arrays import Blocks
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


def _rows(group: Predicted) -> Iterator[Row]:
    """All rows of one dataset, split, perturbation and prompt set."""
    with ThreadPoolExecutor(usable_cores()) as threads:  # logits are read while draws are made
        top5 = {
            key: threads.submit(_top5, group, key, predictions)
            for key, predictions in zip(group.keys, group.predictions, strict=True)
            if group.n_classes > 5 and group.has_logits(key)
        }
        for key, predictions in zip(group.keys, group.predictions, strict=True):
            alone = {"fingerprint": group.fingerprints[key.backbone]}  # whatever the others are
            for measured in _of_backbone(group, predictions, top5.get(key)):
                yield group.row(measured, (key.backbone,)) | alone
    if len(group.keys) > 1:
        right = correctness(group.predictions, group.labels)
        for measured in oracle_numbers(right, group.labels[group.counted], group.images):
            yield group.row(measured, group.backbones, "oracle")
    chance = estimate("acc1", 1 / group.n_classes, int(np.count_nonzero(group.labels >= 0)))
    yield group.row(chance, (), "chance") | {"fingerprint": None}


def _of_backbone(
    group: Predicted, predictions: NDArray[np.uint16], top5: Future[Measured] | None
) -> Iterator[Measured]:
    counted = scored(predictions, group.labels)
    of_counted = predictions[counted], group.labels[counted]
    images = group.samples.images.take(counted)
    top1, recall = accuracies(*of_counted, group.n_classes, images)
    yield from (top1, *([top5.result()] if top5 else []), recall)


def _top5(group: Predicted, key: FeatureKey, predictions: NDArray[np.uint16]) -> Measured:
    """Top-5 accuracy, from logits where top-1 is wrong, read a few chunks at a time."""
    labels = group.labels
    right = (predictions == labels) & (labels >= 0)
    hits = int(np.count_nonzero(right))
    step = 4 * Blocks(len(labels), group.store.chunk_rows).rows
    for start in range(0, len(labels), step):
        rows = range(start, min(start + step, len(labels)))
        wrong = np.flatnonzero(~right[rows.start : rows.stop])
        logits = group.store.cell(key).logits(group.prompts, rows)
        ranks = true_class_rank(logits[wrong], labels[start + wrong])
        hits += int(np.count_nonzero((ranks >= 0) & (ranks < 5)))
    return share("acc5", hits, group.samples.images.take(scored(predictions, labels)))
