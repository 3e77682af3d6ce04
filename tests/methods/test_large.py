"""A support that is larger than memory: arrays in files, or a sample and a word about it."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipsyn.errors import InputError
from clipsyn.methods import pool as memory
from clipsyn.methods.chosen import choose
from clipsyn.methods.ensembles import ENSEMBLES, nlc
from clipsyn.methods.ensembles.base import LogAverage
from clipsyn.methods.ensembles.weighted import SuperLearner
from clipsyn.methods.heads import HEADS
from clipsyn.methods.numerics.samples import stratified
from clipsyn.methods.pool import Pool, on_disk
from clipsyn.store.pools import PoolReader

ANY_SIZE = [name for name in ENSEMBLES if ENSEMBLES.load(name).any_size]
NETWORKS = ("nlc", "moe", "swig")
SAMPLING = [name for name in ENSEMBLES if ENSEMBLES.load(name).learns and name not in ANY_SIZE]


def pool_of(n=900, backbones=4, classes=5, seed=2):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    logits = rng.normal(size=(n, backbones, classes)).astype(np.float32)
    logits += 1.5 * np.eye(classes, dtype=np.float32)[labels][:, None]
    embeddings = rng.normal(size=(backbones, n, 5))
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    return Pool.of(logits, labels, list(embeddings), split="train")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is in memory")
def test_files_leave_memory_and_come_back():
    """A transductive ensemble leaves nothing of them there."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")

    pool = in_files(pool_of(n=100_000, classes=10))
    before, whole = resident(), pool.logits.copy()
    pool.take(slice(9, None)).let_go()
    assert resident() < before - pool.logits.nbytes / 2
    np.testing.assert_array_equal(pool.logits, whole)
    few = replace(pool.take(slice(20)), split="train")
    ENSEMBLES.load("transclip-fs")(batch=1).fit(few).combine(few)
    assert resident() < before - pool.logits.nbytes / 2


def in_files(pool):
    def put(values):
        room = on_disk(values.shape, values.dtype)
        room[...] = values
        return room

    embeddings = {name: put(values) for name, values in pool.embeddings.items()}
    return replace(pool, logits=put(pool.logits), embeddings=embeddings)


@pytest.fixture
def support():
    return pool_of()


