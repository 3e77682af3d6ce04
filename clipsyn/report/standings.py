"""How backbones and methods stand over all datasets: what the answer and its tables are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import polars as pl

from clipsyn.evaluation.methods import CHOSEN, ORACLE
from clipsyn.evaluation.results.view import WHERE, singles
from clipsyn.evaluation.tables import BEST, INDEPENDENT, at_most_shots, method_frame
from clipsyn.methods.ensembles import place_of
from clipsyn.report.means import Mean, main_part, mean_over
from clipsyn.settings import FULL, images_of
from clipsyn.show.table import shots_text

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
    return _mean(rows.filter(metric="acc1")), _mean(rows.filter(metric="gain"))


def methods(results: pl.DataFrame) -> list[Method]:
    """Those of results of `clipsyn evaluate`, in the order of heads and of the registry."""
    part = main_part(results)
    accuracies = at_most_shots(method_frame(part))
    gains = at_most_shots(method_frame(part, "gain_over_chosen"))
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
