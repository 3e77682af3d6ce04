"""Heads and ensembles inside scikit-learn's tools, on pools that bring their embeddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline

from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from tests.methods.ensembles.test_contract import pool_of

_BARE = pool_of()
POOL = replace(  # the first classes' coordinates of the embeddings are those of the classes
    _BARE,
    class_embeddings={name: np.eye(4, of.shape[1]) for name, of in _BARE.embeddings.items()},
    logit_scales=dict.fromkeys(_BARE.backbones, 5.0),
)
PAIRS = [(head, "super-learner") for head in HEADS] + [("lda", "nlc"), ("lda", "stacking")]


def pipeline(head, ensemble):
    steps = [("head", from_text(HEADS, head)), ("ensemble", from_text(ENSEMBLES, ensemble))]
    return Pipeline(steps)


def by_hand(head, ensemble, seen, unseen):
    head, ensemble = from_text(HEADS, head), from_text(ENSEMBLES, ensemble)
    ensemble.fit(head.fit_transform(seen))
    return ensemble.score(head.transform(unseen))


@pytest.mark.parametrize(("head", "ensemble"), PAIRS)
def test_a_pipeline_is_cloned_cross_validated_and_searched(head, ensemble):
    made = clone(pipeline(head, ensemble))
    folds = StratifiedKFold(2)
    expected = [
        by_hand(head, ensemble, POOL.take(seen), POOL.take(unseen))
        for seen, unseen in folds.split(POOL, POOL.labels)
    ]
    for scoring in (None, "accuracy"):
        found = cross_val_score(
            made, POOL, POOL.labels, cv=folds, scoring=scoring, error_score="raise"
        )
        np.testing.assert_allclose(found, expected)
    grid = {name: [value] for name, value in made.get_params().items() if "__" in name}
    search = GridSearchCV(made, grid, cv=2, scoring="neg_log_loss", error_score="raise")
    assert search.fit(POOL, POOL.labels).best_score_ > -np.log(4)
    predicted = search.predict(POOL)
    np.testing.assert_array_equal(predicted, made.fit(POOL, POOL.labels).predict(POOL))


def test_a_pool_is_split_as_an_array_is():
    for seen, unseen in KFold(3).split(POOL):
        for rows in (seen, unseen):
            np.testing.assert_array_equal(POOL[rows, ...].logits, POOL.logits[rows])
            np.testing.assert_array_equal(POOL[rows].labels, POOL.labels[rows])
    assert POOL.shape == POOL.logits.shape
