"""What is fitted for a cascade, against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipsyn.analyses.cascade.fitted import Fitted, answer, fit_candidates
from clipsyn.analyses.predicted import FOLDS, Candidate
from clipsyn.errors import LeakError, TooFewSamples
from clipsyn.methods.ensembles.nlc import NLC
from clipsyn.methods.ensembles.static import LogAverage
from clipsyn.methods.ensembles.weighted import SuperLearner, fit_temperatures
from clipsyn.methods.numerics.samples import stratified_folds
from clipsyn.methods.pool import Pool

ORDER = ("b", "c", "a")
FIRST, TWO, ALL = (ORDER[:count] for count in (1, 2, 3))


def made(samples: int = 60, seed: int = 0, split: str = "train") -> Pool:
    """Three backbones that know something of four classes, and as many numbers as embeddings."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, samples)
    logits = 2 * rng.normal(size=(samples, 3, 4))
    for column, skill in enumerate((0.5, 1.0, 2.0)):
        logits[np.arange(samples), column, labels] += skill
    embeddings = [rng.normal(size=(samples, width)) for width in (2, 3, 5)]
    embeddings = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in embeddings]
    return Pool.of(logits, labels, embeddings, backbones=("a", "b", "c"), split=split)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_average_of_four_images_by_hand():
    """Probabilities of two backbones; support with the temperature left at 1."""
    likely = np.array([[[0.8, 0.2], [0.6, 0.4]], [[0.5, 0.5], [0.1, 0.9]]])
    pool = Pool.of(np.log(likely), [0, 0], backbones=("a", "b"), split="test")
    both = Candidate("log-avg", ("a", "b"))
    answers = answer({both: Fitted(LogAverage(), 1.0)}, pool)
    # geometric means: sqrt(.8 * .6) : sqrt(.2 * .4), and sqrt(.5 * .1) : sqrt(.5 * .9)
    assert answers.confidence[both] == pytest.approx([0.71010, 0.75], abs=1e-5)
    assert answers.correct[both].tolist() == [True, False]
    cooler = answer({both: Fitted(LogAverage(), 0.5)}, pool)
    # squares: .48 : .08
    assert cooler.confidence[both] == pytest.approx([0.85714, 0.9], abs=1e-5)


def test_what_learns_nothing_is_calibrated_on_all_of_the_support():
    pool, candidate = made(), Candidate("log-avg", TWO)
    fitted, answers = fit_candidates([candidate], pool, 0)
    scores = pool.logits[:, [1, 2]].mean(axis=1)
    temperature = fit_temperatures(scores[:, None], pool.labels)[0]
    assert fitted[candidate].temperature == pytest.approx(temperature, rel=1e-5)
    expected = softmax(scores / temperature)
    np.testing.assert_allclose(answers.confidence[candidate], expected.max(axis=1), rtol=1e-4)
    assert answers.correct[candidate].tolist() == (scores.argmax(1) == pool.labels).tolist()


def test_nothing_is_seen_of_samples_that_were_fitted_on():
    """A super learner for each fold, by hand."""
    pool, candidate = made(), Candidate("super-learner", TWO)
    scores = np.empty((len(pool), 4))
    part = pool.of_backbones(TWO)
    for held in stratified_folds(pool.labels, FOLDS):
        learner = SuperLearner().fit(part.take(np.flatnonzero(~held)))
        scores[held] = learner.combine(part.take(np.flatnonzero(held)))
    fitted, answers = fit_candidates([candidate], pool, 0)
    temperature = fit_temperatures(scores[:, None], pool.labels)[0]
    assert fitted[candidate].temperature == pytest.approx(temperature, rel=1e-4)
    expected = softmax(scores / temperature).max(axis=1)
    np.testing.assert_allclose(answers.confidence[candidate], expected, rtol=1e-3)
    whole = SuperLearner().fit(part)
    np.testing.assert_allclose(fitted[candidate].ensemble.weights_, whole.weights_, rtol=1e-5)


def test_the_seed_is_that_of_the_ensemble():
    pool, candidate = made(), Candidate("nlc:steps=2", TWO)
    fitted = fit_candidates([candidate], pool, 5)[0][candidate].ensemble
    expected = NLC(steps=2, random_state=5).fit(pool.of_backbones(TWO))
    np.testing.assert_allclose(
        fitted.combine(pool.of_backbones(TWO)), expected.combine(pool.of_backbones(TWO))
    )
    assert fitted.get_params()["random_state"] == 5


def test_the_test_split_is_refused():
    with pytest.raises(LeakError, match="test split"):
        fit_candidates([Candidate("log-avg", TWO)], made(split="test"), 0)


def test_one_sample_is_too_few_to_hold_one_out():
    one = replace(made().take(np.array([0])), dataset="toy")
    with pytest.raises(
        TooFewSamples, match=r"super-learner needs at least two labelled .* toy/train"
    ):
        fit_candidates([Candidate("super-learner", TWO)], one, 0)
    fit_candidates([Candidate("log-avg", TWO)], one, 0)
