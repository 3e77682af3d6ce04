"""What analyses fit and choose on: drawn like everywhere else, and never what they measure on."""

import numpy as np
import pytest

from clipsyn.analyses.fitted import read_support
from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.errors import DatasetError
from clipsyn.methods.numerics.samples import few_shot
from clipsyn.store.pools import PoolReader


def reader(store, split="train"):
    return PoolReader(store, "toy", split)


def drawn(shots, seed):
    return SelectiveSettings(shots=shots, seed=seed)


def test_some_images_of_each_class(tiny_store):
    labels = tiny_store.samples("toy", "train").labels
    pool, origin = read_support(reader(tiny_store), [], drawn(2, 5))
    rows = few_shot(labels, 2, 5)
    assert pool.ids == tuple(tiny_store.samples("toy", "train").ids[row] for row in rows)
    assert pool.labels.tolist() == labels[rows].tolist()
    origins = [
        read_support(reader(tiny_store), [], drawn(*asked))[1] for asked in ((2, 6), (3, 5), (2, 5))
    ]
    assert [origin == other for other in origins] == [False, False, True]


def test_all_images_but_those_that_cannot_be_read(fakes, tmp_path):
    source = fakes.Source(split="train", count=9, bad={4: "is no image"})
    store = fakes.fill(tmp_path / "store", sources=[source], max_bad=1.0)
    pool, _ = read_support(reader(store), [], drawn("full", 0))
    ids = store.samples("toy", "train").ids
    assert pool.ids == tuple(ids[row] for row in [0, 1, 2, 3, 5, 6, 7, 8])
    assert np.isfinite(pool.logits).all()


def test_no_labels(fakes, tmp_path):
    source = fakes.Source(split="train")
    source.labels = np.full(20, -1, np.int32)
    store = fakes.fill(tmp_path / "store", sources=[source])
    with pytest.raises(DatasetError, match=r"toy/train has no labelled, .* give another support="):
        read_support(reader(store), [], drawn("full", 0))
