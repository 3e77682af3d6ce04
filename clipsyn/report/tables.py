"""Tables of the page: cells with what they are sorted by; backbones, datasets and methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from clipsyn.evaluation.methods import ORACLE
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.results.view import WHERE, best_single, singles
from clipsyn.evaluation.tables import BEST, INDEPENDENT
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN
from clipsyn.report.evidence import Evidence
from clipsyn.report.html import Html, named
from clipsyn.report.standings import (
    HINDSIGHT,
    Method,
    Place,
    backbones,
    main_part,
)
from clipsyn.show.frames import is_nan
from clipsyn.show.means import Mean, Numbers
from clipsyn.show.table import NOTHING, Column, Table, interval_text, number
from clipsyn.show.titles import common, title, where

_DIGITS = 6  # of the number that a cell is sorted by
_SHORT = 40  # characters, with the marks of a name
_MOST_ROWS = 150  # of the numbers below a figure


class Cell(NamedTuple):
    """One cell. by: the number that it is sorted by; None where it has none, `text` counts then."""

    text: str
    by: float | None = None
    best: bool = False
    note: str = ""  # smaller, behind the text: an interval
    is_number: bool = False

    @property
    def kind(self) -> str:
        """The classes of its element: texts that are short stay on one line."""
        is_short = not self.is_number and len(self.text) < _SHORT
        kinds = {"number": self.is_number, "best": self.best, "short": is_short}
        return " ".join(kind for kind, applies in kinds.items() if applies)

    @property
    def sorted_by(self) -> str:
        """What the script reads: empty for a number that is not known, which comes last."""
        return "" if self.by is None else f"{self.by:.{_DIGITS}g}"


@dataclass(frozen=True)
class Grid:
    """A table: lines of cells by the heads of their columns, of which the first names a line.

    A column in which nothing is known is not shown.
    """

    caption: str
    lines: Sequence[Mapping[str, Cell]]
    note: str | Html = ""

    @property
    def heads(self) -> dict[str, bool]:
        """Each head that is shown, and whether numbers stand below it."""
        first = next(iter(self.lines), {})
        known = [head for head in first if any(it[head].text != NOTHING for it in self.lines)]
        return {head: first[head].is_number for head in known}


def words(text: object) -> Cell:
    """A name, or `NOTHING` for none."""
    return Cell(NOTHING) if text in (None, "") else Cell(named(text))


def count(value: int | None) -> Cell:
    return _numeric(NOTHING if value is None else f"{value:,}", value)


def decimal(value: float | None, digits: int = 1) -> Cell:
    return _numeric(number(value, digits), value)


def share(value: float | None, *, best: bool = False) -> Cell:
    """A share in percent."""
    return decimal(None if value is None else 100 * value)._replace(best=best)


def points(gain: float | None) -> Cell:
    """A gain in points, with its sign."""
    cell = share(gain)
    return cell if cell.by is None else cell._replace(text=f"{cell.by:+.1f}")


def share_of(mean: Mean | None, *, best: bool = False, signed: bool = False) -> Cell:
    """A share in percent with its interval, or a gain in points."""
    if mean is None:
        return share(None)
    cell = points(mean.value) if signed else share(mean.value, best=best)
    between = interval_text(mean.low, mean.high)
    return cell._replace(note="" if between == NOTHING else between)


def _numeric(text: str, value: float | None) -> Cell:
    by = None if value is None or is_nan(value) else float(value)
    return Cell(text, by, is_number=True)


def grid_of(frame: pl.DataFrame, caption: str, rest: str) -> Grid:
    """The rows of a frame as they are; `rest` says how to get those that are too many for a page.

    Columns without any value are left out.
    """
    shown = frame.head(_MOST_ROWS)
    columns = {
        name: _cells(shown[name]) for name in shown.columns if shown[name].null_count() < len(shown)
    }
    left = len(frame) - len(shown)
    return Grid(caption, _lines(columns), f"{left:,} more rows: {rest}" if left else "")


def _lines(columns: Mapping[str, Iterable[Cell]]) -> list[dict[str, Cell]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cells(column: pl.Series) -> list[Cell]:
    if column.dtype == pl.Boolean:
        return [words({True: "yes", False: "no"}.get(value)) for value in column]
    if column.dtype.is_integer():
        return [count(value) for value in column]
    if column.dtype.is_float():
        return [decimal(value, 4) for value in column]
    return [words(_joined(value)) for value in column.to_list()]


def _joined(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def grid_of_table(table: Table) -> Grid:
    """A table of a command; intervals stand behind their numbers."""
    names = {column.name for column in table.columns}
    intervals = {it.interval_of: it for it in table.columns if it.interval_of in names}
    shown = [column for column in table.columns if column.interval_of not in names]
    columns = {column.label: _of_column(column, intervals.get(column.name)) for column in shown}
    notes = " ".join(" ".join(["; ".join(table.below), table.notes]).split())
    return Grid(table.caption, _lines(columns), notes)


def _of_column(column: Column, intervals: Column | None) -> Iterator[Cell]:
    for row, cell in enumerate(column.cells):
        known = isinstance(cell.value, int | float) and not isinstance(cell.value, bool)
        beside = intervals.cells[row].text if intervals else NOTHING
        yield Cell(
            cell.text if column.right else named(cell.text),
            float(cell.value) if known and cell.value is not None else None,
            row in column.best,
            "" if beside == NOTHING else beside,
            column.right,
        )


_KNOWS = {
    CHOSEN: "by cross-validation on the support",
    BEST: "the backbone that is best on these very images",
    ORACLE: "right where at least one backbone is",
    INDEPENDENT: "the oracle, if errors were independent within each class",
    BEST_SINGLE: "the backbone that is best on the support",
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
        lines.append(line)
    over = f", means over {sets} datasets" if sets > 1 else ""
    note = (
        "Shapley: what the backbone adds to the oracle, on average over all orders in which "
        "backbones may join. Intervals are of 95 %."
    )
    return Grid(f"Backbones alone, zero-shot{over}", lines, note)


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


def dataset_grid(evidence: Evidence, lead: Method | None) -> Grid:
    """A line for each dataset: its best backbone, the oracle, and the method of the answer."""
    part = main_part(evidence.frames["zeroshot"])
    same = common(part, WHERE)
    keys = [name for name in WHERE if name not in same] or ["dataset"]
    lines = []
    for place, group in part.group_by(WHERE, maintain_order=True):
        row = best_single(group)
        dataset, split, perturbation = map(str, place[:3])
        lines.append(
            {
                "dataset": words(title(*where(row, keys))),
                "images": count(row["n"]),
                "best backbone": words(row["backbone"]),
                "top-1, %": share_of(_mean(row)),
                "oracle, %": share_of(_of_metric(group.filter(ensemble=ORACLE), "acc1")),
                **(_of_lead(lead, (dataset, split, perturbation)) if lead else {}),
            }
        )
    about = title(*where(part.row(0, named=True), [name for name in same if name != "dataset"]))
    note = "Backbones and oracle are zero-shot; the best backbone is chosen on these very images."
    return Grid(f"Datasets, {about}", lines, note)


def _of_lead(lead: Method, place: Place) -> dict[str, Cell]:
    """What the answer is made of at one place."""
    numbers = {
        lead.name: share_of(_here(lead.accuracies, place)),
        "its gain": share_of(_here(lead.gains, place), signed=True),
    }
    chosen = lead.choices.get(place[0])
    return numbers | ({"chose": words(chosen.most_common(1)[0][0])} if chosen else {})


def _here(numbers: Mapping[Place, Numbers], place: Place) -> Mean | None:
    return Mean(*numbers[place], 1) if place in numbers else None


def _mean(row: Row) -> Mean:
    return Mean(row["value"], row["ci_low"], row["ci_high"], 1)


def _of_metric(rows: pl.DataFrame, metric: str) -> Mean | None:
    found = rows.filter(metric=metric)
    return _mean(found.row(0, named=True)) if len(found) else None


def method_grid(methods: Iterable[Method], opponent: str) -> Grid:
    """A line for each method, with what it gains over an opponent."""
    shown = list(methods)
    several = len({it.head for it in shown}) > 1
    sets = max(it.accuracy.datasets for it in shown)
    best = max((it.accuracy.value for it in shown if it.name not in HINDSIGHT), default=0)
    lines = []
    for it in shown:
        fair = it.name not in HINDSIGHT
        line = {"method": Cell(_method_name(it))} | ({"head": words(it.head)} if several else {})
        line["fitted on"] = words((it.shots or "nothing") if fair else "test labels")
        line["top-1, %"] = share_of(it.accuracy, best=fair and it.accuracy.value == best)
        line["gain, points"] = share_of(it.gain, signed=True)
        if sets > 1:
            line["better on"] = count(it.better if it.gain else None)
            line["worse on"] = count(it.worse if it.gain else None)
            line["least gain"] = points(it.least[1] if it.least and it.gain else None)
        lines.append(line)
    note = f"gain: over {opponent}, on the same head."
    note += " Methods fitted on test labels are bounds, not choices."
    if sets > 1:
        note += " better, worse: datasets on which the gain is beyond its 95 % interval."
    over = f", means over {sets} datasets" if sets > 1 else ""
    return Grid(f"Methods{over}", lines, note)


def _method_name(method: Method) -> Html:
    about = _KNOWS.get(method.name)
    shown = named(method.name)
    return Html(f"{shown}<small>{about}</small>") if about else shown
