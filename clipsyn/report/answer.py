"""The answer: which backbones, which combination, what it gains; its words are a template.

Who gains most over all datasets was chosen on the very images that its gain is measured on, which
flatters it. So each dataset is left out in turn: the combination that gains most on the others is
judged on this one. The mean over datasets is what choosing a combination is worth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from clipsyn.analyses.cascade import PLAIN, WITHIN
from clipsyn.evaluation.methods import CHOSEN, ORACLE
from clipsyn.report.evidence import EVALUATE, PAIRED, Evidence
from clipsyn.report.html import Html, named, paragraphs
from clipsyn.report.standings import (
    Backbone,
    Mean,
    Method,
    Standing,
    backbones,
    main_part,
    mean_over,
    methods,
    oracle,
)
from clipsyn.show.frames import is_nan
from clipsyn.show.table import interval_text, p_value

ZERO_SHOT = "zero-shot"
Sharing = Mapping[str, Collection[str]]  # by dataset: the others that hold an image of it


@dataclass(frozen=True, eq=False)
class Unseen(Standing):
    """On each dataset, the combination that was chosen without it.

    names: of these combinations, by dataset.
    """

    names: Mapping[str, str]

    @property
    def times(self) -> list[tuple[str, int]]:
        """Combinations with the number of datasets that each is chosen for, the most first."""
        return Counter(self.names.values()).most_common()


class Choice(NamedTuple):
    """The combination that gains most over all datasets, and what it was chosen from.

    lacking: combinations that some dataset has no gain of; they are no candidates. unseen: None
    where no dataset can be left out.
    """

    best: Method
    candidates: Sequence[Method]
    lacking: Sequence[Method]
    unseen: Unseen | None

    @property
    def judged(self) -> Standing:
        """What may be expected of the choice; in hindsight where nothing else is known."""
        return self.unseen or self.best

    @property
    def name(self) -> str | None:
        """Of what is judged; None where that is not the best on every dataset."""
        names = set(self.unseen.names.values()) if self.unseen else {self.best.name}
        return self.best.name if names == {self.best.name} else None


def choose(compared: Sequence[Method], sharing: Sharing) -> Choice | None:
    """Choose among the combinations on zero-shot logits, or else on the first head there is.

    Candidates are those that all datasets have, since a mean over other datasets says nothing; all
    combinations where none is everywhere. None where there is no combination.
    """
    lead = _lead(compared)
    if not lead:
        return None
    everywhere = {place for it in lead for place in it.gains}
    whole = [it for it in lead if it.gains.keys() == everywhere]
    lacking = [it for it in lead if it not in whole] if whole else []
    return Choice(_best(whole or lead), whole or lead, lacking, leave_out(whole, sharing))


def _lead(compared: Sequence[Method]) -> list[Method]:
    fair = [it for it in compared if it.is_fair and it.gains]
    heads = [it.head for it in fair]
    head = ZERO_SHOT if ZERO_SHOT in heads else next(iter(heads), None)
    return [it for it in fair if it.head == head]


def leave_out(candidates: Sequence[Method], sharing: Sharing) -> Unseen | None:
    """For each dataset the candidate that gains most on those that share no image with it.

    candidates: with gains of the same places. None where there is nothing to choose, or a dataset
    without which none is left.
    """
    if len(candidates) < 2:
        return None
    places = candidates[0].gains
    datasets = {dataset for dataset, *_ in places}
    hidden = {dataset: {dataset, *sharing.get(dataset, ())} for dataset in datasets}
    if any(datasets <= kin for kin in hidden.values()):
        return None
    chosen = {dataset: _best(candidates, kin) for dataset, kin in hidden.items()}
    return Unseen(
        {place: chosen[place[0]].accuracies[place] for place in places},
        {place: chosen[place[0]].gains[place] for place in places},
        {dataset: chosen[dataset].name for dataset, *_ in places},
    )


def _best(methods: Sequence[Method], without: Collection[str] = ()) -> Method:
    """The largest mean gain over datasets but some; of equals the first."""

    def mean(method: Method) -> float:
        gains = [
            gain for (dataset, *_), (gain, *_) in method.gains.items() if dataset not in without
        ]
        return math.fsum(gains) / len(gains)

    return max(methods, key=mean)


@dataclass(frozen=True)
class Answer:
    headline: Html
    facts: tuple[Html, ...]  # sentences, each about one thing
    bars: tuple[Bar, ...]


def answer(evidence: Evidence) -> Answer:
    """The answer that the numbers allow: with results of ensembles, of backbones alone, or none."""
    frame = evidence.frames.get("zeroshot")
    alone = [] if frame is None else backbones(frame)
    bound, headroom = oracle(frame) if alone and frame is not None else (None, None)
    results = evidence.frames.get(EVALUATE)
    compared = [] if results is None or not alone else methods(results)
    choice = choose(compared, evidence.sharing)
    told = _of_choice(choice, evidence) if choice else {}
    cost = _cost([evidence.gflops.get(it.name) for it in alone])
    about = {"alone": alone, "choice": choice, "bound": bound, "headroom": headroom, "cost": cost}
    headline, *facts = paragraphs("answer.html", **about, **told)
    bars = _bars(alone, compared, choice, bound) if alone else ()
    return Answer(headline, tuple(facts), tuple(bars))


def _of_choice(choice: Choice, evidence: Evidence) -> dict[str, Any]:
    return {
        "best": choice.best,
        "judged": choice.judged,
        "taken": [_taken(*pair) for pair in choice.unseen.times] if choice.unseen else [],
        "fitted_on": _fitted_on(choice.best.shots or ""),
        "free": choose([it for it in choice.candidates if it.shots is None], evidence.sharing),
        "tested": _tested(choice.best, evidence.frames.get(PAIRED)),
        "cascade": _cascade(evidence.frames.get("cascade")),
    }


def _taken(name: str, times: int) -> str:
    """ "nlc (5 times)"."""
    return f"{name} ({f'{times} times' if times > 1 else 'once'})"


def _tested(best: Method, paired: pl.DataFrame | None) -> dict[str, Any] | None:
    """What the test image by image says of the best combination and the chosen backbone."""
    if paired is None:
        return None
    rows = main_part(paired, of_means=True).filter(first=CHOSEN, second=best.name, head=best.head)
    for row in rows.head(1).iter_rows(named=True):
        both = not is_nan(row["both_low"])
        low, high = (-row[f"{'both' if both else 'ci'}_{end}"] for end in ("high", "low"))
        return {
            "points": f"{-100 * row['difference']:.1f}",
            "interval": interval_text(low, high),
            "over": "draws and images" if both else "images",
            "p": p_value(row["p_holm"]),
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
    kind: str  # single, chosen, combined or oracle: how it is coloured

    @property
    def percent(self) -> str:
        return f"{100 * self.accuracy.value:.2f}"


def _bars(
    alone: Sequence[Backbone],
    compared: Sequence[Method],
    choice: Choice | None,
    bound: Mean | None,
) -> Iterator[Bar]:
    yield Bar("best backbone, in hindsight", named(alone[0].name), alone[0].accuracy, "single")
    if choice:
        for it in compared:
            if (it.head, it.name) == (choice.best.head, CHOSEN):
                yield Bar("backbone chosen on the support", "", it.accuracy, "chosen")
        yield from _bars_of(choice)
    if bound:
        yield Bar("a perfect choice for each image", named(ORACLE), bound, ORACLE)


def _bars_of(choice: Choice) -> Iterator[Bar]:
    best = choice.best
    if choice.unseen:
        name = named(choice.name) if choice.name else ""
        about = "combination chosen on other datasets"
        yield Bar(about, name, choice.unseen.accuracy, "combined")
    if not choice.name:
        yield Bar("best combination, in hindsight", named(best.name), best.accuracy, "single")
    elif not choice.unseen:
        yield Bar("best combination", named(best.name), best.accuracy, "combined")
