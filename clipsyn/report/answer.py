"""The answer in a few sentences: which backbones, which combination, what it gains, how sure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from clipsyn.analyses.cascade import PLAIN, WITHIN
from clipsyn.frames import is_nan
from clipsyn.protocol.methods import CHOSEN
from clipsyn.report.bars import Bar, bars
from clipsyn.report.choice import Choice, Unseen, choose
from clipsyn.report.evidence import EVALUATE, PAIRED, Evidence
from clipsyn.report.html import Html, html, listed, named
from clipsyn.report.means import Mean, main_part, mean_over
from clipsyn.report.standings import Backbone, Method, backbones, methods, oracle
from clipsyn.show.numbers import NOTHING, interval_text, p_value, percent


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
    choice = choose(compared, evidence.sharing)
    if choice is None:
        facts = [
            *_of_backbones(alone),
            *_of_oracle(bound, headroom, len(alone)),
            *_what_to_run(alone),
        ]
        return Answer(_alone(alone, bound), tuple(facts), tuple(bars(alone, None, None, bound)))
    free = choose([it for it in choice.candidates if it.shots is None], evidence.sharing)
    chosen = next((it for it in compared if (it.head, it.name) == (choice.best.head, CHOSEN)), None)
    facts = [
        *_of_backbones(alone),
        *_how_chosen(choice),
        *_how_sure(choice),
        *_tested(choice, evidence.frames.get(PAIRED)),
        *_without_labels(choice.best, free),
        *_costs(alone, evidence.gflops),
        *_of_cascade(evidence.frames.get("cascade")),
        *_of_oracle(bound, headroom, len(alone)),
    ]
    return Answer(
        _headline(choice, len(alone)), tuple(facts), tuple(bars(alone, chosen, choice, bound))
    )


def _headline(choice: Choice, count: int) -> Html:
    if choice.unseen:
        return _headline_of_unseen(choice.best, choice.unseen, count)
    best = choice.best
    assert best.gain
    gain, where = _points(best.gain), _on(best.gain, best.least)
    if _is_sure(best.gain):
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


def _headline_of_unseen(best: Method, unseen: Unseen, count: int) -> Html:
    assert unseen.gain
    gain, where = _points(unseen.gain), _on(unseen.gain, unseen.least)
    if _is_sure(unseen.gain):
        return html(
            "Combine all {} backbones with {}: a combination chosen on other datasets gains "
            "{} over the one backbone that is best on the support, {}.",
            count,
            named(best.name),
            gain,
            where,
        )
    if unseen.gain.value > 0:
        return html(
            "Combining is not surely better than one backbone: a combination chosen on "
            "other datasets leads the one that is best on the support by {}, {}, which may be "
            "chance.",
            gain,
            where,
        )
    return html(
        "One backbone is enough: a combination chosen on other datasets differs from the "
        "one that is best on the support by {}, {}.",
        gain,
        where,
    )


def _is_sure(gain: Mean) -> bool:
    return gain.low is not None and gain.low > 0


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


def _how_chosen(choice: Choice) -> Iterator[Html]:
    """What the combination was chosen on, and from how many."""
    rivals = len(choice.candidates)
    if choice.unseen:
        yield html(
            "<b>Chosen on other datasets.</b> Each dataset is judged with the one of {} "
            "combinations that gains most on the others, but for those that share images with it: "
            "{}.{}",
            rivals,
            _taken(choice.unseen),
            "" if choice.name else _in_hindsight(choice.best),
        )
    elif rivals > 1:
        yield html(
            "<b>Chosen among {}.</b> It is the best of {} combinations on these very images, "
            "which flatters it. On new images one that is close may be better.",
            rivals,
            rivals,
        )
    if choice.lacking:
        names = listed([it.name for it in choice.lacking])
        yield html("<b>Left aside</b>, since not all datasets have them: {}.", names)


def _taken(unseen: Unseen) -> Html:
    """ "nlc (5 times) and log-avg (once)"."""
    return listed([f"{name} ({f'{n} times' if n > 1 else 'once'})" for name, n in unseen.times])


def _in_hindsight(best: Method) -> Html:
    assert best.gain
    return html(
        " In hindsight {} gains most, {}, but that choice has seen these very images, which "
        "flatters it.",
        named(best.name),
        _points(best.gain),
    )


def _how_sure(choice: Choice) -> Iterator[Html]:
    judged = choice.judged
    assert judged.gain
    if judged.gain.datasets > 1 and judged.least:
        dataset, least = judged.least
        yield html(
            "<b>How sure.</b> {} gains beyond its interval on {} of {} datasets and loses beyond "
            "it on {}. It gains least on {}: {} points.",
            _name(choice, "The choice"),
            judged.better,
            judged.gain.datasets,
            judged.worse or "none",
            named(dataset),
            f"{100 * least:+.1f}",
        )


def _name(choice: Choice, otherwise: str) -> Html:
    return named(choice.name) if choice.name else Html(otherwise)


def _tested(choice: Choice, paired: pl.DataFrame | None) -> Iterator[Html]:
    """What the test image by image says of the best combination and the chosen backbone."""
    if paired is None:
        return
    best = choice.best
    rows = main_part(paired, of_means=True).filter(first=CHOSEN, second=best.name, head=best.head)
    for row in rows.head(1).iter_rows(named=True):
        both = not is_nan(row["both_low"])
        low, high = (-row[f"{'both' if both else 'ci'}_{end}"] for end in ("high", "low"))
        yield html(
            "<b>Tested image by image</b>, {}{} leads by {} points ({}, over {}). p is {} after "
            "Holm's correction for all methods: {}.",
            named(best.name),
            "" if choice.name else ", taken on every dataset,",
            f"{-100 * row['difference']:.1f}",
            interval_text(low, high),
            "draws and images" if both else "images",
            p_value(row["p_holm"]),
            "a tie" if row["tie"] else "no tie",
        )


def _without_labels(best: Method, free: Choice | None) -> Iterator[Html]:
    if best.shots is None:
        yield html("<b>Labels.</b> {} learns nothing, so it needs none.", named(best.name))
    elif free and free.judged.gain:
        yield html(
            "<b>Labels.</b> {} is fitted on {}. Without any label {} gains {}.",
            named(best.name),
            _fitted_on(best.shots),
            _name(free, "such a choice"),
            _points(free.judged.gain),
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


def _on(mean: Mean, least: tuple[str, float] | None) -> Html:
    if mean.datasets == 1:
        return html("on {}", named(least[0])) if least else Html("on one dataset")
    return html("on average over {} datasets", mean.datasets)


def _points(mean: Mean) -> Html:
    between = interval_text(mean.low, mean.high)
    shown = "" if between == NOTHING else html(" ({})", _whole(between))
    return html("{}{}", _whole(f"{100 * mean.value:.1f} points"), shown)


def _accuracy(mean: Mean) -> Html:
    between = interval_text(mean.low, mean.high)
    over = "" if mean.datasets == 1 else f", mean of {mean.datasets} datasets"
    shown = "" if between == NOTHING else html(" ({}{})", _whole(between), over)
    return html("{}{}", _whole(f"{percent(mean.value)} %"), shown)


def _whole(text: str) -> Html:
    """What no line ends in."""
    return html('<span class="whole">{}</span>', text)
