"""The answer in a few sentences: which backbones, which combination, what it gains, how sure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from clipsyn.analyses.cascade import PLAIN, WITHIN
from clipsyn.frames import is_nan
from clipsyn.protocol.methods import CHOSEN, ORACLE
from clipsyn.report.evidence import EVALUATE, PAIRED, Evidence
from clipsyn.report.html import Html, html, named
from clipsyn.report.means import Mean, main_part, mean_over
from clipsyn.report.standings import Backbone, Method, backbones, methods, oracle
from clipsyn.show.numbers import NOTHING, interval_text, percent

ZERO_SHOT = "zero-shot"


class Bar(NamedTuple):
    """One line of the picture beside the answer: an accuracy, with its interval."""

    what: str
    name: str | Html
    accuracy: Mean
    kind: str  # single, chosen, combined or oracle: how it is coloured

    @property
    def percent(self) -> str:
        return f"{100 * self.accuracy.value:.2f}"

    @property
    def low(self) -> str | None:
        return None if self.accuracy.low is None else f"{100 * self.accuracy.low:.2f}"

    @property
    def high(self) -> str | None:
        return None if self.accuracy.high is None else f"{100 * self.accuracy.high:.2f}"

    @property
    def text(self) -> Html:
        between = interval_text(self.accuracy.low, self.accuracy.high)
        shown = "" if between == NOTHING else html("<small>{}</small>", between)
        return html("{} % {}", percent(self.accuracy.value), shown)


@dataclass(frozen=True)
class Answer:
    headline: Html
    facts: tuple[Html, ...]  # sentences, each about one thing
    bars: tuple[Bar, ...]


def answer(evidence: Evidence) -> Answer:
    """The answer that the numbers allow: with results of ensembles, of backbones alone, or none."""
    frame = evidence.frames.get("zeroshot")
    alone = [] if frame is None else backbones(frame)
    results = evidence.frames.get(EVALUATE)
    compared = [] if results is None else methods(results)
    if not alone or frame is None:
        return Answer(
            Html("Nothing here has both labels and predictions, so nothing is judged."), (), ()
        )
    bound, headroom = oracle(frame)
    best, lead = leading(compared), _lead(compared)
    if best is None or best.gain is None:
        facts = [
            *_of_backbones(alone),
            *_of_oracle(bound, headroom, len(alone)),
            *_what_to_run(alone),
        ]
        return Answer(_alone(alone, bound), tuple(facts), tuple(_bars(alone, None, None, bound)))
    chosen = next((it for it in compared if (it.head, it.name) == (best.head, CHOSEN)), None)
    facts = [
        *_of_backbones(alone),
        *_how_sure(best, len(lead)),
        *_tested(best, evidence.frames.get(PAIRED)),
        *_without_labels(best, lead),
        *_costs(alone, evidence.gflops),
        *_of_cascade(evidence.frames.get("cascade")),
        *_of_oracle(bound, headroom, len(alone)),
    ]
    return Answer(
        _headline(best, len(alone)), tuple(facts), tuple(_bars(alone, chosen, best, bound))
    )


def leading(compared: Sequence[Method]) -> Method | None:
    """The combination that gains most, of equals the first; None where there is none."""
    gains = {it: it.gain.value for it in _lead(compared) if it.gain}
    return max(gains, key=lambda it: gains[it], default=None)


def _lead(compared: Sequence[Method]) -> list[Method]:
    """The combinations on zero-shot logits, or else on the first head there is."""
    fair = [it for it in compared if it.is_fair and it.gain]
    heads = [it.head for it in fair]
    head = ZERO_SHOT if ZERO_SHOT in heads else next(iter(heads), None)
    return [it for it in fair if it.head == head]


def _headline(best: Method, count: int) -> Html:
    assert best.gain
    gain, where = _points(best.gain), _on(best.gain, best.least)
    if best.gain.low is not None and best.gain.low > 0:
        return html(
            "Combine them: {} of all {} backbones gains {} over the one backbone that is best on "
            "the support, {}.",
            named(best.name),
            count,
            gain,
            where,
        )
    if best.gain.value > 0:
        return html(
            "No combination is surely better than one backbone: {} leads the one that is best on "
            "the support by {}, {}, which may be chance.",
            named(best.name),
            gain,
            where,
        )
    return html(
        "One backbone is enough: no combination gains over the one that is best on the support. "
        "{} comes closest, {} from it, {}.",
        named(best.name),
        gain,
        where,
    )


def _alone(alone: Sequence[Backbone], bound: Mean | None) -> Html:
    best = alone[0]
    said = html(
        "{} is the best backbone alone, with {}", named(best.name), _accuracy(best.accuracy)
    )
    if len(alone) == 1 or bound is None:
        return html("{}. There is no other to combine it with.", said)
    return html(
        "{}. Knowing for each image which of the {} backbones to trust would give {}.",
        said,
        len(alone),
        f"{percent(bound.value)} %",
    )


def _of_backbones(alone: Sequence[Backbone]) -> Iterator[Html]:
    if len(alone) < 2:
        return
    best, second = alone[:2]
    sets = best.accuracy.datasets
    first = "" if sets == 1 else f", the best on {best.best_on} of {sets} datasets"
    yield html(
        "<b>Backbones.</b> {} has {}{}; {} comes next with {} %. Both are chosen on these very "
        "images.",
        named(best.name),
        _accuracy(best.accuracy),
        first,
        named(second.name),
        percent(second.accuracy.value),
    )


def _how_sure(best: Method, rivals: int) -> Iterator[Html]:
    assert best.gain
    if best.gain.datasets > 1 and best.least:
        dataset, least = best.least
        yield html(
            "<b>How sure.</b> {} gains beyond its interval on {} of {} datasets and loses beyond "
            "it on {}. It gains least on {}: {} points.",
            named(best.name),
            best.better,
            best.gain.datasets,
            best.worse or "none",
            named(dataset),
            f"{100 * least:+.1f}",
        )
    if rivals > 1:
        yield html(
            "<b>Chosen among {}.</b> It is the best of {} combinations on these very images, "
            "which flatters it. On new images one that is close may be better.",
            rivals,
            rivals,
        )


def _tested(best: Method, paired: pl.DataFrame | None) -> Iterator[Html]:
    """What the test image by image says of the best combination and the chosen backbone."""
    if paired is None:
        return
    rows = main_part(paired, of_means=True).filter(first=CHOSEN, second=best.name, head=best.head)
    for row in rows.head(1).iter_rows(named=True):
        both = not is_nan(row["both_low"])
        low, high = (-row[f"{'both' if both else 'ci'}_{end}"] for end in ("high", "low"))
        yield html(
            "<b>Tested image by image</b>, {} leads by {} points ({}, over {}). p is {} after "
            "Holm's correction for all methods: {}.",
            named(best.name),
            f"{-100 * row['difference']:.1f}",
            interval_text(low, high),
            "draws and images" if both else "images",
            f"{row['p_holm']:.2g}",
            "a tie" if row["tie"] else "no tie",
        )


def _without_labels(best: Method, lead: Sequence[Method]) -> Iterator[Html]:
    if best.shots is None:
        yield html("<b>Labels.</b> {} learns nothing, so it needs none.", named(best.name))
        return
    free = {it: it.gain for it in lead if it.shots is None and it.gain}
    if free:
        cheap = max(free, key=lambda it: free[it].value)
        yield html(
            "<b>Labels.</b> {} is fitted on {}. Without any label {} gains {}.",
            named(best.name),
            _fitted_on(best.shots),
            named(cheap.name),
            _points(free[cheap]),
        )


def _fitted_on(shots: str) -> str:
    """ "16 labelled images of each class", or "the whole support"."""
    number, is_number, _ = shots.partition(" shot")
    return f"{number} labelled images of each class" if is_number else shots


def _costs(alone: Sequence[Backbone], gflops: Mapping[str, float]) -> Iterator[Html]:
    if any(it.name not in gflops for it in alone) or len(alone) < 2:
        return
    total, single = sum(gflops[it.name] for it in alone), gflops[alone[0].name]
    if single > 0:
        yield html(
            "<b>Cost.</b> All {} backbones together take {} GFLOPs an image, {} times as much as "
            "{} alone.",
            len(alone),
            _gflops(total),
            f"{total / single:.1f}",
            named(alone[0].name),
        )


def _gflops(value: float) -> str:
    """Three digits, of large numbers all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _of_cascade(frame: pl.DataFrame | None) -> Iterator[Html]:
    if frame is None:
        return
    part = main_part(frame).filter(rule=WITHIN, ensemble=PLAIN)
    accuracy, cost = (_of_metric(part, metric) for metric in ("acc1", "mean_gflops"))
    if accuracy and cost:
        yield html(
            "<b>Stopping early.</b> A cascade that asks the next backbone only where it is not "
            "sure reaches {} for {} GFLOPs an image.",
            _accuracy(accuracy),
            _gflops(cost.value),
        )


