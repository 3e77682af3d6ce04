"""What is learned from the support, and how sure backbones and ensembles are of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.predicted import Predicted
from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.analyses.selective.replies import Answerer, Cells, Replies, readable
from clipsyn.analyses.support import read_support
from clipsyn.ensembles import ENSEMBLES
from clipsyn.ensembles.base import Ensemble
from clipsyn.errors import TooFewSamples
from clipsyn.estimator import from_text
from clipsyn.numerics.folds import stratified_folds
from clipsyn.pool import Pool
from clipsyn.specs import CLEAN

FOLDS = 5


@dataclass(frozen=True)
class FittedAnswerers:
    """The ensembles of one dataset, and what they and the backbones say of its support.

    An ensemble that learns has there been fitted without the sample that it answers (`FOLDS`
    folds): on its own support it would be too sure. Without a support `replies` is empty.
    """

    ensembles: dict[str, Ensemble]
    replies: dict[Answerer, Replies] = field(default_factory=dict)
    labels: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    origin: Mapping[str, Any] = field(default_factory=dict)  # decides what is fitted and chosen


def make_ensemble(text: str, seed: int) -> Ensemble:
    """Not fitted yet; raises UnknownName and UsageError."""
    ensemble: Ensemble = from_text(ENSEMBLES, text, seed)
    return ensemble


def fit(
    group: Predicted, measured: Iterable[Predicted], settings: SelectiveSettings
) -> FittedAnswerers:
    """Fit the ensembles that the cells of a group are enough for, on clean images of the support.

    measured: all of the dataset that is measured on. A support that is not in the store is needed
    by ensembles that learn alone: for them it raises MissingCell. Raises what `read_support` and
    `Ensemble.fit` do.
    """
    texts = dict.fromkeys(settings.ensembles) if len(group.backbones) > 1 else {}
    ensembles = {text: make_ensemble(text, settings.seed) for text in texts}
    ensembles = Cells(group, ensembles).ensembles
    is_there = group.store.keys(dataset=[group.samples.dataset], split=[settings.support])
    if not (is_there or any(ensemble.learns for ensemble in ensembles.values())):
        return FittedAnswerers(ensembles)
    cells = Cells(group, ensembles, settings.support, CLEAN.label)
    support = read_support(cells, measured, settings)
    scores = {}
    for text, ensemble in cells.ensembles.items():
        ensemble.fit(support.pool)
        scores[text] = (
            _held_out_scores(text, support.pool, settings.seed)
            if ensemble.learns
            else ensemble.combine(support.pool)
        )
    replies = cells.replies_at(support.rows, support.pool, scores)
    counts = readable(replies)
    replies = {answerer: of.take(counts) for answerer, of in replies.items()}
    return FittedAnswerers(cells.ensembles, replies, support.pool.labels[counts], support.origin)


def _held_out_scores(text: str, pool: Pool, seed: int) -> NDArray[np.float32]:
    """(sample, class) by ensembles that were not fitted on the sample."""
    if len(pool) < 2:
        raise TooFewSamples(
            f"'{text}' needs at least two labelled samples of {pool.dataset}/{pool.split}, so that "
            "a threshold is chosen on others than it is fitted on"
        )
    scores = np.empty((len(pool), pool.n_classes), np.float32)
    for held in stratified_folds(pool.labels, FOLDS):
        part = make_ensemble(text, seed).fit(pool.take(np.flatnonzero(~held)))
        scores[held] = part.combine(pool.take(np.flatnonzero(held)))
    return scores
