"""Pools: aligned arrays that cannot be put together wrongly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipsyn.errors import InputError, UnknownName
from clipsyn.methods.pool import NO_LABEL, Pool, as_labels
from clipsyn.store.samples import SampleTable

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(6, 3, 4)).astype(np.float32)
LABELS = np.array([0, 3, 1, NO_LABEL, 2, 3], np.int32)


def unit(*shape: int) -> np.ndarray:
    values = RNG.normal(size=shape)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def pool(**changes) -> Pool:
    embeddings = [unit(6, width) for width in (2, 5, 3)]
    arguments = {"logits": LOGITS, "labels": LABELS, "embeddings": embeddings} | changes
    return Pool.of(**arguments)


def test_rows_are_taken_from_everything_at_once():
    whole = pool()
    part = whole.take(np.array([4, 0]))
    assert np.array_equal(part.logits, LOGITS[[4, 0]])
    assert part.labels.tolist() == [2, 0]
    for name in whole.backbones:
        assert np.array_equal(part.embeddings[name], whole.embeddings[name][[4, 0]])


def test_a_slice_takes_the_same_rows_and_copies_nothing():
    ids = tuple("abcdef")
    whole = replace(pool(), ids=ids, views=(pool().embeddings,))
    part, copied = whole.take(slice(1, 4)), whole.take(np.array([1, 2, 3]))
    assert part.ids == copied.ids == ("b", "c", "d")
    assert np.array_equal(part.labels, copied.labels)
    for mine, other in (
        (part.logits, copied.logits),
        (part.embeddings["1"], copied.embeddings["1"]),
        (part.views[0]["2"], copied.views[0]["2"]),
    ):
        assert np.array_equal(mine, other)
        assert mine.base is not None
        assert other.base is None
    assert len(whole.take(slice(0, 0))) == 0


def test_backbones_are_found_by_name():
    turned = pool().of_backbones(["2", "0"])
    assert turned.backbones == ("2", "0")
    assert np.array_equal(turned.logits, LOGITS[:, [2, 0]])
    assert turned.features().shape == (6, 3 + 2)
    assert np.allclose(turned.features()[:, :3], turned.embeddings["2"], atol=1e-6)
    with pytest.raises(UnknownName, match="unknown backbone '7'"):
        pool().of_backbones(["7"])


def test_a_sample_that_one_backbone_cannot_read_is_left_out():
    logits = LOGITS.copy()
    logits[2, 1] = np.nan
    broken = pool(logits=logits)
    assert broken.readable.tolist() == [True, True, False, True, True, True]
    assert broken.labelled().labels.tolist() == [0, 3, 2, 3]
    logits[0, 0, 0], logits[0, 0, 1], logits[5, 2, 2] = np.inf, -np.inf, -np.inf
    assert pool(logits=logits).readable.tolist() == [False, True, False, True, True, False]


def test_some_classes_among_themselves():
    part = pool(class_names=["a", "b", "c", "d"]).of_classes([3, 1])
    assert part.labels.tolist() == [0, 1, 0]  # rows 1, 2 and 5
    assert np.array_equal(part.logits, LOGITS[[1, 2, 5]][:, :, [3, 1]])
    assert part.class_names == ("d", "b")
    assert part.n_classes == 2


def test_rounded_embeddings_are_of_unit_norm_and_unreadable_ones_of_none():
    rounded, whole = unit(6, 768).astype(np.float16), np.eye(6, dtype=np.int64)
    rounded[5] = np.nan
    assert pool(embeddings={"0": rounded, "1": whole}).embeddings["0"] is rounded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": LOGITS[0]}, r"logits are \(sample, backbone, class\), not \(3, 4\)"),
        ({"labels": LABELS[:4]}, r"6 samples need as many labels, not \(4,\)"),
        ({"labels": np.full(6, 4)}, "labels go from 0 to 3"),
        ({"labels": np.full(6, -2)}, "not -2"),
        ({"embeddings": [np.zeros((6, 2))]}, "3 backbones have 1 arrays of embeddings"),
        ({"embeddings": {"0": np.zeros((5, 2))}}, r"embeddings of 0 are \(6, embed\)"),
        (
            {"embeddings": {"1": np.diag([1, 1, 1.02, 1, np.inf, 0])}},
            "3 of 6 embeddings of 1 are not of unit norm, one has 1.02: divide them by",
        ),
        ({"backbones": ["a", "a", "b"], "embeddings": ()}, "a backbone stands twice in a, a, b"),
        ({"backbones": ["a", "b"], "embeddings": ()}, "logits of 2 backbones"),
        ({"class_names": ["a"]}, "4 classes have 1 names"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        pool(**changes)


@pytest.mark.parametrize(
    "labels",
    [
        [2**32 + 1, 0],
        [-(2**32), 0],
        [2**63, 0],
        [2**70, 0],
        [65_534, 0],
        [-2, 0],
        [0.5, 0],
        [1e300, 0],
        [np.nan, 0],
        [None, 0],
    ],
)
def test_labels_that_are_no_class_are_refused(labels):
    """As an integer of 32 bits some of them would be another class."""
    with pytest.raises(InputError):
        as_labels(labels)
    with pytest.raises(InputError):
        SampleTable.of("toy", "test", ["a", "b"], labels)


@pytest.mark.parametrize("asked_first", [False, True])
@pytest.mark.parametrize("unreadable", [[], [2, 4]])
def test_parts_know_what_is_readable(asked_first, unreadable):
    """Whether a part is asked or its pool was asked before, the answer is that of its numbers."""
    logits = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    logits[unreadable, 1] = np.nan
    whole = Pool.of(logits)
    if asked_first:
        assert whole.readable.sum() == 6 - len(unreadable)
    for part in (
        whole.take(np.array([4, 0, 2])),
        whole.take(slice(1, 5)),
        whole.of_backbones(["0", "1"]),
        whole.of_backbones(["2", "0"]),
        whole.take(np.array([2, 3])).of_backbones(["1", "2"]),
    ):
        known = [np.isfinite(sample).all() for sample in part.logits]
        assert part.readable.tolist() == known