def _of_metric(part: pl.DataFrame, metric: str) -> Mean | None:
    return mean_over(part.filter(metric=metric).select("value", "ci_low", "ci_high").rows())


def _of_oracle(bound: Mean | None, headroom: Mean | None, count: int) -> Iterator[Html]:
    if bound and headroom:
        yield html(
            "<b>Limit.</b> At least one of the {} backbones is right on {} % of the images: {} "
            "over the best of each dataset. No choice among their answers goes further.",
            count,
            percent(bound.value),
            _points(headroom),
        )


def _what_to_run(alone: Sequence[Backbone]) -> Iterator[Html]:
    if len(alone) > 1:
        yield Html(
            "<b>Combinations</b> are not on this page. To measure them: "
            "<code>clipsyn evaluate STORE -o results.parquet</code>, and then "
            "<code>clipsyn report STORE --results results.parquet -o report.html</code>."
        )


def _bars(
    alone: Sequence[Backbone], chosen: Method | None, best: Method | None, bound: Mean | None
) -> Iterator[Bar]:
    yield Bar("best backbone, in hindsight", named(alone[0].name), alone[0].accuracy, "single")
    if chosen:
        yield Bar("backbone chosen on the support", "", chosen.accuracy, "chosen")
    if best:
        yield Bar("best combination", named(best.name), best.accuracy, "combined")
    if bound:
        yield Bar("a perfect choice for each image", named(ORACLE), bound, ORACLE)


def _on(mean: Mean, least: tuple[str, float] | None) -> Html:
    if mean.datasets == 1:
        return html("on {}", named(least[0])) if least else Html("on one dataset")
    return html("on average over {} datasets", mean.datasets)


def _points(mean: Mean) -> str:
    between = interval_text(mean.low, mean.high)
    return f"{100 * mean.value:.1f} points" + ("" if between == NOTHING else f" ({between})")


def _accuracy(mean: Mean) -> str:
    between = interval_text(mean.low, mean.high)
    over = "" if mean.datasets == 1 else f", mean of {mean.datasets} datasets"
    return f"{percent(mean.value)} %" + ("" if between == NOTHING else f" ({between}{over})")
