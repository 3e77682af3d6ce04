"""Tables of the page: as frames have them, and the same numbers as commands print."""

import math

import numpy as np
import polars as pl
import pytest

from clipsyn.report import ReportSettings
from clipsyn.report.evidence import gather
from clipsyn.report.page import sorted_by
from clipsyn.report.tables import image_table, numbers_of, share_of
from clipsyn.show.table import NOTHING, Cell, Mean
from clipsyn.show.tables import table_of
from tests.results import cells

FRAME = pl.DataFrame(
    {
        "name": ["a<b", None],
        "value": [0.12345, math.nan],
        "n": [1000, 2],
        "best": [True, False],
        "backbones": [["x", "y"], ["z"]],
        "empty": pl.Series([None, None], dtype=pl.Float64),
    }
)


def test_a_frame_is_shown_as_it_is(lines):
    first, second = lines(numbers_of(FRAME, "numbers", ""))
    heads = "name", "value", "n", "best", "backbones"
    assert first == dict(zip(heads, ("a<b", "0.1235", "1,000", "yes", "x, y"), strict=True))
    assert second == dict(zip(heads, (NOTHING, NOTHING, "2", "no", "z"), strict=True))


def test_what_is_too_much_for_a_page_is_counted():
    table = numbers_of(pl.concat([FRAME] * 100), "numbers", "the rest is elsewhere")
    assert len(table) == 150
    assert table.notes == "50 more rows: the rest is elsewhere"


@pytest.mark.parametrize(
    ("value", "by"), [(1234, "1234"), (2.3451234567, "2.34512"), (None, ""), (1e12, "1e+12")]
)
def test_a_number_is_sorted_by_itself_and_what_is_not_known_by_nothing(value, by):
    assert sorted_by(Cell("-", value)) == by


def test_an_interval_belongs_to_its_number():
    first, second = share_of("x", Mean(0.5, 0.4, 0.6, 2)).values()
    assert (first.text, second.text) == ("50.0", "40.0\N{EN DASH}60.0")
    assert [it.text for it in share_of("x", None).values()] == [NOTHING, NOTHING]
    gain, _ = share_of("x", Mean(-0.012, None, None, 1), signed=True).values()
    assert gain.text == "-1.2"


def test_an_interval_without_its_number_stays_a_column(lines):
    table = table_of(pl.DataFrame({"a": ["x"], "95 % of b": ["1 to 2"]}))
    assert lines(table) == [{"a": "x", "95 % of b": "1 to 2"}]


class TestProvenance:
    def test_datasets(self, answered, lines):
        known = np.array([True, False, True])
        answered({"a": [0, 1, 2], "b": [0, 0, 2]}, [0, -1, 1], valid={"b": known})
        store = answered({"a": [0, 1, 2]}, [0, -1, 1], perturbation="fog-1")
        evidence = gather(store, ReportSettings(output="x.html"))
        (line,) = lines(image_table(evidence))
        assert (
            line
            == cells("""
    dataset   | images | labelled | classes | conditions | backbones | masked
    pets/test | 3      | 2        | 3       | 2          | 2         | 1
    """)[0]
        )
