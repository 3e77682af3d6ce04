"""How far the oracle goes, with how few backbones, and what each adds to it: tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import cos, pi, sin
from typing import Any

import polars as pl

from clipsyn.analyses.oracle import OracleSettings
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import (
    WHERE,
    Numbers,
    Row,
    about_line,
    backbones,
    best_single,
    named_parts,
    numbers_by,
    refuse_several,
    singles,
)
from clipsyn.show.figure import COLUMN, FAINT, INK, MUTED, Axes, Figure, label, marks, needed
from clipsyn.show.frames import is_nan
from clipsyn.show.table import Table, percent
from clipsyn.show.tables import Line, Measure, measures_table, notes_beside, table_of
from clipsyn.show.titles import ShortNames, common, shortened, title, where

_TOP = 10  # regions, and numbers of backbones, in a table
_NOTES = notes_beside(__file__)
_ORACLES = (  # what is about all backbones: see `_numbers`
    Measure("top-1", "best acc1"),
    Measure("oracle", "oracle acc1"),
    Measure("indep.", "oracle acc1_independent"),
    Measure("lead", "oracle gain_over_best_on_test", interval=True),
    Measure("lead %", "oracle relative_gain_over_best_on_test"),
    Measure("none", "oracle none_correct"),
    Measure("all", "oracle all_correct"),
)
_WEIGHED = Measure("weights", "weight-oracle acc1", optional=True)
_CHOICES = (
    Measure("best", "best acc1"),
    Measure("class", "class-oracle acc1"),
    Measure("left out", "class-oracle acc1_left_out"),
    Measure("oracle", "oracle acc1"),
    Measure("share", "share"),
    Measure("share left out", "share_left_out", head="share\nleft out"),
    _WEIGHED,
)
_BACKBONES = (
    Measure("top-1", "acc1", interval=True, best="most"),
    Measure("Shapley", "shapley", interval=True),
    Measure("guess of Shapley", "shapley_floor", head="guess"),
    Measure("only it right", "unique_correct", interval=True, head="only it\nright"),
    Measure("guess of only it right", "unique_correct_floor", head="guess"),
)
_SUBSETS = (
    Measure("oracle", "acc1"),
    Measure("indep.", "acc1_independent"),
    Measure("step", "step"),
    Measure("lead", "gain_over_best_on_test", interval=True),
)


def tables(frame: pl.DataFrame, settings: OracleSettings) -> dict[str, Table]:
    """Tables of what `clipsyn.analyses.oracle.measure` returns, by name.

    "oracle" and "choices" have a line for each dataset, split, perturbation and prompt set. One of
    these also gets "backbones", "subsets" and "regions", several "shapley" and "unique_correct", a
    line each.
    """
    parts = [*named_parts(frame).values()]
    if not parts:
        return {}
    shown = _overview(frame, parts)
    if len(parts) == 1:
        shown |= _details(parts[0])
    return shown


def _overview(frame: pl.DataFrame, parts: Sequence[pl.DataFrame]) -> dict[str, Table]:
    """Tables with a line for each part."""
    names = shortened(backbones(singles(frame)))
    shared = common(frame, ("split", "prompts"))
    lines: list[Line] = []
    with_best: list[Line] = []
    for part in parts:
        found, row = _numbers(part), best_single(part)
        about = about_line(part, WHERE, shared)
        best = None if is_nan(row["value"]) else names.cell(row["backbone"])
        lines.append((about, found))
        with_best.append((about | {"n": row["n"], "best": best}, found))
    weights = any(_WEIGHED.metric in found for _, found in lines)
    notes = _NOTES | {"choices": _NOTES["choices"] + (f"\n{_NOTES['weights']}" if weights else "")}
    said = "; ".join(filter(None, [*(f"{k} {v}" for k, v in shared.items()), names.phrase]))
    notes = {name: f"{note}\n{said}." if said else note for name, note in notes.items()}
    shown = {
        "oracle": measures_table(with_best, _ORACLES, notes=notes["oracle"]),
        "choices": measures_table(lines, _CHOICES, notes=notes["choices"]),
    }
    for metric in ("shapley", "unique_correct") if len(parts) > 1 else ():
        columns = [
            Measure(column, f"{metric} {name}", best="most of line")
            for name, column in names.columns.items()
        ]
        columns.append(Measure("guess", f"{metric}_floor"))
        shown[metric] = measures_table(lines, columns, names=names, notes=notes[metric])
    return shown


def _numbers(part: pl.DataFrame) -> dict[Any, Row]:
    """What is about all backbones: "best acc1", "oracle acc1", "class-oracle acc1", ...

    Of each backbone "shapley NAME", and the largest floor as "shapley_floor".
    """
    alone = singles(part)
    is_whole = pl.col("backbones").list.len() == alone["backbone"].n_unique()
    whole = part.filter(is_whole & (pl.col("metric") != "region")).rows(named=True)
    found: dict[Any, Row] = {f"{row['ensemble']} {row['metric']}": row for row in whole}
    gain = found["oracle gain_over_best_on_test"]["value"]
    for end in ("", "_left_out"):  # none where the whole gain is not positive
        of_class = found[f"class-oracle gain_over_best_on_test{end}"]["value"]
        found[f"share{end}"] = {"value": of_class / gain if gain > 0 else None}
    for row in alone.rows(named=True):
        found[f"{row['metric']} {row['backbone']}"] = row
        floor = found.setdefault(row["metric"], row)
        found[row["metric"]] = max(floor, row, key=lambda it: it["value"])
    return found | {"best acc1": best_single(part)}


def _details(part: pl.DataFrame) -> dict[str, Table]:
    alone = numbers_by(singles(part), "backbone")
    names = shortened([*alone])
    head = title(*where(part.row(0, named=True), (*WHERE, "n")), names.phrase)
    of_each: list[Line] = [({"backbone": names.cell(it)}, of) for it, of in alone.items()]
    shown = {
        "backbones": measures_table(of_each, _BACKBONES, notes=_NOTES["backbones"]),
        "subsets": _best_subsets(part, names),
        "regions": _regions(part, names),
    }
    return {name: replace(table, title=head) for name, table in shown.items()}


def _best_subsets(part: pl.DataFrame, names: ShortNames) -> Table:
    """A line for each number of backbones, a column for each backbone."""
    best = best_single(part)
    several = part.filter(
        pl.col("backbones").list.len() > 1, pl.col("metric") != "region", ensemble="oracle"
    )
    subsets: dict[tuple[str, ...], Numbers] = {(best["backbone"],): {"acc1": best}}
    subsets |= numbers_by(several, "backbones")
    accuracies = {len(subset): of["acc1"]["value"] for subset, of in subsets.items()}
    lines: list[Line] = []
    for subset, oracle in [*subsets.items()][:_TOP]:
        size = len(subset)
        fewer = accuracies.get(size - 1)
        step = {"value": None if fewer is None else accuracies[size] - fewer}
        lines.append(({"size": size} | names.marked(subset), oracle | {"step": step}))
    left = len(subsets) - _TOP
    below = [f"{left:,} more numbers of backbones: -o writes them all"] if left > 0 else []
    return measures_table(
        lines, (*_SUBSETS, *names.heads), names=names, below=below, notes=_NOTES["subsets"]
    )


def _regions(part: pl.DataFrame, names: ShortNames) -> Table:
    """A line for each region, a column for each backbone."""
    regions = part.filter(metric="region")
    rows = [
        {"images": round(row["value"] * row["n"]), "%": row["value"]}
        | names.marked(row["backbones"])
        for row in regions.head(_TOP).iter_rows(named=True)
    ]
    left = len(regions) - len(rows)
    return table_of(
        rows or pl.DataFrame(schema=["images", "%", *names.columns.values()]),
        percent=["%"],
        names=names,
        right=["images"],
        below=[f"{left:,} more regions: -o writes them all"] if left else [],
        notes=_NOTES["regions"],
    )


_MOST = 16  # regions that are drawn
_ROW, _BARS, _BELOW = 0.15, 1.1, 0.35  # inches
_LEFT, _GAP = 0.17, 0.03  # of the width: names, and between dots and bars


def _all_regions(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of regions, of one kind of images."""
    regions = needed(
        frame.filter(metric="region", ensemble="oracle"),
        "region of images that the same backbones get right",
        "oracle",
    )
    refuse_several(regions)
    return regions


