"""The accuracy matrix."""

import math

import pytest

from clipsyn.analyses.accuracy.view import accuracy_matrix
from clipsyn.errors import UsageError
from tests.results import row as made
from tests.results import tidy

ONE, TWO = "tiny-RN/zoo", "tiny-ViT/zoo"


def row(dataset, backbone, value, metric="acc1", ensemble="single", **more):
    return made(metric, value, [backbone], ensemble, dataset=dataset, **more)


FRAME = tidy(
    row("birds", ONE, 0.5),
    row("birds", TWO, 0.625),
    row("birds", TWO, 0.9, metric="acc5"),
    row("birds", ONE, 0.9, ensemble="nlc"),
    row("birds", ONE, 0.99, head="linear", shots="full"),
    row("birds", ONE, 0.99, classes="base"),
    row("cars", ONE, 0.25),
    row("cars", TWO, 0.25),
    row("flags", ONE, math.nan),
    row("flags", TWO, math.nan),
    row("planes", TWO, 0.75),
)


def numbers(ax):
    """The text in each cell, by what stands beside and below it."""
    rows, columns = ax.get_yticklabels(), ax.get_xticklabels()
    found = {}
    for text in ax.texts:
        column, line = text.get_position()
        found[rows[line].get_text(), columns[column].get_text()] = text.get_text()
    return found


def test_the_data_are_zero_shot_accuracies_of_backbones_and_the_best():
    data = accuracy_matrix.data(FRAME)
    assert data.select("dataset", "backbone", "value", "best").rows(named=False)[:4] == [
        ("birds", ONE, 0.5, False),
        ("birds", TWO, 0.625, True),
        ("cars", ONE, 0.25, True),  # equal ones are all the best
        ("cars", TWO, 0.25, True),
    ]
    assert data.filter(dataset="flags")["best"].to_list() == [False, False]
    assert len(data) == 7


def test_a_cell_for_each_number_and_a_line_below_the_best():
    ax = accuracy_matrix(accuracy_matrix.data(FRAME))
    assert numbers(ax) == {
        ("birds", "RN"): "50.0",
        ("birds", "ViT"): "62.5",
        ("cars", "RN"): "25.0",
        ("cars", "ViT"): "25.0",
        ("planes", "ViT"): "75.0",
    }
    _mesh, *lines = ax.collections
    marked = {tuple(line.get_segments()[0].mean(axis=0).round()[::-1]) for line in lines}
    assert marked == {(0, 1), (1, 0), (1, 1), (3, 1)}
    assert ax.figure.axes[-1].get_ylabel() == "top-1 accuracy, %"


def test_a_matrix_that_nobody_could_read_is_refused():
    many = tidy(*(row(f"d{d}", ONE, 0.5) for d in range(121)))
    with pytest.raises(UsageError, match=r"121 lines are too many.*datasets=…"):
        accuracy_matrix.data(many)
