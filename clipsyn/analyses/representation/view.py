"""Tables of representation: how alike the embeddings of backbones are, how sure their logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from clipsyn.analyses.representation import RepresentationSettings
from clipsyn.evaluation.results.frame import (
    WHERE,
    backbones,
    having,
    numbers_by,
    over_datasets,
    refuse_several,
)
from clipsyn.show.figure import MUTED, Figure, Mark, Size, marks, needed
from clipsyn.show.frames import is_nan
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
from clipsyn.show.table import SOFT_HYPHEN, Cell, Table, Tables, number, number_cell, percent_cell
from clipsyn.show.tables import Measure, Side, measures_table, pair_matrix
from clipsyn.show.titles import ShortNames, common, mean_over, shortened, title, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CKA = Measure("CKA", "cka", percent=False, digits=2)
_PROCRUSTES = Measure("Procrustes", "procrustes", percent=False, digits=2)
_NEIGHBOURS = Measure("neighbours", "mutual_knn")
_PAIRS = (_CKA, _PROCRUSTES, _NEIGHBOURS)
_OF_LOGITS = (
    Measure("top-1", "acc1", interval="known"),
    Measure("scale", "logit_scale", percent=False),
    Measure("right", "confidence_right", "sure:\nright"),
    Measure("wrong", "confidence_wrong", "sure:\nwrong"),
    Measure("NLL", "nll", percent=False),
    Measure("NLL after", "nll_calibrated", "NLL\nafter", percent=False),
    Measure("ECE", "ece", interval="known"),
    Measure("chance", "ece_floor", "by\nchance", "ECE by chance"),
    Measure("ECE after", "ece_calibrated", "ECE\nafter", interval="known"),
    Measure("chance after", "ece_calibrated_floor", "by\nchance", "ECE after by chance"),
    Measure("T", "temperature", percent=False),
)
_NOTES = {
    "overview": """\
Means over pairs of backbones. CKA: linear, unbiased; 1 for the same embeddings but for rotation and
scale, 0 for independent ones. Procrustes: distance after the best rotation, 0 to 1.41. neighbours:
share of each image's nearest that two backbones agree on, in %. Only CKA compares over datasets:
with few images distances are too small, and many neighbours are shared by chance.""",
    "matrix": """\
Above the diagonal linear CKA, unbiased: 1 for the same embeddings but for rotation and scale, 0
for independent ones. Below it the share, in %, of each image's nearest neighbours that both have
in common.""",
    "pairs": """\
The most alike first. Procrustes: distance after the best rotation, 0 to 1.41, too small with few
images. neighbours: share of each image's nearest that both agree on, in %.""",
    "logits": """\
scale: what cosines are multiplied by. sure: mean confidence (largest probability) where the
prediction is right, and where it is wrong, in %. NLL: cross-entropy in nats. ECE: calibration
error, in %; by chance: that of a perfectly calibrated model on as many images. after: with logits
divided by T, the temperature fitted on the support.""",
}


