"""Tables and figure of selective prediction: by method, by score, from a chosen threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from textwrap import fill
from typing import Any

import polars as pl

from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.evaluation.results.frame import (
    METHOD,
    WHERE,
    Numbers,
    Row,
    about_line,
    backbones,
    by_method,
    having,
    named_parts,
    numbers_by,
    over_datasets,
    refuse_several,
)
from clipsyn.settings import FULL, SINGLE
from clipsyn.show.figure import MUTED, Axes, Figure, Look, key, marks, methods, needed
from clipsyn.show.table import Cell, Table, number_cell, percent_cell, shots_text
from clipsyn.show.tables import Line, Measure, measures_table, notes_beside
from clipsyn.show.titles import (
    WIDTH,
    ShortNames,
    common,
    fitted_on,
    mean_over,
    shortened,
    subject,
    title,
    typical_interval,
    where,
)

_AREAS = (
    Measure("AURC", "aurc", digits=2, best="least"),
    Measure("E-AURC", "e_aurc", digits=2),
    Measure("AUGRC", "augrc", digits=2),
)
_AT = tuple(  # accuracy at these coverages
    Measure(f"{100 * at:.0f} %", f"acc1 at {at}") for at in (1.0, 0.9, 0.8, 0.5)
)
_SUPPORT = (
    Measure("support coverage", "support_coverage", head="support:\ncoverage"),
    Measure("support accuracy", "support_acc1", head="support:\naccuracy"),
)
_HERE = (Measure("coverage", "coverage"), Measure("accuracy", "acc1"))
_NOTES = notes_beside(__file__)


@dataclass(frozen=True)
class _Groups:
    """One group of dataset, split, perturbation and prompt set, or several to take means over.

    score: the first that was asked for, which all tables but that of the scores are by.
    """

    frame: pl.DataFrame
    short: ShortNames
    score: str

    @cached_property
    def count(self) -> int:
        return len(named_parts(self.frame))

    @property
    def is_one(self) -> bool:
        return self.count == 1

    @cached_property
    def means(self) -> pl.DataFrame:
        """Means over all groups: a row for each method, score, wish and other dataset; of one group
        intervals. An other dataset may be none to some groups, which are left out.
        """
        known = pl.col("value").is_not_null() & pl.col("value").is_not_nan()
        at = pl.format("{} at {}", "metric", "coverage")
        means = (
            self.frame.with_columns(
                method=METHOD,
                metric=pl.when(pl.col("coverage").is_null()).then("metric").otherwise(at),
            )
            .group_by("ensemble", "method", "metric", "score", "wished", "ood", maintain_order=True)
            .agg(
                pl.col("value").filter(known),
                pl.col("ci_low", "ci_high", "threshold").first(),
                reached=(known & (pl.col("value") >= pl.col("wished"))).sum(),
                groups=pl.len(),
            )
            .filter((pl.col("groups") == self.count) | pl.col("ood").is_not_null())
        )
        values = [math.fsum(of) / len(of) if len(of) else None for of in means["value"]]
        return means.with_columns(pl.Series("value", values, pl.Float64))

    def by(self, *columns: str, score: str | None = None) -> dict[tuple[Any, ...], Numbers]:
        """Numbers by one score, by ensemble and method, and by `columns`."""
        about = (pl.col(name).is_not_null() == (name in columns) for name in ("wished", "ood"))
        rows = self.means.filter(*about)
        return numbers_by(rows.filter(score=score or self.score), "ensemble", "method", *columns)

    @property
    def title(self) -> str:
        over = mean_over(self.frame, WHERE)
        columns = [*common(self.frame, WHERE)] + ([] if over else ["n"])
        row = self.frame.filter(metric="acc1").row(0, named=True)
        fitted = fitted_on(self.frame.filter(pl.col("wished").is_null()))
        return title(over, *where(row, columns), self.short.phrase, fitted)

    def column(self, name: str) -> list[Any]:
        """The values of a column of the means, each once."""
        return self.means[name].drop_nulls().unique(maintain_order=True).to_list()

    def cell(self, ensemble: str, method: str) -> Cell:
        return Cell(self.short.short[method] if ensemble == SINGLE else ensemble, method)


def tables(frame: pl.DataFrame, settings: SelectiveSettings) -> dict[str, Table]:
    """Tables of what `clipsyn.analyses.selective.measure` returns, by name.

    "methods", a line a method, by the first score; "scores", the same by every score; "thresholds",
    for each wished accuracy; "ood", for each dataset to be told apart. Over several groups of
    dataset, split, perturbation and prompt set these are means, and "datasets" has a line a group.
    """
    parts = named_parts(frame)
    if not parts:
        return {}
    short, score = shortened(backbones(frame)), frame["score"].drop_nulls()[0]
    shown = _tables(_Groups(frame, short, score))
    if len(parts) > 1:
        groups = [_Groups(part, short, score) for part in parts.values()]
        shown["datasets"] = _datasets(frame, groups)
    return shown


def notes(frame: pl.DataFrame, settings: SelectiveSettings) -> Iterator[str]:
    """What was asked for and is not there, and why."""
    if len(backbones(frame)) == 1:
        yield "a single backbone: there is no ensemble, and no agreement"
    if settings.accuracies and frame["wished"].null_count() == len(frame):
        yield f"no threshold is chosen: there is no {settings.support} split"


def _tables(groups: _Groups) -> dict[str, Table]:
    if groups.means.is_empty():  # the groups have nothing in common
        return {}
    shown = {"methods": _methods(groups)}
    if len(groups.column("score")) > 1:
        shown["scores"] = _scores(groups)
    if groups.column("wished"):
        shown["thresholds"] = _thresholds(groups)
    if groups.column("ood"):
        shown["ood"] = _ood(groups)
    return shown


def _methods(groups: _Groups) -> Table:
    """A line a method."""
    lines = [({"method": groups.cell(*method)}, of) for method, of in groups.by().items()]
    columns = (_AREAS[0]._replace(interval=groups.is_one), *_AREAS[1:], *_AT)
    about = title(groups.title, f"by {groups.score}")
    return measures_table(lines, columns, title=about, notes=fill(_NOTES["methods"], WIDTH))


def _scores(groups: _Groups) -> Table:
    """AURC: a line a method, a column a score."""
    scores = groups.column("score")
    found = {score: groups.by(score=score) for score in scores}
    lines: list[Line] = [
        (
            {"method": groups.cell(*method)},
            {score: _area(found[score].get(method, {}), groups.is_one) for score in scores},
        )
        for method in found[scores[0]]
    ]
    columns = [Measure(score, score, cell=_starred) for score in scores]
    note = _NOTES["scores"] + (f"\n{_NOTES['star']}" if groups.is_one else "")
    return measures_table(lines, columns, title=groups.title, notes=fill(note, WIDTH))


def _area(numbers: Mapping[str, Row], is_one: bool) -> Row:
    """The row of an AURC, and whether the interval of its difference leaves 0 out."""
    gain = numbers.get("aurc_gain") if is_one else None
    differs = gain is not None and (gain["ci_low"] > 0 or gain["ci_high"] < 0)
    return numbers.get("aurc", {}) | {"differs": differs}


def _starred(row: Mapping[str, Any]) -> Cell:
    cell = percent_cell(row.get("value"), 2)
    return cell._replace(text=cell.text + ("*" if row.get("differs") else " "))


def _thresholds(groups: _Groups) -> Table:
    """A line a wished accuracy and method."""
    numbers, wishes = groups.by("wished"), groups.column("wished")
    lines: list[Line] = []
    for ensemble, method, wished in sorted(numbers, key=lambda of: wishes.index(of[2])):
        of = numbers[ensemble, method, wished]
        about: dict[str, Any] = {"wished": percent_cell(wished)}
        about["method"] = groups.cell(ensemble, method)
        if groups.is_one:
            about["threshold"] = number_cell(of["coverage"]["threshold"], 3)
        else:
            about["reached"] = f"{of['acc1']['reached']} of {groups.count}"
        lines.append((about, of))
    row = groups.frame.filter(pl.col("wished").is_not_null()).row(0, named=True)
    shots = "" if row["shots"] == FULL else f", {shots_text(row['shots'])}"
    note = _NOTES["thresholds"] + ("" if groups.is_one else f"\n{_NOTES['reached']}")
    here = (measure._replace(interval=groups.is_one) for measure in _HERE)
    return measures_table(
        lines,
        ("threshold", *_SUPPORT, *here, "reached"),
        title=title(groups.title, f"chosen on {row['support']}{shots}", f"by {groups.score}"),
        right=["wished", "threshold", "reached"],
        notes=fill(note, WIDTH),
    )


def _ood(groups: _Groups) -> Table:
    """A line an out-of-distribution dataset and method; AUROC and FPR by each score."""
    scores = groups.column("score")
    found = {score: groups.by("ood", score=score) for score in scores}
    lines: list[Line] = [
        (
            {"ood": place[2], "method": groups.cell(*place[:2])},
            {
                (metric, score): row
                for score in scores
                for metric, row in found[score].get(place, {}).items()
            },
        )
        for place in sorted(found[scores[0]], key=lambda place: str(place[2]))
    ]
    columns = [
        Measure(f"{metric} {score}", (metric, score), f"{text}\n{score}")
        for metric, text in (("auroc", "AUROC"), ("fpr95", "FPR"))
        for score in scores
    ]
    columns[0] = columns[0]._replace(interval=groups.is_one)
    note = _NOTES["ood"] + ("" if groups.is_one else f" {_NOTES['others']}")
    return measures_table(lines, columns, title=groups.title, notes=fill(note, WIDTH))


def _datasets(frame: pl.DataFrame, every: list[_Groups]) -> Table:
    """AURC: a line a group, a column a method."""
    shared = common(frame, WHERE)
    cells: dict[Any, str] = {}
    lines: list[Line] = []
    for groups in every:
        about = about_line(groups.frame.filter(metric="acc1"), (*WHERE, "n"), shared)
        of_methods = groups.by()
        cells |= {method: groups.cell(*method).text for method in of_methods}
        lines.append((about, {method: of["aurc"] for method, of in of_methods.items()}))
    names = ShortNames({str(at): text for at, text in enumerate(cells.values())}, "")
    columns = [
        Measure(column, method, digits=2, best="least of line")
        for method, column in zip(cells, names.columns.values(), strict=True)
    ]
    about_all = where(frame.row(0, named=True), list(shared))
    return measures_table(
        lines,
        columns,
        title=title(*about_all, every[0].short.phrase, f"by {every[0].score}"),
        headers=names.heads,
        notes=_NOTES["datasets"],
    )


_CHOSEN: Look = {"color": MUTED, "marker": "o", "linestyle": "", "markerfacecolor": "white"}
_BY = [*WHERE[1:], "score", "ensemble", "backbone"]


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each method and coverage, by one score; and for each threshold, with `wished`.

    The score is the first that the frame has. Means over datasets, of what all have.
    """
    rows = by_method(having(frame, "score", "coverage", "wished"))
    curves = needed(
        rows.filter(pl.col("coverage").is_not_null(), metric="acc1"),
        "accuracy at any coverage",
        "selective",
    )
    refuse_several(curves)
    first = curves["score"][0]
    curves, rows = (part.filter(score=first) for part in (curves, rows))
    chosen = rows.filter(pl.col("wished").is_not_null()).drop("coverage")
    means = pl.concat(
        [over_datasets(curves, [*_BY, "coverage"]), _thresholds_of(chosen)], how="diagonal"
    )
    return means.filter(pl.col("datasets") == pl.col("datasets").max()).drop_nulls("value")


