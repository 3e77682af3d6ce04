"""Tables of the oracle: how far it goes, with how few backbones, and what each adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from clipsyn.analyses.oracle import OracleSettings
from clipsyn.evaluation.results.frame import (
    WHERE,
    Numbers,
    Row,
    backbones,
    best_single,
    named_parts,
    numbers_by,
    singles,
)
from clipsyn.show.frames import is_nan
from clipsyn.show.table import Table, Tables, interval, percent, points
from clipsyn.show.tables import Line, Measure, measures_table, table_of
from clipsyn.show.titles import MARKED, ShortNames, common, shortened, title, where

_BY_BACKBONE = ("shapley", "unique_correct")
_NOTES = {
    "oracle": """\
oracle: share of images that at least one backbone gets right, in %. indep.: what it would be
if errors were independent within each class, an upper mark; with few images a class it says little.
lead: of the oracle over the best single backbone of each row, in points with a 95 %
interval, and in % of that backbone's accuracy. none, all: share that no backbone, and every
backbone, gets right.""",
    "choices": """\
Accuracy in % of the best backbone for all images, of the best for each class, and of the best for
each image (oracle), chosen on these very images. left out: of the best for each image's class on
the other images of that class. share: part of the oracle's gain over the best backbone, in %.""",
    "shapley": """\
Shapley values of the oracle, in points: what a backbone adds to it, on average over all orders in
which the backbones may join. The values of a row sum to its oracle. guess: what a backbone that
guesses would have in place of one of these, at most.""",
    "unique_correct": """\
Share of images that this backbone alone gets right, in %: what the oracle loses without it.
guess: what a backbone that guesses would have in place of one of these, at most:
(1 - oracle of the others) / classes.""",
    "sizes": """\
Oracle of the best backbones of each number, in %. They are chosen on these very images.""",
}
_WEIGHTS = """
weights: share that some weighted sum of the backbones' logits gets right, with weights that are not
negative and free for each image."""


_ORACLES = (  # what is about all backbones: see `_Group.numbers`
    Measure("top-1", "best acc1"),
    Measure("oracle", "oracle acc1"),
    Measure("indep.", "oracle acc1_independent"),
    Measure("lead", "oracle gain_over_best_on_test", interval=True),
    Measure("lead %", "oracle relative_gain_over_best_on_test"),
    Measure("none", "oracle none_correct"),
    Measure("all", "oracle all_correct"),
)
_CHOICES = (
    Measure("best", "best acc1"),
    Measure("class", "class-oracle acc1"),
    Measure("left out", "class-oracle acc1_left_out"),
    Measure("oracle", "oracle acc1"),
    Measure("share", "share"),
    Measure("share left out", "share_left_out", head="share\nleft out"),
)
_WEIGHED = Measure("weights", "weight-oracle acc1")
_BACKBONES = (
    Measure("top-1", "acc1", interval=True, best="most"),
    Measure("Shapley", "shapley", interval=True),
    Measure("guess of Shapley", "shapley_floor", head="guess"),
    Measure("only it right", "unique_correct", head="only it\nright"),
    Measure("guess of only it right", "unique_correct_floor", head="guess"),
)
_SUBSETS = (
    Measure("oracle", "acc1"),
    Measure("indep.", "acc1_independent"),
    Measure("step", "step"),
    Measure("lead", "gain_over_best_on_test", interval=True),
)


