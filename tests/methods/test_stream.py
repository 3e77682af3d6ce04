"""A support that is larger than memory: what a stream gives, and which sample of it."""

from __future__ import annotations

import logging
from itertools import islice

import numpy as np
import pytest

from clipsyn.errors import DamagedStore
from clipsyn.methods import stream
from clipsyn.methods.numerics.blocks import read_ahead
from clipsyn.methods.numerics.fewshot import stratified
from clipsyn.methods.pool import Pool
from clipsyn.methods.stream import Stream, in_memory
from clipsyn.store import pools
from clipsyn.store.pools import PoolReader


def pool_of(n=40, backbones=3, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(n) % classes)  # by class, as folders of images are
    logits = rng.normal(size=(n, backbones, classes)) + np.eye(classes)[labels][:, None]
    embeddings = rng.normal(size=(backbones, n, 5))
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    return Pool.of(logits, labels, list(embeddings), split="train")


def stream_of(pool, size=7):
    """The samples of a pool, as if they were read in blocks of `size`."""
    rows = np.arange(len(pool))
    parts = [slice(start, min(start + size, len(pool))) for start in range(0, len(pool), size)]
    return Stream(pool.take(rows[:0]), rows, pool.labels, parts, lambda some, _: pool.take(some))


def test_a_pass_is_all_samples_in_order():
    pool = pool_of()
    blocks = list(stream_of(pool).blocks())
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 7, 5]
    np.testing.assert_array_equal(np.concatenate([b.logits for b in blocks]), pool.logits)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in blocks]), pool.labels)


def test_a_sample_is_stratified_drawn_once_and_announced(monkeypatch, caplog):
    pool = pool_of(n=400)
    monkeypatch.setattr(stream, "IN_MEMORY", 100 * pool.bytes_a_sample + 1)
    whole = stream_of(pool)
    with caplog.at_level(logging.INFO, "clipsyn"):
        sample = in_memory(whole, "Stacking")
    assert np.bincount(sample.labels).tolist() == [25] * 4
    assert sample.sample_of == 400
    assert sample.logits is whole.sample().logits
    assert "note: Stacking is fitted on a stratified sample of 100 of the 400" in caplog.text
    assert in_memory(pool, "Stacking") is pool


def test_stratified_by_hand():
    labels = np.repeat([0, 1, 2, -1], [100, 50, 1, 9]).astype(np.int32)
    rows = stratified(labels, 31, seed=0)
    assert (np.diff(rows) > 0).all()
    assert np.bincount(labels[rows]).tolist() == [20, 10, 1]
    assert len(stratified(labels, 1000, seed=0)) == 151
    assert (rows != stratified(labels, 31, seed=1)).any()
    np.testing.assert_array_equal(rows, stratified(labels, 31, seed=0))


def test_reading_ahead():
    read = []

    def look(item):
        if item == 4:
            raise DamagedStore("block 4")
        read.append(item)
        return item

    items = read_ahead(look, range(9))
    assert next(items) == 0
    assert [next(items), next(items), next(items)] == [1, 2, 3]
    with pytest.raises(DamagedStore, match="block 4"):
        next(items)
    assert 6 not in read
    assert list(read_ahead(look, [])) == []
    assert list(read_ahead(look, [7])) == [7]


def test_of_a_store(tiny_store, monkeypatch):
    monkeypatch.setattr(pools, "_STREAM_BYTES", 1)  # a chunk at a time
    reader = PoolReader(tiny_store, "toy", "train")
    rows = np.array([0, 1, 2, 5, 6, 7, 9, 10])
    whole = reader.read(rows)
    part = reader.stream(rows)
    blocks = list(part.blocks())
    assert len(blocks) == 2
    np.testing.assert_array_equal(np.concatenate([b.logits for b in blocks]), whole.logits)
    np.testing.assert_array_equal(part.labels, whole.labels)
    assert sum((b.ids for b in blocks), ()) == whole.ids
    assert (part.dataset, part.split, part.backbones) == ("toy", "train", whole.backbones)
    assert part.about.provenance == whole.provenance
    assert part.size == len(rows) * whole.bytes_a_sample
    assert all(block.embeddings for block in blocks)
    assert not any(block.embeddings for block in part.blocks(embeddings=False))


