"""Support and test are disjoint: what is taken out, when it is refused, what cannot be known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipsyn.errors import LeakError
from clipsyn.methods.pool import NO_LABEL
from clipsyn.store import overlap
from clipsyn.store.overlap import (
    allowed_bits,
    copies,
    held,
    image_notes,
    learnable,
    near,
    near_pairs,
    shared_images,
)
from clipsyn.store.samples import SampleTable

TESTED = 40


def table(
    split: str, images: list[int], labels: list[int] | None = None, dataset: str = "toy"
) -> SampleTable:
    """Images by number, each with a content of its own; 0 is one that nobody has read."""
    ids = [f"{split}{row}" for row in range(len(images))]
    known = [0] * len(images) if labels is None else labels
    plain = SampleTable.of(dataset, split, ids, known, ("a", "b"))
    content = np.zeros((len(images), 32), np.uint8)
    content[:, 7] = images
    return replace(plain, content=content)


def test_images_that_are_measured_on_too_have_no_label() -> None:
    support = table("train", [1, 2, 3, 4, 4], [0, 1, 0, 1, NO_LABEL])
    tests = [table("test", [2, *range(50, 99)]), table("val", [4, *range(50, 99)])]
    labels, notes = learnable(support, tests, allow_overlap=False)
    assert labels.tolist() == [0, NO_LABEL, 0, NO_LABEL, NO_LABEL]
    assert support.labels.tolist() == [0, 1, 0, 1, NO_LABEL]
    (note,) = notes
    assert "3 images" in note


@pytest.mark.parametrize("shared", [0, 1, 2, 3])
def test_more_than_a_twentieth_is_refused(shared: int) -> None:
    support = table("train", [1, 2, 3, 4, 5])
    test = table("test", [*range(1, 1 + shared), *range(50, 50 + TESTED - shared)])
    left = [NO_LABEL] * shared + [0] * (5 - shared)
    assert learnable(support, [test], allow_overlap=True).labels.tolist() == left
    if shared <= TESTED / 20:
        assert learnable(support, [test], allow_overlap=False).labels.tolist() == left
    else:
        with pytest.raises(LeakError, match=r"3 of the 40 .*`clipsyn split`.*allow_overlap"):
            learnable(support, [test], allow_overlap=False)


@pytest.mark.parametrize("images", [[1, 2, 3], [0, 0, 0]])
def test_what_is_fitted_on_is_never_measured_on(images: list[int]) -> None:
    """By name where nobody has read the images, and where all of them are to be left out."""
    train, test = table("train", images), table("test", [1, 2, 3])
    for support, measured in ((train, [train]), (test, []), (test, [train])):
        with pytest.raises(LeakError, match="`clipsyn split`"):
            learnable(support, measured, allow_overlap=True)
    if any(images):
        with pytest.raises(LeakError, match="nothing is left"):
            learnable(train, [test], allow_overlap=True)


def test_an_image_is_learned_from_once() -> None:
    """The first that has a label and is not measured on, and not those that nobody has read."""
    support = table("train", [1, 1, 2, 1, 0, 0, 3, 3], [NO_LABEL, 0, 1, 0, 1, 1, 0, 0])
    test = table("test", [3, *range(50, 99)])
    labels, notes = learnable(support, [test], allow_overlap=False)
    assert labels.tolist() == [NO_LABEL, 0, 1, NO_LABEL, 1, 1, NO_LABEL, NO_LABEL]
    assert "toy/train: copies are fitted on once (1 left out)" in notes


LOOK = 0x0123456789ABCDEF


def test_near_copies_in_the_support_are_counted_and_stay() -> None:
    """But not those of images without a label, nor images of which nothing is known."""
    support = table("train", [1, 2, 3, 4, 5], [0, 1, 0, NO_LABEL, 1])
    test = table("test", [3, *range(50, 99)])
    looks = np.zeros(50, np.uint64)
    looks[:5] = [LOOK, LOOK ^ 0b1111, LOOK ^ 0b11111, 99, 0]
    support = replace(support, looks=np.array([LOOK, 0, 0, 99, 0], np.uint64))
    labels, notes = learnable(support, [replace(test, looks=looks)], allow_overlap=False)
    assert labels.tolist() == [0, 1, NO_LABEL, NO_LABEL, 1]
    assert notes[1].startswith("2 of the 50 images of toy/test look like one of toy/train: ")
    assert "`clipsyn ls STORE --copies`" in notes[1]
    assert len(learnable(support, [test], allow_overlap=False).notes) == 1


def test_copies_are_listed_with_the_first_of_them() -> None:
    train, test = table("train", [1, 2, 1, 0]), table("test", [2, 3, 4, 0])
    train = replace(train, looks=np.array([LOOK, 77, LOOK, 0], np.uint64))
    test = replace(test, looks=np.array([77, LOOK ^ 1, ~LOOK & (1 << 64) - 1, 0], np.uint64))
    assert list(copies([train, test])) == [
        ("toy", "train", "train2", "exact", "train", "train0"),
        ("toy", "test", "test0", "exact", "train", "train1"),
        ("toy", "test", "test1", "near", "train", "train0"),
    ]


def test_images_that_nobody_has_read_are_like_no_others() -> None:
    unseen, seen = table("train", [0, 0, 7]), table("test", [*range(40, 80)])
    for one, other in ((unseen, seen), (seen, unseen)):
        support, test = replace(one, split="train"), replace(other, split="val")
        labels, notes = learnable(support, [test], allow_overlap=False)
        assert (labels == 0).all()
        assert ["not known" in note for note in notes] == [True]
    assert held(unseen.marks, unseen.marks).tolist() == [False, False, True]
    assert learnable(unseen, [], allow_overlap=False).notes == ()


def hashes(n: int, seed: int) -> np.ndarray:
    """Random ones; some equal each other, some are a few bits off, some are not known."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 1 << 64, n, np.uint64)
    for row in range(0, n, 3):
        bits = rng.choice(64, rng.integers(0, 8), replace=False)
        values[row] = values[rng.integers(n)] ^ np.bitwise_or.reduce(
            np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0)
        )
    values[::7] = 0
    return values


