"""Tables of the oracle: how far it goes, with how few backbones, and what each adds to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from clipsyn.analyses.oracle import OracleSettings
from clipsyn.evaluation.results.frame import Row
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
from clipsyn.show.numbers import interval, percent, points
from clipsyn.show.table import Cell, Table, Tables
from clipsyn.show.tables import (
    ShortNames,
    best_of_columns,
    best_of_rows,
    measured,
    shortened,
    table_of,
)
from clipsyn.show.titles import common, title, where

RIGHT, WRONG = Cell("\N{BLACK CIRCLE}", True), Cell("\N{MIDDLE DOT}", False)

_NOTES = {
    "oracle": """\
oracle: share of images that at least one backbone gets right, in %. indep.: what it would be
if errors were independent within each class, an upper mark; with few images a class it says little.
gain: the lead of the oracle over the best single backbone of each row, in points with a 95 %
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


@dataclass(frozen=True, eq=False)
class _OracleNumbers:
    """The numbers about one dataset, split, perturbation and prompt set."""

    frame: pl.DataFrame

    @cached_property
    def singles(self) -> dict[str, Numbers]:
        """The numbers of each backbone."""
        return numbers_by(singles(self.frame), "backbone")

    @cached_property
    def best(self) -> Row:
        """The accuracy of the best single backbone."""
        return best_single(self.frame)

    @cached_property
    def oracles(self) -> dict[tuple[str, ...], Numbers]:
        """The numbers of the oracle of the best subset of each size, and of all backbones."""
        subsets = self.frame.filter(pl.col("metric") != "region", ensemble="oracle")
        return numbers_by(subsets, "backbones")

    @property
    def oracle(self) -> Numbers:
        """The numbers of the oracle of all backbones."""
        return self.oracles[tuple(self.singles)]

    @cached_property
    def by_class(self) -> Numbers:
        return numbers(self.frame.filter(ensemble="class-oracle"))

    @cached_property
    def weights(self) -> float | None:
        """The accuracy of the weight oracle; None where it was not asked for."""
        accuracy = self.frame.filter(ensemble="weight-oracle", metric="acc1")["value"]
        return accuracy[0] if len(accuracy) else None

    @property
    def subsets(self) -> dict[tuple[str, ...], Numbers]:
        """The numbers of the best subset of each size from 1; a single backbone has acc1 alone."""
        larger = {names: oracle for names, oracle in self.oracles.items() if len(names) > 1}
        return {(self.best["backbone"],): {"acc1": self.best}, **larger}

    def about(self, columns: Iterable[str]) -> dict[str, Any]:
        return {column: self.frame[column][0] for column in columns}


def tables(frame: pl.DataFrame, settings: OracleSettings) -> dict[str, Tables]:
    """Tables of what `clipsyn.analyses.oracle.measure` returns, by name.

    One group of dataset, split, perturbation and prompt set gets "backbones", "subsets" and
    "regions", with the `top` sizes and largest regions. Several get an overview with a line for
    each group: "oracle", "choices", "shapley", "unique_correct" and "sizes"; with `details` also
    the tables of each group, its name behind a comma ("regions, birds/test, clean, own").
    """
    top = settings.top
    groups = {name: _OracleNumbers(part) for name, part in named_parts(frame).items()}
    if len(groups) == 1:
        (group,) = groups.values()
        shown = _details(group, top)
    else:
        shown = _overview(frame, [*groups.values()], top) if groups else {}
        for name, group in groups.items() if settings.details else ():
            of_group = _details(group, top)
            shown |= {f"{kind}, {name}": table for kind, table in of_group.items()}
    return {name: (table,) for name, table in shown.items()}


def _overview(frame: pl.DataFrame, groups: Sequence[_OracleNumbers], top: int) -> dict[str, Table]:
    names = shortened(backbones(singles(frame)))
    shared = common(frame, ("split", "prompts"))
    keys = [name for name in WHERE if name not in shared]
    shown = {
        "oracle": _oracles(groups, keys, names),
        "choices": _choices(groups, keys),
        "shapley": _by_backbone(groups, "shapley", keys, names),
        "unique_correct": _by_backbone(groups, "unique_correct", keys, names),
        "sizes": _sizes(groups, keys, top),
    }
    about = "; ".join(filter(None, [*(f"{k} {v}" for k, v in shared.items()), names.phrase]))
    if not about:
        return shown
    return {name: replace(it, notes=f"{it.notes}\n{about}.") for name, it in shown.items()}


