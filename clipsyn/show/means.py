"""Means over datasets, with intervals, as tables and sentences have them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from clipsyn.show.frames import is_nan
from clipsyn.show.table import NOTHING, interval_text, percent

Numbers = tuple[float, float | None, float | None]  # a value, and the ends of its interval


class Mean(NamedTuple):
    """A mean over datasets. low, high: None where the interval of any dataset is not known."""

    value: float
    low: float | None
    high: float | None
    datasets: int

    @property
    def is_sure(self) -> bool:
        """Whether its interval leaves 0 out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def percent(self) -> str:
        return percent(self.value)

    @property
    def points(self) -> str:
        return f"{percent(self.value)} points"

    @property
    def interval(self) -> str:
        """In percent; empty where it is not known."""
        between = interval_text(self.low, self.high)
        return "" if between == NOTHING else between


def mean_over(rows: Iterable[Numbers]) -> Mean | None:
    """Of the numbers of each dataset; those without a value are left out, None if all are.

    The interval is that of a mean of independent numbers: the distances from the value to its
    bounds add up as squares. Of one dataset it is that dataset's.
    """
    known = [row for row in rows if row[0] is not None and not is_nan(row[0])]
    if not known:
        return None
    values, lows, highs = zip(*known, strict=True)
    count = len(known)
    value = math.fsum(values) / count
    below, above = (_distance(values, bounds) for bounds in (lows, highs))
    low = None if below is None else value - below / count
    high = None if above is None else value + above / count
    return Mean(value, low, high, count)


def _distance(values: Iterable[float], bounds: Iterable[float | None]) -> float | None:
    pairs = list(zip(values, bounds, strict=True))
    if any(bound is None or is_nan(bound) for _, bound in pairs):
        return None
    return math.hypot(*(value - bound for value, bound in pairs if bound is not None))
