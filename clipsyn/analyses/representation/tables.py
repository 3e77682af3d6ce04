"""Tables of representation: how alike the embeddings of backbones are, how sure their logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from clipsyn.analyses.representation import RepresentationSettings
from clipsyn.evaluation.results.view import WHERE, backbones, numbers_by
from clipsyn.show.frames import is_nan
from clipsyn.show.numbers import number
from clipsyn.show.pairs import Side, pair_matrix
from clipsyn.show.table import (
    SOFT_HYPHEN,
    Cell,
    Table,
    Tables,
    interval_cell,
    number_cell,
    percent_cell,
)
from clipsyn.show.tables import (
    Measure,
    ShortNames,
    interval_of,
    measures_table,
    shortened,
    table_of,
)
from clipsyn.show.titles import common, mean_over, title, where

_CKA = Measure("CKA", "cka", percent=False, digits=2)
_PROCRUSTES = Measure("Procrustes", "procrustes", percent=False, digits=2)
_NEIGHBOURS = Measure("neighbours", "mutual_knn")
_PAIRS = (_CKA, _PROCRUSTES, _NEIGHBOURS)
_OF_LOGITS = {  # metric: column, in order
    "acc1": "top-1",
    "logit_scale": "scale",
    "confidence_right": "right",
    "confidence_wrong": "wrong",
    "nll": "NLL",
    "nll_calibrated": "NLL after",
    "ece": "ECE",
    "ece_floor": "chance",
    "ece_calibrated": "ECE after",
    "ece_calibrated_floor": "chance after",
    "temperature": "T",
}
_SHARES = ["top-1", "right", "wrong", "ECE", "chance", "ECE after", "chance after"]
_WITH_INTERVAL = ("acc1", "ece", "ece_calibrated")
_HEADS = {
    "right": "sure:\nright",
    "wrong": "sure:\nwrong",
    "NLL after": "NLL\nafter",
    "ECE after": "ECE\nafter",
    "chance": "by\nchance",
    "chance after": "by\nchance",
}
_LABELS = {"chance": "ECE by chance", "chance after": "ECE after by chance"}
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
    logits = frame.filter(pl.col("metric").is_in(list(_OF_LOGITS)))
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
    lines = [
        {"backbone": names.cell(name)}
        | _cells(part.filter(pl.col("backbones").list.first() == name))
        for name in names.short
    ]
    known = [name for name in lines[0] if any(line[name] is not None for line in lines)]
    return table_of(
        [{name: line[name] for name in known} for line in lines],
        title=_title(part, names),
        percent=_SHARES,
        headers=_HEADS,
        labels=_LABELS,
        notes="\n".join([_NOTES["logits"], *_incomplete(part)]),
    )


def _cells(of_backbone: pl.DataFrame) -> dict[str, Any]:
    """Means over datasets, of the temperature the median; of one dataset also intervals."""
    one = of_backbone["dataset"].n_unique() == 1
    cells: dict[str, Any] = {}
    for metric, column in _OF_LOGITS.items():
        rows = of_backbone.filter(metric=metric)
        values = rows["value"].fill_nan(None)
        cells[column] = values.median() if metric == "temperature" else values.mean()
        if one and metric in _WITH_INTERVAL:
            beside = interval_cell(rows.row(0, named=True)) if len(rows) else None
            cells[interval_of(column)] = beside
    return cells


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
