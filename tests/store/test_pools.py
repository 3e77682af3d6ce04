"""Pools read from a store, whole, in parts and in blocks."""

from __future__ import annotations

import threading

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import MissingCell, StaleCell, UnknownName, UsageError
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.methods.numerics.logits import softmax
from clipsyn.names import FeatureKey
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader


def test_a_pool_is_what_the_store_holds_side_by_side(tiny_store):
    pool = tiny_store.pool("toy", "test")
    samples = tiny_store.samples("toy", "test")
    assert pool.backbones == ("fake/one", "fake/two")
    assert pool.ids == samples.ids
    assert np.array_equal(pool.labels, samples.labels)
    assert (pool.dataset, pool.split, pool.perturbation) == ("toy", "test", "clean")
    for column, name in enumerate(pool.backbones):
        key = FeatureKey("toy", "test", "clean", name)
        assert np.array_equal(pool.logits[:, column], tiny_store.cell(key).logits(pool.prompts))
        assert np.array_equal(pool.embeddings[name], tiny_store.cell(key).embeddings())
        classes, scale = tiny_store.class_embeddings("toy", pool.prompts, name)
        assert np.array_equal(pool.class_embeddings[name], classes)
        assert pool.logit_scales[name] == scale


@pytest.mark.parametrize("rows", [[0], [19], [3, 7, 8, 15, 16, 19], list(range(20)), []])
def test_some_rows_are_those_of_the_whole(tiny_store, rows):
    reader = PoolReader(tiny_store, "toy", "test")
    part = reader.read(np.array(rows, np.intp))
    whole = reader.read()
    assert np.array_equal(part.logits, whole.logits[rows])
    assert np.array_equal(part.embeddings["fake/two"], whole.embeddings["fake/two"][rows])
    assert part.ids == tuple(whole.ids[row] for row in rows)


def test_blocks_are_the_whole_in_order(tiny_store, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1)  # a block of the store at a time
    reader = PoolReader(tiny_store, "toy", "test")
    blocks = list(reader.blocks())
    assert len(blocks) > 1
    whole = reader.read()
    assert np.array_equal(np.concatenate([block.logits for block in blocks]), whole.logits)
    assert sum((block.ids for block in blocks), ()) == whole.ids


def test_what_is_replaced_between_two_blocks_is_not_read_on(tiny_store, fakes, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1)
    finished = threading.Semaphore(0)
    whole = PoolReader.read

    def read(self, *args, **options):
        pool = whole(self, *args, **options)
        finished.release()
        return pool

    monkeypatch.setattr(PoolReader, "read", read)
    blocks = PoolReader(tiny_store, "toy", "test").blocks()
    next(blocks)
    for _ in range(2):  # the second block is read while the first is used
        finished.acquire()
    sources = [fakes.Source(), fakes.Source(split="train", count=11)]
    fakes.fill(tiny_store.path, [fakes.Encoder(weights="others")], sources, replace=True)
    assert len(next(blocks)) == 7
    with pytest.raises(StaleCell, match=r"toy/test in .* was replaced while it was read: run the"):
        next(blocks)
    assert len(list(PoolReader(tiny_store, "toy", "test").blocks())) == 3


def test_origin_changes_with_labels_and_cells(tiny_store, fakes, tmp_path):
    before = PoolReader(tiny_store, "toy", "test").origin
    assert PoolReader(tiny_store, "toy", "test").origin == before
    assert PoolReader(tiny_store, "toy", "test", backbones="*/one").origin != before
    source = fakes.Source()
    source.labels = source.labels[::-1].copy()
    other = fakes.fill(tmp_path / "other", [fakes.Encoder()], [source])
    mine = PoolReader(tiny_store, "toy", "test", backbones="fake/one").origin
    theirs = PoolReader(other, "toy", "test").origin
    assert mine["features"] == theirs["features"]
    assert mine["labels"] != theirs["labels"]


