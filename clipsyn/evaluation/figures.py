"""Gains of ensembles beside those of oracles, by dataset; accuracy by number of labelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from clipsyn.evaluation.results.frame import (
    IS_TRANSDUCTIVE,
    SHOTS_IN_ORDER,
    WHERE,
    gain_metric,
    in_order,
    mean_of_rows,
    numbers_by,
    over_datasets,
    refuse_several,
)
from clipsyn.evaluation.tables import BEST, at_most_shots, method_frame, methods
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN, ORACLE, USUAL_ENSEMBLES, place_of
from clipsyn.methods.heads import ZERO_SHOT
from clipsyn.settings import UNFITTED
from clipsyn.show.figure import (
    COLUMN,
    INK,
    MUTED,
    Axes,
    Figure,
    Look,
    Size,
    key,
    label,
    look,
    marks,
    matrix_size,
    needed,
    pair_map,
    room,
)
from clipsyn.show.frames import is_nan
from clipsyn.show.tables import Line, notes_beside
from clipsyn.show.titles import ShortNames, shortened, subject, title

CLASS_ORACLE = "class-oracle"
_MOST_GAINS, _MOST_CURVES = 3, 6  # ensembles in one figure
_BESIDE, _ROOM = 18, 1.2  # letters, and inches, of the longest name beside gains
_NOTES = notes_beside(__file__)
_STEPS = 4  # below; numbers of small gains are long, so few of them fit
_SERIES = ["series", "head", "method"]
_FITTED = "support", "support_prompts"  # on different things, a mean is of nothing
ORACLES = (ORACLE, CLASS_ORACLE)
_BARS = {ORACLE: "#cfcfcf", CLASS_ORACLE: "#8f8f8f"}
_CHOICES = {  # what the key says; colour, place and height of the bar, in the order of drawing
    ORACLE: ("oracle", "#dedede", 0.0, 0.84),
    BEST_SINGLE: ("backbone chosen on support", "#8a949e", -0.2, 0.3),
    CHOSEN: ("method chosen on support", "#0072B2", 0.2, 0.3),
}
_REFERENCES = {BEST_SINGLE: look(INK, "", "-"), BEST: look(MUTED, "", ":")}
_BAR, _MARK, _BELOW = 0.08, 0.06, 0.5  # inches: of a line, of each mark in it, below all
_NAME = 0.14  # inches: of the name of a line


def _gains(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each dataset and method, means over draws; those without a dataset are means.

    Methods are the oracle, the class oracle, and the first ensembles by `_preference`, at the most
    shots of each dataset. Of several heads zero-shot is drawn, if it is one.
    """
    if ZERO_SHOT in frame["head"]:
        frame = frame.filter(pl.col("head").is_in([ZERO_SHOT, CHOSEN]))
    rows = frame.filter(_is_drawn(BEST_SINGLE), metric=gain_metric(frame), classes="all")
    rows = needed(rows, "gain of any ensemble or oracle", "evaluate")
    refuse_several(rows, (*WHERE[1:], *_FITTED))
    refuse_several(rows.filter(pl.col("head") != CHOSEN), ["head"])
    size = pl.col("backbones").list.len()
    rows = rows.filter(size == size.max().over("dataset"))
    known = rows.with_columns(pl.col("value", "ci_low", "ci_high").fill_nan(None))
    table = at_most_shots(method_frame(known, gain_metric(frame)))
    columns = "dataset", "method", "value", "ci_low", "ci_high", "seeds", "n"
    shots = pl.col("shots").fill_null(UNFITTED)
    both, shared = _with_means(table.select(*columns, shots))
    ensembles = sorted(shared - _BARS.keys(), key=_preference)
    return both.filter(pl.col("method").is_in([*_BARS, *ensembles[:_MOST_GAINS]]))


def _is_drawn(besides: str) -> pl.Expr:
    """No rows of transductive methods, and of another ensemble."""
    return ~IS_TRANSDUCTIVE & pl.col("ensemble").ne(besides)


def _with_means(table: pl.DataFrame) -> tuple[pl.DataFrame, set[str]]:
    """Below the rows of several datasets a mean for each method that all have; these methods."""
    datasets, means = table["dataset"].n_unique(), []
    for (method,), rows in table.group_by("method", maintain_order=True):
        mean = mean_of_rows(rows)
        if mean and rows["dataset"].n_unique() == datasets:
            means.append((method, *mean))
    columns = "method", "value", "ci_low", "ci_high"
    types = {name: table.schema[name] for name in columns} | {"datasets": pl.UInt32}
    below = pl.DataFrame(means if datasets > 1 else [], types, orient="row")
    return pl.concat([table, below], how="diagonal"), {str(method) for method, *_ in means}


