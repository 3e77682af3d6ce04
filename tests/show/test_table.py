"""What a table is, whatever it is written as."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

from clipsyn.show.table import (
    SOFT_HYPHEN,
    Cell,
    Table,
    one_line,
)
from clipsyn.show.tables import Measure, measures_table, table_of
from clipsyn.show.titles import shortened

DASH = "\N{EN DASH}"


def values(table: Table) -> dict[str, list]:
    return {column.name: [cell.value for cell in column.cells] for column in table.columns}


def test_cells_have_their_numbers_in_the_unit_that_is_shown():
    table = table_of([{"top-1": 0.71237, "n": 1500, "name": "a"}], percent=["top-1"])
    assert values(table) == {"top-1": [pytest.approx(71.237)], "n": [1500], "name": ["a"]}
    assert [column.cells[0].text for column in table.columns] == ["71.2", "1,500", "a"]
    assert [column.right for column in table.columns] == [True, True, False]


def test_what_is_not_known_has_no_value():
    table = table_of([{"x": math.nan, "y": None}, {"x": 1.0}])
    assert values(table) == {"x": [None, 1.0], "y": [None, None]}
    assert [cell.text for cell in table.columns[1].cells] == [DASH, DASH]


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


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("double\nfault", "double fault"),
        (f"incon{SOFT_HYPHEN}\nsistency", "inconsistency"),
        ("ViT-\nB-\n32", "ViT-B-32"),
        ("leave at stage, %\n  1   2", "leave at stage, % 1 2"),
        ("", ""),
    ],
)
def test_a_head_on_one_line(head, line):
    assert one_line(head) == line


def test_labels_are_whole_and_tell_columns_apart():
    names = shortened([f"tiny-RN{number}/zoo" for number in range(12)])
    row = dict.fromkeys(["top-1", "guess of a", "guess of b", *names.columns.values()], 0.5)
    heads = names.heads | dict.fromkeys(["guess of a", "guess of b"], "guess")
    table = table_of([row], headers=heads, labels=names.labels)
    labels = [column.label for column in table.columns]
    assert labels[:4] == ["top-1", "guess of a", "guess of b", "tiny-RN0/zoo"]
    assert [column.head for column in table.columns][3:5] == ["1", "2"]
    same = table_of([{"oracle": 1, "backbone 1": 2}], labels={"backbone 1": "oracle"})
    assert len({column.label for column in same.columns}) == 2


ROWS = [{"a": 0.7124, "b": 0.10}, {"a": 0.7121, "b": 0.30}, {"a": 0.70, "b": 0.3}, {}]


def compared(rows: list[dict[str, float]], fair: int | None = None, **how: Any) -> Table:
    lines = [({}, {name: {"value": value} for name, value in row.items()}) for row in rows]
    return measures_table(lines, [Measure(name, name, **how) for name in ("a", "b")], fair)


def marked(table: Table, kind: str) -> set[tuple[int, str]]:
    return {(row, column.name) for column in table.columns for row in getattr(column, kind)}


def test_what_reads_like_the_best_ties_with_it():
    table = compared(ROWS, best="most")
    assert marked(table, "best") == {(0, "a"), (1, "b"), (2, "b")}
    assert marked(table, "tied") == {(1, "a")}  # 71.2, as the best
    assert table.has_ties
    assert not compared(ROWS, best="most", percent=False, digits=4).has_ties
