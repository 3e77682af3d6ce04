from __future__ import annotations

import numpy as np
import pytest

from clipsyn.errors import UsageError
from clipsyn.methods.ensembles import ENSEMBLES, place_of
from clipsyn.methods.ensembles.base import LogAverage, Router, as_pool
from clipsyn.methods.numerics.logits import NO_PREDICTION, softmax
from clipsyn.methods.pool import Pool


class Recorder(Router):
    """Remembers the pools it was given; weights are 1, 2, 3, … in the order it sees backbones."""

    def __init__(self) -> None:
        self.pools = []

    def _fit(self, pool):
        self.pools.append(pool)
        self.mean_ = pool.logits.mean()

    def _weights(self, pool):
        self.pools.append(pool)
        return np.arange(1, len(pool.backbones) + 1)


def logits_of(n=12, backbones=3, classes=4, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, backbones, classes))
    return values.astype(np.float32)


def labels_of(n=12, classes=4):
    return np.arange(n) % classes


def test_fit_is_given_only_labelled_readable_samples_in_the_order_of_names():
    logits, labels = logits_of(), labels_of()
    logits[3, 1, 2] = np.nan
    labels[5] = -1
    pool = Pool.of(logits, labels, backbones=("c", "a", "b"))
    router = Recorder().fit(pool)
    (seen,) = router.pools
    assert seen.backbones == router.backbones_ == ("a", "b", "c")
    kept = [0, 1, 2, 4, 6, 7, 8, 9, 10, 11]
    np.testing.assert_array_equal(seen.logits, logits[kept][:, [1, 2, 0]])
    np.testing.assert_array_equal(seen.labels, labels[kept])


def test_a_pool_brings_its_labels():
    pool = Pool.of(logits_of(), labels_of())
    others = labels_of()[::-1]
    for wrong in (others, labels_of()[1:]):
        with pytest.raises(UsageError, match="a Pool brings its labels"):
            Recorder().fit(pool, wrong)
        with pytest.raises(UsageError, match="a Pool brings its labels"):
            LogAverage().score(pool, wrong)
    assert Recorder().fit(pool, labels_of()).backbones_ == pool.backbones
    assert len(Recorder().fit(pool.take(slice(3)), labels_of()).backbones_) == 3
    assert as_pool(pool) is pool


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_fit_that_is_given_up_leaves_the_earlier_one_or_none(stop):
    class Failing(Recorder):
        def _fit(self, pool):
            super()._fit(pool)
            if pool.n_classes == 5:
                raise stop

    router = Failing()
    with pytest.raises(stop):
        router.fit(logits_of(classes=5), labels_of())
    with pytest.raises(UsageError, match="Failing is not fitted yet"):
        router.predict(logits_of())
    before = router.fit(logits_of(), labels_of()).learned()
    with pytest.raises(stop):
        router.fit(logits_of(classes=5, backbones=2), labels_of())
    assert router.learned() == before
    assert router.combine(logits_of()).shape == (12, 4)


def test_weights_are_those_of_the_sum_in_the_order_of_the_pool():
    logits = logits_of()
    pool = Pool.of(logits, labels_of(), backbones=("c", "a", "b"))
    router = Recorder().fit(pool)
    np.testing.assert_array_equal(router.weights(pool), [[3, 1, 2]] * 12)
    expected = 3 * logits[:, 0] + logits[:, 1] + 2 * logits[:, 2]
    np.testing.assert_allclose(router.combine(pool), expected, rtol=1e-4, atol=1e-5)


def test_combine_is_given_only_readable_samples_in_blocks(monkeypatch):
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", 5 * 3 * 4)
    monkeypatch.setattr(  # in order
        "clipsyn.methods.numerics.blocks._thread.works_alone", True, raising=False
    )
    logits = logits_of()
    logits[[0, 1, 2, 3, 4, 6]] = np.nan
    pool = Pool.of(logits, labels_of(), [np.eye(12)] * 3)
    router = Recorder().fit(logits_of(seed=1), labels_of())
    del router.pools[:]
    scores = router.combine(pool)
    assert [len(part) for part in router.pools] == [1, 2, 3]  # of rows 3-5, 6-8 and 9-11
    assert [part.labels.tolist() for part in router.pools] == [[1], [3, 0], [1, 2, 3]]
    assert router.pools[1].embeddings["1"].argmax(axis=1).tolist() == [7, 8]
    assert np.isnan(scores[:, 0]).nonzero()[0].tolist() == [0, 1, 2, 3, 4, 6]
    assert np.isfinite(scores[5]).all()


def test_predictions_probabilities_and_score_follow_from_the_scores():
    logits = logits_of()
    logits[2] = np.nan
    average = LogAverage()
    scores = average.combine(logits)
    predicted = average.predict(logits)
    assert predicted[2] == NO_PREDICTION
    readable = np.arange(12) != 2
    np.testing.assert_array_equal(predicted[readable], scores[readable].argmax(axis=1))
    np.testing.assert_allclose(average.predict_proba(logits), softmax(scores))
    labels = np.where(np.arange(12) < 6, predicted, (predicted + 1) % 4).astype(int)
    labels[2], labels[11] = 0, -1  # neither counts
    assert average.score(logits, labels) == 5 / 10
    assert np.isnan(average.score(logits))


def test_places_are_those_of_the_registry():
    names = [*ENSEMBLES]
    assert [place_of(name) for name in names] == list(range(len(names)))
    assert place_of("nlc:hidden=3") == place_of("nlc")
    assert place_of("somebody's") == len(names)