def _preference(method: str) -> tuple[int, int, str]:
    """Which ensembles are drawn: none is picked by what is measured."""
    usual = CHOSEN, *USUAL_ENSEMBLES
    at = usual.index(method) if method in usual else len(usual)
    return at, place_of(method), method


def _gain_marks(data: pl.DataFrame) -> dict[str, Look]:
    """A mark for each method; of the oracles, that of their bars in the key."""
    methods = data["method"].unique(maintain_order=True).to_list()
    of_ensembles = marks([name for name in methods if name not in _BARS], without="s")
    bars = {name: look(colour, "s", "") for name, colour in _BARS.items() if name in methods}
    return bars | {name: mark | {"linestyle": ""} for name, mark in of_ensembles.items()}


def _gains_size(data: pl.DataFrame) -> Size:
    lines = max(3, data["dataset"].n_unique())
    line = max(_NAME, _BAR + _MARK * len(_gain_marks(data).keys() - _BARS.keys()))
    return COLUMN, line * lines + _BELOW + 0.2


def _draw_gains(data: pl.DataFrame, ax: Axes) -> None:
    lines, entries = _lines(data), _gain_marks(data)
    ensembles = [name for name in entries if name not in _BARS]
    known = data.drop_nulls("value")
    for row in known.filter(pl.col("method").is_in([*_BARS])).iter_rows(named=True):
        method, height = row["method"], 0.8 if row["method"] == ORACLE else 0.5
        ax.barh(lines[row["dataset"]], 100 * row["value"], height, color=_BARS[method], zorder=1)
    for place, method in enumerate(ensembles):
        offset = 0.7 * ((place + 0.5) / len(ensembles) - 0.5)
        for row in known.filter(method=method).iter_rows(named=True):
            at, mark = lines[row["dataset"]] + offset, entries[method]
            ax.plot(100 * row["value"], at, **mark, ms=3.2, mec="white", mew=0.4, zorder=3)
            if row["ci_low"] is not None:
                ax.hlines(
                    at, 100 * row["ci_low"], 100 * row["ci_high"], color=mark["color"], lw=0.8
                )
    ax.axvline(0, color=INK, lw=0.8)
    ax.locator_params(axis="x", nbins=_STEPS)
    _finish(data, ax, "gain over the best single backbone, points", entries)


