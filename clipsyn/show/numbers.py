"""Single numbers as text, the same in all tables. No number is shown as -0.00."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from clipsyn.text import counted

NOTHING = "\N{EN DASH}"  # for null and NaN


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals; `NOTHING` for null and NaN."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}"


def p_value(value: float | None) -> str:
    """A p-value with three decimals; "<0.001" below, however far."""
    return "<0.001" if value is not None and value < 0.001 else number(value, 3)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as percent, without the sign."""
    return number(None if share is None else 100 * share, digits)


def interval_text(low: float | None, high: float | None, digits: int | None = None) -> str:
    """Two shares as percent, or two numbers with `digits`; `NOTHING` where one is not known.

    Percents have an en dash between them, or "to" where the first is negative: "-1.2 to 3.4".
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return NOTHING
    if digits is not None:
        return f"{number(low, digits)} to {number(high, digits)}"
    between = " to " if low < 0 else "\N{EN DASH}"
    return f"{100 * low:.1f}{between}{100 * high:.1f}"


def interval(row: Mapping[str, Any], digits: int | None = None) -> str:
    """The 95 % interval of a row of results, as `interval_text` writes it; the row may be empty."""
    return interval_text(row.get("ci_low"), row.get("ci_high"), digits)


def points(row: Mapping[str, Any]) -> str:
    """A gain with its 95 % interval: "+3.1 points (-0.2 to 4.9)"."""
    return f"{100 * row['value']:+.1f} points ({interval(row)})"


def shots_text(shots: int | None) -> str:
    """Images a class: "16 shots", or "the whole support" for None."""
    return "the whole support" if shots is None else counted(shots, "shot")
