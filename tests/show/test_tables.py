"""Tables: numbers as text, frames and rows as tables, and what these are about."""

import math
import re

import polars as pl
import pytest

from clipsyn.show.formats import text_of
from clipsyn.show.table import Cell, interval_text, number_cell, p_value, percent_cell
from clipsyn.show.tables import (
    Measure,
    Side,
    interval_of,
    measures_table,
    pair_matrix,
    show,
    table_of,
)
from clipsyn.show.titles import mean_over, shortened, subject, typical_interval, where

DASH = "\N{EN DASH}"
NAN = math.nan


def test_a_tiny_p_value_is_not_written_as_zero():
    assert [p_value(p) for p in (0.0, 1e-200, 0.0009)] == ["<0.001"] * 3
    assert [p_value(p) for p in (0.001, 0.25, 1.0)] == ["0.001", "0.250", "1.000"]
    assert p_value(None) == p_value(NAN) == DASH


def test_intervals_as_text():
    assert interval_text(0.7124, 0.75) == f"71.2{DASH}75.0"
    assert interval_text(-0.02, 0.031) == "-2.0 to 3.1"
    assert interval_text(-0.02, -0.01) == "-2.0 to -1.0"
    assert interval_text(0.7124, 0.75, digits=2) == "0.71 to 0.75"
    assert interval_text(None, None) == interval_text(NAN, NAN) == DASH
    assert interval_text(None, None, digits=2) == interval_text(NAN, NAN, digits=2) == DASH


def values(table):
    return {column.name: [cell.value for cell in column.cells] for column in table.columns}


def test_rows_and_frames_make_the_same_table():
    rows = [{"a": 1, "b": 0.5, "c": "x", "d": True}, {"a": None, "b": 2, "c": None, "d": False}]
    assert table_of(rows) == table_of(pl.DataFrame(rows, infer_schema_length=None, strict=False))


@pytest.mark.parametrize("text", ["a\x1b[2J", "a\nb", "\u202egnp"])
def test_no_text_of_a_cell_can_steer_a_terminal(text):
    for row in ({"x": text}, {"x": Cell(text)}):
        (column,) = table_of([row]).columns
        assert "\\u" in column.cells[0].text


def test_intervals_know_whose_they_are():
    row = {"value": 0.5, "ci_low": 0.25, "ci_high": 0.75}
    top = Measure("top-1", "row", interval=True)
    tau = Measure("tau", "row", interval=True, percent=False, digits=2)
    number, interval, tau, of_tau = measures_table([({}, {"row": row})], [top, tau]).columns
    assert (number.interval_of, interval.interval_of) == (None, "top-1")
    assert (tau.interval_of, of_tau.interval_of) == (None, "tau")
    assert interval.cells[0][2:] == (25.0, 75.0)
    assert of_tau.cells[0][2:] == (0.25, 0.75)
    (alone,) = table_of([{"95 % of gone": Cell("1 to 2", None, 1.0, 2.0)}]).columns
    assert alone.interval_of is None


BOLD = re.compile(r"\x1b\[1m *(.*?)\x1b\[0m")


def test_numbers_line_up_on_the_right_and_texts_on_the_left():
    frame = pl.DataFrame({"name": ["a", "long name"], "images": [5, 1234567], "MB": [0.5, 1234.25]})
    assert show(frame, terminal=False).split("\n") == [
        "name          images       MB",
        "─────────────────────────────",
        "a                  5      0.5",
        "long name  1,234,567  1,234.2",
    ]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([8.82, 529.11], ["8.8", "529.1"]),
        ([1.0, 25.0], ["1", "25"]),
        ([0.5, 0.25], ["0.50", "0.25"]),
        ([0.12345], ["0.123"]),
        ([None, 1.5, math.nan], [DASH, "1.5", DASH]),
        ([-3.25], ["-3.25"]),
        ([0.0], ["0"]),
        ([True, False, None], ["yes", "no", DASH]),
        ([["a", "b"], [], None], ["a, b", "", DASH]),
        (["[red]no markup[/red]"], ["[red]no markup[/red]"]),
        ([":smile:"], [":smile:"]),
    ],
)
def test_values_become_texts(values, texts):
    lines = show(pl.DataFrame({"x": values}, strict=False), terminal=False).split("\n")[2:]
    assert [line.strip() for line in lines] == texts


def test_bold_is_for_terminals():
    frame = pl.DataFrame({"x": [1, 2]})
    assert BOLD.findall(show(frame, best={(1, "x"): []}, terminal=True)) == ["2"]
    assert "\x1b" not in show(frame, best={(1, "x"): []}, terminal=False)


@pytest.mark.parametrize(
    ("kind", "best"),
    [
        ("most", {(1, "a"), (0, "b"), (1, "b")}),  # what reads as the best is among them
        ("least", {(0, "a"), (0, "b"), (1, "b")}),
        ("most of line", {(0, "b"), (1, "b")}),
        ("least of line", {(0, "a"), (1, "a")}),
    ],
)
def test_the_best_cells_of_columns_and_of_lines(kind, best):
    rows = [{"a": 1.0, "b": 2.9999}, {"a": 2.0, "b": 3.0}, {"a": math.nan}]
    lines = [({}, {name: {"value": value} for name, value in row.items()}) for row in rows]
    table = measures_table(lines, [Measure(name, name, best=kind) for name in "ab"])
    assert {(row, column.name) for column in table.columns for row in column.best} == best


