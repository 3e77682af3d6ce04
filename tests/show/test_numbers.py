from __future__ import annotations

import math

import pytest

from clipsyn.show.table import interval_text, number, p_value

DASH = "\N{EN DASH}"
NAN = math.nan


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.125, "0.12"), (-0.001, "0.00"), (12.0, "12.00"), (None, DASH), (NAN, DASH)],
)
def test_numbers_have_two_decimals(value, text):
    assert number(value) == text


def test_a_tiny_p_value_is_not_written_as_zero():
    assert [p_value(p) for p in (0.0, 1e-200, 0.0009)] == ["<0.001"] * 3
    assert [p_value(p) for p in (0.001, 0.25, 1.0)] == ["0.001", "0.250", "1.000"]
    assert p_value(None) == p_value(NAN) == DASH


def test_intervals():
    assert interval_text(0.7124, 0.75) == f"71.2{DASH}75.0"
    assert interval_text(-0.02, 0.031) == "-2.0 to 3.1"
    assert interval_text(-0.02, -0.01) == "-2.0 to -1.0"
    assert interval_text(0.7124, 0.75, digits=2) == "0.71 to 0.75"
    assert interval_text(None, None) == interval_text(NAN, NAN) == DASH
    assert interval_text(None, None, digits=2) == interval_text(NAN, NAN, digits=2) == DASH
