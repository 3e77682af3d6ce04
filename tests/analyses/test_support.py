"""What analyses fit and choose on: drawn like everywhere else, and never what they measure on."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.analyses.predicted import read_support
from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.errors import DatasetError
from clipsyn.methods.numerics.samples import few_shot
from clipsyn.store.pools import PoolReader


def reader(store, split="train"):
    return PoolReader(store, "toy", split)


def drawn(shots, seed):
    return SelectiveSettings(shots=shots, seed=seed)


def test_all_of_it(tiny_store):
    support = read_support(reader(tiny_store), [], drawn("full", 0))
    assert support.rows.tolist() == list(range(11))
    assert support.pool.labels.tolist() == tiny_store.samples("toy", "train").labels.tolist()


def test_some_images_of_each_class(tiny_store):
    labels = tiny_store.samples("toy", "train").labels
    support = read_support(reader(tiny_store), [], drawn(2, 5))
    assert support.rows.tolist() == few_shot(labels, 2, 5).tolist()
    assert support.pool.labels.tolist() == labels[support.rows].tolist()
    origins = [
        read_support(reader(tiny_store), [], drawn(*asked)).origin
        for asked in ((2, 6), (3, 5), (2, 5))
    ]
    assert [support.origin == origin for origin in origins] == [False, False, True]


def test_images_that_cannot_be_read_are_left_out(fakes, tmp_path):
    source = fakes.Source(split="train", count=9, bad={4: "is no image"})
    store = fakes.fill(tmp_path / "store", sources=[source], max_bad=1.0)
    support = read_support(reader(store), [], drawn("full", 0))
    assert support.rows.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert np.isfinite(support.pool.logits).all()


def test_no_labels(fakes, tmp_path):
    source = fakes.Source(split="train")
    source.labels = np.full(20, -1, np.int32)
    store = fakes.fill(tmp_path / "store", sources=[source])
    with pytest.raises(DatasetError, match=r"toy/train has no labelled, .* give another support="):
        read_support(reader(store), [], drawn("full", 0))