def _upset_data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each of the largest regions, `value` its share of images, the mean over datasets.

    names: of all backbones, the most accurate first.
    """
    regions = _all_regions(frame)
    accuracies = singles(frame).filter(metric="acc1")
    sets = accuracies.group_by("dataset").agg(pl.col("backbone").unique().sort())
    if sets["backbone"].n_unique() > 1:
        raise UsageError(
            "datasets have other backbones, whose regions cannot be put together: name some with "
            "datasets=…, or the backbones that all have with backbones=…"
        )
    means = accuracies.group_by("backbone", maintain_order=True).agg(pl.col("value").mean())
    names = means.sort("value", descending=True, maintain_order=True)["backbone"].to_list()
    datasets = regions.unique("dataset")
    shares = regions.group_by("backbones", maintain_order=True).agg(
        pl.col("value").sum() / len(datasets)
    )
    shares = shares.filter(pl.col("value") > 0)
    return (
        shares.sort("value", descending=True, maintain_order=True)
        .head(_MOST)
        .with_columns(
            names=pl.lit(names), datasets=pl.lit(len(datasets)), n=pl.lit(datasets["n"].sum())
        )
    )


def _draw_upset(data: pl.DataFrame, ax: Axes) -> None:
    """Bars of regions above dots that say whose they are."""
    names = data["names"][0].to_list()
    ax.set_axis_off()
    share = _ROW * len(names) / (_ROW * len(names) + _BARS)  # of the height
    dots = ax.inset_axes((_LEFT, 0, 1 - _LEFT, share))
    bars = ax.inset_axes((_LEFT, share + _GAP, 1 - _LEFT, 1 - share - _GAP), sharex=dots)
    heights = 100 * data["value"].to_numpy()
    drawn = bars.bar(range(len(heights)), heights, width=0.7, color=INK)
    bars.bar_label(drawn, fmt="%.1f", size=5.5, padding=1.5, rotation=90 if len(data) > 8 else 0)
    bars.tick_params(labelbottom=False)
    bars.grid(visible=False, axis="x")
    bars.set_ylabel("images, %")
    for at, region in enumerate(data["backbones"].to_list()):
        rows = [names.index(name) for name in region]
        dots.plot([at] * len(names), range(len(names)), "o", color=FAINT, ms=4, mew=0)
        dots.plot([at] * len(rows), rows, "-o", color=INK, ms=4, mew=0, lw=1)
    for row in range(0, len(names), 2):
        dots.axhspan(row - 0.5, row + 0.5, color="#f4f4f4", lw=0, zorder=0)
    dots.set(xlim=(-0.6, len(data) - 0.4), ylim=(len(names) - 0.5, -0.5), xticks=[])
    dots.set_yticks(range(len(names)), [label(it, 20) for it in shortened(names).short.values()])
    dots.tick_params(axis="y", length=0)
    dots.grid(visible=False)
    dots.spines[:].set_visible(False)


def _upset_about(data: pl.DataFrame) -> str:
    """What is left out of the figure."""
    rest = 1 - float(data["value"].sum())
    left_out = f"all smaller regions together: {percent(rest)} %" if len(data) == _MOST else ""
    return title(left_out, shortened(data["names"][0].to_list()).phrase)


upset = Figure(
    name="upset",
    short="Which backbones get the same images right, and no others do.",
    caption=_NOTES["upset"],
    source="oracle",
    data=_upset_data,
    draw=_draw_upset,
    size=lambda data: (COLUMN, _BELOW + _BARS + _ROW * max(3, len(data["names"][0]))),
    about=_upset_about,
)


_RADIUS, _AWAY = 1.0, 0.62  # of a circle, and of its centre from the middle
_FAR = (0.0, 1.05, 0.66, 0.0)  # of a count from the middle, by how many circles it is in
_RIGHT = pl.col("backbones").list.len()


def _venn_data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each set of the three backbones: images that these get right and no others do.

    Of more backbones the three that are right most often; images of all datasets together.
    """
    regions = _all_regions(frame)
    images = regions.unique("dataset")["n"].sum()
    counts = regions.select("backbones", images=(pl.col("value") * pl.col("n")).round().cast(int))
    if counts["images"].sum() != images:
        raise UsageError(
            "this file has regions of other backbones, too: draw the store, with backbones=…"
        )
    right = counts.explode("backbones").drop_nulls().group_by("backbones", maintain_order=True)
    most = right.agg(pl.col("images").sum()).sort("images", descending=True, maintain_order=True)
    if len(most) < 3:
        raise UsageError(f"three circles need three backbones, and here are {len(most)}")
    three = most["backbones"].head(3).sort().to_list()
    kept = pl.col("backbones").list.set_intersection(three).list.sort()
    table = counts.group_by(kept, maintain_order=True).agg(pl.col("images").sum())
    return table.with_columns(
        three=pl.lit(three), of=pl.lit(len(most)), datasets=pl.lit(regions["dataset"].n_unique())
    )


