"""How backbones and methods stand over all datasets: means over them, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import polars as pl

from clipsyn.evaluation.methods import CHOSEN, ORACLE
from clipsyn.evaluation.results.view import WHERE, singles
from clipsyn.evaluation.tables import BEST, INDEPENDENT, at_most_shots, method_frame
from clipsyn.methods.ensembles import place_of
from clipsyn.names import CLEAN
from clipsyn.settings import FULL, images_of
from clipsyn.show.frames import is_nan
from clipsyn.show.table import NOTHING, interval_text, percent, shots_text

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


HINDSIGHT = (BEST, ORACLE, INDEPENDENT)  # they know the labels that they are measured on


class Backbone(NamedTuple):
    """A backbone on its own, with zero-shot logits."""

    name: str
    accuracy: Mean
    best_on: int  # datasets


Place = tuple[str, str, str]  # dataset, split, perturbation
Numbers = tuple[float, float | None, float | None]  # a value, and the ends of its interval


@dataclass(frozen=True, eq=False)
class Standing:
    """Accuracies by place, and gains over the backbone that is best on the support.

    What is not known has no entry; there is at least one accuracy.
    """

    accuracies: Mapping[Place, Numbers]
    gains: Mapping[Place, Numbers]

    @cached_property
    def accuracy(self) -> Mean:
        mean = mean_over(self.accuracies.values())
        assert mean
        return mean

    @cached_property
    def gain(self) -> Mean | None:
        return mean_over(self.gains.values())

    @property
    def better(self) -> int:
        """On how many datasets it gains beyond the interval."""
        return sum(low is not None and low > 0 for _, low, _ in self.gains.values())

    @property
    def worse(self) -> int:
        return sum(high is not None and high < 0 for _, _, high in self.gains.values())

    @property
    def least(self) -> tuple[str, float] | None:
        """The dataset where it gains least."""
        gains = ((dataset, value) for (dataset, *_), (value, *_) in self.gains.items())
        return min(gains, key=lambda it: it[1], default=None)


@dataclass(frozen=True, eq=False)
class Method(Standing):
    """A head and an ensemble on it, at the most shots."""

    head: str
    name: str
    shots: str | None  # None where it learns nothing

    @property
    def is_fair(self) -> bool:
        """Whether it is a combination that knows no label of the test images."""
        return self.name not in (CHOSEN, *HINDSIGHT)


def backbones(frame: pl.DataFrame) -> list[Backbone]:
    """Those of a frame with zero-shot accuracies, best first.

    One that lacks a dataset has another mean than the others, so it comes after those that have
    more.
    """
    rows = singles(main_part(frame)).filter(metric="acc1", head="zero-shot")
    known = rows.filter(pl.col("value").is_not_nan())
    best = pl.col("value") == pl.col("value").max().over(WHERE)
    first = known.with_columns(best=best).group_by("backbone").agg(pl.col("best").sum())
    times = dict(first.iter_rows())
    found = [
        Backbone(str(name), mean, times[name])
        for (name,), part in rows.group_by("backbone", maintain_order=True)
        if (mean := _mean(part))
    ]
    return sorted(found, key=lambda it: (-it.accuracy.datasets, -it.accuracy.value))


def oracle(frame: pl.DataFrame) -> tuple[Mean | None, Mean | None]:
    """Accuracy of the oracle of all backbones, and its gain over the best of each dataset."""
    rows = main_part(frame).filter(ensemble=ORACLE)
    most = pl.col("backbones").list.len()
    rows = rows.filter(most == most.max().over(WHERE))
    return _mean(rows.filter(metric="acc1")), _mean(rows.filter(metric="gain_over_best_on_test"))


def methods(results: pl.DataFrame) -> list[Method]:
    """Those of results of `clipsyn evaluate`, in the order of heads and of the registry."""
    part = main_part(results)
    accuracies = at_most_shots(method_frame(part))
    gains = at_most_shots(method_frame(part, "gain"))
    found = [
        _method(head, name, rows, gains.filter(head=head, method=name))
        for (head, name), rows in accuracies.group_by("head", "method", maintain_order=True)
    ]
    heads = part["head"].unique(maintain_order=True).to_list()
    kept = [method for method in found if method]
    return sorted(kept, key=lambda it: (heads.index(it.head), _place(it.name), it.name))


def _place(name: str) -> tuple[int, int]:
    if name in HINDSIGHT:
        return 2, HINDSIGHT.index(name)
    return int(name != CHOSEN), place_of(name)


def _method(head: object, name: object, rows: pl.DataFrame, gains: pl.DataFrame) -> Method | None:
    accuracies, gained = _by_place(rows), _by_place(gains)
    if not accuracies:
        return None
    return Method(
        accuracies,
        {place: gained[place] for place in accuracies if place in gained},
        str(head),
        str(name),
        _shots(rows["shots"].drop_nulls().unique().to_list()),
    )


def _by_place(rows: pl.DataFrame) -> dict[Place, Numbers]:
    known = rows.filter(pl.col("value").is_not_null(), pl.col("value").is_not_nan())
    columns = "dataset", "split", "perturbation", "value", "ci_low", "ci_high"
    return {(row[0], row[1], row[2]): row[3:] for row in known.select(columns).iter_rows()}


def _shots(there: list[str]) -> str | None:
    """ "16 shots", or "4 to 16 shots" where datasets differ."""
    if not there:
        return None
    order = sorted(there, key=lambda text: (text == FULL, int(text) if text != FULL else 0))
    texts = [shots_text(images_of("full" if it == FULL else int(it))) for it in order]
    return texts[0] if len(texts) == 1 else f"{order[0]} to {texts[-1]}"


def _mean(rows: pl.DataFrame) -> Mean | None:
    return mean_over(rows.select("value", "ci_low", "ci_high").drop_nulls("value").iter_rows())
