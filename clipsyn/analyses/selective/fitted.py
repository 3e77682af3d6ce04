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
from clipsyn.analyses.support import make_ensemble, read_support, unseen_scores
from clipsyn.ensembles.base import Ensemble
from clipsyn.specs import CLEAN


@dataclass(frozen=True)
class FittedAnswerers:
    """The ensembles of one dataset, and what they and the backbones say of its support.

    Those of ensembles are by `unseen_scores`. Without a support `replies` is empty.
    """

    ensembles: dict[str, Ensemble]
    replies: dict[Answerer, Replies] = field(default_factory=dict)
    labels: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    origin: Mapping[str, Any] = field(default_factory=dict)  # decides what is fitted and chosen


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
        scores[text] = unseen_scores(ensemble, support.pool)
    replies = cells.replies_at(support.rows, support.pool, scores)
    counts = readable(replies)
    replies = {answerer: of.take(counts) for answerer, of in replies.items()}
    return FittedAnswerers(cells.ensembles, replies, support.pool.labels[counts], support.origin)
