"""Scores of backbones that need no label of the dataset, and how well they rank by accuracy.

    published    mean published accuracy on other datasets
    elsewhere    mean accuracy on the other datasets of the store
    confidence   mean over images of max_c p(c)
    text         s mean over classes of (1 - the largest cosine with another class), s: logit scale

Zohar et al., "LOVM: Language-Only Vision Model Selection", 2023, arXiv 2306.08893, rank by scores
of captions, where a store has class embeddings alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.analyses.robustness.trials import kendall_tau
from clipsyn.analyses.selection import SelectionSettings
from clipsyn.catalog.references import Published, backbone_name, dataset_name, find_reference
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import OVER_BEST_ON_TEST, Measured, Row, estimate, frame, gain
from clipsyn.methods.numerics import Doubles, Floats
from clipsyn.methods.numerics.logits import NO_PREDICTION
from clipsyn.methods.numerics.metrics import correctness
from clipsyn.names import fingerprint
from clipsyn.store.features import FeatureStore

BY = {"by": pl.String}  # the score
_IMAGES = 4096  # whose logits are in memory at once


def measure(store: FeatureStore, settings: SelectionSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT` and `BY`.

    For each dataset and score: the `score` of each backbone, NaN where it cannot be known;
    `kendall_tau` of scores and accuracies, n backbones; what the backbone with the highest score
    gains over the one that is best on these images, 0 at most. Raises UsageError where no dataset
    has two backbones, and what `predicted` and `find_reference` raise.
    """
    published = find_reference(settings.reference)
    groups = [one for one in predicted(store, settings, unlabelled=True) if len(one.keys) > 1]
    if not groups:
        raise UsageError(
            "a choice needs two backbones of a dataset: name more with backbones=…, or extract them"
        )
    cells = [[*group.fingerprints.items()] for group in groups]
    decisive = {"fingerprint": fingerprint({"cells": cells, "published": [*map(list, published)]})}
    rows = (row for group in groups for row in _rows(group, groups, published))
    return frame((row | decisive for row in rows), BY)


def _rows(
    group: Predicted, groups: Sequence[Predicted], published: Sequence[Published]
) -> Iterator[Row]:
    scores = {
        "published": _published(group, published),
        "elsewhere": _elsewhere(group, groups),
        "confidence": np.array([*_confidences(group)]),
        "text": _text(group),
    }
    for name, values in scores.items():
        for measured, backbones in _judged(group, values):
            yield group.row(measured, backbones) | {"by": name}


def _judged(group: Predicted, scores: Doubles) -> Iterator[tuple[Measured, tuple[str, ...]]]:
    """The scores, and how well they rank; each with the backbones that it is about."""
    for name, score in zip(group.backbones, scores.tolist(), strict=True):
        yield estimate("score", score, group.predictions.shape[1]), (name,)
    if np.isnan(scores).any():
        return
    right = correctness(group.predictions, group.labels)
    tau = kendall_tau(scores, right.sum(axis=1))
    yield estimate("kendall_tau", tau, len(scores)), group.backbones
    best = int(scores.argmax())
    gained = gain(OVER_BEST_ON_TEST, right[best], right, group.images)
    yield gained, (group.backbones[best],)


def _published(group: Predicted, published: Sequence[Published]) -> Doubles:
    """(backbone,) over the datasets on which there is a number of each."""
    own, names = dataset_name(group.samples.dataset), [*map(backbone_name, group.backbones)]
    known: dict[str, dict[str, float]] = {}
    for one in published:
        if one.dataset != own:
            known.setdefault(one.dataset, {}).setdefault(one.backbone, one.accuracy)
    everywhere = [of for of in known.values() if of.keys() >= {*names}]
    return _mean([np.array([of[name] for name in names]) for of in everywhere], group)


def _elsewhere(group: Predicted, groups: Sequence[Predicted]) -> Doubles:
    """(backbone,) over other datasets with labels; same split, perturbation and backbones."""

    def place(of: Predicted) -> tuple[object, ...]:
        return of.samples.split, of.perturbation, of.backbones

    others = [it for it in groups if it.samples.dataset != group.samples.dataset]
    alike = [it for it in others if place(it) == place(group) and len(it.images)]
    return _mean([correctness(it.predictions, it.labels).mean(axis=1) for it in alike], group)


def _mean(rows: Sequence[Doubles], group: Predicted) -> Doubles:
    """(backbone,), NaN without rows."""
    return np.mean(rows, axis=0) if rows else np.full(len(group.keys), np.nan)


def _confidences(group: Predicted) -> Iterator[float]:
    """Of each backbone, over the images that all could read."""
    rows = np.flatnonzero((group.predictions != NO_PREDICTION).all(axis=0))
    blocks = [rows[start : start + _IMAGES] for start in range(0, len(rows), _IMAGES)]
    for key in group.keys:
        parts = (group.confidences(key, block) for block in blocks)
        known = [math.nan if it is None else it for part in parts for it in part]
        yield math.fsum(known) / len(known) if known else math.nan


def _text(group: Predicted) -> Doubles:
    """(backbone,), NaN without class embeddings, or with a single class."""
    texts = group.reader().classes if group.n_classes > 1 else {}
    return np.array([_margin(*texts[it]) if it in texts else math.nan for it in group.backbones])


def _margin(text: Floats, scale: float) -> float:
    cosines = np.asarray(text @ text.T, np.float64)
    np.fill_diagonal(cosines, -1)
    return scale * float(np.mean(1 - cosines.max(axis=1)))
