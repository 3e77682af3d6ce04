"""Zero-shot accuracy of the backbones in a store, and of the oracle over them.

Reads predictions and labels, and logits for top-5 alone; no pixel, no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.evaluate.results import RESULT, Measured, Row
from clipsyn.metrics import (
    Score,
    accuracy,
    mean_per_class_recall,
    oracle_accuracy,
    scored,
    true_class_rank,
)
from clipsyn.specs import FeatureKey, fingerprint, parse_perturbation
from clipsyn.stats import (
    Interval,
    bootstrap_difference,
    bootstrap_mean_per_class,
    wilson_interval,
)
from clipsyn.store.arrays import Blocks
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import Names, groups, select


def zeroshot(
    store: FeatureStore,
    *,
    datasets: Names = None,
    splits: Names = ("test",),
    perturbations: Names = None,
    backbones: Names = None,
    prompts: Names = None,
) -> pl.DataFrame:
    """Zero-shot accuracy of every backbone in the store, and of the oracle over them.

    Filters are names or patterns with ``*`` ("emoji-*", "*/zoo"); None takes all there is.
    Returns a tidy frame with the columns of `RESULT`. Metrics of a backbone (`ensemble` null):

    - acc1, with Wilson's 95 % interval;
    - acc5, the same, where there are more than five classes;
    - mean_per_class_recall, with a bootstrap interval over samples.

    Beside them, for every dataset, split, perturbation and prompt set: acc1 of "chance", and
    with two or more backbones of the "oracle" (any backbone right), and its "oracle_gain" over
    the best single backbone, a fraction, with a paired bootstrap interval. The best single
    backbone is the one with the highest accuracy *on these very test samples*, as the paper's
    phrase "best single backbone" implies: an optimistic opponent, the gain over a backbone that
    was chosen on other data is at least as large in expectation.

    Unlabelled datasets are left out unless they are asked for by name.
    Raises MissingCell with the extract line that helps, UnknownName with near matches, and
    DatasetError where nothing has labels.
    """
    keys = select(
        store,
        dataset=datasets,
        split=splits,
        perturbation=perturbations,
        backbone=backbones,
    )
    rows: list[Row] = []
    unlabelled = []
    for (dataset, split), cells in groupby(keys, key=lambda key: (key.dataset, key.split)):
        samples = store.samples(dataset, split)
        if not (samples.labels >= 0).any():
            unlabelled.append(f"{dataset}/{split}")
            continue
        for (_, prompt_set), group in groups(store, cells, prompts):
            rows += _evaluate(store, samples, group, prompt_set)
    if unlabelled and (datasets is not None or not rows):
        raise DatasetError(
            f"{', '.join(unlabelled)} has no labels, so nothing can be right or wrong: extract a "
            "labelled folder or a manifest with a label column"
        )
    return pl.DataFrame(rows, schema=RESULT)


def _evaluate(
    store: FeatureStore, samples: SampleTable, keys: list[FeatureKey], prompts: str
) -> list[Row]:
    """All rows of one dataset, split, perturbation and prompt set."""
    predictions = np.stack([store.predictions(key, prompts) for key in keys])
    cells = [store.fingerprint(key) for key in keys]
    labels, classes = samples.labels, len(samples.class_names)
    rows = [
        _row(key, prompts, measured, key.backbone, cell=cell)
        for key, predicted, cell in zip(keys, predictions, cells, strict=True)
        for measured in _metrics(store, key, prompts, predicted, samples)
    ]
    everyone = "+".join(key.backbone for key in keys)
    if len(keys) > 1:
        together = fingerprint({"cells": cells})
        rows += [
            _row(keys[0], prompts, measured, everyone, ensemble="oracle", cell=together)
            for measured in _oracle(predictions, labels)
        ]
    chance = Score(1 / classes, int(np.count_nonzero(labels >= 0)))
    return [
        *rows,
        _row(keys[0], prompts, Measured("acc1", chance, None), "", ensemble="chance"),
    ]


def _metrics(
    store: FeatureStore,
    key: FeatureKey,
    prompts: str,
    predicted: NDArray[np.uint16],
    samples: SampleTable,
) -> Iterator[Measured]:
    labels, classes = samples.labels, len(samples.class_names)
    top1 = accuracy(predicted, labels)
    yield Measured("acc1", top1, _wilson(top1))
    if classes > 5:
        top5 = _top5(store, key, prompts, labels)
        yield Measured("acc5", top5, _wilson(top5))
    counted = scored(predicted, labels)
    recall = mean_per_class_recall(predicted, labels, classes)
    correct = (predicted == labels)[counted]
    interval = bootstrap_mean_per_class(correct, labels[counted])
    yield Measured("mean_per_class_recall", recall, interval)


def _oracle(predictions: NDArray[np.uint16], labels: NDArray[np.int32]) -> Iterator[Measured]:
    """Accuracy of the oracle, and its gain over the best single backbone (first on ties)."""
    oracle = oracle_accuracy(predictions, labels)
    yield Measured("acc1", oracle, _wilson(oracle))
    correct = (predictions == labels)[:, scored(predictions, labels)]
    anyone, best = correct.any(axis=0), correct[correct.sum(axis=1).argmax()]
    gain = Score(float(anyone.mean() - best.mean()) if oracle.n else float("nan"), oracle.n)
    yield Measured("oracle_gain", gain, bootstrap_difference(anyone, best))


def _top5(store: FeatureStore, key: FeatureKey, prompts: str, labels: NDArray[np.int32]) -> Score:
    """Top-5 accuracy from logits read a few chunks at a time."""
    step = 4 * Blocks(len(labels), store.chunk_rows).rows
    hits = n = 0
    for start in range(0, len(labels), step):
        rows = range(start, min(start + step, len(labels)))
        ranks = true_class_rank(store.logits(key, prompts, rows), labels[rows.start : rows.stop])
        hits += int(np.count_nonzero((ranks >= 0) & (ranks < 5)))
        n += int(np.count_nonzero(ranks >= 0))
    return Score(hits / n if n else float("nan"), n)


def _wilson(score: Score) -> Interval:
    return wilson_interval(score.value * score.n if score.n else 0, score.n)


def _row(
    key: FeatureKey,
    prompts: str,
    measured: Measured,
    backbones: str,
    *,
    ensemble: str | None = None,
    cell: str | None = None,
) -> Row:
    interval = measured.interval
    return {
        "dataset": key.dataset,
        "split": key.split,
        "perturbation": key.perturbation,
        "severity": parse_perturbation(key.perturbation).severity,
        "head": "zero-shot",
        "ensemble": ensemble,
        "backbones": backbones,
        "prompts": prompts,
        "classes": "all",
        "shots": 0,
        "seed": None,
        "metric": measured.metric,
        "value": measured.score.value,
        "ci_low": interval.low if interval else None,
        "ci_high": interval.high if interval else None,
        "n": measured.score.n,
        "fingerprint": cell,
    }