def is_near(one: int, other: int) -> bool:
    return bool(one and other) and (one ^ other).bit_count() <= 4


@pytest.mark.parametrize("at_once", [1, 50, 1 << 21])
@pytest.mark.parametrize("sizes", [(90, 60), (60, 90), (1, 40), (40, 1), (0, 5), (5, 0)])
def test_as_comparing_all_with_all(sizes, at_once, monkeypatch):
    monkeypatch.setattr(overlap, "_PAIRS", at_once)
    every = hashes(150, seed=1)
    one, other = every[: sizes[0]], every[len(every) - sizes[1] :]
    found = {row for part in near_pairs(one, other) for row in zip(*map(list, part), strict=True)}
    expected = {
        (i, j, (a ^ b).bit_count())
        for i, a in enumerate(one.tolist())
        for j, b in enumerate(other.tolist())
        if is_near(a, b)
    }
    assert found == expected
    assert sizes != (90, 60) or len(expected) > 5
    rows = {i for i, *_ in expected}
    none = np.full(150, -1, np.int32)
    found = near(one, none[: len(one)], other, none[: len(other)])
    assert found.tolist() == [i in rows for i in range(len(one))]


@pytest.mark.parametrize(("strangers", "bits"), [(1, 4), (2, 4), (3, 1), (400, 1)])
def test_what_images_of_other_classes_look_like_is_no_copy(strangers: int, bits: int) -> None:
    """Of 400 images two may look like one of another class; unlabelled ones say nothing."""
    looks = np.random.default_rng(0).integers(1, 1 << 64, 400, np.uint64)
    labels, theirs = np.zeros(400, np.int32), np.zeros(400, np.int32)
    theirs[:strangers] = 1
    assert allowed_bits(looks, labels, looks ^ np.uint64(3), theirs) == bits
    found = near(looks, labels, looks ^ np.uint64(3), theirs)
    assert found.all() == (bits == 4)
    assert allowed_bits(looks, labels, looks ^ np.uint64(3), -theirs) == 4


@pytest.fixture
def sets() -> list[SampleTable]:
    """All holds two of birds and one of cars twice; none of dogs."""
    return [
        table("test", [1, 2, 5, 5, 90], dataset="all"),
        table("test", [1, 2, 3], dataset="birds"),
        table("test", [5, 6], dataset="cars"),
        table("test", [7, 7], dataset="dogs"),
    ]


def test_images_are_the_same_by_content(sets):
    assert shared_images(sets) == {"all/test": 4, "birds/test": 2, "cars/test": 1}
    assert shared_images(sets[1:]) == {}


def test_it_is_said(sets):
    copies, several = image_notes(sets)
    assert "all/test (5 images, 4 distinct), dogs/test (2 images, 1 distinct)" in copies
    assert "all/test (4 of 5), birds/test (2 of 3), cars/test (1 of 2)" in several
    assert image_notes(sets, shared=False) == [copies]
    assert image_notes(sets[1:3]) == []