class TestMeasures:
    NUMBERS = (
        {"acc1": {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}, "ece": {"value": 0.125}},
        {"acc1": {"value": 0.75}, "ece": {"value": 0.25}},
        {"acc1": {"value": 0.875}},
    )

    def table(self, *columns, **about):
        lines = [({"name": name, "n": 5}, of) for name, of in zip("abc", self.NUMBERS, strict=True)]
        return measures_table(lines, columns, **about)

    def test_are_columns_in_their_units_and_other_cells_have_their_place(self):
        table = self.table(Measure("top-1", "acc1"), "n", Measure("ECE", "ece", "E", digits=2))
        heads = [column.head for column in table.columns]
        assert heads == ["name", "top-1", "n", "E"]
        texts = [[cell.text for cell in column.cells] for column in table.columns]
        assert texts[1:] == [["50.0", "75.0", "87.5"], ["5", "5", "5"], ["12.50", "25.00", DASH]]

    def test_intervals_that_no_row_knows_are_left_out_if_asked(self):
        acc1, ece = Measure("top-1", "acc1"), Measure("ECE", "ece")
        beside = self.table(acc1._replace(interval=True), ece._replace(interval="known"))
        names = [column.name for column in beside.columns]
        assert names == ["name", "n", "top-1", interval_of("top-1"), "ECE"]
        always = self.table(ece._replace(interval=True)).columns[-1]
        assert {cell.text for cell in always.cells} == {DASH}

    def test_point_out_the_best_of_the_fair_lines(self):
        most, least = Measure("top-1", "acc1", best="most"), Measure("ECE", "ece", best="least")
        *_, top, ece = self.table(most, least, fair=2).columns
        assert (top.best, ece.best) == ({1}, {0})


def matrix(*rows):
    part = pl.DataFrame(rows, ["dataset", "metric", "backbones", "value"], orient="row")
    table = pair_matrix(
        part,
        shortened(["backbone", "b"]),
        above=Side("kappa", number_cell),
        below=Side("share", percent_cell),
        diagonal={"backbone": Cell("x"), "b": Cell("y")},
        title="pairs",
        note="A note.",
    )
    return text_of([table], terminal=False)


def test_sides_have_a_measure_each_whatever_backbones_are_called(read_table):
    pair = ["b", "backbone"]
    text = matrix(("birds", "kappa", pair, 0.5), ("birds", "share", pair[::-1], 0.25))
    first, second = read_table(text).rows
    assert list(first.values()) == ["backbone", "x", "0.50"]
    assert list(second.values()) == ["b", "25.0", "y"]
    assert text.endswith("\n\nA note.")


# titles


ROW = {
    "dataset": "birds",
    "split": "test",
    "perturbation": "clean",
    "prompts": "own",
    "head": "zero-shot",
    "n": 1500,
}
WHERE = ("dataset", "split", "perturbation", "prompts")


def test_what_a_row_is_about():
    assert where(ROW, (*WHERE, "n")) == ["birds/test", "clean", "prompts own", "n 1,500"]
    assert where(ROW, ("head", "split", "prompts")) == ["head zero-shot", "test", "prompts own"]
    assert where(ROW | {"prompts": None}, WHERE) == ["birds/test", "clean"]
    assert where(ROW | {"dataset": None}, WHERE) == ["test", "clean", "prompts own"]


def test_what_a_mean_is_over():
    cars = ROW | {"dataset": "cars"}
    assert mean_over(pl.DataFrame([ROW, ROW]), WHERE) == ""
    assert mean_over(pl.DataFrame([ROW, cars, cars]), WHERE) == "mean over 2 datasets"
    prompts = pl.DataFrame([ROW, ROW | {"prompts": "vanilla"}])
    assert mean_over(prompts, WHERE) == "mean over 2 prompt sets"
    several = pl.DataFrame([ROW, cars, cars | {"split": "train"}])
    assert mean_over(several, WHERE) == "mean over 3 combinations of dataset, split"


def test_the_subject_is_one_dataset_or_their_mean():
    frame = pl.DataFrame([ROW | {"datasets": 1}])
    assert subject(frame, (*WHERE[:3], "n")) == "birds/test · clean · n 1,500"
    mean = pl.DataFrame([ROW | {"dataset": None, "datasets": number} for number in (2, 3)])
    assert subject(mean, WHERE) == "mean over 3 datasets · test · clean · prompts own"


def test_the_typical_interval_is_the_median_one():
    low, nan = [0.5, 0.25, 0.0, None, 0.1], float("nan")
    frame = pl.DataFrame({"ci_low": low, "ci_high": [0.52, 0.35, 1.0, None, nan]})
    assert typical_interval(frame) == "95 % interval about ±5.0"
    unknown = pl.DataFrame(
        {"ci_low": [None], "ci_high": [None]}, schema=dict.fromkeys(frame.columns, pl.Float64)
    )
    assert typical_interval(unknown) == ""
