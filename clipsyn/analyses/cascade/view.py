"""Tables of cascades: what backbones cost, accuracy against mean cost, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from clipsyn.analyses.cascade import GIVEN, WITHIN, CascadeSettings
from clipsyn.analyses.cascade.measures import most_accurate, pareto_front
from clipsyn.evaluation.results.frame import (
    ALONE,
    WHERE,
    Numbers,
    Row,
    having,
    named_parts,
    numbers,
    numbers_by,
    over_datasets,
    refuse_several,
    singles,
)
from clipsyn.settings import SINGLE
from clipsyn.show.figure import COLUMN, INK, Axes, Figure, Look, key, marks, needed
from clipsyn.show.table import Cell, Table
from clipsyn.show.tables import Line, Measure, measures_table, notes_beside
from clipsyn.show.titles import ShortNames, mean_over, shortened, subject, title, where

_COSTS = (
    Measure("mean_gflops", "mean_gflops", "GFLOPs", percent=False, optional=True),
    Measure("image_params_m", "image_params_m", "parameters\nM", percent=False, optional=True),
    Measure("encode_ms", "encode_ms", "ms", percent=False, optional=True),
)
_COST = (Measure("GFLOPs", "mean_gflops", percent=False), Measure("%", "cost_share"))
_TOP = Measure("top-1", "acc1")
_OVER_ALL, _OVER_BEST = Measure("vs all", "gain_over_full"), Measure("vs best", "gain")
_ON_SUPPORT = Measure("support", "support_acc1")
_NOTES = notes_beside(__file__)


def tables(frame: pl.DataFrame, settings: CascadeSettings) -> dict[str, Table]:
    """Tables of what `clipsyn.analyses.cascade.measure` returns, by name.

    "costs" of the backbones; "curve", accuracy against mean cost at each threshold; "front". With
    several groups of dataset, split, perturbation and prompt set these are means over them,
    "chosen" has a line for each.
    """
    groups = [_Group.of(part) for part in named_parts(frame).values()]
    if not groups:
        return {}
    names = shortened(list(dict.fromkeys(it for group in groups for it in group.order)))
    shown = {"costs": _costs(frame, names)}
    if len(groups) > 1:
        keys = ["dataset", *(key for key in WHERE[1:] if frame[key].n_unique() > 1)]
        shown["chosen"] = _chosen(groups, keys, names)
        about = title(mean_over(frame, WHERE), names.phrase)
    else:
        best = f"best on support {names.short[groups[0].best]}"
        about = title(*where(groups[0].row, [*WHERE, "n"]), names.phrase, best)
    within = f"within-{settings.within_points:g}"
    shown["curve"] = replace(_curve(groups, within), title=about)
    shown["front"] = replace(_front(groups, names, within), title=about)
    return shown


def _costs(frame: pl.DataFrame, names: ShortNames) -> Table:
    """A line for each backbone, and their sum: means over cells."""
    over_cells = singles(frame).group_by("backbone", "metric").agg(pl.col("value").mean())
    known = numbers_by(over_cells, "backbone")
    lines: list[Line] = [({"backbone": names.cell(name)}, known[name]) for name in names.short]
    sums = over_cells.group_by("metric").agg(pl.col("value").sum(), n=pl.len())
    lines.append(({"backbone": Cell("all", "all")}, numbers(sums.filter(n=len(names.short)))))
    return measures_table(lines, _COSTS, notes=_NOTES["costs"])


@dataclass(frozen=True)
class _Group:
    """One dataset, split, perturbation and prompt set.

    frame: its rows, and those of shares of the cost. What tells lines apart, whatever the order of
    backbones in a group: `given`, the threshold that the settings give; `members`, the backbones
    sorted.
    """

    frame: pl.DataFrame
    order: tuple[str, ...]  # backbones as a cascade runs them

    @classmethod
    def of(cls, part: pl.DataFrame) -> _Group:
        order = part.filter(pl.col("rule").is_not_null())["backbones"][0].to_list()
        costs = part.filter(metric="mean_gflops")
        whole = math.fsum(singles(costs)["value"])
        shares = costs.with_columns(metric=pl.lit("cost_share"), value=pl.col("value") / whole)
        rows = pl.concat([part, shares]).with_columns(
            given=pl.when(pl.col("rule") == GIVEN).then("threshold"),
            members=pl.col("backbones").list.sort(),
        )
        return cls(rows, tuple(order))

    @property
    def row(self) -> Row:
        """One of its rows."""
        return self.frame.row(0, named=True)

    @property
    def best(self) -> str:
        """The backbone that was best on the support."""
        alone = numbers_by(singles(self.frame), "backbone")
        accuracies, costs = (
            {name: of[metric]["value"] for name, of in alone.items()}
            for metric in ("support_acc1", "mean_gflops")
        )
        return most_accurate(accuracies, costs)


def _means(parts: Sequence[pl.DataFrame], *by: str) -> dict[Any, Numbers]:
    """What all parts have, in order of the first: means over these by metric, as "exit 2" by stage.

    by: columns that tell lines apart. Rows of one part keep their intervals. A cascade that is
    shorter in one part has no exit at a later stage there.
    """
    stage = pl.when(pl.col("stage").is_null()).then("metric")
    means = (
        pl.concat(parts)
        .with_columns(metric=stage.otherwise(pl.format("{} {}", "metric", "stage")))
        .group_by(*by, "metric", maintain_order=True)
        .agg(
            pl.col("value").sum() / len(parts),
            pl.col("ci_low", "ci_high", "threshold").first(),
            parts=pl.len(),
        )
    )
    lines = numbers_by(means, *by)
    return {key: of for key, of in lines.items() if of["acc1"]["parts"] == len(parts)}


def _chosen(groups: Sequence[_Group], keys: Sequence[str], names: ShortNames) -> Table:
    """A line for each group and ensemble: its cascade with the threshold that was chosen."""
    lines: list[Line] = []
    for group in groups:
        about = {key: group.row[key] for key in keys}
        for ensemble, of in _means([group.frame.filter(rule=WITHIN)], "ensemble").items():
            choice = {"ensemble": ensemble, "θ": of["acc1"]["threshold"]}
            lines.append((about | choice | {"best": names.cell(group.best)}, of))
    over = (it._replace(interval=True) for it in (_OVER_ALL, _OVER_BEST))
    return measures_table(lines, (*_COST, _TOP, *over, "best"), notes=_NOTES["chosen"])


def _curve(groups: Sequence[_Group], within: str) -> Table:
    """A line for each ensemble and threshold; within: how a chosen one is shown."""
    stages = range(1, 1 + max(len(group.order) for group in groups))
    cascades = [group.frame.filter(pl.col("rule").is_not_null()) for group in groups]
    lines: list[Line] = []
    for (ensemble, rule, given), of in _means(cascades, "ensemble", "rule", "given").items():
        exits = (of.get(f"exit {stage}", {"value": 0})["value"] for stage in stages)
        about = {"ensemble": ensemble, "θ": _theta(rule, given, within)}
        lines.append((about | {"exits": " ".join(f"{100 * share:3.0f}" for share in exits)}, of))
    top, over = (it._replace(interval=len(groups) == 1) for it in (_TOP, _OVER_BEST))
    return measures_table(
        lines,
        (*_COST, top, _OVER_ALL, over, "exits"),
        headers={"exits": "leave at stage, %\n" + " ".join(f"{stage:3}" for stage in stages)},
        notes=_NOTES["curve"],
    )


def _front(groups: Sequence[_Group], names: ShortNames, within: str) -> Table:
    """A line for each candidate in front by its means over the supports of all groups."""
    frames = [group.frame for group in groups]
    every = [*_means(frames, "ensemble", "rule", "given", "members").items()]
    costs, accuracies = (
        np.array([of[metric]["value"] for _, of in every])
        for metric in ("support_mean_gflops", "support_acc1")
    )
    lines: list[Line] = []
    for place in np.flatnonzero(pareto_front(costs, accuracies)):
        (ensemble, rule, given, members), of = every[place]
        about = {"ensemble": None if ensemble == SINGLE else ensemble}
        about |= {"θ": _theta(rule, given, within)}
        lines.append((about | names.marked(members), of))
    lines.sort(key=lambda line: line[1]["mean_gflops"]["value"])
    top = _TOP._replace(interval=len(groups) == 1)
    columns: list[Measure | str] = [*_COST, top, _ON_SUPPORT, *names.heads]
    return measures_table(lines, columns, names=names, notes=_NOTES["front"])


def _theta(rule: str | None, given: float | None, within: str) -> str | None:
    """How the threshold of a cascade is shown: one that is not given is chosen in each group."""
    return within if rule == WITHIN else None if given is None else f"{given:g}"


_METRICS = ("acc1", "mean_gflops", "support_acc1", "support_mean_gflops")
_KINDS = ["ensemble", "rule", "threshold", "backbones"]  # what tells candidates apart
_MARKS: Look = {"color": INK, "linestyle": ""}
_CHOSEN: Look = _MARKS | {"marker": "*", "ms": 7, "mec": "white", "mew": 0.5}
_FRONT: Look = _MARKS | {"marker": "o", "ms": 8, "mfc": "none", "mew": 0.9}
_SOME: Look = _MARKS | {"color": "#808080", "marker": ".", "ms": 4, "mec": "none"}


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each backbone, ensemble and cascade that all datasets have: means over these."""
    rows = having(frame, "threshold", "rule").filter(pl.col("metric").is_in(_METRICS))
    rows = needed(rows, "accuracy and cost of cascades", "cascade")
    refuse_several(rows)
    threshold = pl.when(pl.col("rule") == GIVEN).then("threshold")  # others differ by dataset
    alike = rows.with_columns(threshold=threshold, backbones=pl.col("backbones").list.sort())
    accuracy = pl.col("metric") == "acc1"
    means = (
        over_datasets(alike, [*WHERE[1:], *_KINDS, "metric"])
        .group_by(*WHERE[1:], *_KINDS, maintain_order=True)
        .agg(
            pl.col("dataset").first(),
            pl.col("datasets").min(),
            *(pl.col("value").filter(metric=name).first().alias(name) for name in _METRICS),
            *(pl.col(name).filter(accuracy).first() for name in ("ci_low", "ci_high", "n")),
        )
        .filter(pl.col("datasets") == pl.col("datasets").max())
        .drop_nulls(_METRICS)
    )
    front = pareto_front(means["support_mean_gflops"].to_numpy(), means["support_acc1"].to_numpy())
    return means.with_columns(front=pl.Series(front))