def _thresholds_of(chosen: pl.DataFrame) -> pl.DataFrame:
    """What thresholds that were chosen on the support come to: coverage, and accuracy as value."""
    by = [*_BY, "wished"]
    coverage, accuracy = (
        over_datasets(chosen.filter(metric=metric), by) for metric in ("coverage", "acc1")
    )
    coverages = coverage.select(*by, coverage="value")
    return accuracy.join(coverages, on=by, nulls_equal=True, maintain_order="left")


def _key(data: pl.DataFrame) -> dict[str, Look]:
    texts = list(methods(data)[0].values())
    looks = marks(texts)
    for wished in data["wished"].drop_nulls().unique(maintain_order=True):
        looks[f"chosen for {100 * wished:g} %"] = _CHOSEN
    return looks


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    looks = _key(data)
    for name, text in methods(data)[0].items():
        _draw_method(data.filter(pl.coalesce("ensemble", "backbone") == name), ax, looks[text])
    for wished in data["wished"].drop_nulls().unique():
        ax.axhline(100 * wished, color=MUTED, lw=0.8, ls=":")
    ax.set_xticks(range(25, 101, 25))
    ax.set(xlabel="coverage, % of the images", ylabel="accuracy of these, %")
    key(ax, looks)


def _about(data: pl.DataFrame) -> str:
    about = subject(data.sort("n", descending=True), (*WHERE, "n"))  # n of all, not of some
    score = f"score {data['score'][0]}"
    return title(about, score, methods(data)[1], typical_interval(data))


def _draw_method(rows: pl.DataFrame, ax: Axes, of_method: Look) -> None:
    curve = rows.filter(pl.col("wished").is_null()).sort("coverage")
    chosen = rows.filter(pl.col("wished").is_not_null())
    every = {"markevery": 4, "markersize": 2.5, "linewidth": 1}
    ax.plot(100 * curve["coverage"], 100 * curve["value"], **of_method | every)
    at = of_method | {"linestyle": "", "markerfacecolor": "white", "markersize": 5, "zorder": 3}
    ax.plot(100 * chosen["coverage"], 100 * chosen["value"], **at)


coverage = Figure(
    name="coverage",
    short="Accuracy of the most confident answers, by how many are given.",
    caption=_NOTES["coverage"],
    source="selective",
    data=_data,
    draw=_draw,
    about=_about,
)
