"""How alike the embeddings of two backbones are, and how often one is right when it is sure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from clipsyn.evaluation.results.view import WHERE, having, over_datasets, refuse_several
from clipsyn.show.figure import MUTED, Figure, Mark, Size, marks, needed
from clipsyn.show.panels import (
    Grid,
    drawn,
    key,
    named_pairs,
    pair_map,
    pair_map_size,
    pairs_subject,
    panels,
)
from clipsyn.show.titles import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_ABOUT = WHERE[1:3]  # no prompt set: embeddings of images have none


def _pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each pair, mean over datasets."""
    rows = needed(
        named_pairs(frame.filter(metric="cka")),
        "CKA of any two backbones",
        "give a store with the embeddings of two, or what `clipsyn representation STORE -o "
        "FILE.parquet` wrote",
    )
    refuse_several(rows)
    return over_datasets(rows, [*_ABOUT, "backbone", "other"])


def _draw_pairs(data: pl.DataFrame, ax: Axes) -> None:
    pair_map(data, ax, "linear CKA")


cka = Figure(
    name="cka",
    short="How alike the embeddings of every two backbones are.",
    caption="Linear CKA, unbiased, of the image embeddings of every two backbones: 1 for the same "
    "embeddings but for rotation and scale, 0 for independent ones.",
    source="representation",
    data=_pairs,
    draw=_draw_pairs,
    size=pair_map_size,
    about=lambda data: pairs_subject(data, (*WHERE[:3], "n")),
)


_METRICS = {  # what each pair of metrics is of
    "as it is": ("bin_accuracy", "bin_confidence"),
    "after temperature scaling": ("bin_accuracy_calibrated", "bin_confidence_calibrated"),
}
_PERFECT = {"perfectly calibrated": Mark(MUTED, "", "--")}


def _bins(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each backbone and bin of confidence, over the images of all datasets.

    scaling: "as it is", or "after temperature scaling". low, high: the interval of the
    accuracy.
    """
    rows = needed(
        having(frame, "bin").drop_nulls("bin"),
        "accuracy by confidence of any backbone",
        "give a store with labels and logits, or what `clipsyn representation STORE -o "
        "FILE.parquet` wrote",
    )
    refuse_several(rows)
    backbone = pl.col("backbones").list.first().alias("backbone")
    parts = [
        _pooled(rows.with_columns(backbone), *metrics).with_columns(scaling=pl.lit(scaling))
        for scaling, metrics in _METRICS.items()
    ]
    columns = "backbone", "scaling", "bin", "confidence", "accuracy", "low", "high", "n"
    datasets = pl.lit(rows["dataset"].n_unique()).alias("datasets")
    names = rows.select(backbone.unique(maintain_order=True))
    ordered = names.join(pl.concat(parts), on="backbone", maintain_order="left_right")
    return ordered.select(*columns, datasets)


def _pooled(rows: pl.DataFrame, accuracy: str, confidence: str) -> pl.DataFrame:
    """Both metrics of each backbone and bin: means over images, those of a dataset as many as n."""
    table = rows.filter(pl.col("metric").is_in([accuracy, confidence])).sort("bin")
    total = pl.col("value") * pl.col("n")
    table = table.group_by("backbone", "bin", maintain_order=True).agg(
        right=total.filter(metric=accuracy).sum().round(),
        below=_length(pl.col("value") - pl.col("ci_low"), accuracy),
        above=_length(pl.col("ci_high") - pl.col("value"), accuracy),
        sure=total.filter(metric=confidence).sum(),
        n=pl.col("n").filter(metric=accuracy).sum(),
    )
    n = pl.col("n")
    return table.with_columns(
        accuracy=pl.col("right") / n,
        confidence=pl.col("sure") / n,
        low=(pl.col("right") - pl.col("below")) / n,
        high=(pl.col("right") + pl.col("above")) / n,
    ).drop("right", "sure", "below", "above")


def _length(distance: pl.Expr, accuracy: str) -> pl.Expr:
    """Distances from the accuracies of datasets to their bounds, in images; as squares they add."""
    return (distance * pl.col("n")).filter(metric=accuracy).pow(2).sum().sqrt()


def _bins_size(data: pl.DataFrame) -> Size:
    return Grid.of(data["backbone"].n_unique()).size(_entries(data))


def _entries(data: pl.DataFrame) -> dict[str, Mark]:
    return marks(data["scaling"].unique(maintain_order=True).to_list()) | _PERFECT


def _draw_bins(data: pl.DataFrame, ax: Axes) -> None:
    entries = _entries(data)
    names = data["backbone"].unique(maintain_order=True).to_list()
    short = shortened(names).short.values()
    parts = panels(ax, [*short], "confidence, %", "accuracy, %")
    for name, part in zip(names, parts, strict=True):
        _draw_panel(data.filter(backbone=name), part, entries)
    parts[0].set(xlim=(0, 100), ylim=(0, 100), xticks=[25, 50, 75], yticks=[0, 50, 100])
    key(ax, entries, titled=1)


def _bins_about(data: pl.DataFrame) -> str:
    count = data["datasets"][0]
    return f"over the images of {count} datasets" if count > 1 else ""


def _draw_panel(data: pl.DataFrame, ax: Axes, entries: dict[str, Mark]) -> None:
    ax.plot([0, 100], [0, 100], color=MUTED, ls="--", lw=0.8)
    for (scaling,), part in data.group_by("scaling", maintain_order=True):
        mark = entries[str(scaling)]
        x, y = 100 * part["confidence"].to_numpy(), 100 * part["accuracy"].to_numpy()
        ax.plot(x, y, **drawn(mark), ms=3, lw=1, mec="white", mew=0.3, zorder=3)
        low, high = 100 * part["low"].to_numpy(), 100 * part["high"].to_numpy()
        ax.vlines(x, low, high, color=mark.colour, lw=0.6, zorder=2)


reliability = Figure(
    name="reliability",
    short="How often a backbone is right, by how sure it is.",
    caption=(
        "Accuracy of each tenth of the images, from the least to the most confident, with 95 % "
        "intervals, against their mean confidence: below the diagonal a backbone is too sure. "
        "Temperatures were fitted on the support."
    ),
    source="representation",
    data=_bins,
    draw=_draw_bins,
    size=_bins_size,
    about=_bins_about,
)