def test_what_is_missing_says_how_to_make_it(tiny_store, fakes, tmp_path):
    with pytest.raises(UnknownName, match="unknown perturbation 'jpeg-5'"):
        tiny_store.pool("toy", "test", perturbation="jpeg-5")
    with pytest.raises(UnknownName, match="clipsyn extract"):
        tiny_store.pool("toy", "test", backbones=["fake/three"])
    with pytest.raises(
        MissingCell, match=r"clipsyn extract .*fake/one=.*,fake/two=.* --dataset birds=… --split te"
    ):
        tiny_store.pool("birds", "test")
    with pytest.raises(MissingCell, match=r"no samples of toys/test: run"):
        tiny_store.pool("toys", "test")
    store = fakes.fill(
        tmp_path / "uneven", [fakes.Encoder(), fakes.Encoder("fake/two")], [fakes.Source()]
    )
    fakes.fill(store.path, [fakes.Encoder()], [fakes.Source()], ["jpeg:2"])
    with pytest.raises(MissingCell, match=r"--backbones fake/two=.* --perturb jpeg-2"):
        PoolReader(store, "toy", "test", views=["jpeg-2"])
    with pytest.raises(MissingCell, match=r"--backbones fake/two=.* --perturb jpeg-2"):
        PoolReader(store, "toy", "test", perturbation="jpeg-2", backbones=["fake/one", "fake/two"])


def test_several_prompt_sets_need_a_choice(fakes, tmp_path):
    store = fakes.fill(tmp_path / "s", prompts="simple")
    source = fakes.Source(templates=("drawing of {c}",))
    fakes.fill(store.path, sources=[source], prompts="own")
    with pytest.raises(UsageError, match=r"more than one prompt set .*\(own, simple\).*prompts=…"):
        store.pool("toy", "test")
    assert store.pool("toy", "test", prompts="simple").prompts == "simple"


NAMES = ("ant", "bee", "cat", "dog")


# Predictions alone, in a pool: what is predicted stays first, as sure as it was.


def votes(tmp_path, rows, **options):
    header = ["id", "prediction", "label", "confidence"][: len(rows[0])]
    frame = pl.DataFrame(rows, schema=header, orient="row")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    frame.write_csv(tmp_path / "mine.csv")
    wanted = ImportSettings("toy", classes=tmp_path / "classes.txt", **options)
    import_files(tmp_path / "votes", [tmp_path / "mine.csv"], wanted)
    return PoolReader(FeatureStore.open(tmp_path / "votes"), "toy", "test", votes=True)


@pytest.mark.parametrize("confidence", [0.4, 0.999, 1.0, 0.25])
def test_votes_have_the_confidence_that_was_imported(tmp_path, confidence):
    rows = [("a", "cat", "cat", confidence), ("b", "ant", "dog", 0.5)]
    reader = votes(tmp_path, rows, prompts="mine")
    found = softmax(reader.read().logits)[:, 0]
    rest = (1 - confidence) / 3
    np.testing.assert_allclose(found[0], [rest, rest, confidence, rest], atol=1e-6)
    assert reader.read().logits.argmax(axis=2).tolist() == [[2], [0]]
    assert (reader.silent, reader.unsure) == ({"mine"}, set())


def test_votes_are_sure_where_there_is_none(tmp_path):
    reader = votes(tmp_path, [("a", "cat", "cat"), ("b", "", "dog")])
    found = softmax(reader.read().logits)[:, 0]
    assert found[0].tolist() == [0, 0, 1, 0]
    assert np.isnan(found[1]).all()
    assert (reader.silent, reader.unsure) == ({"mine"}, {"mine"})


def test_votes_are_of_classes_alone(tmp_path):
    rows = ["id,label,prediction", "0.png,cat,cat", "1.png,cat,none of the classes"]
    (tmp_path / "one.csv").write_text("\n".join(rows))
    settings = ImportSettings(dataset="edge")
    import_files(tmp_path / "na", [tmp_path / "one.csv"], settings)
    reader = PoolReader(FeatureStore.open(tmp_path / "na"), "edge", "test", votes=True)
    with pytest.raises(UsageError, match="1 answers are none of the classes"):
        reader.read()
