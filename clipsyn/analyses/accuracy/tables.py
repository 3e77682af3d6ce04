"""Tables of zero-shot accuracy: a line for each backbone, or for each dataset."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import polars as pl

from clipsyn.analyses.accuracy import ZeroshotSettings
from clipsyn.evaluation.results.view import (
    WHERE,
    Numbers,
    backbones,
    best_single,
    named_parts,
    numbers,
    numbers_by,
    singles,
)
from clipsyn.show.frames import is_nan
from clipsyn.show.numbers import points
from clipsyn.show.table import Table, Tables
from clipsyn.show.tables import (
    ShortNames,
    best_of_rows,
    interval_of,
    measured,
    shortened,
    table_of,
)
from clipsyn.show.titles import common, title, where

_NOTE = """\
oracle: share of images that at least one backbone gets right. indep.: what it would be if errors
were independent within each class, an upper mark; with few images a class it says little. gain: the
lead of the oracle in points over the best single backbone, which is chosen row by row on these very
images."""
_COMMON_IMAGES = "\nOracle and gain are over the images that all backbones have a prediction for."
_OPTIONAL = {"acc5": "top-5", "mean_per_class_recall": "mean per class"}  # metric: column


def tables(frame: pl.DataFrame, settings: ZeroshotSettings) -> dict[str, Tables]:
    """ "accuracy" if a summary is asked for, else "backbones".

    "accuracy" is one table with a line for each dataset, split, perturbation and prompt set;
    "backbones" has a table for each of these, with a line for each backbone.
    """
    if frame.is_empty():
        return {}
    if settings.summary:
        return {"accuracy": (_summary(frame),)}
    parts = named_parts(frame).values()
    return {"backbones": tuple(map(_backbones, parts))}


def _summary(frame: pl.DataFrame) -> Table:
    """Top-1 accuracy in percent; a split or prompt set that all lines share stands below it."""
    names = shortened(sorted(backbones(singles(frame))))
    shared = common(frame, ("split", "prompts"))
    parts = named_parts(frame).values()
    rows = [_line(part, names, shared) for part in parts]
    columns = list(names.columns.values())
    about = ["zero-shot top-1 accuracy in %", *(f"{name} {shared[name]}" for name in shared)]
    about += [names.phrase] if names.pattern else []
    uneven = "" if all(map(_has_same_images, parts)) else _COMMON_IMAGES
    return table_of(
        rows,
        percent=["chance", *columns, "oracle", "independent", "gain"],
        headers={"independent": "indep."},
        names=names,
        best=best_of_rows(rows, columns),
        notes=f"{'; '.join(about)}.\n{_NOTE}{uneven}{names.legend}",
    )


def _line(part: pl.DataFrame, names: ShortNames, shared: Collection[str]) -> dict[str, Any]:
    by_backbone = numbers_by(singles(part), "backbone")
    oracle, chance = _of(part, "oracle"), _of(part, "chance")
    return {
        **{name: part[name][0] for name in WHERE if name not in shared},
        "n": max(metrics["acc1"]["n"] for metrics in by_backbone.values()),
        "chance": _value(chance, "acc1"),
        **{
            column: _value(by_backbone.get(name, {}), "acc1")
            for name, column in names.columns.items()
        },
        "best": names.cell(best_single(part)["backbone"]),
        "oracle": _value(oracle, "acc1"),
        "independent": _value(oracle, "acc1_independent"),
        "gain": _value(oracle, "gain"),
    }


def _backbones(part: pl.DataFrame) -> Table:
    """A line for each backbone: top-1 and its interval, top-5 and mean per class in percent, n."""
    oracle, chance = _of(part, "oracle"), _value(_of(part, "chance"), "acc1")
    methods = [*numbers_by(singles(part), "backbone").items()]
    methods += [("oracle", oracle)] if oracle else []
    optional = {
        metric: column
        for metric, column in _OPTIONAL.items()
        if any(metric in metrics for _, metrics in methods)
    }
    best = best_single(part)
    alone = [(line, "top-1") for line in range(len(methods) - bool(oracle))]
    return table_of(
        [
            {
                "backbone": name,
                **measured("top-1", metrics["acc1"]),
                **{column: _value(metrics, metric) for metric, column in optional.items()},
                "n": metrics["acc1"]["n"],
            }
            for name, metrics in methods
        ],
        title=title(
            *where(part.row(0, named=True), WHERE),
            None if chance is None else f"chance {100 * chance:.1f} %",
        ),
        percent=["top-1", *optional.values()],
        headers={interval_of("top-1"): "95 % interval"},
        best={
            (line, "top-1"): alone
            for line, (_, metrics) in enumerate(methods)
            if metrics["acc1"]["value"] == best["value"]
        },
        below=(_lead(part, oracle, best["backbone"]),),
    )


def _lead(part: pl.DataFrame, oracle: Numbers, best: str) -> str:
    """How far the oracle is before the best single backbone; nothing where that is not known."""
    if not oracle or is_nan(oracle["gain"]["value"]):
        return ""
    over = f"here, {best}" if _has_same_images(part) else "on the images that all have"
    return (
        f"oracle: {points(oracle['gain'])} over the best single backbone {over};\n"
        "if errors were independent within each class it would be "
        f"{100 * oracle['acc1_independent']['value']:.1f} %"
    )


def _of(part: pl.DataFrame, ensemble: str) -> Numbers:
    return numbers(part.filter(ensemble=ensemble))


def _value(metrics: Numbers, metric: str) -> float | None:
    return metrics[metric]["value"] if metric in metrics else None


def _has_same_images(part: pl.DataFrame) -> bool:
    """Whether the accuracies of the backbones and of the oracle are of the same images."""
    others = part.filter(pl.col("ensemble").ne_missing("chance"), metric="acc1")
    return others["n"].n_unique() == 1