def _by_backbone(
    groups: Sequence[_OracleNumbers],
    metric: str,
    keys: Sequence[str],
    names: ShortNames,
) -> Table:
    """A line for each group, a column for each backbone, and the floor."""
    columns = names.columns
    rows = [
        {
            **group.about(keys),
            **dict.fromkeys(columns.values()),
            **{columns[name]: row[metric]["value"] for name, row in group.singles.items()},
            "guess": max(row[f"{metric}_floor"]["value"] for row in group.singles.values()),
        }
        for group in groups
    ]
    return table_of(
        rows,
        percent=[*columns.values(), "guess"],
        headers=names.heads,
        labels=names.labels,
        best=best_of_rows(rows, [*columns.values()]),
        notes=f"{_NOTES[metric]}{names.legend}",
    )


def _oracles(groups: Sequence[_OracleNumbers], keys: Sequence[str], names: ShortNames) -> Table:
    rows = [
        {
            **group.about(keys),
            "n": group.best["n"],
            "best": None if is_nan(group.best["value"]) else names.cell(group.best["backbone"]),
            "top-1": group.best["value"],
            "oracle": group.oracle["acc1"]["value"],
            "indep.": group.oracle["acc1_independent"]["value"],
            **measured("gain", group.oracle["gain"]),
            "gain %": group.oracle["gain_relative"]["value"],
            "none": group.oracle["none_correct"]["value"],
            "all": group.oracle["all_correct"]["value"],
        }
        for group in groups
    ]
    shares = ["top-1", "oracle", "indep.", "gain", "gain %", "none", "all"]
    return table_of(rows, percent=shares, notes=_NOTES["oracle"])


def _choices(groups: Sequence[_OracleNumbers], keys: Sequence[str]) -> Table:
    """For each group: one backbone for all images, one for each class, one for each image."""
    weighed = any(group.weights is not None for group in groups)
    rows = [
        {
            **group.about(keys),
            "best": group.best["value"],
            "class": group.by_class["acc1"]["value"],
            "left out": group.by_class["acc1_left_out"]["value"],
            "oracle": group.oracle["acc1"]["value"],
            "share": _ratio(group.by_class["gain"], group.oracle["gain"]),
            "share left out": _ratio(group.by_class["gain_left_out"], group.oracle["gain"]),
            **({"weights": group.weights} if weighed else {}),
        }
        for group in groups
    ]
    return table_of(
        rows,
        percent=[name for name in rows[0] if name not in keys],
        headers={"share left out": "share\nleft out"},
        notes=f"{_NOTES['choices']}{_WEIGHTS if weighed else ''}",
    )


def _ratio(gain: Row, whole: Row) -> float | None:
    """The share of a gain in the whole gain; None where the whole is not positive."""
    return gain["value"] / whole["value"] if whole["value"] > 0 else None


def _sizes(groups: Sequence[_OracleNumbers], keys: Sequence[str], top: int) -> Table:
    by_size = [
        {len(names): oracle["acc1"]["value"] for names, oracle in group.subsets.items()}
        for group in groups
    ]
    sizes = sorted(set().union(*by_size))[:top]
    rows = [
        group.about(keys) | {str(size): accuracy.get(size) for size in sizes}
        for group, accuracy in zip(groups, by_size, strict=True)
    ]
    return table_of(rows, percent=[*map(str, sizes)], notes=_NOTES["sizes"])


def _details(group: _OracleNumbers, top: int) -> dict[str, Table]:
    names = shortened([*group.singles])
    head = title(*where(group.frame.row(0, named=True), (*WHERE, "n")), names.phrase)
    shown = {
        "backbones": _backbones(group, names),
        "subsets": _best_subsets(group, names, top),
        "regions": _regions(group, names, top),
    }
    return {name: replace(table, title=head) for name, table in shown.items()}


def _backbones(group: _OracleNumbers, names: ShortNames) -> Table:
    """A line for each backbone, the oracles below."""
    rows: list[dict[str, Any]] = [
        {
            "backbone": names.cell(name),
            **measured("top-1", metrics["acc1"]),
            **measured("Shapley", metrics["shapley"]),
            "guess of Shapley": metrics["shapley_floor"]["value"],
            "only it right": metrics["unique_correct"]["value"],
            "guess of only it right": metrics["unique_correct_floor"]["value"],
            "images": _images(metrics["unique_correct"]),
        }
        for name, metrics in group.singles.items()
    ]
    best = best_of_columns(rows, ["top-1"])
    oracle = group.oracle["acc1"]
    rows += [
        {"backbone": "class oracle", **measured("top-1", group.by_class["acc1"])},
        {"backbone": "oracle", **measured("top-1", oracle), "Shapley": oracle["value"]},
    ]
    guesses = ["guess of Shapley", "guess of only it right"]
    return table_of(
        rows,
        percent=["top-1", "Shapley", "only it right", *guesses],
        headers={"only it right": "only it\nright"} | dict.fromkeys(guesses, "guess"),
        best=best,
        below=_sentences(group, names.short[group.best["backbone"]]),
    )


