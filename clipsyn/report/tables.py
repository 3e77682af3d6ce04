"""The tables of a page: backbones, datasets and methods, each on one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from clipsyn.evaluation.methods import CHOSEN, ORACLE
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.results.view import WHERE, best_single, singles
from clipsyn.evaluation.tables import BEST, INDEPENDENT
from clipsyn.report.choice import Choice
from clipsyn.report.evidence import Evidence
from clipsyn.report.grids import (
    Cell,
    Grid,
    count,
    decimal,
    grid_of_lines,
    points,
    share,
    share_of,
    words,
)
from clipsyn.report.html import Html, named
from clipsyn.report.means import Mean, main_part
from clipsyn.report.standings import HINDSIGHT, Method, Numbers, Place, backbones
from clipsyn.show.titles import common, title, where

_KNOWS = {
    BEST: "the backbone that is best on these very images",
    ORACLE: "right where at least one backbone is",
    INDEPENDENT: "the oracle, if errors were independent within each class",
    CHOSEN: "the backbone that is best on the support",
}


def backbone_grid(evidence: Evidence) -> Grid:
    """A line for each backbone: how good it is alone, and what it brings to the others."""
    alone = backbones(evidence.frames["zeroshot"])
    sets = max(it.accuracy.datasets for it in alone)
    brings = _of_oracle(evidence.frames.get("oracle"))
    ranges = _ranges(evidence.frames["zeroshot"])
    lines = []
    for it in alone:
        line = {"backbone": words(it.name), "top-1, %": share_of(it.accuracy, best=it is alone[0])}
        if sets > 1:
            lowest, highest = map(share, ranges[it.name])
            line |= {"best on": count(it.best_on), "lowest": lowest, "highest": highest}
        line["only it right, %"] = share(brings.get((it.name, "unique_correct")))
        line["Shapley, points"] = share(brings.get((it.name, "shapley")))
        line["GFLOPs"] = decimal(evidence.gflops.get(it.name), 2)
        lines.append(line.items())
    over = f", means over {sets} datasets" if sets > 1 else ""
    note = (
        "Shapley: what the backbone adds to the oracle, on average over all orders in which "
        "backbones may join. Intervals are of 95 %."
    )
    return grid_of_lines(f"Backbones alone, zero-shot{over}", lines, note)


def _of_oracle(frame: pl.DataFrame | None) -> dict[tuple[str, str], float]:
    """Means over datasets of what the oracle says of each backbone, by its name and the metric."""
    if frame is None:
        return {}
    rows = singles(main_part(frame)).filter(pl.col("value").is_not_nan())
    means = rows.group_by("backbone", "metric").agg(pl.col("value").mean())
    return {(name, metric): value for name, metric, value in means.iter_rows()}


def _ranges(frame: pl.DataFrame) -> dict[str, tuple[float, float]]:
    rows = singles(main_part(frame)).filter(pl.col("value").is_not_nan(), metric="acc1")
    value = pl.col("value")
    ends = rows.group_by("backbone").agg(low=value.min(), high=value.max())
    return {name: (low, high) for name, low, high in ends.iter_rows()}


def dataset_grid(evidence: Evidence, choice: Choice | None) -> Grid:
    """A line for each dataset: its best backbone, the oracle, and the combination of the answer."""
    part = main_part(evidence.frames["zeroshot"])
    same = common(part, WHERE)
    keys = [name for name in WHERE if name not in same] or ["dataset"]
    lines = []
    for place, group in part.group_by(WHERE, maintain_order=True):
        row = best_single(group)
        bounds = group.filter(ensemble=ORACLE)
        dataset, split, perturbation = map(str, place[:3])
        lines.append(
            [
                ("dataset", words(title(*where(row, keys)))),
                ("images", count(row["n"])),
                ("best backbone", words(row["backbone"])),
                ("top-1, %", share_of(_mean(row))),
                ("oracle, %", share_of(_of_metric(bounds, "acc1"))),
                ("oracle's lead", share_of(_of_metric(bounds, "gain"), signed=True)),
                *(_judged(choice, (dataset, split, perturbation)) if choice else ()),
            ]
        )
    about = title(*where(part.row(0, named=True), [name for name in same if name != "dataset"]))
    note = "Leads and gains are in points; gains are over the backbone that is best on the support."
    if choice and not choice.name:
        note += " combination: the one that gains most on other datasets."
    return grid_of_lines(f"Datasets, {about}", lines, note)


def _judged(choice: Choice, place: Place) -> Iterator[tuple[str, Cell]]:
    """What the answer is made of at one place; under its name where all datasets have the same."""
    judged = choice.judged
    if choice.unseen and not choice.name:
        yield "combination", words(choice.unseen.names.get(place[0]))
    else:
        yield choice.name or "combination", share_of(_here(judged.accuracies, place))
    yield "its gain", share_of(_here(judged.gains, place), signed=True)


def _here(numbers: Mapping[Place, Numbers], place: Place) -> Mean | None:
    return Mean(*numbers[place], 1) if place in numbers else None


def _mean(row: Row) -> Mean:
    return Mean(row["value"], row["ci_low"], row["ci_high"], 1)


def _of_metric(rows: pl.DataFrame, metric: str) -> Mean | None:
    found = rows.filter(metric=metric)
    return _mean(found.row(0, named=True)) if len(found) else None


def method_grid(methods: Iterable[Method]) -> Grid:
    """A line for each method, with what it gains over the backbone chosen on the support."""
    shown = list(methods)
    several = len({it.head for it in shown}) > 1
    sets = max(it.accuracy.datasets for it in shown)
    best = max((it.accuracy.value for it in shown if it.name not in HINDSIGHT), default=0)
    lines = []
    for it in shown:
        fair = it.name not in HINDSIGHT
        line = {"method": Cell(_method_name(it))} | ({"head": words(it.head)} if several else {})
        line["fitted on"] = words(it.shots or ("nothing" if fair else "test labels"))
        line["top-1, %"] = share_of(it.accuracy, best=fair and it.accuracy.value == best)
        line["gain, points"] = share_of(it.gain, signed=True)
        if sets > 1:
            line["better on"] = count(it.better if it.gain else None)
            line["worse on"] = count(it.worse if it.gain else None)
            line["least gain"] = points(it.least[1] if it.least and it.gain else None)
        lines.append(line.items())
    note = (
        "gain: over the backbone that is best on the support. better, worse: datasets on which "
        "the gain is beyond its 95 % interval. Methods fitted on test labels are bounds, not "
        "choices."
    )
    over = f", means over {sets} datasets" if sets > 1 else ""
    return grid_of_lines(f"Methods{over}", lines, note)


def _method_name(method: Method) -> Html:
    about = _KNOWS.get(method.name)
    shown = named(method.name)
    return Html(f"{shown}<small>{about}</small>") if about else shown
