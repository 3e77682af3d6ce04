"""Cells of the page's tables: what is read, and what they are sorted by."""

from __future__ import annotations

import math

import polars as pl
import pytest

from clipsyn.report.html import Html, html, listed, named, safe
from clipsyn.report.tables import count, decimal, grid_of, share, share_of, words
from clipsyn.show.means import Mean
from clipsyn.show.table import NOTHING


@pytest.mark.parametrize(
    ("cell", "text", "by"),
    [
        (count(1234), "1,234", "1234"),
        (count(None), NOTHING, ""),
        (decimal(2.345, 2), "2.35", "2.345"),
        (decimal(math.nan), NOTHING, ""),
        (share(0.1234), "12.3", "12.34"),
        (share(None), NOTHING, ""),
        (decimal(1e12, 0), "1000000000000", "1e+12"),
        (decimal(-0.001, 1), "0.0", "-0.001"),
    ],
)
def test_a_number_is_sorted_by_itself_and_what_is_not_known_by_nothing(cell, text, by):
    assert (cell.text, cell.sorted_by, cell.is_number) == (text, by, True)


def test_an_interval_stands_behind_its_number():
    cell = share_of(Mean(0.5, 0.4, 0.6, 2))
    assert (cell.text, cell.note) == ("50.0", "40.0\N{EN DASH}60.0")
    assert share_of(Mean(0.5, None, None, 1)).note == ""
    assert share_of(None).text == NOTHING


def test_a_gain_has_its_sign():
    assert share_of(Mean(0.012, 0.0, 0.02, 1), signed=True).text == "+1.2"
    assert share_of(Mean(-0.012, -0.02, 0.0, 1), signed=True).text == "-1.2"


def test_words_are_no_numbers():
    assert not words("a").is_number
    assert words(None).text == words("").text == NOTHING


class TestGridOf:
    frame = pl.DataFrame(
        {
            "name": ["a<b", None],
            "value": [0.12345, math.nan],
            "n": [1000, 2],
            "best": [True, False],
            "backbones": [["x", "y"], []],
            "empty": pl.Series([None, None], dtype=pl.Float64),
        }
    )

    def test_a_frame_is_shown_as_it_is(self):
        grid = grid_of(self.frame, "numbers", "")
        assert [*grid.heads.items()] == [
            ("name", False),
            ("value", True),
            ("n", True),
            ("best", False),
            ("backbones", False),
        ]
        assert [cell.text for cell in grid.lines[0].values()] == [
            named("a<b"),
            "0.1235",
            "1,000",
            named("yes"),
            named("x, y"),
        ]
        texts = [cell.text for cell in grid.lines[1].values()]
        assert texts == [NOTHING, NOTHING, "2", named("no"), NOTHING]
        assert grid.note == ""

    def test_what_is_too_much_for_a_page_is_counted(self):
        grid = grid_of(pl.concat([self.frame] * 100), "numbers", "the rest is elsewhere")
        assert len(grid.lines) == 150
        assert grid.note == "50 more rows: the rest is elsewhere"


class TestHtml:
    def test_whatever_is_filled_in_is_escaped(self):
        assert html("<b>{}</b> {}", "<i>&\"'", 3) == "<b>&lt;i&gt;&amp;&quot;&#x27;</b> 3"

    def test_but_what_is_html_is_not(self):
        assert html("{}", html("<b>{}</b>", "<")) == "<b>&lt;</b>"
        assert safe(Html("<b>")) == "<b>"

    def test_controls_and_overrides_are_written_out(self):
        assert safe("a\N{RIGHT-TO-LEFT OVERRIDE}b\x1b") == "a\\u202eb\\u001b"

    def test_braces_in_names_are_no_places(self):
        assert html("{} {}", "{0}", "{}") == "{0} {}"

    @pytest.mark.parametrize(
        ("names", "text"),
        [
            (["a"], "<bdi>a</bdi>"),
            (["a", "b"], "<bdi>a</bdi> and <bdi>b</bdi>"),
            (["a", "b", "c"], "<bdi>a</bdi>, <bdi>b</bdi> and <bdi>c</bdi>"),
            ([], ""),
        ],
    )
    def test_lists_read_as_sentences_do(self, names, text):
        assert listed(names) == text
