"""Text and tables for the page."""

from __future__ import annotations

import math

import polars as pl
import pytest

from clipsyn.report.html import Html, html, listed, safe, sorted_by
from clipsyn.report.tables import numbers_of, share_of
from clipsyn.show.means import Mean
from clipsyn.show.table import NOTHING, Cell

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
