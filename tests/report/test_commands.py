"""Tables of commands on the page: the same numbers as the commands print."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.report.evidence import MEASURED, Evidence, gather
from clipsyn.report.page import folded
from clipsyn.report.settings import ReportSettings
from clipsyn.show.table import NOTHING
from clipsyn.show.tables import table_of


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
def test_every_number_of_a_command_is_there(name, evidence, lines):
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
    shown = [
        text
        for table in folded(name, evidence).tables
        for it in lines(table)
        for text in it.values()
    ]
    texts = (part for text in shown for part in text.split(" | "))
    assert sorted(expected) == sorted(text for text in texts if text != NOTHING)
    assert expected


def test_what_was_not_measured_has_none(evidence):
    assert folded("cascade", evidence) is None


def test_tables_too_large_for_a_page_stay_away(evidence, monkeypatch):
    monkeypatch.setattr("clipsyn.report.page._MOST_CELLS", 5)
    assert folded("zeroshot", evidence) is None


def test_an_interval_without_its_number_stays_a_column(lines):
    table = table_of(pl.DataFrame({"a": ["x"], "95 % of b": ["1 to 2"]}))
    assert lines(table) == [{"a": "x", "95 % of b": "1 to 2"}]