def _finish(data: pl.DataFrame, ax: Axes, label: str, entries: dict[str, Look]) -> None:
    """The names of datasets, a label and a key."""
    lines = _lines(data)
    ax.set_yticks([*lines.values()], [_beside(name, data) for name in lines])
    ax.set_ylim(max(lines.values()) + 0.55, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(label, loc="right")  # room is at the left
    key(ax, entries)


def _beside(dataset: str | None, data: pl.DataFrame) -> str:
    """What stands beside a line, and leaves room for it though its letters are wide."""
    name = dataset or f"mean of {data['dataset'].drop_nulls().n_unique()}"
    short = (label(name, letters) for letters in range(_BESIDE, 1, -1))
    return next((text for text in short if room([text]) <= _ROOM), label(name, 1))


def _lines(data: pl.DataFrame) -> dict[str | None, float]:
    """Where each dataset is drawn: the largest value on top, the mean a little below the others."""
    of_datasets = data.drop_nulls("dataset")
    order = of_datasets.group_by("dataset", maintain_order=True).agg(pl.col("value").max())
    names = order.sort("value", descending=True, maintain_order=True)["dataset"].to_list()
    lines: dict[str | None, float] = {name: float(at) for at, name in enumerate(names)}
    return lines if len(of_datasets) == len(data) else lines | {None: len(lines) + 0.3}


gains = Figure(
    name="gains",
    short="What oracles and ensembles gain over the best single backbone, by dataset.",
    caption=_NOTES["gains"],
    source="oracle",
    data=_gains,
    draw=_draw_gains,
    size=_gains_size,
)


# what the support chooses


def _choices(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each dataset and method, means over draws; those without a dataset are means.

    At the most shots of each dataset. The oracle is that of the head where it is largest.
    """
    rows = frame.filter(classes="all")
    refuse_several(rows.filter(ensemble=CHOSEN), (*WHERE[1:], *_FITTED))
    accuracy, gain = (at_most_shots(method_frame(rows, metric)) for metric in ("acc1", "gain"))
    chosen = accuracy.filter(method=CHOSEN)
    chosen = needed(chosen, "method that the support has chosen", "evaluate")
    over = gain.filter(method=CHOSEN).select("dataset", gain="value")
    single = chosen.join(over, on="dataset", maintain_order="left").with_columns(
        pl.col("value") - pl.col("gain"),
        pl.lit(None, pl.Float64).alias("ci_low"),
        pl.lit(None, pl.Float64).alias("ci_high"),
        method=pl.lit(BEST_SINGLE),
    )
    oracles = accuracy.filter(method=ORACLE).join(chosen, on=WHERE, how="semi")
    oracles = oracles.sort("value", descending=True).unique("dataset", maintain_order=True)
    columns = "dataset", "method", "head", "value", "ci_low", "ci_high", "seeds", "n"
    table = pl.concat(part.select(columns) for part in (oracles, single, chosen))
    return _with_means(table)[0]


def _draw_choices(data: pl.DataFrame, ax: Axes) -> None:
    lines, entries = _lines(data), {}
    for method, (text, colour, place, height) in _CHOICES.items():
        if (rows := data.filter(method=method)).is_empty():
            continue
        entries[text] = look(colour, "s", "")
        at = [lines[name] + place for name in rows["dataset"]]
        ax.barh(at, 100 * rows["value"], height, color=colour)
        if method == CHOSEN:
            ax.hlines(at, 100 * rows["ci_low"], 100 * rows["ci_high"], color=INK, lw=0.8)
    _finish(data, ax, "top-1 accuracy, %", entries)


choices = Figure(
    name="chosen",
    short="What the labels choose, a backbone or a method, beside the oracle, by dataset.",
    caption=_NOTES["method_chosen"],
    source="evaluate",
    data=_choices,
    draw=_draw_choices,
    size=lambda data: (COLUMN, 0.24 * max(3, data["dataset"].n_unique()) + _BELOW),
)


# accuracy by shots


def _curves(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each series and number of shots: the mean over datasets and draws.

    low, high: of the means over datasets, the least and the largest of all draws. A method that
    learns nothing has a row for each number of shots. Ensembles are the first by `_preference`.
    """
    rows = frame.filter(_is_drawn("chance"), metric="acc1", classes="all")
    rows = needed(rows, "accuracy of any method", "evaluate")
    refuse_several(rows, (*WHERE[1:], *_FITTED))
    named = methods(rows.with_columns(pl.col("value").fill_nan(None)))
    is_plain = (pl.col("head") == ZERO_SHOT) | (pl.col("head") == pl.col("method"))
    series = pl.when(is_plain).then("method").otherwise(pl.format("{} on {}", "method", "head"))
    others = named.filter(~pl.col("method").is_in([*_BARS]))
    alike = _with_same_shots(others.with_columns(series=series))
    value = pl.col("value")
    by_draw = alike.group_by(*_SERIES, "shots", "seed", maintain_order=True).agg(value.mean())
    table = by_draw.group_by(*_SERIES, "shots", maintain_order=True).agg(
        value.mean(), low=value.min(), high=value.max(), draws=pl.len()
    )
    curves = _first(_at_every_number(table))
    of = {"datasets": alike["dataset"].n_unique(), "of_datasets": rows["dataset"].n_unique()}
    return curves.with_columns(pl.lit(count).alias(name) for name, count in of.items())


def _with_same_shots(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of the datasets that have the same numbers of shots: of most, the first of equals.

    Others would make a curve jump where they come in. One number makes no curve.
    """
    learned = rows.filter(pl.col("shots") != UNFITTED)
    sets = learned.group_by("dataset", maintain_order=True).agg(SHOTS_IN_ORDER.unique().sort())
    sets = sets.filter(pl.col("shots").list.len() > 1)
    sets = needed(sets, "method that learned from several numbers of labelled images", "evaluate")
    alike = sets.group_by("shots", maintain_order=True).agg("dataset")
    chosen = alike.sort(pl.col("dataset").list.len(), descending=True, maintain_order=True)
    return rows.filter(pl.col("dataset").is_in(chosen["dataset"][0].to_list()))


def _at_every_number(table: pl.DataFrame) -> pl.DataFrame:
    """What learns nothing has the same accuracy at every number of shots; in their order."""
    unlearned = table.filter(pl.col("shots") == UNFITTED)
    learned = table.filter(pl.col("shots") != UNFITTED)
    repeated = unlearned.drop("shots").join(learned.select("shots").unique(), how="cross")
    both = pl.concat([learned, repeated.select(table.columns)])
    return both.sort("series", SHOTS_IN_ORDER, maintain_order=True)


def _first(curves: pl.DataFrame) -> pl.DataFrame:
    """The two references of one head, and the first ensembles, of equals on the first head."""
    heads = curves["head"].unique(maintain_order=True).to_list()
    of_references = ZERO_SHOT if ZERO_SHOT in heads else heads[0]
    rows = curves.select(*_SERIES).unique(maintain_order=True).rows()
    references = [name for name, head, it in rows if it in _REFERENCES and head == of_references]
    others = [row for row in rows if row[2] not in _REFERENCES]
    others.sort(key=lambda row: (_preference(row[2]), heads.index(row[1])))
    shown = [*references, *(name for name, *_ in others[:_MOST_CURVES])]
    return pl.DataFrame({"series": shown}).join(curves, on="series", maintain_order="left_right")


def _entries(data: pl.DataFrame) -> dict[str, Look]:
    """A mark for each series; the references have none of their own in a row of markers."""
    methods = dict(data.select("series", "method").unique(maintain_order=True).iter_rows())
    of_ensembles = marks([name for name, it in methods.items() if it not in _REFERENCES])
    return {name: of_ensembles.get(name) or _REFERENCES[it] for name, it in methods.items()}


def _draw_curves(data: pl.DataFrame, ax: Axes) -> None:
    shots = sorted(data["shots"].unique(), key=in_order)
    entries = _entries(data)
    for (name,), part in data.group_by("series", maintain_order=True):
        mark = entries[str(name)]
        low, mean, high = (100 * part[column].to_numpy() for column in ("low", "value", "high"))
        at = [shots.index(number) for number in part["shots"]]
        ax.plot(at, mean, **mark, mec="white", mew=0.4)
        ax.fill_between(at, low, high, color=mark["color"], alpha=0.15, lw=0)
    ax.set_xticks(range(len(shots)), shots)
    ax.set_xlabel("labelled images a class")
    ax.set_ylabel("top-1 accuracy, %")
    key(ax, entries)


def _over(data: pl.DataFrame) -> str:
    """ "mean over 4 of 5 datasets": what a curve is a mean over."""
    count, every = data["datasets"][0], data["of_datasets"][0]
    if every == 1:
        return ""
    return f"mean over {count}{f' of {every}' if count < every else ''} datasets"


few_shot = Figure(
    name="few-shot",
    short="Accuracy of ensembles by number of labelled images.",
    caption=_NOTES["few_shot"],
    source="evaluate",
    data=_curves,
    draw=_draw_curves,
    size=lambda _data: (COLUMN, 2.2),
    about=_over,
)


def pair_lines(rows: pl.DataFrame, names: ShortNames, by: str) -> list[Line]:
    """A line for each two backbones that rows are about, the largest of a metric first."""

    def value(line: Line) -> float:
        found: float = line[1][by]["value"]
        return -math.inf if is_nan(found) else found

    lines: list[Line] = [
        ({"backbone": names.cell(one), "and": names.cell(other)}, of_pair)
        for (one, other), of_pair in numbers_by(rows, "backbones").items()
    ]
    return sorted(lines, key=value, reverse=True)


def pair_figure(
    measure: str, place: Sequence[str] = WHERE, *, metric: str, source: str, **about: Any
) -> Figure:
    """A matrix of a measure of every two backbones, mean over datasets.

    place: what tells the numbers apart, the dataset first. about: see `Figure`.
    """

    def data_of(frame: pl.DataFrame) -> pl.DataFrame:
        both = pl.col("backbones").list.sort()
        rows = frame.filter(both.list.len() == 2, metric=metric)
        rows = needed(rows, f"{measure} of any two backbones", source)
        refuse_several(rows)
        named = rows.with_columns(backbone=both.list.first(), other=both.list.last())
        return over_datasets(named, [*place[1:], "backbone", "other"])

    def names_of(data: pl.DataFrame) -> ShortNames:
        return shortened(sorted({*data["backbone"], *data["other"]}))

    return Figure(
        **about,
        source=source,
        data=data_of,
        draw=lambda data, ax: pair_map(data, ax, measure),
        size=lambda data: matrix_size(*2 * [names_of(data).short.values()]),
        about=lambda data: title(subject(data, (*place, "n")), names_of(data).phrase),
    )
