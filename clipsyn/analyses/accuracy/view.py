"""Tables of zero-shot accuracy: a line for each backbone, or for each dataset."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from clipsyn.analyses.accuracy import ZeroshotSettings
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import (
    WHERE,
    Numbers,
    about_line,
    backbones,
    best_single,
    named_parts,
    numbers,
    numbers_by,
    singles,
)
from clipsyn.settings import SINGLE, UNFITTED
from clipsyn.show.figure import Axes, Figure, accuracies, matrix_size, needed
from clipsyn.show.frames import is_nan
from clipsyn.show.table import Table, Tables, points
from clipsyn.show.tables import (
    Line,
    Measure,
    interval_of,
    measures_of,
    measures_table,
    notes_beside,
)
from clipsyn.show.titles import ShortNames, common, shortened, title, where

_NOTES = notes_beside(__file__)
_ALONE = (
    Measure("top-1", "acc1", interval=True, best="most"),
    Measure("top-5", "acc5", optional=True),
    Measure("mean per class", "mean_per_class_recall", optional=True),
)


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
    about = ["zero-shot top-1 accuracy in %", *(f"{name} {shared[name]}" for name in shared)]
    about += [names.phrase] if names.pattern else []
    uneven = "" if all(map(_has_same_images, parts)) else f"\n{_NOTES['uneven']}"
    columns: list[Measure | str] = [
        Measure("chance", "chance acc1"),
        *measures_of(names, best="most of line"),
        "best",
        Measure("oracle", "oracle acc1"),
        Measure("independent", "oracle acc1_independent", "indep."),
        Measure("lead", "oracle gain_over_best_on_test"),
    ]
    return measures_table(
        [_line(part, names, shared) for part in parts],
        columns,
        names=names,
        notes=f"{'; '.join(about)}.\n{_NOTES['summary']}{uneven}",
    )


def _line(part: pl.DataFrame, names: ShortNames, shared: Collection[str]) -> Line:
    """What a part is about, and its numbers: of a backbone by its name, of others by theirs too."""
    alone = {row["backbone"]: row for row in singles(part).filter(metric="acc1").rows(named=True)}
    others = part.filter(pl.col("ensemble") != SINGLE).rows(named=True)
    about = about_line(part, WHERE, shared) | {
        "n": max(row["n"] for row in alone.values()),
        "best": names.cell(best_single(part)["backbone"]),
    }
    return about, alone | {f"{row['ensemble']} {row['metric']}": row for row in others}


def _backbones(part: pl.DataFrame) -> Table:
    """A line for each backbone: top-1 and its interval, top-5 and mean per class in percent, n."""
    alone = numbers_by(singles(part), "backbone")
    oracle, chance = (numbers(part.filter(ensemble=name)) for name in ("oracle", "chance"))
    methods = [*alone.items(), *([("oracle", oracle)] if oracle else [])]
    guess = f"chance {100 * chance['acc1']['value']:.1f} %" if chance else ""
    return measures_table(
        [({"backbone": name, "n": of["acc1"]["n"]}, of) for name, of in methods],
        (*_ALONE, "n"),
        len(alone),
        title=title(*where(part.row(0, named=True), WHERE), guess),
        headers={interval_of("top-1"): "95 % interval"},
        below=(_lead(part, oracle, best_single(part)["backbone"]),),
    )


def _lead(part: pl.DataFrame, oracle: Numbers, best: str) -> str:
    """How far the oracle is before the best single backbone; nothing where that is not known."""
    if not oracle or is_nan(oracle["gain_over_best_on_test"]["value"]):
        return ""
    lead = oracle["gain_over_best_on_test"]
    over = f"here, {best}" if _has_same_images(part) else "on the images that all have"
    return (
        f"oracle: {points(lead)} over the best single backbone {over};\n"
        "if errors were independent within each class it would be "
        f"{100 * oracle['acc1_independent']['value']:.1f} %"
    )


def _has_same_images(part: pl.DataFrame) -> bool:
    """Whether the accuracies of the backbones and of the oracle are of the same images."""
    others = part.filter(pl.col("ensemble") != "chance", pl.col("n") > 0, metric="acc1")
    return others["n"].n_unique() == 1


_MOST = 120  # rows


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each dataset and backbone; `best` marks the largest accuracy of a dataset."""
    rows = needed(
        singles(frame).filter(metric="acc1", shots=UNFITTED, head="zero-shot", classes="all"),
        "zero-shot accuracy of any backbone",
        "zeroshot",
    ).unique([*WHERE, "backbone"], keep="first", maintain_order=True)
    if (count := rows.select(WHERE).n_unique()) > _MOST:
        raise UsageError(
            f"{count:,} lines are too many for a matrix: choose {_MOST} at most with datasets=…"
        )
    known = pl.col("value").fill_nan(None)
    best = (known == known.max()).fill_null(value=False).over(WHERE)
    return rows.select(*WHERE, "backbone", "value", "ci_low", "ci_high", "n", best=best)


def _names(data: pl.DataFrame) -> tuple[dict[tuple[str, ...], str], dict[str, str]]:
    """What lines are called, by dataset, split, perturbation and prompts, and what backbones are.

    Lines by what differs.
    """
    varying = [name for name in WHERE if name not in common(data, WHERE)] or ["dataset"]
    lines = data.select(WHERE).unique(maintain_order=True).rows(named=True)
    rows = {tuple(line.values()): title(*where(line, varying)) for line in lines}
    return rows, shortened(data["backbone"].unique(maintain_order=True).to_list()).short


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    rows, columns = _names(data)
    shares: dict[tuple[int, int], float] = {}
    best: list[tuple[int, int]] = []
    for *line, name, value, is_best in data.select(*WHERE, "backbone", "value", "best").rows():
        place = [*rows].index(tuple(line)), [*columns].index(name)
        shares[place] = value
        best += [place] if is_best else []
    accuracies(ax, rows.values(), columns.values(), shares, best)


accuracy_matrix = Figure(
    name="accuracy-matrix",
    short="Zero-shot accuracy of every backbone on every dataset.",
    caption=_NOTES["accuracy_matrix"],
    source="zeroshot",
    data=_data,
    draw=_draw,
    size=lambda data: matrix_size(*(names.values() for names in _names(data))),
)
