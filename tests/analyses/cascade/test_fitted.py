"""What is fitted for a cascade, against plain loops."""

from dataclasses import replace

import numpy as np
import pytest

from clipsyn.analyses.cascade import stages as module
from clipsyn.analyses.fitted import FOLDS, Candidate, fit_candidates
from clipsyn.errors import LeakError, TooFewSamples
from clipsyn.methods.ensembles.base import LogAverage
from clipsyn.methods.ensembles.nlc import NLC
from clipsyn.methods.ensembles.weighted import SuperLearner
from clipsyn.methods.numerics.samples import stratified_folds
from clipsyn.methods.pool import Pool

ABC, ORDER = ("a", "b", "c"), ("b", "c", "a")
FIRST, TWO, ALL = (ORDER[:count] for count in (1, 2, 3))


def made(samples=60, seed=0, split="train"):
    """Three backbones that know something of four classes, and as many numbers as embeddings."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, samples)
    logits = 2 * rng.normal(size=(samples, 3, 4))
    for column, skill in enumerate((0.5, 1.0, 2.0)):
        logits[np.arange(samples), column, labels] += skill
    embeddings = [rng.normal(size=(samples, width)) for width in (2, 3, 5)]
    embeddings = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in embeddings]
    return Pool.of(logits, labels, embeddings, backbones=("a", "b", "c"), split=split)


def scores_on(pool, candidate, seed=0):
    """The ensemble, and its scores on samples of the support that it has not seen."""
    return fit_candidates([candidate], pool, seed, lambda scores, _: scores)[candidate]


def test_confidences_of_four_images_by_hand():
    """Probabilities of two backbones; support with the temperature left at 1."""
    likely = np.array([[[0.8, 0.2], [0.6, 0.4]], [[0.5, 0.5], [0.1, 0.9]]])
    pool = Pool.of(np.log(likely), [0, 0], backbones=("a", "b"), split="test")
    said = module.said_of(LogAverage().combine(pool), pool, 1.0)
    # geometric means: sqrt(.8 * .6) : sqrt(.2 * .4), and sqrt(.5 * .1) : sqrt(.5 * .9)
    assert said["confidence"] == pytest.approx([0.71010, 0.75], abs=1e-5)
    assert said["correct"].tolist() == [True, False]
    cooler = module.said_of(LogAverage().combine(pool), pool, 0.5)  # squares: .48 : .08
    assert cooler["confidence"] == pytest.approx([0.85714, 0.9], abs=1e-5)


def test_what_learns_nothing_is_judged_on_all_of_the_support():
    pool = made()
    _, scores = scores_on(pool, Candidate("log-avg", TWO))
    np.testing.assert_allclose(scores, pool.logits[:, [1, 2]].mean(axis=1), rtol=1e-5, atol=1e-6)


def test_nothing_is_seen_of_samples_that_were_fitted_on():
    """A super learner for each fold, by hand."""
    pool = made()
    expected = np.empty((len(pool), 4))
    part = pool.of_backbones(TWO)
    for held in stratified_folds(pool.labels, FOLDS):
        learner = SuperLearner().fit(part.take(np.flatnonzero(~held)))
        expected[held] = learner.combine(part.take(np.flatnonzero(held)))
    ensemble, scores = scores_on(pool, Candidate("super-learner", TWO))
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    np.testing.assert_allclose(ensemble.weights_, SuperLearner().fit(part).weights_, rtol=1e-5)


def test_the_seed_is_that_of_the_ensemble():
    pool = made()
    fitted, _ = scores_on(pool, Candidate("nlc:steps=2", TWO), 5)
    expected = NLC(steps=2, random_state=5).fit(pool.of_backbones(TWO))
    np.testing.assert_allclose(
        fitted.combine(pool.of_backbones(TWO)), expected.combine(pool.of_backbones(TWO))
    )
    assert fitted.get_params()["random_state"] == 5


def test_the_test_split_is_refused():
    with pytest.raises(LeakError, match="test split"):
        scores_on(made(split="test"), Candidate("log-avg", TWO))


def test_one_sample_is_too_few_to_hold_one_out():
    one = replace(made().take(np.array([0])), dataset="toy")
    with pytest.raises(
        TooFewSamples, match=r"super-learner needs at least two labelled .* toy/train"
    ):
        scores_on(one, Candidate("super-learner", TWO))
    scores_on(one, Candidate("log-avg", TWO))


def test_backbones_and_the_stages_of_each_cascade():
    assert module.candidates(ABC, ["conf", "nlc"]) == [
        *(Candidate(None, (name,)) for name in ABC),
        Candidate("conf", ("a", "b")),
        Candidate("conf", ABC),
        Candidate("nlc", ("a", "b")),
        Candidate("nlc", ABC),
    ]


def test_subsets_end_at_nine_backbones(pool):
    nine, ten = ([f"m{place}" for place in range(count)] for count in (9, 10))
    answers = {name: [1] for name in ten}
    assert module.averages(pool(answers), ten) == {}
    answers.pop("m9")
    whole = module.candidates(nine, ["log-avg"])  # its other subsets are all made at once
    assert len([*whole, *module.averages(pool(answers), nine)]) == 511


def test_averages_of_all_subsets_but_the_stages(pool):
    answers = pool({"a": [1, 1, 0, 0], "b": [1, 1, 1, 0], "c": [0, 1, 1, 1]})  # c is the surest
    correct = module.averages(answers, ("b", "a", "c"))
    assert {candidate: said["correct"].tolist() for candidate, said in correct.items()} == {
        Candidate("log-avg", ("b", "c")): [False, True, True, True],
        Candidate("log-avg", ("a", "c")): [False, True, True, True],
    }


def test_a_cascade_begins_with_a_backbone_on_its_own():
    assert module.stages("nlc", ABC) == [
        Candidate(None, ("a",)),
        Candidate("nlc", ("a", "b")),
        Candidate("nlc", ABC),
    ]
    said = {
        candidate: {"confidence": np.full(2, place), "correct": np.array([place == 1, True])}
        for place, candidate in enumerate(module.stages("nlc", ABC))
    }
    confidence, correct = module.along(said, module.stages("nlc", ABC))
    assert confidence.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert correct.tolist() == [[False, True], [True, True], [False, True]]


def test_a_tier_says_what_most_of_it_say_and_how_many(pool):
    """The fixture's images are of class 1, and each backbone is twice as sure as the one before."""
    said = module.votes(
        pool({"a": [1, 1, 0, 0], "b": [1, 0, 1, 0], "c": [1, 1, 0, 0], "d": [1, 0, 0, 1]}),
        "abcd",
        3,
    )
    first, last = module.tiers("abcd", 3)
    assert (first.backbones, last.backbones) == (("a", "b", "c"), ("d",))
    assert said[first]["correct"].tolist() == [True, True, False, False]
    assert said[first]["confidence"].tolist() == [1, 0.67, 0.67, 1]
    assert said[last]["correct"].tolist() == [True, False, False, True]
    assert said[last]["confidence"].tolist() == [1, 1, 1, 1]
