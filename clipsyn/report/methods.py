"""Tables that compare ensembles: by dataset, and by number of shots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from clipsyn.report.tables import show
from clipsyn.specs import CLEAN

BEST = "best single on test"
_FULL = "full"


def method_frame(tidy: pl.DataFrame, metric: str = "acc1") -> pl.DataFrame:
    """A row for each method and dataset: mean over seeds of a metric, and its spread.

    tidy: what `clipsyn.evaluate.evaluate` returns. Columns: head, split, perturbation, prompts,
    classes, dataset, method, shots ("full" is the whole support, null where nothing is learned),
    value, sd (over seeds), ci_low, ci_high (means of the intervals over samples), seeds, n.
    The best single backbone on test stands beside the ensembles, as `BEST`.
    """
    wanted = tidy.filter(pl.col("metric") == metric).with_columns(
        shots=pl.when(pl.col("shots").is_null())
        .then(pl.lit(_FULL))
        .when(pl.col("shots") > 0)
        .then(pl.col("shots").cast(pl.String)),
    )
    keys = ["head", "split", "perturbation", "prompts", "classes", "dataset", "shots"]
    singles = wanted.filter(pl.col("ensemble").is_null())
    best = (
        singles.sort("value", descending=True, nulls_last=True)
        .group_by([*keys, "seed"], maintain_order=True)
        .first()
        .with_columns(ensemble=pl.lit(BEST))
    )
    ensembles = wanted.filter(pl.col("ensemble").is_not_null())
    rows = pl.concat([ensembles.select(tidy.columns), best.select(tidy.columns)])
    return (
        rows.rename({"ensemble": "method"})
        .group_by([*keys, "method"], maintain_order=True)
        .agg(
            pl.col("value").mean(),
            pl.col("value").std().alias("sd"),
            pl.col("ci_low").mean(),
            pl.col("ci_high").mean(),
            pl.len().alias("seeds"),
            pl.col("n").first(),
        )
    )


def method_tables(tidy: pl.DataFrame, *, terminal: bool | None = None) -> str:
    """The tables of `named_tables`, one below the other, and what they mean."""
    tables = named_tables(tidy, terminal=terminal)
    return "\n\n".join([*tables.values(), _NOTE]) if tables else "no ensemble to show"


def named_tables(tidy: pl.DataFrame, *, terminal: bool | None = None) -> dict[str, str]:
    """For each head, split and prompt set: accuracy by dataset, by shots, by perturbation.

    The first two are of clean images, or of the only perturbation there is. Keys are "by dataset",
    "by shots" and "by perturbation" with the head behind a comma, and what else differs.
    """
    where = ["head", "split", "prompts", "classes"]
    tables = {}
    frame, gains = method_frame(tidy), method_frame(tidy, "gain")
    for keys, every in frame.group_by(where, maintain_order=True):
        labels = every["perturbation"].unique(maintain_order=True).to_list()
        one = CLEAN.label if CLEAN.label in labels else labels[0]
        part = every.filter(pl.col("perturbation") == one)
        gain = gains.filter(
            pl.col("perturbation") == one,
            *(pl.col(name) == value for name, value in zip(where, keys, strict=True)),
        )
        head, split, prompts, classes = keys
        title = f"head {head} · {split} · {one} · prompts {prompts}"
        title += "" if classes == "all" else f" · {classes} classes"
        name = f"{head}, {split}, {prompts}, {classes}"
        tables[f"by dataset, {name}"] = by_dataset(part, gain, title=title, terminal=terminal)
        if len(_shots(part)) > 1:
            tables[f"by shots, {name}"] = by_shots(part, title=title, terminal=terminal)
        if len(labels) > 1:
            title = title.replace(f" · {one} · ", " · ")
            tables[f"by perturbation, {name}"] = by_perturbation(
                every, labels, title=title, terminal=terminal
            )
    return tables


_NOTE = (
    "top-1 accuracy in %, means over seeds. gain: in points over the best single backbone of each "
    "dataset,\nchosen on these very test images (least: on the dataset where it is smallest). "
    "best-single is chosen\non the support. oracle: share of images that at least one backbone "
    "gets right."
)


def by_dataset(
    frame: pl.DataFrame, gains: pl.DataFrame, *, title: str, terminal: bool | None = None
) -> str:
    """A line a method, a column a dataset, at the most shots there are."""
    shots = _shots(frame)
    last = shots[-1] if shots else None
    table = _at(frame, last).pivot(on="dataset", index="method", values="value")
    datasets = [name for name in table.columns if name != "method"]
    table = table.with_columns(mean=pl.mean_horizontal(datasets))
    gain = (
        _at(gains, last)
        .group_by("method")
        .agg(gain=pl.col("value").mean(), least=pl.col("value").min())
    )
    table = _ordered(table.join(gain, on="method", how="left"))
    gained = ["gain", "least"]
    table = table.with_columns(  # the reference gains nothing over itself
        pl.when(pl.col("method") == BEST).then(0.0).otherwise(pl.col(gained)).name.keep()
    )
    columns = [*datasets, "mean"] if len(datasets) > 1 else datasets
    table = table.select("method", *columns, "gain", *(["least"] if len(datasets) > 1 else []))
    return show(
        table,
        title=title + _said(shots),
        percent=[*columns, "gain", "least"],
        bold=_best_cells(table, columns),
        terminal=terminal,
    )


def by_shots(frame: pl.DataFrame, *, title: str, terminal: bool | None = None) -> str:
    """A line a method, a column a number of shots: means over datasets."""
    shots = _shots(frame)
    columns = {name: _at(frame, name) for name in shots}
    return _means(frame, columns, f"{title} · by shots", terminal)


def by_perturbation(
    frame: pl.DataFrame, labels: Sequence[str], *, title: str, terminal: bool | None = None
) -> str:
    """A line a method, a column a perturbation: means over datasets, at the most shots."""
    shots = _shots(frame)
    last = _at(frame, shots[-1] if shots else None)
    columns = {label: last.filter(pl.col("perturbation") == label) for label in labels}
    return _means(frame, columns, f"{title} · by perturbation{_said(shots)}", terminal)


def _means(
    frame: pl.DataFrame, columns: dict[str, pl.DataFrame], title: str, terminal: bool | None
) -> str:
    """Methods by columns, each the mean over the datasets of some rows."""
    table = frame.select(pl.col("method").unique())
    for name, rows in columns.items():
        mean = rows.group_by("method").agg(pl.col("value").mean().alias(name))
        table = table.join(mean, on="method", how="left")
    table = _ordered(table)
    n = frame["dataset"].n_unique()
    return show(
        table,
        title=title + (f" · mean over {n} datasets" if n > 1 else ""),
        percent=list(columns),
        bold=_best_cells(table, list(columns)),
        terminal=terminal,
    )


def _said(shots: Sequence[str]) -> str:
    if not shots:
        return ""
    return " · the whole support" if shots[-1] == _FULL else f" · {shots[-1]} shots"


def _at(frame: pl.DataFrame, shots: str | None) -> pl.DataFrame:
    """Methods at this number of shots, beside those that learn nothing."""
    return frame.filter(pl.col("shots").is_null() | pl.col("shots").eq_missing(shots))


def _shots(frame: pl.DataFrame) -> list[str]:
    there = set(frame["shots"].drop_nulls())
    return [*sorted(there - {_FULL}, key=int), *(there & {_FULL})]


def _ordered(table: pl.DataFrame) -> pl.DataFrame:
    """Registry order, the reference first and the oracle last."""
    from clipsyn.ensembles import ENSEMBLES

    order = [BEST, *ENSEMBLES]

    def place(method: str) -> tuple[int, str]:
        name = method.split(":", maxsplit=1)[0]
        return (order.index(name) if name in order else len(order), method)

    rank = sorted(table["method"].to_list(), key=place)
    return (
        table.with_columns(
            _rank=pl.col("method").replace_strict(
                {m: i for i, m in enumerate(rank)}, return_dtype=pl.Int32
            )
        )
        .sort("_rank")
        .drop("_rank")
    )


def _best_cells(table: pl.DataFrame, columns: Sequence[str]) -> set[tuple[int, str]]:
    """The largest value of each column, the reference and the oracle aside."""
    fair = [row for row, name in enumerate(table["method"]) if name not in (BEST, "oracle")]
    cells = set()
    for column in columns:
        values = table[column].to_list()
        known = [
            values[row] for row in fair if values[row] is not None and not math.isnan(values[row])
        ]
        cells |= {(row, column) for row in fair if known and values[row] == max(known)}
    return cells
