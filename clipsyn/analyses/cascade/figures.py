"""Accuracy against cost: backbones, ensembles of some of them, and cascades."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from clipsyn.analyses.cascade import GIVEN, WITHIN
from clipsyn.analyses.cascade.measures import pareto_front
from clipsyn.evaluation.results.frame import ALONE
from clipsyn.evaluation.results.view import WHERE, having, over_datasets, refuse_several
from clipsyn.settings import SINGLE
from clipsyn.show.figure import COLUMN, INK, Figure, Size, marks, needed
from clipsyn.show.panels import Look, drawn, key, key_height
from clipsyn.show.titles import ShortNames, shortened, subject, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_METRICS = ("acc1", "mean_gflops", "support_acc1", "support_mean_gflops")
_KINDS = ["ensemble", "rule", "threshold", "backbones"]  # what tells candidates apart
_CHOSEN: Look = {
    "color": INK,
    "marker": "*",
    "markersize": 7,
    "linestyle": "",
    "markeredgecolor": "white",
    "markeredgewidth": 0.5,
}
_SOME: Look = {
    "color": "#808080",
    "marker": ".",
    "markersize": 4,
    "linestyle": "",
    "markeredgecolor": "none",
}
_FRONT: Look = {
    "color": INK,
    "marker": "o",
    "markersize": 8,
    "linestyle": "",
    "markerfacecolor": "none",
    "markeredgewidth": 0.9,
}


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each backbone, ensemble and cascade that all datasets have: means over these."""
    rows = needed(
        having(frame, "threshold", "rule").filter(pl.col("metric").is_in(_METRICS)),
        "accuracy and cost of cascades",
        "give a store, or what `clipsyn cascade STORE -o FILE.parquet` wrote",
    )
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


class _Layer(NamedTuple):
    """What is drawn alike."""

    text: str  # in the key
    rows: pl.DataFrame
    look: Look


def _names(data: pl.DataFrame) -> ShortNames:
    return shortened(sorted(data["backbones"].explode().unique()))


def _layers(data: pl.DataFrame) -> list[_Layer]:
    """From the back to the front."""
    names, rule = _names(data).short, pl.col("rule")
    of_rule = {kind: data.filter(rule == kind).sort("mean_gflops") for kind in (GIVEN, WITHIN)}
    ensembles = data.filter(rule == WITHIN)["ensemble"].unique(maintain_order=True).to_list()
    looks = [drawn(mark) for mark in marks([*names, *ensembles]).values()]
    fixed = data.filter(rule.is_null())
    layers = [_Layer("ensembles", fixed.filter(pl.col("ensemble") != SINGLE), _SOME)]
    for ensemble, of_ensemble in zip(ensembles, looks[len(names) :], strict=True):
        rows = of_rule[GIVEN].filter(ensemble=ensemble)
        layers.append(_Layer(f"cascade of {ensemble}", rows, of_ensemble | {"markersize": 2.5}))
    for (name, text), of_name in zip(names.items(), looks[: len(names)], strict=True):
        alone = fixed.filter(ALONE, pl.col("backbones").list.first() == name)
        layers.append(_Layer(text, alone, of_name | {"linestyle": ""}))
    layers.append(_Layer("chosen threshold", of_rule[WITHIN], _CHOSEN))
    layers.append(_Layer("front on the support", data.filter("front"), _FRONT))
    return [layer for layer in layers if len(layer.rows)]


def _size(data: pl.DataFrame) -> Size:
    return COLUMN, 2.5 + key_height([layer.text for layer in _layers(data)], COLUMN)


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    layers = _layers(data)
    for layer in layers:
        ax.plot(layer.rows["mean_gflops"], 100 * layer.rows["acc1"], **layer.look)
    front = data.filter("front").drop_nulls("ci_low")
    if len(front):
        limits = 100 * front["ci_low"], 100 * front["ci_high"]
        ax.vlines(front["mean_gflops"], *limits, color=INK, lw=0.6, zorder=1)
    if data["mean_gflops"].min() > 0:  # type: ignore[operator]
        _logarithmic(ax)
    ax.set(xlabel="GFLOPs an image, mean", ylabel="top-1 accuracy, %")
    key(ax, {layer.text: layer.look for layer in layers})


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
    caption="Top-1 accuracy against the mean cost of an image, of backbones, of ensembles of some "
    "of them, and of cascades at each threshold; a star is the threshold that is chosen on the "
    "support. Front on the support: what no other choice beats there in both accuracy and cost; "
    "its accuracy is measured on other images, with 95 % intervals.",
    source="cascade",
    data=_data,
    draw=_draw,
    size=_size,
    about=lambda data: title(subject(data, (*WHERE, "n")), _names(data).phrase),
)