def _draw_venn(data: pl.DataFrame, ax: Axes) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Circle

    names = data["three"][0].to_list()
    short = shortened(names).short
    angles = {name: pi / 2 + 2 * pi * place / 3 for place, name in enumerate(names)}
    for name, mark in marks(names).items():
        x, y = cos(angles[name]), sin(angles[name])
        inside = to_rgba(mark["color"], 0.25)
        ax.add_patch(Circle((_AWAY * x, _AWAY * y), _RADIUS, fc=inside, ec=mark["color"]))
        height, side = (1.68, "bottom") if name == names[0] else (-1.38, "top")
        ax.text(1.2 * x, height, label(short[name], 16), ha="center", va=side, size=8)
    for right, images in data.filter(_RIGHT > 0).select("backbones", "images").iter_rows():
        far = _FAR[len(right)]  # in the direction of all three it is in the middle
        x, y = (far * sum(turn(angles[name]) for name in right) for turn in (cos, sin))
        ax.text(x, y, f"{images:,}", ha="center", va="center", color=INK)
    none = f"none of the three: {data.filter(_RIGHT == 0)['images'].sum():,}"
    ax.text(0, -1.78, none, ha="center", va="top", size=7, color=MUTED)
    ax.set(xlim=(-2, 2), ylim=(-2, 1.95), aspect="equal")
    ax.set_axis_off()


def _venn_about(data: pl.DataFrame) -> str:
    of, datasets = data["of"][0], data["datasets"][0]
    some = f"the 3 of {of} backbones that are right most often" if of > 3 else ""
    over = f"images of {datasets} datasets" if datasets > 1 else ""
    return title(some, over, shortened(data["three"][0].to_list()).phrase)


venn = Figure(
    name="venn",
    short="How many images each of three backbones gets right, and which together.",
    caption=_NOTES["venn"],
    source="oracle",
    data=_venn_data,
    draw=_draw_venn,
    size=lambda _venn_data: (COLUMN, 2.7),
    about=_venn_about,
)
