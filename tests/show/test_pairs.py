from __future__ import annotations

import polars as pl

from clipsyn.show.table import Cell, number_cell, percent_cell
from clipsyn.show.tables import Side, pair_matrix
from clipsyn.show.text import text_of
from clipsyn.show.titles import shortened


def matrix(*rows: tuple[str, str, list[str], float]) -> str:
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