def test_a_support_is_a_stream_only_where_it_is_too_large(tiny_store, monkeypatch):
    reader, rows = PoolReader(tiny_store, "toy", "train"), np.arange(11)
    assert isinstance(reader.support(rows), Pool)
    monkeypatch.setattr(stream, "IN_MEMORY", 100)
    assert isinstance(reader.support(rows), Stream)


def test_a_stream_leaves_out_what_cannot_be_learned_from(fakes, tmp_path):
    source = fakes.Source(split="train", count=11, bad={3: "cut", 8: "cut"})
    source.labels[5] = -1
    store = fakes.fill(
        tmp_path / "store", [fakes.Encoder(), fakes.Encoder("fake/two")], [source], max_bad=1
    )
    part = PoolReader(store, "toy", "train").stream(np.arange(11))
    assert part.rows.tolist() == [0, 1, 2, 4, 6, 7, 9, 10]
    assert all(block.readable.all() for block in part.blocks())
    assert part.labelled() is part


def test_some_samples_of_a_stream():
    pool = pool_of()
    at = np.array([0, 1, 6, 21, 22, 39])
    part = stream_of(pool).take(at)
    assert [len(block) for block in part.blocks()] == [3, 2, 1]
    np.testing.assert_array_equal(part.labels, pool.labels[at])
    np.testing.assert_array_equal(part.together().logits, pool.logits[at])
    fewer = part.take(np.array([2, 5])).together()
    np.testing.assert_array_equal(fewer.logits, pool.logits[at[[2, 5]]])


@pytest.mark.parametrize("room", [1, 3, 10, 64, 1000])
def test_shuffled_samples_come_as_often_as_they_were_read(monkeypatch, room):
    """What is read is given, but for what is kept; a sample may be kept from several passes."""
    pool = pool_of(n=64)
    numbered = pool.with_logits(np.full_like(pool.logits, 0) + np.arange(64)[:, None, None])
    monkeypatch.setattr(stream, "IN_MEMORY", room * pool.bytes_a_sample)
    whole = stream_of(numbered)
    seen, again, other = (order_of(whole.shuffled(seed)) for seed in (0, 0, 1))
    counts = np.bincount(seen, minlength=64)
    passes = len(seen) / 64
    assert abs(counts - passes).max() < 3
    if room <= 10:  # none comes before it was read
        assert len(set(seen[: 64 - room].tolist())) == 64 - room
    np.testing.assert_array_equal(seen, again)
    assert not np.array_equal(seen, other)


def order_of(blocks, count=200):
    """The first logits of what comes first, which are row numbers."""
    singles = (value for block in blocks for value in block.logits[:, 0, 0])
    return np.fromiter(islice(singles, count), int)


def test_shuffled_samples_keep_their_labels_and_embeddings(monkeypatch):
    pool = pool_of(n=64)
    monkeypatch.setattr(stream, "IN_MEMORY", 20 * pool.bytes_a_sample)
    by_logits = {pool.logits[row].tobytes(): row for row in range(64)}
    for block in islice(stream_of(pool).shuffled(0), 30):
        rows = [by_logits[one.tobytes()] for one in block.logits]
        np.testing.assert_array_equal(block.labels, pool.labels[rows])
        for name, values in block.embeddings.items():
            np.testing.assert_array_equal(values, pool.embeddings[name][rows])


def test_shuffled_classes_are_mixed_though_they_are_stored_one_after_the_other(monkeypatch):
    pool = pool_of(n=4000, classes=40)
    monkeypatch.setattr(stream, "IN_MEMORY", 1000 * pool.bytes_a_sample)
    drawn = stream_of(pool, 100).shuffled(0)
    kinds = [len(set(next(drawn).labels.tolist())) for _ in range(60)]
    assert np.mean(kinds) > 7  # a block as it is stored has one
