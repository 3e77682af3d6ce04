from __future__ import annotations

import math
import re

import polars as pl
import pytest

from clipsyn.show.tables import Measure, interval_of, measures_table, show
from clipsyn.show.titles import shortened

DASH = "\N{EN DASH}"
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


def test_nothing_is_cut_off_and_no_line_ends_in_spaces():
    frame = pl.DataFrame({"text": ["word " * 60 + "end", "x"], "path": ["/" + "p" * 300, "y"]})
    text = show(frame, terminal=False)
    assert "word " * 60 + "end" in text
    assert "p" * 300 in text
    assert all(line == line.rstrip() for line in text.split("\n"))


def test_on_a_terminal_long_texts_fold_and_numbers_do_not(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    frame = pl.DataFrame(
        {"what": ["word " * 30] * 2, "name": ["gaussian_noise-3"] * 2, "n": [1, 2]}
    )
    lines = show(frame, terminal=True).split("\n")
    assert max(map(len, lines)) <= 60
    assert sum("gaussian_noise-3" in line for line in lines) == 2
    assert " ".join(lines).count("word") == 60


def test_a_narrow_terminal_never_cuts_numbers_or_names(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    frame = pl.DataFrame({"dataset": ["emoji-animals"], "n": [1234567], "m": [7654321]})
    text = show(frame, terminal=True)
    assert all(whole in text for whole in ("emoji-animals", "1,234,567", "7,654,321"))


def test_bold_is_for_terminals():
    frame = pl.DataFrame({"x": [1, 2]})
    assert BOLD.findall(show(frame, best={(1, "x"): []}, terminal=True)) == ["2"]
    assert "\x1b" not in show(frame, best={(1, "x"): []}, terminal=False)


@pytest.mark.parametrize(
    ("kind", "best"),
    [
        ("most", {(1, "a"), (0, "b"), (1, "b")}),
        ("least", {(0, "a"), (0, "b"), (1, "b")}),
        ("most of line", {(0, "b"), (1, "b")}),
        ("least of line", {(0, "a"), (1, "a")}),
    ],
)
def test_the_best_cells_of_columns_and_of_lines(kind, best):
    rows = [{"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 3.0}, {"a": math.nan}]
    lines = [({}, {name: {"value": value} for name, value in row.items()}) for row in rows]
    table = measures_table(lines, [Measure(name, name, best=kind) for name in "ab"])
    assert {(row, column.name) for column in table.columns for row in column.best} == best


def test_columns_about_backbones_are_called_like_no_other():
    names = shortened(["tiny-RN/zoo", "tiny-oracle/zoo"])
    assert names.columns == {"tiny-RN/zoo": "backbone 1", "tiny-oracle/zoo": "backbone 2"}
    assert names.heads == {"backbone 1": "RN", "backbone 2": "oracle"}
    many = shortened([f"model-{letter}" for letter in "abcdefghijkl"])
    assert many.heads["backbone 12"] == "12"


def test_a_dozen_backbones_have_numbers_and_a_legend():
    few, many = (shortened([f"RN{number}" for number in range(count)]) for count in (11, 12))
    assert list(few.heads.values()) == list(few.short.values())
    assert few.legend == ""
    assert list(many.heads.values()) == [str(number) for number in range(1, 13)]
    assert "1 RN0, 2 RN1" in many.legend


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