def tables(frame: pl.DataFrame, settings: RepresentationSettings) -> dict[str, Tables]:
    """Tables of what `clipsyn.analyses.representation.measure` returns, by name.

    One dataset, split and perturbation: "similarity", a matrix of pairs, and "pairs", a line a
    pair with intervals. Several: "similarity", a line each, and for each split and perturbation
    a matrix, mean over datasets ("matrix, test, clean"). Then "logits", a line a backbone, for
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
    return {name: (table,) for name, table in shown.items()}


def notes(frame: pl.DataFrame, _: RepresentationSettings) -> Iterator[str]:
    """Which datasets have no logit statistics."""
    scored = set(frame.filter(metric="ece")["dataset"])
    if silent := sorted(set(frame["dataset"]) - scored):
        yield f"no logit statistics, for want of labels: {', '.join(silent)}"


def _similarities(pairs: pl.DataFrame) -> dict[str, Table]:
    names = shortened(backbones(pairs))
    if pairs.select(WHERE).n_unique() == 1:
        return {"similarity": _matrix(pairs, names), "pairs": _pairs(pairs, names)}
    shown = {"similarity": _overview(pairs, names)}
    for (split, perturbation, _), part in pairs.group_by(WHERE[1:], maintain_order=True):
        shown[f"matrix, {split}, {perturbation}"] = _matrix(part, names)
    return shown


def _overview(pairs: pl.DataFrame, names: ShortNames) -> Table:
    """A line a group: means over pairs, and the pairs that are least and most alike."""
    shared = common(pairs, ("split", "perturbation"))
    lines = []
    for part in pairs.partition_by(WHERE, maintain_order=True):
        alike = part.filter(pl.col("value").is_not_nan(), metric="cka")
        alike = alike.sort("value", maintain_order=True)
        about = {key: part[key][0] for key in (*WHERE[:3], "n") if key not in shared}
        about["least alike"] = _pair(alike.head(1), names)
        about["most alike"] = _pair(alike.tail(1), names)
        lines.append((about, {it.metric: {"value": _mean(part, it.metric)} for it in _PAIRS}))
    phrases = [f"{name} {value}" for name, value in shared.items()]
    return measures_table(
        lines,
        (_CKA, "least alike", "most alike", _PROCRUSTES, _NEIGHBOURS),
        title=title("similarity of embeddings", *phrases, names.phrase),
        headers={
            "Procrustes": f"Pro{SOFT_HYPHEN}\ncrustes",
            "neighbours": f"neigh{SOFT_HYPHEN}\nbours",
        },
        notes=_NOTES["overview"],
    )


def _mean(part: pl.DataFrame, metric: str) -> float | None:
    """Over the pairs whose value is known."""
    values = part.filter(metric=metric)["value"].fill_nan(None)
    return values.mean()  # type: ignore[return-value]


def _pair(rows: pl.DataFrame, names: ShortNames) -> str | None:
    """The only row as "RN ViT-16 0.25"; None where there is none."""
    if rows.is_empty():
        return None
    members, value = rows.select("backbones", "value").row(0)
    return " ".join([*(names.short[name] for name in members), number(value)])


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
    lines = [
        ({"backbone": names.cell(one), "and": names.cell(other)}, of_pair)
        for (one, other), of_pair in numbers_by(part, "backbones").items()
    ]
    lines.sort(key=lambda line: _known(line[1]["cka"]["value"]), reverse=True)
    measures = [it._replace(interval=True) for it in _PAIRS]
    return measures_table(lines, measures, title=_title(part, names), notes=_NOTES["pairs"])


def _known(value: float) -> float:
    return -2 if is_nan(value) else value


def _logits(part: pl.DataFrame) -> Table:
    """A line a backbone; intervals where there is one dataset, else means over datasets."""
    names = shortened(backbones(part))
    backbone, known = pl.col("backbones").list.first(), pl.col("value").fill_nan(None)
    is_median, is_one = pl.col("metric").first() == "temperature", pl.col("is_one").first()
    means = (
        part.with_columns(
            backbone=backbone, is_one=pl.col("dataset").n_unique().over(backbone) == 1
        )
        .group_by("backbone", "metric")
        .agg(
            value=pl.when(is_median).then(known.median()).otherwise(known.mean()),
            ci_low=pl.when(is_one).then(pl.col("ci_low").first()),
            ci_high=pl.when(is_one).then(pl.col("ci_high").first()),
        )
    )
    by_backbone = numbers_by(means, "backbone")
    return measures_table(
        [({"backbone": names.cell(name)}, by_backbone[name]) for name in names.short],
        [it._replace(optional=True) for it in _OF_LOGITS],
        title=_title(part, names),
        notes="\n".join([_NOTES["logits"], *_incomplete(part)]),
    )


def _incomplete(part: pl.DataFrame) -> Iterator[str]:
    """What is no mean over all datasets."""
    datasets = part["dataset"].n_unique()
    fitted = part.filter(metric="temperature")["dataset"].n_unique()
    if datasets > 1:
        yield "T: median over datasets, all else their mean."
    if 0 < fitted < datasets:
        yield f"Only {fitted} of the datasets have such a split: compare before and after there."


def _title(part: pl.DataFrame, names: ShortNames) -> str:
    over = mean_over(part, ["dataset"])
    about = where(part.row(0, named=True), WHERE[1:] if over else (*WHERE, "n"))
    return title(*about, over, names.phrase)


_ABOUT = WHERE[1:3]  # no prompt set: embeddings of images have none


def _pair_rows(frame: pl.DataFrame) -> pl.DataFrame:
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
    data=_pair_rows,
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
    return Grid.of(data["backbone"].n_unique()).size()


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
    key(ax, entries)


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
