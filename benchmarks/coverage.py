"""How often intervals hold the truth, and how often tests see a difference where there is none.

    python benchmarks/coverage.py

Images, labels and scores of three backbones are drawn again and again, and what the tool prints of
them is compared with the same numbers of many images. `a` is better than `b` and `c`, which are
equal. With copies, every third image is there three times. Backbones are right on 70, 93 and 99 %
of the images. Intervals are to hold the truth in 95 %; conservative ones do in more. Where few
images are wrong, some are not printed; a trial without one counts as no miss, and has a star.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import click
import numpy as np
import polars as pl
from common import start
from numpy.typing import NDArray

from clipsyn.analyses.diversity.measure import numbers as of_diversity
from clipsyn.analyses.oracle.measure import numbers as of_oracle
from clipsyn.analyses.predicted import Predicted
from clipsyn.analyses.representation.measures import similarities
from clipsyn.analyses.robustness.measure import numbers as of_robustness
from clipsyn.analyses.robustness.trials import Trial, conditions
from clipsyn.analyses.selective.measures import kept_of, risk_coverage, told_apart
from clipsyn.evaluation.paired import Sides, difference
from clipsyn.evaluation.results.frame import Measured, share
from clipsyn.evaluation.score import Scorer
from clipsyn.methods.numerics.metrics import Score, judge
from clipsyn.names import FeatureKey
from clipsyn.show.tables import show
from clipsyn.stats.differences import holm
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import (
    Interval,
    groups_of,
    jackknife_interval,
    loss_interval,
    pearson,
    spearman,
    standard_error,
    wilson_interval,
)
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable

NAMES, CLASSES, LARGE = ("a", "b", "c"), 20, 4_000
Scores = NDArray[np.float32]  # (backbone, sample, class)
Found = dict[str, tuple[float, Interval | None]]


class Drawn(NamedTuple):
    labels: NDArray[np.int32]
    images: Images
    scores: Scores  # on clean images
    worse: Scores  # perturbed


def draw(rng: np.random.Generator, n: int, easy: float, copied: bool) -> Drawn:
    """n distinct images. easy: how far the true class is ahead."""
    labels = rng.integers(0, CLASSES, n).astype(np.int32)
    shared, own = rng.normal(size=(1, n, CLASSES)), rng.normal(size=(3, n, CLASSES))
    quality = easy * np.array([1.25, 1, 1])[:, None, None] * np.eye(CLASSES)[labels]
    scores = (quality + 0.8 * shared + 0.8 * own).astype(np.float32)
    worse = (scores + 0.7 * rng.normal(size=scores.shape)).astype(np.float32)
    rows = np.repeat(np.arange(n), rng.choice([1, 1, 3], n) if copied else 1)
    return Drawn(labels[rows], Images.of(rows), 2 * scores[:, rows], 2 * worse[:, rows])


def printed(of: Drawn) -> Found:
    """Every kind of number that the tool prints about images, with its interval."""
    found: Found = {}
    for name, measured in (*_evaluated(of), *_analysed(of), *_selected(of)):
        found.setdefault(name, (measured.score.value, measured.interval))
    return found


def _evaluated(of: Drawn) -> Iterator[tuple[str, Any]]:
    singles = {name: judge(it, of.labels) for name, it in zip(NAMES, of.scores, strict=True)}
    scorer = Scorer(of.labels, singles, CLASSES, of.images)
    both = judge(of.scores[:2].mean(axis=0), of.labels)
    for judged in singles.values():
        for measured in scorer.metrics(judged):
            yield measured.metric, measured
    for measured in scorer.ensemble(both, scorer.right["a"]):
        yield measured.metric, measured
    for measured in (*scorer.oracle(), *scorer.diversity()):
        yield f"oracle {measured.metric}", measured


def _analysed(of: Drawn) -> Iterator[tuple[str, Any]]:
    clean, worse = (_group(of, it, at) for it, at in ((of.scores, "clean"), (of.worse, "fog-1")))
    for places, measured in of_diversity(clean):
        if measured.metric != "mcnemar_p" or places == (1, 2):
            yield measured.metric, measured
    for _, ensemble, measured in of_oracle(clean, False):
        yield f"{ensemble or 'single'} {measured.metric}", measured
    first, *others = conditions([Trial.of([clean, worse])], 2)
    for condition in others:
        for _, ensemble, measured in of_robustness(NAMES, condition, first):
            yield f"robustness {ensemble or 'single'} {measured.metric}", measured


def _group(of: Drawn, scores: Scores, perturbation: str) -> Predicted:
    """As it is read from a store."""
    marks = (of.images.number + 1).astype("<u8")[:, None].view(np.uint8)
    content = np.pad(marks, ((0, 0), (0, 24)))
    ids, classes = tuple(map(str, range(len(of.labels)))), tuple(map(str, range(CLASSES)))
    samples = SampleTable("set", "test", ids, of.labels, content, classes)
    keys = tuple(FeatureKey("set", "test", perturbation, name) for name in NAMES)
    group = Predicted(cast(FeatureStore, None), samples, keys, "own")
    vars(group).update(predictions=scores.argmax(axis=2).astype(np.uint16), fingerprints={})
    return group


def _selected(of: Drawn) -> Iterator[tuple[str, Any]]:
    judged = judge(of.scores[0], of.labels)
    right, sure = judged.prediction == of.labels, judged.confidence.astype(np.float64)
    n, half = len(right), np.array([0.5])
    part = of.images.effective / n
    wrong = np.count_nonzero(~right) * part
    whole, group = risk_coverage(sure, right, half), groups_of(of.images)
    rest = [group != number for number in range(group.max() + 1)]
    each = np.array([risk_coverage(sure[some], right[some], np.empty(0))[:3] for some in rest])
    for name, without in zip(("aurc", "e_aurc", "augrc"), each.T.astype(float), strict=True):
        value, error = getattr(whole, name), float(standard_error(without))
        yield (
            f"selective {name}",
            _measured(value, loss_interval(value, error, wrong, len(without) - 1)),
        )
    kept, accuracy = kept_of(n, half).item() * part, whole.accuracy.item()
    yield "selective accuracy", _measured(accuracy, wilson_interval(accuracy * kept, kept))
    here = sure >= 0.6
    yield "selective acc1", share("", int(right[here].sum()), of.images.take(here))
    strange = np.random.default_rng(n).beta(4, 2, n)  # confidences on images of other classes
    other = groups_of(Images.distinct(n), 1)
    aurocs = [told_apart(sure[group != at], strange[other != at])[0] for at in range(20)]
    auroc, _ = told_apart(sure, strange)
    yield "selective auroc", _measured(auroc, jackknife_interval(auroc, np.array(aurocs)))


def _measured(value: float, interval: Interval) -> Measured:
    return Measured("", Score(value, 0), interval)


def coverage(n: int, easy: float, copied: bool, truth: Found, trials: int) -> dict[str, str]:
    """By number: in how many of the trials its interval holds the truth, in %."""
    rng, every = np.random.default_rng([n, copied]), defaultdict[str, list[Any]](list)
    for _ in range(trials):
        for name, found in printed(draw(rng, n, easy, copied)).items():
            every[name].append(found)
    shown = {}
    for name, numbers in every.items():
        there = [ends for _, ends in numbers if ends is not None and not math.isnan(ends.low)]
        aim = truth[name][0]
        if name == "mcnemar_p":
            shown["mcnemar_p < 0.05"] = _percent([value < 0.05 for value, _ in numbers])
        elif there:
            misses = sum(not low - 1e-9 <= aim <= high + 1e-9 for low, high in there)
            star = "*" if len(there) < 0.9 * trials else ""
            shown[name] = f"{100 * (1 - misses / trials):.0f}{star}"
    return shown


def _percent(found: Sequence[bool]) -> str:
    return f"{100 * np.mean(found):.0f}"


def truth_of(easy: float) -> Found:
    rng, found = np.random.default_rng(1), defaultdict[str, list[float]](list)
    for _ in range(30):
        for name, (value, _) in printed(draw(rng, LARGE, easy, False)).items():
            found[name].append(value)
    return {name: (float(np.mean(values)), None) for name, values in found.items()}


def paired_rates(n: int, copied: bool, trials: int) -> dict[str, str]:
    """Of methods fitted on three draws, and on two datasets: there is no difference."""
    rng, hits = np.random.default_rng([n, copied, 7]), defaultdict[str, list[bool]](list)
    for _ in range(trials):
        sets = [_fitted(rng, n, copied, spread=0.1) for _ in range(2)]
        pairs = [sides for sides, _ in sets]
        images = [shown for _, shown in sets]
        far = Images(images[1].number + images[0].count, images[0].count + images[1].count)
        one = difference(pairs[:1], images[:1])
        mean = difference(pairs, [images[0], far])
        hits["over draws and images"].append(one["both_low"] <= 0 <= one["both_high"])
        hits["over draws and images, 2 sets"].append(mean["both_low"] <= 0 <= mean["both_high"])
        hits["p < 0.05, three draws"].append(one["p"] < 0.05)
        hits["p < 0.05, three draws, mean of 2 sets"].append(mean["p"] < 0.05)
        still = [_fitted(rng, n, copied, spread=0.0) for _ in range(2)]
        alone = [
            difference([Sides(it.first[:1], it.second[:1], False)], [shown])["p"]
            for it, shown in still
        ]
        hits["p (Holm) < 0.05 of any of 2"].append(bool((holm(np.array(alone)) < 0.05).any()))
    return {name: _percent(found) for name, found in hits.items()}


def _fitted(
    rng: np.random.Generator, n: int, copied: bool, *, spread: float
) -> tuple[Sides, Images]:
    """spread: of what the methods of a draw get right."""
    rows = np.repeat(np.arange(n), rng.choice([1, 1, 3], n) if copied else 1)
    hard = rng.normal(size=n) + rng.normal(0, spread, (2, 3, 1)) + 0.7 * rng.normal(size=(2, 3, n))
    first, second = (hard > -0.5)[:, :, rows]
    return Sides(first, second, True), Images.of(rows)


def over_datasets(n: int, trials: int) -> dict[str, str]:
    rng, hits = np.random.default_rng(n), defaultdict[str, list[bool]](list)
    for _ in range(trials):
        one = rng.normal(size=n)
        other = 0.6 * one + 0.8 * rng.normal(size=n)
        for name, found, truth in (
            ("Pearson", pearson(one, other), 0.6),
            ("Spearman", spearman(one, other), 6 / math.pi * math.asin(0.3)),
        ):
            hits[name].append(found.interval.low <= truth <= found.interval.high)
    return {name: _percent(found) for name, found in hits.items()}


def similarity(n: int, copied: bool, trials: int) -> dict[str, str]:
    rng = np.random.default_rng([n, copied, 3])

    def embedded(images: int) -> list[NDArray[np.float32]]:
        shared = rng.normal(size=(images, 6))
        sides = [shared @ mix + rng.normal(size=(images, 16)) for mix in mixes]
        return [side.astype(np.float32) for side in sides]

    mixes = np.random.default_rng(0).normal(size=(2, 6, 16))
    truth = similarities(embedded(60_000))["cka"][0, 0, 1]
    hits = []
    for _ in range(trials):
        rows = np.repeat(np.arange(n), rng.choice([1, 1, 3], n) if copied else 1)
        sides = [side[rows] for side in embedded(n)]
        found = similarities(sides, images=Images.of(rows))["cka"]
        _, low, high = found[:, 0, 1]
        hits.append(bool(low <= truth <= high))
    return {"cka": _percent(hits)}


@click.command(help=__doc__)
@click.option("--trials", default=200, show_default=True)
def main(trials: int) -> None:
    start("Coverage of intervals and level of tests, in %")
    kinds = [(60, False), (200, False), (200, True), (1_000, False)]
    heads = [f"{n:,}{' and copies' if copied else ''}" for n, copied in kinds]
    for easy in (2.2, 3.2, 4.2):
        truth = truth_of(easy)
        columns = [coverage(n, easy, copied, truth, trials) for n, copied in kinds]
        _show(f"top-1 {truth['acc1'][0]:.2f}", heads, columns)
    others = [paired_rates(*kind, trials) | similarity(*kind, trials) for kind in kinds]
    _show("pairs of methods; embeddings", heads, others)
    sets = (7, 21)
    _show("datasets", [str(n) for n in sets], [over_datasets(n, 10 * trials) for n in sets])


def _show(what: str, heads: Sequence[str], columns: Sequence[dict[str, str]]) -> None:
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [
        {what: name, **{head: of.get(name, "-") for head, of in zip(heads, columns, strict=True)}}
        for name in names
    ]
    click.echo(show(pl.DataFrame(rows)) + "\n")


if __name__ == "__main__":
    main()
