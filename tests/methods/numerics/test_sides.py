"""`numerics.sides`: by hand, against a slow second implementation, and in general."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsyn.methods.numerics.samples import CONFLICTING, TEST, TRAIN, UNLABELLED, sides


def divided(labels: list[int], keys: list[str], share: float = 0.5) -> list[int]:
    return sides(np.array(labels, np.int32), np.array(keys, "S64"), share).tolist()


def test_the_lowest_keys_of_each_class_are_tested() -> None:
    labels = [0, 0, 0, 0, 1, 1, -1]
    assert divided(labels, [*"dbca", *"fe", "g"]) == [
        *(TRAIN, TEST, TRAIN, TEST),
        *(TRAIN, TEST),
        UNLABELLED,
    ]


def test_copies_come_to_one_side() -> None:
    # a twice and b: half of three is 2 after rounding to even, so both a
    assert divided([0, 0, 0], ["a", "b", "a"]) == [TEST, TRAIN, TEST]
    # four times a does not fit into half of six: it is passed over
    assert divided([0] * 6, [*"aaaabc"]) == [TRAIN] * 4 + [TEST] * 2


def test_a_class_whose_copies_all_exceed_its_share_is_tested_by_the_fewest() -> None:
    assert divided([0] * 5, [*"aaabb"], 0.1) == [TRAIN] * 3 + [TEST] * 2


def test_a_class_of_one_content_is_not_tested() -> None:
    assert divided([0, 1, 1, 2, 2], ["x", "y", "y", "a", "b"]) == [TRAIN] * 3 + [TEST, TRAIN]


def test_copies_with_several_labels_are_on_no_side() -> None:
    assert divided([0, 1, -1, 0, 0], ["a", "a", "a", "b", "c"]) == [
        *(CONFLICTING, CONFLICTING, UNLABELLED),
        *(TEST, TRAIN),
    ]


@pytest.mark.parametrize(
    ("share", "tested"),
    [(0.5, 150), (0.4, 120), (0.6, 180), (0.2, 100), (0.7, 200)],  # the last two: one of each side
)
def test_rounding_does_not_add_up_over_classes(share: float, tested: int) -> None:
    """Of three images each class has one or two tested, and all classes together their share."""
    labels = np.repeat(np.arange(100), 3)
    found = np.array(divided(labels.tolist(), [f"{row:03}" for row in range(300)], share))
    counts = np.bincount(labels[found == TEST], minlength=100)
    assert set(counts) <= {1, 2}
    assert counts.sum() == tested


def slowly(labels: list[int], keys: list[str], share: float) -> list[int]:
    """The same from what `sides` promises, with dictionaries."""
    said: dict[str, set[int]] = defaultdict(set)
    for label, key in zip(labels, keys, strict=True):
        if label >= 0:
            said[key].add(label)
    rows: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    found = []
    for row, (label, key) in enumerate(zip(labels, keys, strict=True)):
        state = UNLABELLED if label < 0 else CONFLICTING if len(said[key]) > 1 else TRAIN
        found.append(state)
        if state == TRAIN:
            rows[label][key].append(row)
    before = 0
    for label in range(max(labels, default=-1) + 1):
        contents = rows[label]
        total = sum(map(len, contents.values()))
        wanted = round(share * (before + total)) - round(share * before)
        before += total
        if len(contents) < 2:
            continue
        wanted = min(max(wanted, 1), total - 1)
        tested: list[int] = []
        for key in sorted(contents):
            if len(tested) + len(contents[key]) <= wanted:
                tested += contents[key]
        if not tested:
            tested = min((contents[key] for key in sorted(contents)), key=len)
        for row in tested:
            found[row] = TEST
    return found


samples = st.lists(st.tuples(st.integers(-1, 3), st.sampled_from("abcdefghijkl")), max_size=40)


@given(samples, st.sampled_from([0.1, 0.3, 0.5, 0.8]))
def test_it_is_the_slow_implementation(drawn: list[tuple[int, str]], share: float) -> None:
    labels, keys = [label for label, _ in drawn], [key for _, key in drawn]
    assert divided(labels, keys, share) == slowly(labels, keys, share)
