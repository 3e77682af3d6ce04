"""How backbones and methods stand over all datasets, and the answer that this gives.

The answer is about the best use of the labels there are, what needs none, and the limit. Nothing in
it was chosen on the images that it is measured on, but for the limit and the note on hindsight,
which say so. Its words are the template `answer.html`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from clipsyn.analyses.cascade import WITHIN
from clipsyn.evaluation.results.frame import (
    SHOTS_IN_ORDER,
    WHERE,
    gain_metric,
    having,
    in_order,
    mean_of_rows,
    singles,
)
from clipsyn.evaluation.tables import BEST, INDEPENDENT, at_most_shots, method_frame
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN, ORACLE, PLAIN, is_transductive, place_of
from clipsyn.names import CLEAN
from clipsyn.report.evidence import EVALUATE, PAIRED, Evidence
from clipsyn.show.frames import is_nan
from clipsyn.show.table import Ends, Mean, interval_text, mean_of, p_value, shots_text

ALL = "all"  # the perturbation of numbers about several, and all classes
HINDSIGHT = (BEST, ORACLE, INDEPENDENT)  # they know the labels that they are measured on
Place = tuple[str, str, str]  # dataset, split, perturbation


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


@dataclass(frozen=True, eq=False)
class Standing:
    """A backbone with zero-shot logits, or a method: a head and an ensemble, at the most shots.

    accuracies: by place, of which there is at least one. gains: over the backbone that is best on
    the support, on the same head. over_zero_shot: over the one that is best there with zero-shot
    logits. What is not known has no entry. shots: None where it learns nothing. choices: by
    dataset, what was chosen, and for how many draws.
    """

    name: str
    accuracies: Mapping[Place, Ends]
    head: str = "zero-shot"
    shots: str | None = None
    gains: Mapping[Place, Ends] = field(default_factory=dict)
    over_zero_shot: Mapping[Place, Ends] = field(default_factory=dict)
    choices: Mapping[str, Counter[str]] = field(default_factory=dict)

    @cached_property
    def accuracy(self) -> Mean:
        mean = mean_of(self.accuracies.values())
        assert mean
        return mean

    @property
    def is_ranked(self) -> bool:
        """Whether it knows no label of the test images, and answers for each of them alone."""
        return self.name not in HINDSIGHT and not is_transductive(self.name)

    @property
    def is_fair(self) -> bool:
        """Whether it is a combination that is ranked."""
        return self.is_ranked and self.name != BEST_SINGLE

    @property
    def is_choice(self) -> bool:
        return self.name == CHOSEN

    @cached_property
    def gain(self) -> Mean | None:
        return mean_of(self.gains.values())

    @property
    def gain_over_zero_shot(self) -> Mean | None:
        return mean_of(self.over_zero_shot.values())

    @property
    def opponent(self) -> Mean | None:
        """The accuracy of the backbone that its gains are over, whose interval nobody knows."""
        return mean_of(
            (self.accuracies[place][0] - gain, None, None)
            for place, (gain, *_) in self.gains.items()
            if place in self.accuracies
        )

    @property
    def chosen(self) -> list[tuple[str, int]]:
        """What was chosen, with the number of draws of all datasets, the most frequent first."""
        every: Counter[str] = Counter()
        for of_dataset in self.choices.values():
            every += of_dataset
        return every.most_common()

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


def backbones(frame: pl.DataFrame) -> list[Standing]:
    """Those of a frame with zero-shot accuracies, best first.

    One that lacks a dataset has another mean than the others, so it comes after those that have
    more.
    """
    rows = singles(main_part(frame)).filter(metric="acc1", head="zero-shot")
    known = rows.filter(pl.col("value").is_not_nan())
    found = [
        Standing(name, _by_place(known.filter(backbone=name)))
        for name in known["backbone"].unique().sort()
    ]
    return sorted(found, key=lambda it: (-it.accuracy.datasets, -it.accuracy.value))


def oracle(frame: pl.DataFrame) -> Standing | None:
    """The oracle of all backbones, on zero-shot logits."""
    rows = main_part(frame).filter(ensemble=ORACLE, metric="acc1")
    most = pl.col("backbones").list.len()
    found = _by_place(rows.filter(most == most.max().over(WHERE)))
    return Standing(ORACLE, found) if found else None


def methods(results: pl.DataFrame) -> list[Standing]:
    """Those of results of `clipsyn evaluate`: the chosen one, then by heads and the registry."""
    part = main_part(results)
    accuracies, gains, over_zero_shot = (
        at_most_shots(method_frame(part, metric)).partition_by("head", "method", as_dict=True)
        for metric in ("acc1", gain_metric(part), "gain_over_zero_shot")
    )
    choices = _choices(part)
    found = [
        Standing(
            str(name),
            there,
            str(head),
            _shots(rows["shots"].drop_nulls().unique().to_list()),
            gains=_by_place(gains.get((head, name), rows.clear())),
            over_zero_shot=_by_place(over_zero_shot.get((head, name), rows.clear())),
            choices=choices if name == CHOSEN else {},
        )
        for (head, name), rows in accuracies.items()
        if (there := _by_place(rows))
    ]
    heads = part["head"].unique(maintain_order=True).to_list()

    def place(it: Standing) -> tuple[Any, ...]:
        return not it.is_choice, heads.index(it.head), _place(it.name), it.name

    return sorted(found, key=place)


def _place(name: str) -> tuple[int, int]:
    if name in HINDSIGHT:
        return 3, HINDSIGHT.index(name)
    return 2 if is_transductive(name) else int(name != BEST_SINGLE), place_of(name)


def _choices(part: pl.DataFrame) -> dict[str, Counter[str]]:
    """By dataset, what was chosen at the most shots, and in how many draws."""
    rows = having(part.filter(ensemble=CHOSEN, metric="acc1"), "choice")
    last = rows.filter(SHOTS_IN_ORDER.max().over("dataset") == SHOTS_IN_ORDER)
    return {
        str(dataset): Counter(of_dataset["choice"].drop_nulls())
        for (dataset,), of_dataset in last.group_by("dataset", maintain_order=True)
    }


def _by_place(rows: pl.DataFrame) -> dict[Place, Ends]:
    known = rows.filter(pl.col("value").is_not_null(), pl.col("value").is_not_nan())
    columns = "dataset", "split", "perturbation", "value", "ci_low", "ci_high"
    return {(row[0], row[1], row[2]): row[3:] for row in known.select(columns).iter_rows()}


def _shots(there: list[str]) -> str | None:
    """ "16 shots", or "4 to 16 shots" where datasets differ."""
    order = sorted(there, key=in_order)
    least = f"{order[0]} to " if len(order) > 1 else ""
    return f"{least}{shots_text(order[-1])}" if order else None


def leading(compared: Sequence[Standing]) -> Standing | None:
    """The method that the answer is about: never chosen on the images that it is measured on.

    What the support has chosen, else what needs no labels, else the first in their order.
    """

    def place(method: Standing) -> tuple[bool, bool, bool]:
        return not method.is_choice, method.shots is not None, method.name != PLAIN

    return min((it for it in compared if it.is_fair), key=place, default=None)


def answer(evidence: Evidence) -> dict[str, Any]:
    """What the template says: with results of ensembles, of backbones alone, or of none."""
    frame, results = evidence.frames.get("zeroshot"), evidence.frames.get(EVALUATE)
    alone = [] if frame is None else backbones(frame)
    compared = [] if results is None or not alone else methods(results)
    lead = leading(compared)
    limits = [it for it in compared if it.name == ORACLE]
    if frame is not None and not limits:
        limits = [*filter(None, [oracle(frame)])]
    gflops = [evidence.gflops.get(it.name) or 0 for it in alone]
    is_known = len(gflops) > 1 and all(gflops)
    return {
        "alone": alone,
        "lead": lead,
        "limit": max(limits, key=lambda it: it.accuracy.value, default=None),
        "has_support": evidence.has_support,
        "cost": {"total": sum(gflops), "times": sum(gflops) / gflops[0]} if is_known else None,
        **(_of_lead(lead, compared, evidence) if lead else {}),
    }


def _of_lead(lead: Standing, compared: Sequence[Standing], evidence: Evidence) -> dict[str, Any]:
    free = [it for it in compared if it.is_fair and it.shots is None]
    fair = [it for it in compared if it.is_fair and it.accuracy.datasets == lead.accuracy.datasets]
    return {
        "free": leading(free),
        "hindsight": max(fair, key=lambda it: (it.accuracy.value, it.name != CHOSEN)),
        "tested": _tested(lead, evidence.frames.get(PAIRED)),
        "cascade": _cascade(evidence.frames.get("cascade")),
    }


def _cascade(frame: pl.DataFrame | None) -> dict[str, Mean | None] | None:
    """Means over datasets, by metric, of the cascade whose thresholds the support chose."""
    if frame is None:
        return None
    part = having(main_part(frame), "rule").filter(rule=WITHIN, ensemble=PLAIN)
    return {it: mean_of_rows(part.filter(metric=it)) for it in ("acc1", "mean_gflops")}


def _tested(lead: Standing, paired: pl.DataFrame | None) -> dict[str, Any] | None:
    """What the test image by image says of the method and the backbone chosen on the support."""
    if paired is None:
        return None
    rows = main_part(paired, of_means=True).filter(
        first=BEST_SINGLE, second=lead.name, head=lead.head
    )
    if rows.is_empty():
        return None
    row = rows.row(0, named=True)
    kind = "ci" if is_nan(row["both_low"]) else "both"
    return row | {
        "points": f"{-100 * row['difference']:.1f}",
        "interval": interval_text(-row[f"{kind}_high"], -row[f"{kind}_low"]),
        "over": "images" if kind == "ci" else "draws and images",
        "p": p_value(row["p_holm"]),
    }
