"""Tables of the page: backbones, datasets, methods, numbers of figures, and where all is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from clipsyn.evaluation.results.frame import WHERE, Row, best_single, singles
from clipsyn.evaluation.tables import BEST, INDEPENDENT
from clipsyn.exchange.origins import portable
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN, ORACLE
from clipsyn.report.evidence import Evidence
from clipsyn.report.standings import HINDSIGHT, Place, Standing, backbones, main_part
from clipsyn.show.table import (
    NOTHING,
    UNKNOWN,
    Cell,
    Ends,
    Mean,
    Table,
    percent_cell,
    points_cell,
)
from clipsyn.show.tables import interval_of, table_of
from clipsyn.show.titles import common, title, where
from clipsyn.store.inventory import describe

_MOST_ROWS = 150  # of the numbers below a figure
_DIGITS = 12  # of a digest, enough to tell two apart


def share_of(head: str, mean: Mean | None, *, signed: bool = False) -> dict[str, Cell]:
    """A share in percent with its interval, or a gain in points."""
    if mean is None:
        return {head: UNKNOWN, interval_of(head): UNKNOWN}
    cell = points_cell(mean.value) if signed else percent_cell(mean.value)
    return {head: cell, interval_of(head): Cell(mean.interval or NOTHING)}


def numbers_of(frame: pl.DataFrame, caption: str, rest: str) -> Table:
    """The rows of a frame as they are; `rest` says where those are that are too many for a page."""
    left = len(frame) - _MOST_ROWS
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    notes = f"{left:,} more rows: {rest}" if left > 0 else ""
    digits = dict.fromkeys(floats, 4)
    return table_of(frame.head(_MOST_ROWS), title=caption, digits=digits, notes=notes)


_KNOWS = {
    CHOSEN: "by cross-validation on the support",
    BEST: "the backbone that is best on these very images",
    ORACLE: "right where at least one backbone is",
    INDEPENDENT: "the oracle, if errors were independent within each class",
    BEST_SINGLE: "the backbone that is best on the support",
}


def backbone_table(evidence: Evidence) -> Table:
    """A line for each backbone: how good it is alone, and what it brings to the others."""
    alone = backbones(evidence.frames["zeroshot"])
    sets = max(it.accuracy.datasets for it in alone)
    brings = _of_oracle(evidence.frames.get("oracle"))
    lines = []
    for it in alone:
        line: dict[str, Any] = {"backbone": it.name, **share_of("top-1, %", it.accuracy)}
        if sets > 1:
            values = [value for value, *_ in it.accuracies.values()]
            line |= {"best on": it.best_on, "lowest": min(values), "highest": max(values)}
        line["only it right, %"] = brings.get((it.name, "unique_correct"))
        line["Shapley, points"] = brings.get((it.name, "shapley"))
        line["GFLOPs"] = evidence.gflops.get(it.name)
        lines.append(line)
    over = f", means over {sets} datasets" if sets > 1 else ""
    note = (
        "Shapley: what the backbone adds to the oracle, on average over all orders in which "
        "backbones may join. Intervals are of 95 %."
    )
    return table_of(
        lines,
        title=f"Backbones alone, zero-shot{over}",
        percent=("lowest", "highest", "only it right, %", "Shapley, points"),
        digits={"GFLOPs": 2},
        right=["top-1, %"],
        best={(0, "top-1, %"): ()},
        notes=note,
    )


def _of_oracle(frame: pl.DataFrame | None) -> dict[tuple[str, str], float]:
    """Means over datasets of what the oracle says of each backbone, by its name and the metric."""
    if frame is None:
        return {}
    rows = singles(main_part(frame)).filter(pl.col("value").is_not_nan())
    means = rows.group_by("backbone", "metric").agg(pl.col("value").mean())
    return {(name, metric): value for name, metric, value in means.iter_rows()}


def dataset_table(evidence: Evidence, lead: Standing | None) -> Table:
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
                "dataset": title(*where(row, keys)),
                "images": row["n"],
                "best backbone": row["backbone"],
                **share_of("top-1, %", _mean(row)),
                **share_of("oracle, %", _of_metric(group.filter(ensemble=ORACLE), "acc1")),
                **(_of_lead(lead, (dataset, split, perturbation)) if lead else {}),
            }
        )
    about = title(*where(part.row(0, named=True), [name for name in same if name != "dataset"]))
    note = "Backbones and oracle are zero-shot; the best backbone is chosen on these very images."
    right = ["top-1, %", "oracle, %", *([lead.name, "its gain"] if lead else [])]
    return table_of(lines, title=f"Datasets, {about}", right=right, notes=note)


def _of_lead(lead: Standing, place: Place) -> dict[str, Any]:
    """What the answer is made of at one place."""
    accuracy = share_of(lead.name, _here(lead.accuracies, place))
    gain = share_of("its gain", _here(lead.gains, place), signed=True)
    chosen = lead.choices.get(place[0])
    return accuracy | gain | ({"chose": chosen.most_common(1)[0][0]} if chosen else {})


def _here(numbers: Mapping[Place, Ends], place: Place) -> Mean | None:
    return Mean(*numbers[place], 1) if place in numbers else None


def _mean(row: Row) -> Mean:
    return Mean(row["value"], row["ci_low"], row["ci_high"], 1)


def _of_metric(rows: pl.DataFrame, metric: str) -> Mean | None:
    found = rows.filter(metric=metric)
    return _mean(found.row(0, named=True)) if len(found) else None


def method_table(shown: Sequence[Standing], opponent: str) -> Table:
    """A line for each method, with what it gains over an opponent."""
    several = len({it.head for it in shown}) > 1
    sets = max(it.accuracy.datasets for it in shown)
    best = max((it.accuracy.value for it in shown if it.name not in HINDSIGHT), default=0)
    lines = []
    for it in shown:
        fair = it.name not in HINDSIGHT
        about = {"method": it.name, interval_of("method"): _KNOWS.get(it.name, NOTHING)}
        line: dict[str, Any] = about | ({"head": it.head} if several else {})
        line["fitted on"] = (it.shots or "nothing") if fair else "test labels"
        line |= share_of("top-1, %", it.accuracy)
        line |= share_of("gain, points", it.gain, signed=True)
        if sets > 1:
            line["better on"] = it.better if it.gain else None
            line["worse on"] = it.worse if it.gain else None
            line["least gain"] = points_cell(it.least[1] if it.least and it.gain else None)
        lines.append(line)
    note = f"gain: over {opponent}, on the same head."
    note += " Methods fitted on test labels are bounds, not choices."
    if sets > 1:
        note += " better, worse: datasets on which the gain is beyond its 95 % interval."
    over = f", means over {sets} datasets" if sets > 1 else ""
    first = [
        at for at, it in enumerate(shown) if it.name not in HINDSIGHT and it.accuracy.value == best
    ]
    return table_of(
        lines,
        title=f"Methods{over}",
        right=["top-1, %", "gain, points", "least gain"],
        best={(at, "top-1, %"): () for at in first},
        notes=note,
    )


def image_table(evidence: Evidence) -> Table:
    """A line for each dataset and split: its images, and what is shown of them."""
    lines = [
        {
            "dataset": place.samples.name,
            "images": len(place.samples),
            "labelled": place.labelled,
            "classes": len(place.samples.class_names),
            "prompts": evidence.prompts.get((place.samples.dataset, place.samples.split)),
            "conditions": len(place.perturbations),
            "backbones": len(place.backbones),
            "masked": place.masked,
            "licence of the images": place.samples.licence or None,
        }
        for place in evidence.splits
    ]
    note = (
        "masked: images that some backbone could not read, or has no answer for. They keep their "
        "row and do not count."
    )
    return table_of(lines, title="Datasets", notes=note)


def weights_table(evidence: Evidence) -> Table:
    """A line for each backbone: where its weights come from, and what they are."""
    about = describe(evidence.store)
    lines = [
        _weights(name, about, evidence.gflops.get(name))
        for name in dict.fromkeys(key.backbone for key in evidence.keys)
    ]
    digits = {"GFLOPs": 2, "parameters, M": 2}
    return table_of(lines, title="Backbones and their weights", digits=digits)


def _weights(name: str, about: Mapping[str, Any], gflops: float | None) -> dict[str, Any]:
    known = about["backbones"].get(name, {})
    kinds = about["imports"].get(name, {}).get("kinds", [])
    source = portable(str(known.get("source", ""))) if known else f"imported {', '.join(kinds)}"
    parameters, size = known.get("image_parameters"), (known.get("preprocess") or {}).get("size")
    return {
        "backbone": name,
        "weights from": source or None,
        "SHA-256 of the weights": str(known.get("weights", ""))[:_DIGITS] or None,
        "precision": known.get("precision"),
        "input": size[0] if isinstance(size, list) and size else size,  # pixels of a side
        "GFLOPs": gflops,
        "parameters, M": parameters / 1e6 if parameters else None,
        "run on": known.get("device"),
    }
