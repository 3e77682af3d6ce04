"""Zero-shot accuracy of the backbones in a store, and of the oracle over them.

Reads predictions and labels, and logits for top-5 alone; no pixel, no model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.accuracy import ZeroshotSettings
from clipsyn.analyses.oracle.measures import class_accuracy, independent_oracle
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.numerics.metrics import (
    Score,
    accuracy,
    mean_per_class_recall,
    oracle_accuracy,
    scored,
    true_class_rank,
)
from clipsyn.results.frame import Measured, Row, frame
from clipsyn.specs import FeatureKey
from clipsyn.stats import (
    Interval,
    bootstrap_difference,
    bootstrap_mean_per_class,
    wilson_interval,
)
from clipsyn.store.arrays import Blocks
from clipsyn.store.features import FeatureStore


def measure(store: FeatureStore, settings: ZeroshotSettings) -> pl.DataFrame:
    """Zero-shot accuracy of every backbone in the store, and of the oracle over them.

    Filters are names or patterns with ``*`` ("emoji-*", "*/zoo"); None takes all there is. pooled:
    over all perturbations of a dataset together, where each image was shown under one.
    Returns a tidy frame with the columns of `RESULT`. Metrics of a backbone (`ensemble` null):

    - acc1, with Wilson's 95 % interval;
    - acc5, the same, where there are more than five classes and not predictions alone (imported);
    - mean_per_class_recall, with a bootstrap interval over samples.

    Beside them, for every dataset, split, perturbation and prompt set: acc1 of "chance", and
    with two or more backbones of the "oracle" (any backbone right), acc1_independent, what errors
    independent within each class would give (`independent_oracle`), and its gain over the
    best single backbone, a fraction, with a paired bootstrap interval. The best single
    backbone is the one with the highest accuracy *on these very test samples*, as the paper's
    phrase "best single backbone" implies: an optimistic opponent, the gain over a backbone that
    was chosen on other data is at least as large in expectation.

    Unlabelled datasets are left out unless they are asked for by name.
    Raises MissingCell with the extract line that helps, UnknownName with near matches, and
    DatasetError where nothing has labels.
    """
    groups = predicted(store, settings, pooled=settings.pooled)
    return frame(row for group in groups for row in _evaluate(group))


def _evaluate(group: Predicted) -> Iterator[Row]:
    """All rows of one dataset, split, perturbation and prompt set."""
    for key, predictions in zip(group.keys, group.predictions, strict=True):
        for measured in _metrics(group, key, predictions):
            yield group.row(measured, (key.backbone,))
    if len(group.keys) > 1:
        for measured in _oracle(group.predictions, group.labels):
            yield group.row(measured, group.backbones, "oracle")
    chance = Score(1 / group.n_classes, int(np.count_nonzero(group.labels >= 0)))
    yield group.row(Measured("acc1", chance, None), (), "chance")


def _metrics(
    group: Predicted, key: FeatureKey, predictions: NDArray[np.uint16]
) -> Iterator[Measured]:
    labels, classes = group.labels, group.n_classes
    top1 = accuracy(predictions, labels)
    yield Measured("acc1", top1, _wilson(top1))
    if classes > 5 and group.has_logits(key):
        top5 = _top5(group, key)
        yield Measured("acc5", top5, _wilson(top5))
    counted = scored(predictions, labels)
    recall = mean_per_class_recall(predictions, labels, classes)
    correct = (predictions == labels)[counted]
    interval = bootstrap_mean_per_class(correct, labels[counted])
    yield Measured("mean_per_class_recall", recall, interval)


def _oracle(predictions: NDArray[np.uint16], labels: NDArray[np.int32]) -> Iterator[Measured]:
    """Accuracy of the oracle, its mark, and gain over the best single backbone (first on ties)."""
    oracle = oracle_accuracy(predictions, labels)
    yield Measured("acc1", oracle, _wilson(oracle))
    counted = scored(predictions, labels)
    correct = (predictions == labels)[:, counted]
    mark = independent_oracle(*class_accuracy(correct, labels[counted]))
    yield Measured("acc1_independent", Score(mark, oracle.n), None)
    anyone, best = correct.any(axis=0), correct[correct.sum(axis=1).argmax()]
    gain = Score(float(anyone.mean() - best.mean()) if oracle.n else float("nan"), oracle.n)
    yield Measured("gain", gain, bootstrap_difference(anyone, best))


def _top5(group: Predicted, key: FeatureKey) -> Score:
    """Top-5 accuracy from logits read a few chunks at a time."""
    labels = group.labels
    step = 4 * Blocks(len(labels), group.store.chunk_rows).rows
    hits = n = 0
    for start in range(0, len(labels), step):
        rows = range(start, min(start + step, len(labels)))
        logits = group.store.logits(key, group.prompts, rows)
        ranks = true_class_rank(logits, labels[rows.start : rows.stop])
        hits += int(np.count_nonzero((ranks >= 0) & (ranks < 5)))
        n += int(np.count_nonzero(ranks >= 0))
    return Score(hits / n if n else float("nan"), n)


def _wilson(score: Score) -> Interval:
    return wilson_interval(score.value * score.n if score.n else 0, score.n)
