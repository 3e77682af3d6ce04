"""Tables of zero-shot accuracy: a line a dataset, or a line a backbone."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from clipsyn.analyses.accuracy import ZeroshotSettings
from clipsyn.frames import is_nan
from clipsyn.results.view import singles
from clipsyn.show.numbers import interval_text
from clipsyn.show.tables import column_heads, legend, shortened, show

_COMMON_IMAGES = "\nOracle and gain are over the images that all backbones have a prediction for."
_ORACLES = ("oracle", "independent", "gain")
_GROUP = ("dataset", "split", "perturbation", "prompts")  # what one table, or row, is about


def accuracy_frame(tidy: pl.DataFrame) -> pl.DataFrame:
    """Top-1 accuracy, one row a dataset, split, perturbation and prompt set; all fractions.

    tidy: what `zeroshot` returns. Columns: dataset, split, perturbation, prompts,
    n, chance, one for each backbone, best (its name; the first of equals), oracle,
    independent (the oracle of errors independent within each class), gain (of the oracle over the
    best). Null where a backbone or the oracle is missing.
    """
    oracle, chance = pl.col("ensemble") == "oracle", _is_chance()
    top1, mark = pl.col("metric") == "acc1", pl.col("metric") == "acc1_independent"
    value = pl.col("value")
    names = singles(tidy)["backbone"].unique().sort()
    rows = []
    for keys, group in tidy.group_by(*_GROUP, maintain_order=True):
        of_one = singles(group).filter(top1).sort("backbone")
        if of_one.is_empty():
            continue
        found = dict(of_one.select("backbone", "value").iter_rows())
        rows.append(
            {
                **dict(zip(_GROUP, keys, strict=True)),
                "n": of_one["n"].max(),
                "chance": _only(group.filter(chance & top1).select(value)),
                **{name: found.get(name) for name in names},
                "best": max(found, key=lambda name: _nan_last(found[name])),
                "oracle": _only(group.filter(oracle & top1).select(value)),
                "independent": _only(group.filter(oracle & mark).select(value)),
                "gain": _only(group.filter(oracle & (pl.col("metric") == "gain")).select(value)),
            }
        )
    kinds = dict.fromkeys(["chance", *names, *_ORACLES], pl.Float64)
    schema = {**dict.fromkeys(_GROUP, pl.String), "n": pl.Int64, **kinds, "best": pl.String}
    order = [*_GROUP, "n", "chance", *names, "best", *_ORACLES]
    return pl.DataFrame(rows, schema={name: schema[name] for name in order})


def tables(
    frame: pl.DataFrame, settings: ZeroshotSettings, *, terminal: bool | None = None
) -> dict[str, str]:
    """A table for all, or one for each dataset, split, perturbation and prompt set."""
    if settings.summary:
        return {"accuracy": accuracy_table(frame, terminal=terminal)}
    return {"backbones": backbone_tables(frame, terminal=terminal)}


def accuracy_table(tidy: pl.DataFrame, *, terminal: bool | None = None) -> str:
    """`accuracy_frame` as text: percent, gain in points, the best backbone of each row in bold.

    What all rows have in common, a split, the prompts, a tag, is said once, below the table.
    """
    frame = accuracy_frame(tidy)
    if frame.is_empty():
        return "no accuracy to show"
    names = frame.columns[len(_GROUP) + 2 : -1 - len(_ORACLES)]
    common = [name for name in ("split", "prompts") if frame[name].n_unique() == 1]
    short, pattern = shortened(names)
    bold = {
        (number, name)
        for number, row in enumerate(frame.iter_rows(named=True))
        for name in names
        if row[name] == row[row["best"]]  # NaN is not even equal to itself
    }
    text = show(
        frame.drop(common).with_columns(pl.col("best").replace(short)),
        percent=["chance", *names, *_ORACLES],
        headers=column_heads(short) | {"independent": "indep."},
        bold=bold,
        terminal=terminal,
    )
    said = [f"{name} {frame[name][0]}" for name in common]
    if pattern:
        said.append(f"backbones {pattern}")
    notes = ["zero-shot top-1 accuracy in %", *said]
    return (
        f"{text}\n\n{'; '.join(notes)}.\n"
        "oracle: share of images that at least one backbone gets right. indep.: what it would "
        "be if errors\nwere independent within each class, an upper mark; with few images a class "
        "it says little. gain: the\nlead of the oracle in points over the best single backbone, "
        "which is chosen row by row on these very\nimages."
        + ("" if _same_images(tidy) else _COMMON_IMAGES)
        + legend(short)
    )


def backbone_tables(tidy: pl.DataFrame, *, terminal: bool | None = None) -> str:
    """A table for each dataset, split, perturbation and prompt set: a line a backbone.

    Top-1 with its 95 % interval, top-5 and mean per-class recall in percent, n; the oracle below.
    """
    tables = []
    for (dataset, split, perturbation, prompts), group in tidy.group_by(
        *_GROUP, maintain_order=True
    ):
        title = f"{dataset}/{split} · {perturbation} · prompts {prompts}"
        chance = _only(group.filter(_is_chance()).select("value"))
        title += "" if chance is None else f" · chance {100 * chance:.1f} %"
        tables.append(_backbone_table(group, title, terminal))
    return "\n\n".join(tables) or "no accuracy to show"


def _backbone_table(group: pl.DataFrame, title: str, terminal: bool | None) -> str:
    rows = [
        _backbone_row(name, part)
        for (name,), part in singles(group).group_by("backbone", maintain_order=True)
    ]
    best = max(rows, key=lambda row: _nan_last(row["top-1"]))
    oracle = group.filter(pl.col("ensemble") == "oracle")
    marks = {row["metric"]: row for row in oracle.to_dicts()}
    if marks:
        rows.append(_backbone_row("oracle", oracle))
    frame = pl.DataFrame(rows)
    unused = [name for name in ("top-5", "mean per class") if frame[name].null_count() == len(rows)]
    text = show(
        frame.drop(unused),
        title=title,
        percent=["top-1", "top-5", "mean per class"],
        right=["95 % interval"],
        bold={(r, "top-1") for r, row in enumerate(rows) if row["top-1"] == best["top-1"]},
        terminal=terminal,
    )
    if marks and not is_nan((gain := marks["gain"])["value"]):
        interval = interval_text(gain["ci_low"], gain["ci_high"])
        over = f"here, {best['backbone']}" if _same_images(group) else "on the images that all have"
        text += (
            f"\noracle: {100 * gain['value']:+.1f} points ({interval}) over the best single "
            f"backbone {over};\nif errors were independent within each class it would be "
            f"{100 * marks['acc1_independent']['value']:.1f} %"
        )
    return text


def _same_images(tidy: pl.DataFrame) -> bool:
    """Whether accuracies are of the same images, those of one backbone and of the oracle."""
    top1 = tidy.filter(pl.col("metric") == "acc1", ~_is_chance().fill_null(False))
    return bool((top1.group_by(*_GROUP).agg(pl.col("n").n_unique())["n"] == 1).all())


def _backbone_row(name: str, part: pl.DataFrame) -> dict[str, Any]:
    by_metric = {row["metric"]: row for row in part.to_dicts()}
    top1 = by_metric["acc1"]
    return {
        "backbone": name,
        "top-1": top1["value"],
        "95 % interval": interval_text(top1["ci_low"], top1["ci_high"]),
        "top-5": by_metric.get("acc5", {}).get("value"),
        "mean per class": by_metric.get("mean_per_class_recall", {}).get("value"),
        "n": top1["n"],
    }


def _is_chance() -> pl.Expr:
    return pl.col("ensemble") == "chance"


def _only(column: pl.DataFrame) -> float | None:
    return column.item() if len(column) else None


def _nan_last(value: float) -> float:
    return -1.0 if math.isnan(value) else value