@pytest.fixture
def large(monkeypatch, support):
    """As if a tenth of the support were all that memory holds."""
    monkeypatch.setattr(memory, "IN_MEMORY", support.nbytes // 10)
    return in_files(support)


@pytest.mark.parametrize("name", sorted({*ANY_SIZE} - {*NETWORKS, "gac"}))
def test_a_fit_on_files_is_the_same_fit(support, large, name):
    found, expected = ENSEMBLES.load(name)().fit(large), ENSEMBLES.load(name)().fit(support)
    np.testing.assert_array_equal(found.combine(support), expected.combine(support))
    assert not hasattr(found, "sampled_")


def test_a_genetic_search_judges_by_all_samples(support, large):
    found, expected = ENSEMBLES.load("gac")().fit(large), ENSEMBLES.load("gac")().fit(support)
    assert found.score(support) == pytest.approx(expected.score(support), abs=0.01)


@pytest.mark.parametrize("name", SAMPLING)
def test_what_needs_memory_says_that_it_took_a_sample(support, large, name, caplog):
    with caplog.at_level(logging.INFO, "clipsyn"):
        found = ENSEMBLES.load(name)().fit(large)
    assert found.sampled_ == 90
    assert "a stratified sample of 90 of the 900" in caplog.text
    sample = support.take(stratified(support.labels, 90, 0))
    expected = ENSEMBLES.load(name)().fit(sample)
    np.testing.assert_array_equal(found.combine(support), expected.combine(support))
    assert not hasattr(found.fit(support), "sampled_")


def test_heads_that_learn_take_the_sample_and_their_ensembles_too(support, large):
    head = HEADS.load("lda")()
    combiner = head.fit_transform(large)
    assert head.sampled_ == 90
    assert SuperLearner().fit(combiner).sampled_ == len(combiner)
    assert HEADS.load("zero-shot")().fit_transform(large).logits is large.logits


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_as_good_as_one_fitted_in_memory(monkeypatch, name):
    """On samples that lie class after class, of which memory holds an eighth."""
    pool = kinds_of(4000)
    support, test = pool.take(slice(0, 4000, 2)), pool.take(slice(1, 4000, 2))
    inside = ENSEMBLES.load(name)(learning_rate=2e-3).fit(support)
    for module in (memory, nlc):
        monkeypatch.setattr(module, "IN_MEMORY", support.nbytes // 8)
    gathered = ENSEMBLES.load(name)(learning_rate=2e-3).fit(in_files(support))
    scores = [LogAverage().fit(support).score(test), inside.score(test), gathered.score(test)]
    assert scores[1] > scores[0] + 0.1
    assert scores[2] == pytest.approx(scores[1], abs=0.02)
    assert gathered.held_out_loss_ == pytest.approx(inside.held_out_loss_, abs=0.15)


def kinds_of(n, classes=8, seed=0):
    """Each backbone is right on one of two kinds of images, which their embeddings tell apart."""
    rng = np.random.default_rng(seed)
    labels, kind = np.sort(np.arange(n) % classes), rng.integers(2, size=n)
    logits = rng.normal(size=(n, 2, classes)).astype(np.float32) * 2
    logits[np.arange(n), kind, labels] += 4
    embeddings = rng.normal(size=(2, n, 6)) * 0.2
    embeddings[:, np.arange(n), kind] += 1
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    return Pool.of(logits, labels, list(embeddings), split="train")


def test_held_out_samples_are_not_learned_from(monkeypatch):
    """The labels of the held-out ones are others: the loss on them can only become worse."""
    pool = kinds_of(3000)
    held = stratified(pool.labels, 300, 0)
    labels = pool.labels.copy()
    labels[held] = (labels[held] + 1) % 8
    for module in (memory, nlc):
        monkeypatch.setattr(module, "IN_MEMORY", 1200 * pool.bytes_a_sample)
    monkeypatch.setattr(nlc, "stratified", lambda *_: held)
    wrong = in_files(replace(pool, labels=labels))
    assert ENSEMBLES.load("nlc")(learning_rate=1e-2).fit(wrong).steps_ == 0


def test_a_choice_is_made_on_the_sample_and_fitted_on_all(large):
    choice = choose(large, ["zero-shot"], ["log-avg", "super-learner"])
    assert {it.n for it in choice.candidates} == {90}
    assert choice.pool.logits is large.logits


def test_of_a_store_what_cannot_be_learned_from_is_left_out(fakes, tmp_path, monkeypatch):
    source = fakes.Source(split="train", count=11, bad={3: "cut", 8: "cut"})
    source.labels[5] = -1
    store = fakes.fill(
        tmp_path / "store", [fakes.Encoder(), fakes.Encoder("fake/two")], [source], max_bad=1
    )
    reader = PoolReader(store, "toy", "train")
    assert len(reader.support(np.arange(11))) == 11
    monkeypatch.setattr(memory, "IN_MEMORY", 100)
    found, expected = (
        reader.support(np.arange(11)),
        reader.read(np.array([0, 1, 2, 4, 6, 7, 9, 10])),
    )
    assert found.is_too_large
    assert found.labelled() is found
    assert found.ids == expected.ids
    np.testing.assert_array_equal(found.logits, expected.logits)
    for name, values in expected.embeddings.items():
        np.testing.assert_array_equal(found.embeddings[name], values)


def test_a_full_disk_is_said():
    with pytest.raises(InputError, match="TMPDIR"):
        on_disk((1 << 40, 1 << 10), np.float32)