@dataclass(frozen=True, eq=False)
class _Group:
    """The rows of one dataset, split, perturbation and prompt set."""

    frame: pl.DataFrame

    @cached_property
    def singles(self) -> dict[str, Numbers]:
        return numbers_by(singles(self.frame), "backbone")

    @cached_property
    def best(self) -> Row:
        """The accuracy of the best single backbone."""
        return best_single(self.frame)

    @cached_property
    def numbers(self) -> dict[Any, Row]:
        """What is about all backbones: "best acc1", "oracle acc1", "class-oracle acc1", ...

        Of each backbone "shapley NAME"; the largest floor as "shapley_floor"; and the accuracy of
        the best subset of each size, by the size.
        """
        is_whole = pl.col("backbones").list.len() == len(self.singles)
        whole = self.frame.filter(is_whole & (pl.col("metric") != "region")).rows(named=True)
        found: dict[Any, Row] = {f"{row['ensemble']} {row['metric']}": row for row in whole}
        gain = found["oracle gain_over_best_on_test"]["value"]
        for end in ("", "_left_out"):  # none where the whole gain is not positive
            part = found[f"class-oracle gain_over_best_on_test{end}"]["value"]
            found[f"share{end}"] = {"value": part / gain if gain > 0 else None}
        for metric in _BY_BACKBONE:
            found |= {f"{metric} {name}": of[metric] for name, of in self.singles.items()}
            floors = (of[f"{metric}_floor"] for of in self.singles.values())
            found[f"{metric}_floor"] = max(floors, key=lambda row: row["value"])
        sizes = {len(subset): of["acc1"] for subset, of in self.subsets.items()}
        return found | sizes | {"best acc1": self.best}

    @cached_property
    def subsets(self) -> dict[tuple[str, ...], Numbers]:
        """The numbers of the best subset of each size from 1; a single backbone has acc1 alone."""
        oracles = self.frame.filter(pl.col("metric") != "region", ensemble="oracle")
        several = oracles.filter(pl.col("backbones").list.len() > 1)
        return {(self.best["backbone"],): {"acc1": self.best}, **numbers_by(several, "backbones")}


def tables(frame: pl.DataFrame, settings: OracleSettings) -> dict[str, Tables]:
    """Tables of what `clipsyn.analyses.oracle.measure` returns, by name.

    One group of dataset, split, perturbation and prompt set gets "backbones", "subsets" and
    "regions", with the `top` sizes and largest regions. Several get an overview with a line for
    each group: "oracle", "choices", "shapley", "unique_correct" and "sizes"; with `details` also
    the tables of each group, its name behind a comma ("regions, birds/test, clean, own").
    """
    top = settings.top
    groups = {name: _Group(part) for name, part in named_parts(frame).items()}
    if len(groups) == 1:
        (group,) = groups.values()
        shown = _details(group, top)
    else:
        shown = _overview(frame, [*groups.values()], top) if groups else {}
        for name, group in groups.items() if settings.details else ():
            of_group = _details(group, top)
            shown |= {f"{kind}, {name}": table for kind, table in of_group.items()}
    return {name: (table,) for name, table in shown.items()}


def _overview(frame: pl.DataFrame, groups: Sequence[_Group], top: int) -> dict[str, Table]:
    """Tables with a line for each group."""
    names = shortened(backbones(singles(frame)))
    shared = common(frame, ("split", "prompts"))
    lines: list[Line] = []
    with_best: list[Line] = []
    for group in groups:
        about = {name: group.frame[name][0] for name in WHERE if name not in shared}
        best = None if is_nan(group.best["value"]) else names.cell(group.best["backbone"])
        lines.append((about, group.numbers))
        with_best.append((about | {"n": group.best["n"], "best": best}, group.numbers))
    weights = any(_WEIGHED.metric in found for _, found in lines)
    choices = (*_CHOICES, _WEIGHED) if weights else _CHOICES
    sizes = sorted({size for group in groups for size in map(len, group.subsets)})[:top]
    shown = {
        "oracle": measures_table(with_best, _ORACLES, notes=_NOTES["oracle"]),
        "choices": measures_table(
            lines, choices, notes=_NOTES["choices"] + (_WEIGHTS if weights else "")
        ),
    }
    for metric in _BY_BACKBONE:
        columns = [
            Measure(column, f"{metric} {name}", best="most of line")
            for name, column in names.columns.items()
        ]
        columns.append(Measure("guess", f"{metric}_floor"))
        shown[metric] = measures_table(lines, columns, names=names, notes=_NOTES[metric])
    columns = [Measure(str(size), size) for size in sizes]
    shown["sizes"] = measures_table(lines, columns, notes=_NOTES["sizes"])
    said = "; ".join(filter(None, [*(f"{k} {v}" for k, v in shared.items()), names.phrase]))
    end = f"\n{said}." if said else ""
    return {name: replace(table, notes=f"{table.notes}{end}") for name, table in shown.items()}


def _details(group: _Group, top: int) -> dict[str, Table]:
    names = shortened([*group.singles])
    head = title(*where(group.frame.row(0, named=True), (*WHERE, "n")), names.phrase)
    shown = {
        "backbones": _backbones(group, names),
        "subsets": _best_subsets(group, names, top),
        "regions": _regions(group, names, top),
    }
    return {name: replace(table, title=head) for name, table in shown.items()}


