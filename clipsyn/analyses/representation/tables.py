"""Tables of representation: how alike the embeddings of backbones are, how sure their logits."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from clipsyn.analyses.representation import RepresentationSettings
from clipsyn.evaluation.results.view import WHERE, backbones, numbers_by
from clipsyn.show.frames import is_nan
from clipsyn.show.table import (
    SOFT_HYPHEN,
    Cell,
    Table,
    Tables,
    number,
    number_cell,
    percent_cell,
)
from clipsyn.show.tables import Measure, Side, measures_table, pair_matrix
from clipsyn.show.titles import ShortNames, common, mean_over, shortened, title, where

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
