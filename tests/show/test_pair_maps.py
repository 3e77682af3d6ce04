from __future__ import annotations

import polars as pl

from clipsyn.show.figure import canvas
from clipsyn.show.panels import named_pairs, pair_map


def of_pairs(values: dict[tuple[str, str], float | None]) -> pl.DataFrame:
    about = {"dataset": "birds", "split": "test", "perturbation": "clean", "n": 40, "datasets": 1}
    rows = [
        about | {"backbone": one, "other": other, "value": value}
        for (one, other), value in values.items()
    ]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64})


def drawn(values: dict[tuple[str, str], float | None]):
    with canvas(4, 4) as ax:
        pair_map(of_pairs(values), ax, "linear CKA")
    return ax


def numbers(ax) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in ax.texts}


def names(labels) -> list[str]:
    return [label.get_text() for label in labels]


def test_each_pair_has_one_cell_below_the_diagonal():
    ax = drawn({("m/a", "m/b"): 0.25, ("m/c", "m/a"): 0.5, ("m/b", "m/c"): 1.0})
    assert names(ax.get_xticklabels()) == ["m/a", "m/b"]
    assert names(ax.get_yticklabels()) == ["m/b", "m/c"]
    assert numbers(ax) == {(0, 0): "0.25", (0, 1): "0.50", (1, 1): "1.00"}  # (column, row)


def test_a_pair_that_is_not_known_stays_empty():
    ax = drawn({("m/a", "m/b"): 0.25, ("m/a", "m/c"): None, ("m/b", "m/c"): float("nan")})
    assert numbers(ax) == {(0, 0): "0.25"}


def test_the_scale_is_that_of_the_measure_and_takes_in_what_is_below():
    assert drawn({("a/m", "b/m"): 0.25}).collections[0].get_clim() == (0, 1)
    assert drawn({("a/m", "b/m"): -0.25}).collections[0].get_clim() == (-0.25, 1)
    assert drawn({("a/m", "b/m"): None}).collections[0].get_clim() == (0, 1)


def test_rows_about_pairs_are_named_in_one_order():
    rows = pl.DataFrame({"backbones": [["b", "a"], ["a", "b"], ["a"], ["a", "b", "c"]]})
    found = named_pairs(rows).select("backbone", "other")
    assert found.rows() == [("a", "b"), ("a", "b")]