def _sentences(group: _OracleNumbers, best: str) -> list[str]:
    """What no line of the table says: gains, images that none and all get right, weights."""
    gain, relative = group.oracle["gain"], group.oracle["gain_relative"]
    none, every = group.oracle["none_correct"], group.oracle["all_correct"]
    mark = group.oracle["acc1_independent"]["value"]
    left_out = group.by_class["gain_left_out"]
    if is_nan(gain["value"]):
        return ["no image counts: none has a label and a prediction of every backbone"]
    in_percent = ""
    if not is_nan(relative["value"]):
        in_percent = f", {100 * relative['value']:+.1f} % ({interval(relative)})"
    sentences = [
        f"oracle: {points(gain)}{in_percent} over the best single backbone here, {best};\n"
        f"if errors were independent within each class it would be {percent(mark)} %",
        f"class oracle: {100 * group.by_class['gain']['value']:+.1f} points, the best backbone of "
        "each class chosen on these very images; chosen\non the other images of the class: "
        f"{points(left_out)}",
        f"no backbone gets {_images(none):,} images right ({percent(none['value'])} %), "
        f"all get {_images(every):,} right ({percent(every['value'])} %)",
        "Shapley: what a backbone adds to the oracle, on average over all orders; they sum to it",
        "guess: what a backbone that guesses would have in its place",
    ]
    if group.weights is not None:
        sentences.append(
            "weighted sums of logits, weights not negative and free for each image, could get "
            f"{percent(group.weights)} %"
        )
    return sentences


def _best_subsets(group: _OracleNumbers, names: ShortNames, top: int) -> Table:
    """A line for each number of backbones, a column for each backbone."""
    rows: list[dict[str, Any]] = []
    for subset, oracle in [*group.subsets.items()][:top]:
        accuracy = oracle["acc1"]["value"]
        before = rows[-1] if rows and rows[-1]["size"] == len(subset) - 1 else None
        rows.append(
            {
                "size": len(subset),
                "oracle": accuracy,
                "indep.": oracle["acc1_independent"]["value"] if len(subset) > 1 else None,
                "step": accuracy - before["oracle"] if before else None,
                **measured("gain", oracle.get("gain", {})),
                **_marks(subset, names),
            }
        )
    lines = [
        "the best backbones of each number, chosen on these very images; indep.: if errors "
        "were, within each\nclass; step: over one backbone fewer; gain: over the best single "
        "backbone, in points",
    ]
    count = len(group.subsets)
    if count > top:
        lines.append(f"{count - top:,} more numbers of backbones: --top {count}")
    return table_of(
        rows,
        percent=["oracle", "indep.", "step", "gain"],
        headers=names.heads,
        labels=names.labels,
        below=[*lines, names.legend.lstrip()],
    )


def _regions(group: _OracleNumbers, names: ShortNames, top: int) -> Table:
    """A line for each region, a column for each backbone."""
    regions = group.frame.filter(metric="region")
    rows = [
        {"images": _images(row), "%": row["value"], **_marks(row["backbones"], names)}
        for row in regions.head(top).iter_rows(named=True)
    ]
    lines = [f"images that these backbones ({RIGHT.text}) get right, and no others"]
    if rest := len(regions) - len(rows):
        images = regions["n"][0] * regions["value"][top:].sum()
        lines.append(f"{rest:,} more regions with {images:,.0f} images: --top {len(regions)}")
    return table_of(
        rows or pl.DataFrame(schema=["images", "%", *names.columns.values()]),
        percent=["%"],
        headers=names.heads,
        labels=names.labels,
        right=["images"],
        below=[*lines, names.legend.lstrip()],
    )


def _marks(subset: Sequence[str], names: ShortNames) -> dict[str, Cell]:
    return {column: RIGHT if name in subset else WRONG for name, column in names.columns.items()}


def _images(row: Row) -> int | None:
    """The number of images behind a share."""
    return None if is_nan(row["value"]) else round(row["value"] * row["n"])
