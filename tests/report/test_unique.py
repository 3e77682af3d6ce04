"""Images that only one backbone gets right, against plain loops."""

from __future__ import annotations

import numpy as np

from clipsyn.analyses.oracle import oracle
from clipsyn.analyses.predicted import predicted
from clipsyn.evaluation.selection import Selection
from clipsyn.report.unique import Example, examples, spread, unique_grid


def only(store, most=100):
    (group,) = predicted(store, Selection())
    return list(examples(group, most))


def test_examples_are_those_of_plain_loops(answered):
    draw = np.random.default_rng(5)
    labels = draw.integers(-1, 3, 60)
    answers = {name: draw.integers(0, 3, 60) for name in "abcd"}
    found = {(it.backbone, it.row) for it in only(answered(answers, labels))}
    expected = set()
    for row, label in enumerate(labels):
        right = [name for name, said in answers.items() if said[row] == label >= 0]
        if len(right) == 1:
            expected.add((right[0], row))
    assert found == expected
    assert len(found) > 5


def test_first_come_those_on_which_the_others_agree(answered):
    answers = {"a": [0, 0, 0], "b": [1, 1, 2], "c": [2, 1, 2], "d": [1, 1, 0]}
    shown = only(answered(answers, [0, 0, 0]))
    assert [(it.id, it.truth, it.others, it.agreeing) for it in shown] == [
        ("pets-1.png", "cat", "dog", 3),
        ("pets-0.png", "cat", "dog", 2),
    ]


def test_an_image_that_some_backbone_could_not_read_does_not_count(answered):
    answers = {"a": [0, 0], "b": [1, 1]}
    store = answered(answers, [0, 0], valid={"b": np.array([True, False])})
    assert [it.row for it in only(store)] == [0]


def test_one_backbone_alone_has_none(answered):
    assert only(answered({"a": [0, 1]}, [0, 1])) == []


def test_the_table_counts_images(answered):
    answers = {"a": [0, 0, 1, 0], "b": [0, 1, 1, 1]}
    grid = unique_grid(oracle(answered(answers, [0, 0, 0, 0])))
    assert [*grid.heads] == ["dataset", "images", "a", "b"]
    ((_, images, one, other),) = map(dict.values, grid.lines)
    assert (images.by, one.by, other.by) == (4, 2, 0)
    assert (one.note, one.best, other.best) == ("50.0 %", True, False)


def test_no_table_where_there_is_no_other(answered):
    assert unique_grid(oracle(answered({"a": [0, 1]}, [0, 0]))) is None


def example(backbone: str, row: int) -> Example:
    return Example("pets", "test", row, str(row), b"", backbone, "cat", "dog", 1)


class TestSpread:
    def test_each_group_and_backbone_gets_its_share(self):
        found = {
            "pets": [*(example("a", row) for row in range(5)), example("b", 9)],
            "food": [example("a", 7), example("a", 8)],
        }
        kept = spread(found, 5)
        assert [(it.backbone, it.row) for it in kept] == [
            ("a", 0),
            ("a", 1),
            ("b", 9),
            ("a", 7),
            ("a", 8),
        ]

    def test_all_stay_where_there_is_room(self):
        found = {"pets": [example("a", 1), example("b", 2)]}
        assert spread(found, 10) == found["pets"]
        assert spread({}, 10) == []
