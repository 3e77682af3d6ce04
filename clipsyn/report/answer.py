"""The answer: the best use of the labels there are, what needs none, and the limit.

Nothing in it was chosen on the images that it is measured on, but for the limit and the note on
hindsight, which say so. Its words are a template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from clipsyn.analyses.cascade import PLAIN, WITHIN
from clipsyn.evaluation.methods import ORACLE
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN
from clipsyn.report.evidence import EVALUATE, PAIRED, Evidence
from clipsyn.report.html import Html, named, paragraphs
from clipsyn.report.standings import (
    Backbone,
    Method,
    Standing,
    backbones,
    main_part,
    methods,
    oracle,
)
from clipsyn.show.frames import is_nan
from clipsyn.show.means import Mean, mean_over
from clipsyn.show.table import interval_text, p_value

PREFERRED = "log-avg"  # of what needs no labels
Sharing = Mapping[str, Collection[str]]  # by dataset: the others that hold an image of it


def leading(compared: Sequence[Method]) -> Method | None:
    """The method that the answer is about: never chosen on the images that it is measured on.

    What the support has chosen, else what needs no labels, else the first in their order.
    """

    def place(method: Method) -> tuple[bool, bool, bool]:
        return not method.is_choice, method.shots is not None, method.name != PREFERRED

    return min((it for it in compared if it.is_fair), key=place, default=None)


class Elsewhere(NamedTuple):
    """What is chosen for each dataset by accuracy on the others."""

    accuracy: Mean
    times: list[tuple[str, int]]  # names, with the number of datasets, the most first


def elsewhere(candidates: Sequence[Standing], sharing: Sharing) -> Elsewhere | None:
    """For each dataset the candidate that is best on those that share no image with it.

    Candidates that some dataset lacks have other means and are left out. None where none is left,
    or a dataset without which there is none.
    """
    places = {place for it in candidates for place in it.accuracies}
    whole = [it for it in candidates if it.accuracies.keys() == places]
    datasets = {dataset for dataset, *_ in places}
    others = {it: datasets - {it, *sharing.get(it, ())} for it in datasets}
    if not whole or not all(others.values()):
        return None
    chosen = {it: _best(whole, others[it]) for it in datasets}
    mean = mean_over(chosen[place[0]].accuracies[place] for place in sorted(places))
    assert mean
    return Elsewhere(mean, Counter(chosen[it].name for it in sorted(datasets)).most_common())


def _best(candidates: Iterable[Standing], datasets: Collection[str]) -> Standing:
    return max(candidates, key=lambda it: it.on(datasets))


@dataclass(frozen=True)
class Answer:
    headline: Html
    facts: tuple[Html, ...]  # sentences, each about one thing
    bars: tuple[Bar, ...]
    footnote: Html | None  # on what hindsight would choose


def answer(evidence: Evidence) -> Answer:
    """The answer that the numbers allow: with results of ensembles, of backbones alone, or none."""
    frame, results = evidence.frames.get("zeroshot"), evidence.frames.get(EVALUATE)
    alone = [] if frame is None else backbones(frame)
    compared = [] if results is None or not alone else methods(results)
    lead = leading(compared)
    limits = [it for it in compared if it.name == ORACLE]
    if frame is not None and not limits:
        limits = [*filter(None, [oracle(frame)])]
    limit = max(limits, key=lambda it: it.accuracy.value, default=None)
    about = {
        "alone": alone,
        "lead": lead,
        "limit": limit,
        "has_support": evidence.has_support,
        "cost": _cost([evidence.gflops.get(it.name) for it in alone]),
        **(_of_lead(lead, compared, alone, evidence) if lead else {}),
    }
    headline, *facts = paragraphs("answer.html", **about)
    footnote = facts.pop() if alone else None
    opponent = lead.opponent if lead and evidence.has_support else None
    bars = _bars(alone, lead, limit, opponent)
    return Answer(headline, tuple(facts), tuple(bars), footnote)


def _of_lead(
    lead: Method, compared: Sequence[Method], alone: Sequence[Backbone], evidence: Evidence
) -> dict[str, Any]:
    free = [it for it in compared if it.is_fair and it.shots is None]
    fair = [it for it in compared if it.is_fair and it.accuracy.datasets == lead.accuracy.datasets]
    return {
        "fitted_on": _fitted_on(lead.shots or ""),
        "free": leading(free),
        "next": elsewhere(free, evidence.sharing),
        "next_alone": elsewhere(alone, evidence.sharing),
        "hindsight": max(fair, key=lambda it: (it.accuracy.value, it.name != CHOSEN)),
        "tested": _tested(lead, evidence.frames.get(PAIRED)),
        "cascade": _cascade(evidence.frames.get("cascade")),
    }


def _tested(lead: Method, paired: pl.DataFrame | None) -> dict[str, Any] | None:
    """What the test image by image says of the method and the backbone chosen on the support."""
    if paired is None:
        return None
    rows = main_part(paired, of_means=True).filter(
        first=BEST_SINGLE, second=lead.name, head=lead.head
    )
    for row in rows.head(1).iter_rows(named=True):
        both = not is_nan(row["both_low"])
        low, high = (-row[f"{'both' if both else 'ci'}_{end}"] for end in ("high", "low"))
        return {
            "points": f"{-100 * row['difference']:.1f}",
            "interval": interval_text(low, high),
            "over": "draws and images" if both else "images",
            "p": p_value(row["p_holm"]),
            "comparisons": row["comparisons"],
            "tie": row["tie"],
        }
    return None


def _fitted_on(shots: str) -> str:
    """ "16 labelled images of each class", or "the whole support"."""
    number, is_number, _ = shots.partition(" shot")
    return f"{number} labelled images of each class" if is_number else shots


def _cost(gflops: Sequence[float | None]) -> Mapping[str, str] | None:
    """Of all backbones, the best first; None where one is not known."""
    known = [value for value in gflops if value is not None]
    if len(known) < max(len(gflops), 2) or known[0] <= 0:
        return None
    return {"total": _gflops(sum(known)), "times": f"{sum(known) / known[0]:.1f}"}


def _gflops(value: float) -> str:
    """Three digits, of large numbers all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cascade(frame: pl.DataFrame | None) -> dict[str, Any] | None:
    if frame is None:
        return None
    part = (
        main_part(frame)
        .filter(rule=WITHIN, ensemble=PLAIN)
        .select("metric", "value", "ci_low", "ci_high")
    )
    accuracy, cost = (
        mean_over(row[1:] for row in part.filter(metric=metric).rows())
        for metric in ("acc1", "mean_gflops")
    )
    return {"accuracy": accuracy, "gflops": _gflops(cost.value)} if accuracy and cost else None


class Bar(NamedTuple):
    """One line of the picture beside the answer: an accuracy, with its interval."""

    what: str
    name: str | Html
    accuracy: Mean
    kind: str  # single, combined or oracle: how it is coloured

    @property
    def percent(self) -> str:
        return f"{100 * self.accuracy.value:.2f}"


def _bars(
    alone: Sequence[Backbone], lead: Method | None, limit: Method | None, opponent: Mean | None
) -> Iterator[Bar]:
    """opponent: the backbone chosen on the support, if there is one."""
    if opponent:
        yield Bar("best single backbone", "", opponent, "single")
    elif alone:
        yield Bar("best backbone, in hindsight", named(alone[0].name), alone[0].accuracy, "single")
    if lead:
        what = "chosen by the labels" if lead.is_choice else "combination"
        yield Bar(what, "" if lead.is_choice else named(lead.name), lead.accuracy, "combined")
    if limit:
        yield Bar("a perfect choice for each image", named(ORACLE), limit.accuracy, ORACLE)
