"""`clipsyn.exchange.parts`: names, indices, and values that are neither."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.errors import DatasetError
from clipsyn.exchange.parts import (
    Part,
    class_indices,
    class_names,
)

NAMES = ("cat", "dog", "crème brûlée")


def part(kind, values, labels=None, columns=()):
    array = np.array(values, object if kind == "predictions" else np.float32)
    ids = tuple(map(str, range(len(array))))
    return Part("mine", "clean", kind, ids, array, labels, columns)


def test_class_names_columns_come_first():
    logits = part("logits", [[0, 1], [1, 0]], ("b", "a"), ("a", "b"))
    assert class_names([logits]) == ("a", "b")
    assert class_names([part("logits", [[0, 1]], ("1",), ("a", "b"))]) == ("a", "b")
    assert class_names([part("logits", [[0, 1]], ("",), ("a", "b"))]) == ("a", "b")


def test_class_names_the_number_of_columns():
    assert class_names([part("logits", [[0, 1, 2]])]) == ("0", "1", "2")


def test_class_names_occur_in_labels_or_predictions():
    parts = [part("predictions", ["dog", "na"], ("cat", "")), part("predictions", ["bee"])]
    assert class_names(parts) == ("bee", "cat", "dog")


def test_class_names_indices_up_to_the_largest():
    assert class_names([part("predictions", ["0", "3.0"], ("-1", "1"))]) == tuple("0123")


def test_class_names_and_indices_at_once():
    with pytest.raises(DatasetError, match=r"names and indices at once \(3, cat\)"):
        class_names([part("predictions", ["3"], ("cat",))])


@pytest.mark.parametrize(
    ("texts", "indices"),
    [
        (["dog", "cat", "crème brûlée"], [1, 0, 2]),
        (["2", "0", "1.0"], [2, 0, 1]),
        (["dog", "", "na", "NaN"], [1, -1, -1, -1]),
        (["-1", "1"], [-1, 1]),
        ([], []),
    ],
)
def test_class_indices_of_names_or_indices(texts, indices):
    np.testing.assert_array_equal(class_indices(texts, NAMES, "x"), indices)


def test_class_indices_a_name_that_is_a_number_wins():
    np.testing.assert_array_equal(class_indices(["7", "3"], ("3", "7"), "x"), [1, 0])


def test_class_indices_where_names_are_other_numbers_nothing_is_an_index():
    names = ("1", "2", "3")
    indices = class_indices(["1", "2.0", "", "-1", "3."], names, "x")
    np.testing.assert_array_equal(indices, [0, 1, -1, -1, 2])
    for text in ("0", "0.0", "4"):
        with pytest.raises(DatasetError, match=r"unknown class .* write these, not indices"):
            class_indices(["1", text], names, "x")


@pytest.mark.parametrize("index", ["3", "-2", "99999"])
def test_class_indices_an_index_outside(index):
    with pytest.raises(DatasetError, match=f"class {index} is outside 0 to 2"):
        class_indices(["1", index], NAMES, "mine.csv")


def test_class_indices_an_unknown_name_with_near_matches():
    with pytest.raises(DatasetError, match=r"mine\.csv: unknown class 'dgo'.*mean dog\?"):
        class_indices(["cat", "dgo"], NAMES, "mine.csv")


def test_class_indices_names_and_indices_at_once():
    np.testing.assert_array_equal(class_indices(["cat", "1"], NAMES, "x"), [0, 1])


def test_class_indices_a_name_of_two_classes():
    names = ("missile", "cat", "missile")
    with pytest.raises(DatasetError, match="two classes are called 'missile'"):
        class_indices(["missile"], names, "x")
    np.testing.assert_array_equal(class_indices(["cat"], names, "x"), [1])


@pytest.mark.parametrize("index", [65_534, 2_000_000_000, 1_732_800_000, 2**70, "9" * 400])
def test_more_classes_than_can_be_stored(index):
    with pytest.raises(DatasetError, match="at most 65,534"):
        class_names([part("predictions", [str(index), "0"])])
