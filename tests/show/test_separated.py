"""Tables as CSV, read again by Python's own reader."""

from __future__ import annotations

import csv
import io

import polars as pl

from clipsyn.show.formats import csv_of
from clipsyn.show.table import Cell, paragraph
from clipsyn.show.tables import Measure, measures_table, table_of
from clipsyn.show.titles import shortened


def read(text: str) -> list[list[dict[str, str]]]:
    """The rows of each table."""
    return [list(csv.DictReader(io.StringIO(part))) for part in text.split("\n\n")]


def test_numbers_have_twelve_digits_and_intervals_are_two_columns():
    row = {"value": 0.285, "ci_low": 0.25, "ci_high": 2 / 3}
    top = Measure("top-1", "acc1", interval=True)
    table = measures_table([({"backbone": "a, b"}, {"acc1": row})], [top])
    ((found,),) = read(csv_of({"": (table,)}))
    assert list(found) == ["backbone", "top-1", "top-1 low", "top-1 high"]
    assert found["backbone"] == "a, b"
    assert (found["top-1"], found["top-1 low"], found["top-1 high"]) == (
        *("28.5", "25.0", "66.6666666667"),
    )


def test_a_number_with_its_interval_in_one_cell_is_three_columns():
    table = table_of([{"x": Cell("+3.1 [-0.2, 4.9]", 3.1, -0.2, 4.9)}, {"x": None}])
    first, last = read(csv_of({"": (table,)}))[0]
    assert first == {"x": "3.1", "x low": "-0.2", "x high": "4.9"}
    assert set(last.values()) == {""}


def test_intervals_alone_are_two_columns():
    table = table_of([{"both": Cell("-0.2 to 4.9", None, -0.2, 4.9)}, {"both": None}])
    first, last = read(csv_of({"": (table,)}))[0]
    assert first == {"both low": "-0.2", "both high": "4.9"}
    assert set(last.values()) == {""}


def test_what_is_not_known_is_empty():
    rows = [{"x": None, "y": 0.5, "z": "a"}, {"x": None, "y": float("nan")}]
    _, last = read(csv_of({"": (table_of(rows),)}))[0]
    assert last == {"x": "", "y": "", "z": ""}


def test_a_column_of_texts_stays_one():
    rows = [
        {"x": Cell("within-1"), "y": Cell("●", True)},
        {"x": Cell("0.5"), "y": Cell("·", False)},
    ]
    first, last = read(csv_of({"": (table_of(rows),)}))[0]
    assert (first, last) == ({"x": "within-1", "y": "true"}, {"x": "0.5", "y": "false"})


def test_tables_with_names_say_what_they_are():
    one, other = table_of([{"a": 1}], title="birds\nclean"), table_of([{"b": 2}])
    shown = {"gains": (one, other), "notes": (paragraph("not a table"),), "costs": (other,)}
    first, second, third = read(csv_of(shown))
    assert first == [{"table": "gains", "about": "birds · clean", "a": "1"}]
    assert second == [{"table": "gains", "about": "birds · clean", "b": "2"}]
    assert third == [{"table": "costs", "about": "", "b": "2"}]


def test_backbones_have_their_whole_names():
    names = shortened(["tiny-RN/zoo", "tiny-ViT/zoo"])
    row = {"best": names.cell("tiny-RN/zoo")} | dict.fromkeys(names.columns.values(), 0.5)
    table = table_of([row], headers=names.heads, labels=names.labels)
    ((found,),) = read(csv_of({"": (table,)}))
    assert list(found) == ["best", "tiny-RN/zoo", "tiny-ViT/zoo"]
    assert found["best"] == "tiny-RN/zoo"
    assert table.columns[0].cells[0].text == "RN"


def test_no_spreadsheet_runs_a_name():
    table = table_of(pl.DataFrame({"=name": ["=1+1", "-3"]}))
    assert csv_of({"": (table,)}).split("\n") == ["'=name", "'=1+1", "-3"]


def test_an_empty_table_has_its_head():
    assert csv_of({"": (table_of(pl.DataFrame(schema=["a", "b"])),)}) == "a,b"
    assert csv_of({}) == ""