def _backbones(group: _Group, names: ShortNames) -> Table:
    """A line for each backbone, the oracles below."""
    lines: list[Line] = [
        ({"backbone": names.cell(name), "images": _images(metrics["unique_correct"])}, metrics)
        for name, metrics in group.singles.items()
    ]
    by_class, oracle = group.numbers["class-oracle acc1"], group.numbers["oracle acc1"]
    whole = {"acc1": oracle, "shapley": {"value": oracle["value"]}}
    lines += [({"backbone": "class oracle"}, {"acc1": by_class}), ({"backbone": "oracle"}, whole)]
    return measures_table(
        lines,
        (*_BACKBONES, "images"),
        fair=len(group.singles),
        below=_sentences(group, names.short[group.best["backbone"]]),
    )


def _sentences(group: _Group, best: str) -> list[str]:
    """What no line of the table says: gains, images that none and all get right, weights."""
    gain = group.numbers["oracle gain_over_best_on_test"]
    relative = group.numbers["oracle relative_gain_over_best_on_test"]
    none, every = group.numbers["oracle none_correct"], group.numbers["oracle all_correct"]
    mark = group.numbers["oracle acc1_independent"]["value"]
    by_class, left_out = (
        group.numbers[f"class-oracle gain_over_best_on_test{end}"] for end in ("", "_left_out")
    )
    if is_nan(gain["value"]):
        return ["no image counts: none has a label and a prediction of every backbone"]
    in_percent = ""
    if not is_nan(relative["value"]):
        in_percent = f", {100 * relative['value']:+.1f} % ({interval(relative)})"
    sentences = [
        f"oracle: {points(gain)}{in_percent} over the best single backbone here, {best};\n"
        f"if errors were independent within each class it would be {percent(mark)} %",
        f"class oracle: {100 * by_class['value']:+.1f} points, the best backbone of "
        "each class chosen on these very images; chosen\non the other images of the class: "
        f"{100 * left_out['value']:+.1f} points",
        f"no backbone gets {_images(none):,} images right ({percent(none['value'])} %), "
        f"all get {_images(every):,} right ({percent(every['value'])} %)",
        "Shapley: what a backbone adds to the oracle, on average over all orders; they sum to it",
        "guess: what a backbone that guesses would have in its place",
    ]
    if weights := group.numbers.get(_WEIGHED.metric):
        sentences.append(
            "weighted sums of logits, weights not negative and free for each image, could get "
            f"{percent(weights['value'])} %"
        )
    return sentences


def _best_subsets(group: _Group, names: ShortNames, top: int) -> Table:
    """A line for each number of backbones, a column for each backbone."""
    lines: list[Line] = []
    accuracies = {len(subset): of["acc1"]["value"] for subset, of in group.subsets.items()}
    for subset, oracle in [*group.subsets.items()][:top]:
        size = len(subset)
        fewer = accuracies.get(size - 1)
        step = {"value": None if fewer is None else accuracies[size] - fewer}
        lines.append(({"size": size} | names.marked(subset), oracle | {"step": step}))
    below = [
        "the best backbones of each number, chosen on these very images; indep.: if errors "
        "were, within each\nclass; step: over one backbone fewer; gain: over the best single "
        "backbone, in points",
    ]
    count = len(group.subsets)
    if count > top:
        below.append(f"{count - top:,} more numbers of backbones: --top {count}")
    return measures_table(lines, (*_SUBSETS, *names.heads), names=names, below=below)


def _regions(group: _Group, names: ShortNames, top: int) -> Table:
    """A line for each region, a column for each backbone."""
    regions = group.frame.filter(metric="region")
    rows = [
        {"images": _images(row), "%": row["value"], **names.marked(row["backbones"])}
        for row in regions.head(top).iter_rows(named=True)
    ]
    lines = [f"images that these backbones ({MARKED.text}) get right, and no others"]
    if rest := len(regions) - len(rows):
        images = regions["n"][0] * regions["value"][top:].sum()
        lines.append(f"{rest:,} more regions with {images:,.0f} images: --top {len(regions)}")
    return table_of(
        rows or pl.DataFrame(schema=["images", "%", *names.columns.values()]),
        percent=["%"],
        names=names,
        right=["images"],
        below=lines,
    )


def _images(row: Row) -> int | None:
    """The number of images behind a share."""
    return None if is_nan(row["value"]) else round(row["value"] * row["n"])
