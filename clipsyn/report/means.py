"""Means over datasets, with intervals that say how sure they are of the images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from clipsyn.evaluation.results.view import WHERE
from clipsyn.names import CLEAN
from clipsyn.show.frames import is_nan
from clipsyn.show.table import NOTHING, interval_text, percent

ALL = "all"  # the perturbation of numbers about several, and all classes


class Mean(NamedTuple):
    """A mean over datasets. low, high: None where the interval of any dataset is not known."""

    value: float
    low: float | None
    high: float | None
    datasets: int

    @property
    def is_sure(self) -> bool:
        """Whether it is a gain beyond its interval."""
        return self.low is not None and self.low > 0

    @property
    def percent(self) -> str:
        return percent(self.value)

    @property
    def points(self) -> str:
        return f"{100 * self.value:.1f} points"

    @property
    def interval(self) -> str:
        """In percent; empty where it is not known."""
        between = interval_text(self.low, self.high)
        return "" if between == NOTHING else between


def mean_over(rows: Iterable[tuple[float, float | None, float | None]]) -> Mean | None:
    """Of (value, low, high) of each dataset; those without a value are left out, None if all are.

    The interval is that of a mean of independent numbers: the distances from the value to its
    bounds add up as squares. Of one dataset it is that dataset's.
    """
    known = [row for row in rows if not is_nan(row[0])]
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


def main_part(frame: pl.DataFrame, *, of_means: bool = False) -> pl.DataFrame:
    """The rows that the answer is about: clean images of all classes, one prompt set a dataset.

    Without clean images all perturbations together, if they are there, or else each of them. Of
    several prompt sets the one that most datasets have, of equals the first by name; a dataset
    that lacks it has its own first. Rows of means over datasets are left out; with `of_means`
    these alone stay, where there are any.
    """
    is_mean = pl.col("dataset").is_null()
    if not (of_means and frame["dataset"].has_nulls()):
        is_mean = ~is_mean
    frame = frame.filter(is_mean, pl.col("classes").eq_missing(ALL))
    labels = set(frame["perturbation"])
    for label in (CLEAN.label, ALL):
        if label in labels:
            frame = frame.filter(perturbation=label)
            break
    return frame.join(_chosen_prompts(frame), on=[*_PLACE, "prompts"], how="semi", nulls_equal=True)


_PLACE = [name for name in WHERE if name != "prompts"]


def _chosen_prompts(frame: pl.DataFrame) -> pl.DataFrame:
    """A prompt set for each dataset, split and perturbation."""
    there = frame.select(*_PLACE, "prompts").unique()
    usual = there.group_by("prompts").agg(datasets=pl.len())
    return (
        there.join(usual, on="prompts", nulls_equal=True)
        .sort("datasets", "prompts", descending=[True, False])
        .unique(_PLACE, keep="first", maintain_order=True)
    )
