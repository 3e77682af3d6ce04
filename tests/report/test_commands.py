"""Tables of commands on the page: the same numbers as the commands print."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.report.evidence import MEASURED, Evidence, gather
from clipsyn.report.page import folded
from clipsyn.report.settings import ReportSettings
from clipsyn.report.tables import grid_of_table
from clipsyn.show.table import NOTHING, paragraph
from clipsyn.show.tables import Measure, measures_table, table_of


@pytest.fixture
def evidence(answered) -> Evidence:
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 3, 40)
    for dataset in ("pets", "food"):
        for label in ("clean", "fog-1"):
            answers = {name: draw.integers(0, 3, 40) for name in ("a/x", "b/x")}
            store = answered(answers, labels, dataset=dataset, perturbation=label)
    return gather(store, ReportSettings(output="x.html"))


@pytest.mark.parametrize("name", MEASURED)
def test_every_number_of_a_command_is_there(name, evidence):
    analysis = ANALYSES.load(name)
    settings = analysis.settings(**({"summary": True} if name == "zeroshot" else {}))
    expected = [
        cell.text
        for tables in analysis.tables(evidence.frames[name], settings).values()
        for table in tables
        for column in table.columns
        for cell in column.cells
        if cell.text != NOTHING
    ]
    shown = folded(name, evidence)
    texts = [
        re.sub("<[^>]*>", "", text)
        for grid in shown.grids
        for line in grid.lines
        for cell in line.values()
        for text in (cell.text, cell.note)
    ]
    assert sorted(expected) == sorted(text for text in texts if text not in ("", NOTHING))
    assert expected


def test_what_was_not_measured_has_none(evidence):
    assert folded("cascade", evidence) is None


def test_tables_too_large_for_a_page_stay_away(evidence, monkeypatch):
    monkeypatch.setattr("clipsyn.report.page._MOST_CELLS", 5)
    assert folded("zeroshot", evidence) is None


class TestGridOfTable:
    lines = (
        ({"method": "a<b"}, {"acc1": {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}}),
        ({"method": "c"}, {"acc1": {"value": 0.25, "ci_low": None, "ci_high": None}}),
    )
    columns = (Measure("top-1", "acc1", interval=True, best="most"),)

    @pytest.fixture
    def grid(self):
        about = {"title": "Methods", "notes": "what\nit means"}
        return grid_of_table(measures_table(self.lines, self.columns, **about))

    def test_an_interval_stands_behind_its_number(self, grid):
        assert [*grid.heads] == ["method", "top-1"]
        first, second = (line["top-1"] for line in grid.lines)
        assert (first.text, first.note) == ("50.0", "40.0\N{EN DASH}60.0")
        assert (second.text, second.note) == ("25.0", "")

    def test_numbers_are_sorted_and_the_best_is_marked(self, grid):
        assert [(line["top-1"].by, line["top-1"].best) for line in grid.lines] == [
            (50, True),
            (25, False),
        ]

    def test_names_are_escaped(self, grid):
        assert grid.lines[0]["method"].text == "<bdi>a&lt;b</bdi>"

    def test_notes_are_one_line(self, grid):
        assert (grid.caption, grid.note) == ("Methods", "what it means")

    def test_sentences_below_a_table_stand_before_its_notes(self):
        below = ["one\nand more", "two"]
        about = {"below": below, "notes": "what it means"}
        grid = grid_of_table(measures_table(self.lines, self.columns, **about))
        assert grid.note == "one and more; two what it means"

    def test_a_paragraph_has_no_columns(self):
        grid = grid_of_table(paragraph("all\nthat is said"))
        assert (grid.heads, grid.lines, grid.note) == ({}, [], "all that is said")


def test_an_interval_without_its_number_stays_a_column():
    table = table_of(pl.DataFrame({"a": ["x"], "95 % of b": ["1 to 2"]}))
    assert len(grid_of_table(table).heads) == 2
