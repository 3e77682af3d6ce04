"""What is fitted for a cascade, against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipsyn.analyses.cascade import Candidate
from clipsyn.analyses.cascade import stages as module
from clipsyn.analyses.cascade.stages import (
    FOLDS,
    Answers,
    FittedCandidate,
    answer,
    fit_candidates,
    make_ensemble,
    view,
)
from clipsyn.ensembles.calibrated import fit_temperatures
from clipsyn.ensembles.nlc import NLC
from clipsyn.ensembles.static import LogAverage
from clipsyn.ensembles.super_learner import SuperLearner
from clipsyn.errors import LeakError, TooFewSamples, UnknownName, UsageError
from clipsyn.numerics.folds import stratified_folds
from clipsyn.pool import Pool

ORDER = ("b", "c", "a")
FIRST, TWO, ALL = (ORDER[:count] for count in (1, 2, 3))
NOTHING = Answers(np.empty(0, np.float32), np.empty(0, bool))


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
    answers = answer({both: FittedCandidate(LogAverage(), 1.0, NOTHING)}, pool)[both]
    # geometric means: sqrt(.8 * .6) : sqrt(.2 * .4), and sqrt(.5 * .1) : sqrt(.5 * .9)
    assert answers.confidence == pytest.approx([0.71010, 0.75], abs=1e-5)
    assert answers.correct.tolist() == [True, False]
    cooler = answer({both: FittedCandidate(LogAverage(), 0.5, NOTHING)}, pool)[both]
    # squares: .48 : .08
    assert cooler.confidence == pytest.approx([0.85714, 0.9], abs=1e-5)


def test_what_learns_nothing_is_calibrated_on_all_of_the_support():
    pool, candidate = made(), Candidate("log-avg", TWO)
    fitted = fit_candidates([candidate], pool, 0)
    scores = pool.logits[:, [1, 2]].mean(axis=1)
    temperature = fit_temperatures(scores[:, None], pool.labels)[0]
    assert fitted[candidate].temperature == pytest.approx(temperature, rel=1e-5)
    expected = softmax(scores / temperature)
    np.testing.assert_allclose(
        fitted[candidate].support.confidence, expected.max(axis=1), rtol=1e-4
    )
    assert fitted[candidate].support.correct.tolist() == (scores.argmax(1) == pool.labels).tolist()


def test_a_backbone_on_its_own_is_that_backbone():
    pool, candidate = made(), Candidate(None, FIRST)
    answers = fit_candidates([candidate], pool, 0)[candidate].support
    assert answers.correct.tolist() == (pool.logits[:, 1].argmax(1) == pool.labels).tolist()


def test_nothing_is_seen_of_samples_that_were_fitted_on():
    """A super learner for each fold, by hand."""
    pool, candidate = made(), Candidate("super-learner", TWO)
    scores = np.empty((len(pool), 4))
    part = pool.of_backbones(TWO)
    for held in stratified_folds(pool.labels, FOLDS):
        learner = SuperLearner().fit(part.take(np.flatnonzero(~held)))
        scores[held] = learner.combine(part.take(np.flatnonzero(held)))
    fitted = fit_candidates([candidate], pool, 0)
    temperature = fit_temperatures(scores[:, None], pool.labels)[0]
    assert fitted[candidate].temperature == pytest.approx(temperature, rel=1e-4)
    expected = softmax(scores / temperature).max(axis=1)
    np.testing.assert_allclose(fitted[candidate].support.confidence, expected, rtol=1e-3)
    whole = SuperLearner().fit(part)
    np.testing.assert_allclose(fitted[candidate].ensemble.weights_, whole.weights_, rtol=1e-5)


def test_others_may_be_masked():
    pool = made()
    masked = view(Candidate("masked-nlc", TWO), pool)
    assert masked.backbones == pool.backbones
    np.testing.assert_array_equal(masked.logits[:, 0], 0)
    np.testing.assert_allclose(masked.logits[:, 1:], 1.5 * pool.logits[:, 1:], rtol=1e-6)
    assert not masked.embeddings["a"].any()
    assert masked.embeddings["b"] is pool.embeddings["b"]
    assert pool.embeddings["a"].all()
    mean = pool.logits[:, 1:].mean(axis=1)  # weights of 1/B, as all that are masked start from
    np.testing.assert_allclose(LogAverage().combine(masked), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(view(Candidate("masked-nlc", ALL), pool).logits, pool.logits)


def test_one_masked_ensemble_serves_all_stages():
    pool = made()
    two, whole = Candidate("masked-super-learner", TWO), Candidate("masked-super-learner", ALL)
    fitted = fit_candidates([two, whole], pool, 0)
    assert fitted[two].ensemble is fitted[whole].ensemble
    logits = pool.logits * np.array([0, 1.5, 1.5])[:, None]
    twice = Pool.of(
        np.concatenate([logits, pool.logits]),
        np.tile(pool.labels, 2),
        backbones=pool.backbones,
        split="train",
    )
    by_hand = SuperLearner().fit(twice)
    np.testing.assert_allclose(fitted[two].ensemble.weights_, by_hand.weights_, rtol=1e-5)
    assert fitted[two].temperature != fitted[whole].temperature
    assert len(fitted[two].support.correct) == len(pool)


def test_a_masked_fit_sees_no_view_of_a_sample_that_is_held_out(monkeypatch):
    pool, fits = made(), []

    class Spy(SuperLearner):
        def _fit(self, pool: Pool) -> None:
            fits.append(pool)
            super()._fit(pool)

    monkeypatch.setattr(module, "make_ensemble", lambda text, seed=None: Spy())
    group = [Candidate("masked-super-learner", names) for names in (TWO, ALL)]
    fit_candidates(group, pool, 0)
    assert len(fits) == FOLDS + 1
    assert len(fits[0]) == 2 * len(pool)
    for fit, held in zip(fits[1:], stratified_folds(pool.labels, FOLDS), strict=True):
        assert len(fit) == 2 * (len(pool) - held.sum())
        embeddings = fit.embeddings["b"][:, None] == pool.embeddings["b"][held][None]
        assert not embeddings.all(axis=2).any()


def test_the_seed_is_that_of_the_ensemble():
    pool, candidate = made(), Candidate("nlc:steps=2", TWO)
    fitted = fit_candidates([candidate], pool, 5)[candidate].ensemble
    expected = NLC(steps=2, random_state=5).fit(pool.of_backbones(TWO))
    np.testing.assert_allclose(
        fitted.combine(pool.of_backbones(TWO)), expected.combine(pool.of_backbones(TWO))
    )
    assert fitted.get_params()["random_state"] == 5


def test_side_by_side_or_not_is_the_same(monkeypatch):
    pool = made()
    group = [Candidate(None, FIRST), Candidate("super-learner", TWO), Candidate("log-avg", ALL)]
    together = fit_candidates(group, pool, 0)
    monkeypatch.setattr(module, "_SMALL", 0)
    alone = fit_candidates(group, pool, 0)
    for candidate in group:
        one, other = together[candidate].support, alone[candidate].support
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-5)
        assert one.correct.tolist() == other.correct.tolist()


def test_the_test_split_is_refused():
    with pytest.raises(LeakError, match="test split"):
        fit_candidates([Candidate("log-avg", TWO)], made(split="test"), 0)


def test_one_sample_is_too_few_to_hold_one_out():
    one = replace(made().take(np.array([0])), dataset="toy")
    with pytest.raises(
        TooFewSamples, match=r"super-learner needs at least two labelled .* toy/train"
    ):
        fit_candidates([Candidate("super-learner", TWO)], one, 0)
    assert len(fit_candidates([Candidate("log-avg", TWO)], one, 0)) == 1


@pytest.mark.parametrize("name", ["moe", "nlc", "residual-router", "super-learner"])
def test_all_that_can_be_masked_is_fitted(name):
    group = [Candidate(f"masked-{name}", names) for names in (TWO, ALL)]
    fitted = fit_candidates(group, made(), 0)
    for candidate in group:
        assert fitted[candidate].support.correct.mean() > 0.4  # chance is 0.25
        assert (fitted[candidate].support.confidence >= 0.25).all()


@pytest.mark.parametrize("text", ["masked-vote-1", "masked-log-avg", "masked-ola"])
def test_what_cannot_be_masked_is_said(text):
    with pytest.raises(UsageError, match=f"'{text}'.*moe, nlc, residual-router, super-learner"):
        make_ensemble(text)


def test_names_are_those_of_ensembles():
    assert make_ensemble("masked-nlc:hidden=8").get_params()["hidden"] == 8
    with pytest.raises(UnknownName, match="did you mean nlc"):
        make_ensemble("ncl")
