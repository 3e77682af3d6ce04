"""What analyses fit and choose on: drawn like everywhere else, and never what they measure on."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.analyses.support import check_support, read_support
from clipsyn.errors import DatasetError, UsageError
from clipsyn.numerics.fewshot import few_shot
from clipsyn.store.pools import PoolReader


def reader(store, split="train"):
    return PoolReader(store, "toy", split)


def test_all_of_it(tiny_store):
    support = read_support(reader(tiny_store), "full", 0)
    assert support.rows.tolist() == list(range(11))
    assert support.pool.labels.tolist() == tiny_store.samples("toy", "train").labels.tolist()


def test_some_images_of_each_class(tiny_store):
    labels = tiny_store.samples("toy", "train").labels
    support = read_support(reader(tiny_store), 2, 5)
    assert support.rows.tolist() == few_shot(labels, 2, 5).tolist()
    assert support.pool.labels.tolist() == labels[support.rows].tolist()
    others = [read_support(reader(tiny_store), *other).origin for other in ((2, 6), (3, 5))]
    assert support.origin not in others
    assert support.origin == read_support(reader(tiny_store), 2, 5).origin


def test_images_that_cannot_be_read_are_left_out(fakes, tmp_path):
    source = fakes.Source(split="train", count=9, bad={4: "is no image"})
    store = fakes.fill(tmp_path / "store", sources=[source], max_bad=1.0)
    support = read_support(reader(store), "full", 0)
    assert support.rows.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert np.isfinite(support.pool.logits).all()


def test_no_labels(fakes, tmp_path):
    source = fakes.Source(split="train")
    source.labels = np.full(20, -1, np.int32)
    store = fakes.fill(tmp_path / "store", sources=[source])
    with pytest.raises(DatasetError, match=r"toy/train has no labelled, .* give another support="):
        read_support(reader(store), "full", 0)


@pytest.mark.parametrize("splits", [None, ("train",), ("test", "tr*")])
def test_what_is_measured_on_is_not_fitted_on(splits):
    with pytest.raises(UsageError, match="train is both fitted on and measured on"):
        check_support("train", splits)
    check_support("train", ("test", "val*"))
