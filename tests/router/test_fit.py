"""`fit_router`: from a store and names to a fitted router."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from clipsyn.errors import LeakError
from clipsyn.evaluation.fit import fit_ensemble, fit_head
from clipsyn.methods import pool as memory
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.numerics.samples import few_shot
from clipsyn.router.artefact import load_router, write
from clipsyn.router.fit import FittedRouter, fit_router
from clipsyn.store.pools import PoolReader


def test_it_is_fitted_on_the_shots_and_nothing_else(tiny_store, monkeypatch):
    read = []

    def spy(self, rows):
        read.append(rows)
        return whole(self, rows)

    whole = PoolReader.read
    monkeypatch.setattr(PoolReader, "read", spy)
    router = fit_router(tiny_store, "toy", "best-single", shots=2, seed=5)
    labels = tiny_store.samples("toy", "train").labels
    np.testing.assert_array_equal(read, [few_shot(labels, 2, 5)])
    assert (router.support.shots, router.support.seed, router.support.samples) == (2, 5, 6)


@pytest.mark.parametrize("shots", [2, None])
@pytest.mark.parametrize("ensemble", ["nlc:steps=5", "nlc:steps=5:random_state=3"])
def test_it_is_what_is_evaluated(tiny_store, ensemble, shots):
    head, support = "tip-adapter-f:epochs=2", tiny_store.pool("toy", "train")
    pool = support.take(few_shot(support.labels, shots, 7))
    combiner = fit_head(pool, head, 7)
    evaluated = fit_ensemble(combiner, ensemble, 7)
    router = fit_router(tiny_store, "toy", ensemble, head=head, shots=shots, seed=7)
    for mine, other in ((router.head, combiner.head), (router.ensemble, evaluated.ensemble)):
        assert mine.get_params() == other.get_params()
        np.testing.assert_equal(mine.learned(), other.learned())
    assert router.head.get_params()["random_state"] == 7
    stated = ensemble.endswith("random_state=3")
    assert router.ensemble.get_params()["random_state"] == (3 if stated else 7)


def test_it_knows_where_it_is_from(tiny_store):
    router = fit_router(tiny_store, "toy", "log-avg", views=["jpeg-3"], backbones="fake/o*")
    found = router.support
    assert (found.dataset, found.split, found.perturbation) == ("toy", "train", "clean")
    assert (found.shots, found.seed, found.samples) == (None, None, 11)
    assert found.views == ("jpeg-3",)
    assert found.licence == "CC0"
    assert router.names == ("fake/one",)
    (key,) = tiny_store.keys(split=["train"], perturbation=["clean"], backbone=["fake/one"])
    assert found.fingerprints["features"] == {"fake/one": tiny_store.cell(key).fingerprint()}
    (backbone,) = router.backbones
    assert backbone.identity["weights"] == tiny_store.cell(key).encoder()[0]["weights"]
    assert backbone.text == "fake/one=local-dir:checkpoints/fake/one"
    classes, scale = tiny_store.class_embeddings("toy", "simple", "fake/one")
    np.testing.assert_array_equal(backbone.class_embedding, classes)
    assert backbone.logit_scale == scale
    assert router.prompts == {"name": "simple", "templates": ["a photo of a {c}."], "per_class": {}}


def test_test_images_cannot_be_learned_from(tiny_store):
    with pytest.raises(LeakError, match="the test split of toy"):
        fit_router(tiny_store, "toy", "log-avg", support="test")


@pytest.fixture
def large(tiny_store, monkeypatch):
    """As if memory held six of the eleven training images."""
    size = tiny_store.pool("toy", "train").bytes_a_sample
    monkeypatch.setattr(memory, "IN_MEMORY", 6 * size)
    return tiny_store


@pytest.mark.parametrize("ensemble", ["super-learner", "c-log-avg", "greedy", "best-single"])
def test_a_support_larger_than_memory_is_fitted_on_in_files(large, ensemble, caplog):
    with caplog.at_level(logging.INFO, "clipsyn"):
        router = fit_router(large, "toy", ensemble)
    expected = ENSEMBLES.load(ensemble)().fit(large.pool("toy", "train"))
    test = large.pool("toy", "test")
    np.testing.assert_allclose(router.combine(test), expected.combine(test), rtol=1e-6)
    assert router.sampled is None
    assert "stratified sample" not in caplog.text
    whole = FittedRouter.of(expected, large.pool("toy", "train"))
    assert replace(router.support, accuracy=whole.support.accuracy) == whole.support  # of a sample


@pytest.mark.parametrize(
    ("ensemble", "head"), [("stacking", "zero-shot"), ("super-learner", "lda"), ("ola", "lda")]
)
def test_what_needs_memory_keeps_how_many_images_it_took(large, tmp_path, ensemble, head, caplog):
    with caplog.at_level(logging.INFO, "clipsyn"):
        router = fit_router(large, "toy", ensemble, head=head)
    assert router.sampled == 6
    assert router.support.samples == 11
    assert "is fitted on a stratified sample of 6 of the 11 images of toy/train" in caplog.text
    write(tmp_path / "router", router)
    assert load_router(tmp_path / "router").sampled == 6


def test_unreadable_and_unlabelled_images_are_not_written_to_files(fakes, tmp_path, monkeypatch):
    source = fakes.Source(split="train", bad={3: "cut"})
    source.labels[5] = -1
    store = fakes.fill(tmp_path / "store", sources=[source], max_bad=1.0)
    whole = store.pool("toy", "train")
    monkeypatch.setattr(memory, "IN_MEMORY", 0)
    found = PoolReader(store, "toy", "train").support(np.arange(20))
    rows = [row for row in range(20) if row not in (3, 5)]
    np.testing.assert_array_equal(found.logits, whole.logits[rows])
