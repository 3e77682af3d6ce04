"""What a support chooses of heads and ensembles, judged on samples that these have not seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipsyn.errors import InputError
from clipsyn.methods import chosen as module
from clipsyn.methods.chosen import choose
from clipsyn.methods.ensembles.weighted import SuperLearner
from clipsyn.methods.heads.lda import ShrinkageLDA
from clipsyn.methods.pool import Pool

CLASSES, WIDTH = 4, 12


def pool(each: int, *, text: float, images: float, seed: int = 0) -> Pool:
    """Two backbones; how far logits, and embeddings, tell the classes apart."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(CLASSES), each)
    logits = rng.normal(size=(len(labels), 2, CLASSES))
    logits[np.arange(len(labels)), :, labels] += text
    centres = rng.normal(size=(2, CLASSES, WIDTH)) * images
    embeddings = rng.normal(size=(2, len(labels), WIDTH)) + centres[:, labels]
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    return Pool.of(logits.astype(np.float32), labels, embeddings.astype(np.float32))


HEADS, ENSEMBLES = ("zero-shot", "lda"), ("super-learner", "log-avg")


def test_a_head_that_is_clearly_better_is_chosen_and_fitted_on_all():
    support = pool(20, text=0, images=2)
    choice = choose(support, HEADS, ENSEMBLES, 0)
    assert choice.candidates[0].head == "lda"
    head = ShrinkageLDA().fit(support)
    other = pool(5, text=0, images=2, seed=1)
    np.testing.assert_allclose(
        choice.head.transform(other).logits, head.transform(other).logits, rtol=1e-5
    )


def test_what_chance_explains_leaves_the_order_as_it_is():
    support = pool(3, text=1.5, images=0)
    for first in (("zero-shot", "lda"), ("lda", "zero-shot")):
        chosen, *others = choose(support, first, ENSEMBLES, 0).candidates
        assert (chosen.head, chosen.ensemble) == (first[0], "super-learner")
        assert max(other.lead for other in others) >= 0  # none is clearly better


def test_a_large_support_is_judged_on_enough_of_it(monkeypatch):
    monkeypatch.setattr(module, "_ENOUGH", 10)  # of 40 in folds of 8: two
    judged = choose(pool(10, text=1, images=0), ["zero-shot"], ENSEMBLES, 0).candidates
    assert {it.ensemble: it.n for it in judged} == {
        "super-learner": 16,
        "best-single": 16,
        "log-avg": 40,
    }


def test_candidates_are_judged_by_folds_that_they_have_not_seen():
    support = pool(6, text=1, images=0)
    by_name = {it.name: it for it in choose(support, ["zero-shot"], ENSEMBLES, 0).candidates}
    right = []
    for fold in range(5):  # samples of a class, one after the other, over all classes
        order = np.argsort(support.labels, kind="stable")
        held = np.isin(np.arange(len(order)), order[np.arange(len(order)) % 5 == fold])
        learner = SuperLearner().fit(support.take(np.flatnonzero(~held)))
        part = support.take(np.flatnonzero(held))
        right += list(learner.predict(part) == part.labels)
    assert by_name["zero-shot · super-learner"].accuracy == pytest.approx(np.mean(right))
    mean = support.logits.mean(axis=1).argmax(axis=1) == support.labels
    assert by_name["zero-shot · log-avg"].accuracy == pytest.approx(mean.mean())
    assert {it.n for it in by_name.values()} == {24}


def test_one_image_a_class_cannot_be_left_out():
    candidates = choose(pool(1, text=1, images=2), HEADS, ENSEMBLES, 0).candidates
    assert candidates[0].name == "zero-shot · super-learner"
    assert all(it.n == 0 and math.isnan(it.accuracy) for it in candidates)


def test_what_cannot_be_fitted_is_no_candidate():
    whole = pool(4, text=1, images=1)
    bare = Pool.of(whole.logits, whole.labels)
    candidates = choose(bare, HEADS, ("moe", *ENSEMBLES), 0).candidates
    assert {it.head for it in candidates} == {"zero-shot"}
    with pytest.raises(InputError):
        choose(bare, ["lda"], ENSEMBLES, 0)
