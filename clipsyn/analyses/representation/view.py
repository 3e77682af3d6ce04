"""How alike the embeddings of backbones are, how sure their logits: tables, and calibration."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from clipsyn.analyses.representation import RepresentationSettings
from clipsyn.evaluation.figures import pair_figure, pair_lines
from clipsyn.evaluation.results.frame import (
    WHERE,
    backbones,
    having,
    numbers_by,
    over_datasets,
    refuse_several,
)
from clipsyn.show.figure import MUTED, Axes, Figure, key, look, marks, needed, panels, panels_size
from clipsyn.show.table import Cell, Table, number_cell, percent_cell
from clipsyn.show.tables import Measure, Side, measures_table, notes_beside, pair_matrix
from clipsyn.show.titles import ShortNames, mean_over, shortened, title, where

_PAIRS = (
    Measure("CKA", "cka", percent=False, digits=2, interval=True),
    Measure("Procrustes", "procrustes", percent=False, digits=2, interval=True),
    Measure("neighbours", "mutual_knn", interval=True),
)
_OF_LOGITS = (
    Measure("top-1", "acc1", interval="known"),
    Measure("scale", "logit_scale", percent=False),
    Measure("right", "confidence_right", "sure:\nright"),
    Measure("wrong", "confidence_wrong", "sure:\nwrong"),
    Measure("NLL", "nll", percent=False),
    Measure("NLL after", "nll_calibrated", "NLL\nafter", percent=False),
    Measure("ECE", "ece", interval="known"),
    Measure("chance", "ece_floor", "by\nchance"),
    Measure("ECE after", "ece_calibrated", "ECE\nafter", interval="known"),
    Measure("chance after", "ece_calibrated_floor", "by\nchance"),
    Measure("T", "temperature", percent=False),
)
_NOTES = notes_beside(__file__)


def tables(frame: pl.DataFrame, settings: RepresentationSettings) -> dict[str, Table]:
    """Tables of what `clipsyn.analyses.representation.measure` returns, by name.

    One dataset, split and perturbation: "similarity", a matrix of pairs, and "pairs", a line a
    pair with intervals. Several: for each split and perturbation a matrix, mean over datasets
    ("similarity, test, clean"). Then "logits", a line a backbone, for
    each split, perturbation and prompt set if there are several ("logits, test, clean, own"), mean
    over datasets. What the frame has no rows for is left out.
    """
    pairs = frame.filter(pl.col("metric").is_in([it.metric for it in _PAIRS]))
    logits = frame.filter(pl.col("metric").is_in([it.metric for it in _OF_LOGITS]))
    shown = _similarities(pairs) if len(pairs) else {}
    several = logits.select(WHERE[1:]).n_unique() > 1
    for keys, part in logits.group_by(WHERE[1:], maintain_order=True):
        name = ", ".join(["logits", *map(str, keys)]) if several else "logits"
        shown[name] = _logits(part)
    return shown


def notes(frame: pl.DataFrame, _: RepresentationSettings) -> Iterator[str]:
    """Which datasets have no logit statistics."""
    scored = set(frame.filter(metric="ece")["dataset"])
    if silent := sorted(set(frame["dataset"]) - scored):
        yield f"no logit statistics, for want of labels: {', '.join(silent)}"


def _similarities(pairs: pl.DataFrame) -> dict[str, Table]:
    names = shortened(backbones(pairs))
    if pairs.select(WHERE).n_unique() == 1:
        return {"similarity": _matrix(pairs, names), "pairs": _pairs(pairs, names)}
    return {
        f"similarity, {split}, {perturbation}": _matrix(part, names)
        for (split, perturbation, _), part in pairs.group_by(WHERE[1:], maintain_order=True)
    }


def _matrix(part: pl.DataFrame, names: ShortNames) -> Table:
    """CKA above the diagonal and mutual neighbours below: means over datasets."""
    return pair_matrix(
        part,
        names,
        above=Side("cka", number_cell),
        below=Side("mutual_knn", percent_cell),
        diagonal=dict.fromkeys(names.short, Cell("")),
        title=_title(part, names),
        note=_NOTES["matrix"],
    )


def _pairs(part: pl.DataFrame, names: ShortNames) -> Table:
    """A line a pair, the most alike first."""
    lines = pair_lines(part, names, "cka")
    return measures_table(lines, _PAIRS, title=_title(part, names), notes=_NOTES["pairs"])


def _logits(part: pl.DataFrame) -> Table:
    """A line a backbone; intervals where there is one dataset, else means over datasets."""
    names = shortened(backbones(part))
    named = part.with_columns(backbone=pl.col("backbones").list.first())
    by_backbone = numbers_by(over_datasets(named, ["backbone", "metric"]), "backbone")
    datasets = part["dataset"].n_unique()
    fitted = part.filter(metric="temperature")["dataset"].n_unique()
    note = _NOTES["logits"]
    if 0 < fitted < datasets:
        note += (
            f"\nOnly {fitted} of the datasets have such a split: compare before and after there."
        )
    return measures_table(
        [({"backbone": names.cell(name)}, by_backbone[name]) for name in names.short],
        [it._replace(optional=True) for it in _OF_LOGITS],
        title=_title(part, names),
        notes=note,
    )


def _title(part: pl.DataFrame, names: ShortNames) -> str:
    over = mean_over(part, ["dataset"])
    about = where(part.row(0, named=True), WHERE[1:] if over else (*WHERE, "n"))
    return title(*about, over, names.phrase)


_METRICS = {  # the end of the metrics, by what has been done to the logits
    "as it is": "",
    "after temperature scaling": "_calibrated",
}
_PERFECT = {"perfectly calibrated": look(MUTED, "", "--")}


def _bins(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each backbone and bin of confidence of one dataset; low, high: of the accuracy."""
    rows = needed(
        having(frame, "bin").drop_nulls("bin"),
        "accuracy by confidence of any backbone",
        "representation",
    ).with_columns(backbone=pl.col("backbones").list.first())
    refuse_several(rows, WHERE)
    place = [*WHERE, "backbone", "bin"]
    parts = [
        rows.filter(metric=f"bin_accuracy{end}")
        .select(*place, "n", accuracy="value", low="ci_low", high="ci_high")
        .join(
            rows.filter(metric=f"bin_confidence{end}").select(*place, confidence="value"), on=place
        )
        .with_columns(scaling=pl.lit(scaling))
        .sort("bin")
        for scaling, end in _METRICS.items()
    ]
    names = rows.select(pl.col("backbone").unique(maintain_order=True))
    return names.join(pl.concat(parts), on="backbone", maintain_order="left_right")


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    entries = marks(data["scaling"].unique(maintain_order=True).to_list()) | _PERFECT
    names = data["backbone"].unique(maintain_order=True).to_list()
    short = shortened(names).short.values()
    parts = panels(ax, [*short], "confidence, %", "accuracy, %")
    for name, part in zip(names, parts, strict=True):
        part.plot([0, 100], [0, 100], color=MUTED, ls="--", lw=0.8)
        for (scaling,), rows in data.filter(backbone=name).group_by("scaling", maintain_order=True):
            mark, x = entries[str(scaling)], 100 * rows["confidence"].to_numpy()
            accuracy, low, high = (100 * rows[it].to_numpy() for it in ("accuracy", "low", "high"))
            part.plot(x, accuracy, **mark, ms=3, lw=1, mec="white", mew=0.3, zorder=3)
            part.vlines(x, low, high, color=mark["color"], lw=0.6, zorder=2)
    parts[0].set(xlim=(0, 100), ylim=(0, 100), xticks=[25, 50, 75], yticks=[0, 50, 100])
    key(ax, entries)


reliability = Figure(
    name="reliability",
    short="How often a backbone is right, by how sure it is.",
    caption=_NOTES["reliability"],
    source="representation",
    data=_bins,
    draw=_draw,
    size=lambda data: panels_size(data["backbone"].n_unique()),
    about=lambda data: title(*where(data.row(0, named=True), WHERE)),
)
cka = pair_figure(
    "linear CKA",
    WHERE[:3],
    name="cka",
    short="How alike the embeddings of every two backbones are.",
    caption=_NOTES["cka"],
    source="representation",
    metric="cka",
)
