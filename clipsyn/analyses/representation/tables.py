"""Tables of representation: how alike the embeddings of backbones are, how sure their logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from clipsyn.analyses.representation import RepresentationSettings
from clipsyn.frames import is_nan
from clipsyn.results.view import backbones
from clipsyn.show.numbers import NOTHING, interval_text
from clipsyn.show.pairs import Side, pair_matrix
from clipsyn.show.tables import shortened, show

_OF_PAIRS = {"cka": "CKA", "procrustes": "Procrustes", "mutual_knn": "neighbours"}
_OF_LOGITS = {  # metrics in the order of columns
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
_SHARES = ["top-1", "right", "wrong", "ECE", "chance", "ECE after", "chance after"]  # in percent
_WITH_INTERVAL = ("acc1", "ece", "ece_calibrated")
_HEADS = {
    "right": "sure:\nright",
    "wrong": "sure:\nwrong",
    "NLL after": "NLL\nafter",
    "ECE after": "ECE\nafter",
    "chance": "by\nchance",
    "chance after": "by\nchance",
    **{f"95 % of {name}": "95 %" for name in (*_OF_PAIRS.values(), *_OF_LOGITS.values())},
}
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


def tables(
    frame: pl.DataFrame, settings: RepresentationSettings, *, terminal: bool | None = None
) -> dict[str, str]:
    """Tables of what `clipsyn.analyses.representation.measure` returns, by name.

    One dataset, split and perturbation: "similarity", a matrix of pairs, and "pairs", a line a
    pair with intervals. Several: "similarity", a line each, and for each split and perturbation
    a matrix, mean over datasets ("matrix, test, clean"). Then "logits", a line a backbone, for
    each split, perturbation and prompt set if there are several ("logits, test, clean, own"), mean
    over datasets. What the frame has no rows for is left out.
    """
    pairs = frame.filter(pl.col("metric").is_in(list(_OF_PAIRS)))
    logits = frame.filter(pl.col("metric").is_in(list(_OF_LOGITS)))
    found = _similarities(pairs, _names(pairs), terminal) if len(pairs) else {}
    where = ["split", "perturbation", "prompts"]
    several = logits.select(where).n_unique() > 1
    for keys, part in logits.group_by(where, maintain_order=True):
        name = f"logits, {', '.join(map(str, keys))}" if several else "logits"
        found[name] = _logits(part, terminal)
    return found


def notes(frame: pl.DataFrame, _: RepresentationSettings) -> Iterator[str]:
    """Which datasets have no logit statistics."""
    scored = set(frame.filter(metric="ece")["dataset"])
    if silent := sorted(set(frame["dataset"]) - scored):
        yield f"no logit statistics, for want of labels: {', '.join(silent)}"


def _similarities(pairs: pl.DataFrame, names: list[str], terminal: bool | None) -> dict[str, str]:
    short, pattern = shortened(names)
    groups = pairs.partition_by(["dataset", "split", "perturbation"], maintain_order=True)
    if len(groups) == 1:
        return {
            "similarity": _matrix(pairs, short, pattern, terminal),
            "pairs": _pairs(pairs, short, pattern, terminal),
        }
    found = {"similarity": _overview(groups, short, pattern, terminal)}
    for keys, part in pairs.group_by(["split", "perturbation"], maintain_order=True):
        name = f"matrix, {', '.join(map(str, keys))}"
        found[name] = _matrix(part, short, pattern, terminal)
    return found


def _names(pairs: pl.DataFrame) -> list[str]:
    """All backbones, in order."""
    return backbones(pairs)


def _overview(
    groups: list[pl.DataFrame], short: dict[str, str], pattern: str, terminal: bool | None
) -> str:
    """A line a group: means over pairs, and the pairs that are least and most alike."""
    every = pl.concat(groups)
    keys = [
        name
        for name in ("dataset", "split", "perturbation")
        if name == "dataset" or every[name].n_unique() > 1
    ]
    rows = []
    for part in groups:
        alike = part.filter(pl.col("metric") == "cka").sort("value", maintain_order=True)
        known = alike.filter(pl.col("value").is_not_nan())
        rows.append(
            {key: part[key][0] for key in keys}
            | {"n": part["n"][0], "CKA": _number(_mean(part, "cka"))}
            | {"least alike": _extreme(known, 0, short), "most alike": _extreme(known, -1, short)}
            | {"Procrustes": _number(_mean(part, "procrustes"))}
            | {"neighbours": _mean(part, "mutual_knn")}
        )
    said = [f"{name} {every[name][0]}" for name in ("split", "perturbation") if name not in keys]
    text = show(
        pl.DataFrame(rows, infer_schema_length=None),
        title=" · ".join(["similarity of embeddings", *said, *_said(pattern)]),
        percent=["neighbours"],
        right=["CKA", "Procrustes"],
        headers={"Procrustes": "Pro-\ncrustes", "neighbours": "neigh-\nbours"},
        terminal=terminal,
    )
    return f"{text}\n\n{_NOTES['overview']}"


def _mean(part: pl.DataFrame, metric: str) -> float | None:
    """Over what is known."""
    values = part.filter(pl.col("metric") == metric)["value"].fill_nan(None)
    return values.mean()  # type: ignore[return-value]


def _extreme(alike: pl.DataFrame, row: int, short: dict[str, str]) -> str | None:
    if alike.is_empty():
        return None
    found = alike.row(row, named=True)
    both = " ".join(short[name] for name in found["backbones"])
    return f"{both} {_number(found['value'])}"


def _matrix(part: pl.DataFrame, short: dict[str, str], pattern: str, terminal: bool | None) -> str:
    """CKA above the diagonal and mutual neighbours below: means over datasets."""
    return pair_matrix(
        part,
        short,
        above=Side("cka", _number),
        below=Side("mutual_knn", lambda value: _number(value, 1, 100)),
        diagonal=dict.fromkeys(short, ""),
        title=_title(part, pattern),
        note=_NOTES["matrix"],
        terminal=terminal,
    )


def _pairs(part: pl.DataFrame, short: dict[str, str], pattern: str, terminal: bool | None) -> str:
    """A line a pair, the most alike first."""
    rows = []
    for ((one, other),), of_pair in part.group_by("backbones", maintain_order=True):
        of = {row["metric"]: row for row in of_pair.to_dicts()}
        row = {"backbone": short[one], "and": short[other], "by": of["cka"]["value"]}
        for metric, name in _OF_PAIRS.items():
            share = metric == "mutual_knn"
            value = of[metric]["value"]
            row[name] = value if share else _number(value)
            row[f"95 % of {name}"] = _interval(of[metric], share)
        rows.append(row)
    rows.sort(key=lambda row: 1 if is_nan(row["by"]) else -row["by"])
    numbers = [name for name in rows[0] if name not in ("backbone", "and", "by")]
    text = show(
        pl.DataFrame(rows).drop("by"),
        title=_title(part, pattern),
        percent=["neighbours"],
        headers=_HEADS,
        right=numbers,
        terminal=terminal,
    )
    return f"{text}\n\n{_NOTES['pairs']}"


def _logits(part: pl.DataFrame, terminal: bool | None) -> str:
    """A line a backbone; intervals where there is one dataset, else means over datasets."""
    short, pattern = shortened(backbones(part))
    one = part["dataset"].n_unique() == 1
    rows = []
    for name, text in short.items():
        of = dict(_by_metric(part.filter(pl.col("backbones").list.first() == name), one))
        rows.append({"backbone": text} | of)
    table = pl.DataFrame(rows, infer_schema_length=None)
    there = [name for name in table.columns if table[name].null_count() < len(table)]
    text = show(
        table.select(there),
        title=_title(part, pattern),
        percent=_SHARES,
        headers=_HEADS,
        right=[name for name in there if name != "backbone"],
        terminal=terminal,
    )
    return "\n\n".join([text, "\n".join([_NOTES["logits"], *_fitted(part)])])


def _by_metric(of_backbone: pl.DataFrame, one: bool) -> Iterable[tuple[str, Any]]:
    for metric, name in _OF_LOGITS.items():
        rows = of_backbone.filter(pl.col("metric") == metric)
        values = rows["value"].fill_nan(None)
        yield name, values.median() if metric == "temperature" else values.mean()
        if one and metric in _WITH_INTERVAL:
            yield f"95 % of {name}", _interval(rows.row(0, named=True), True) if len(rows) else None


def _fitted(part: pl.DataFrame) -> Iterable[str]:
    """What means over datasets leave out."""
    datasets = part["dataset"].n_unique()
    fitted = part.filter(pl.col("metric") == "temperature")["dataset"].n_unique()
    if datasets > 1:
        yield "T: median over datasets, all else their mean."
    if 0 < fitted < datasets:
        yield f"Only {fitted} of the datasets have such a split: compare before and after there."


def _title(part: pl.DataFrame, pattern: str) -> str:
    row = part.row(0, named=True)
    datasets = part["dataset"].n_unique()
    about = row["split"] if datasets > 1 else f"{row['dataset']}/{row['split']}"
    said = [about, row["perturbation"]]
    said += [f"prompts {row['prompts']}"] if row["prompts"] else []
    said.append(f"mean over {datasets} datasets" if datasets > 1 else f"n {row['n']:,}")
    return " · ".join([*said, *_said(pattern)])


def _said(pattern: str) -> list[str]:
    return [f"backbones {pattern}"] if pattern else []


def _interval(row: dict[str, Any], percent: bool) -> str:
    low, high = row["ci_low"], row["ci_high"]
    if percent or low is None or is_nan(low):
        return interval_text(low, high)
    return f"{low:.2f} to {high:.2f}"


def _number(value: float | None, digits: int = 2, factor: float = 1) -> str:
    return NOTHING if value is None or is_nan(value) else f"{factor * value:.{digits}f}"