def _names(data: pl.DataFrame) -> ShortNames:
    return shortened(sorted(data["backbones"].explode().unique()))


def _layers(data: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame, Look]]:
    """What is drawn alike, with its text in the key and its look, from the back to the front."""
    names, rule = _names(data).short, pl.col("rule")
    of_rule = {kind: data.filter(rule == kind).sort("mean_gflops") for kind in (GIVEN, WITHIN)}
    ensembles = data.filter(rule.is_not_null())["ensemble"].unique(maintain_order=True).to_list()
    looks = list(marks([*names, *ensembles]).values())
    fixed = data.filter(rule.is_null())
    yield "ensembles", fixed.filter(pl.col("ensemble") != SINGLE), _SOME
    for ensemble, of_ensemble in zip(ensembles, looks[len(names) :], strict=True):
        rows = of_rule[GIVEN].filter(ensemble=ensemble)
        yield f"cascade of {ensemble}", rows, of_ensemble | {"markersize": 2.5}
    for (name, text), of_name in zip(names.items(), looks[: len(names)], strict=True):
        alone = fixed.filter(ALONE, pl.col("backbones").list.first() == name)
        yield text, alone, of_name | {"linestyle": ""}
    yield "chosen threshold", of_rule[WITHIN], _CHOSEN
    yield "front on the support", data.filter("front"), _FRONT


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    looks: dict[str, Look] = {}
    for text, rows, look in _layers(data):
        if len(rows):
            looks[text] = look
            ax.plot(rows["mean_gflops"], 100 * rows["acc1"], **look)
    front = data.filter("front").drop_nulls("ci_low")
    if len(front):
        limits = 100 * front["ci_low"], 100 * front["ci_high"]
        ax.vlines(front["mean_gflops"], *limits, color=INK, lw=0.6, zorder=1)
    if data["mean_gflops"].min() > 0:  # type: ignore[operator]
        _logarithmic(ax)
    ax.set(xlabel="GFLOPs an image, mean", ylabel="top-1 accuracy, %")
    key(ax, looks)


def _logarithmic(ax: Axes) -> None:
    """Costs differ by factors; the axis has numbers though it may be shorter than one of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")


pareto = Figure(
    name="pareto",
    short="Accuracy against cost: backbones, ensembles of some, and cascades.",
    caption=_NOTES["pareto"],
    source="cascade",
    data=_data,
    draw=_draw,
    size=lambda _data: (COLUMN, 2.5),
    about=lambda data: title(subject(data, (*WHERE, "n")), _names(data).phrase),
)
