"""Which backbones are right together: an UpSet plot of the sets of images that they get right."""

from __future__ import annotations

from math import cos, pi, sin
from typing import TYPE_CHECKING, Any

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import refuse_several, singles
from clipsyn.show.figure import COLUMN, FAINT, INK, MUTED, Figure, Size, label, marks, needed
from clipsyn.show.table import percent
from clipsyn.show.titles import shortened, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 16  # regions that are drawn
_ROW, _BARS, _BELOW = 0.15, 1.1, 0.45  # inches
_SIDE, _GAP = 0.2, 0.03  # of the width: accuracies, and what is between them and the dots
_REGION, _BACKBONE, _REST = "region", "backbone", "rest"


def _all_regions(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of regions, of one kind of images."""
    regions = needed(
        frame.filter(metric="region", ensemble="oracle"),
        "region of images that the same backbones get right",
        "give a store, or what `clipsyn oracle STORE -o FILE.parquet` wrote",
    )
    refuse_several(regions)
    return regions


def _upset_data(frame: pl.DataFrame) -> pl.DataFrame:
    """Shares of images, each the mean over datasets.

    kind "backbone": its accuracy. "region": these backbones are right and no others; the largest
    first. "rest": all smaller regions together.
    """
    regions = _all_regions(frame)
    alone = singles(frame).filter(metric="acc1")
    _refuse_uneven(alone)
    datasets = regions.unique("dataset")
    shares = (
        regions.group_by("backbones", maintain_order=True)
        .agg(pl.col("value").sum() / len(datasets))
        .filter(pl.col("value") > 0)
        .sort("value", descending=True, maintain_order=True)
    )
    drawn = shares.head(_MOST)
    others = 1 - pl.lit(drawn["value"]).sum()
    rest = shares.clear(int(len(shares) > _MOST)).with_columns(value=others)
    accuracies = alone.group_by("backbones", maintain_order=True).agg(pl.col("value").mean())
    parts = {_BACKBONE: accuracies, _REGION: drawn, _REST: rest}
    return pl.concat(
        part.select(pl.lit(kind).alias("kind"), "backbones", "value")
        for kind, part in parts.items()
    ).with_columns(datasets=pl.lit(len(datasets)), n=pl.lit(datasets["n"].sum()))


def _refuse_uneven(alone: pl.DataFrame) -> None:
    """Raise UsageError where datasets have other backbones: their regions are not the same."""
    sets = alone.group_by("dataset").agg(pl.col("backbone").unique().sort())
    if sets["backbone"].n_unique() > 1:
        raise UsageError(
            "datasets have other backbones, whose regions cannot be put together: name some with "
            "datasets=…, or the backbones that all have with backbones=…"
        )


def _size(data: pl.DataFrame) -> Size:
    return COLUMN, _BELOW + _BARS + _ROW * max(3, len(_rows(data, _BACKBONE)))


def _draw_upset(data: pl.DataFrame, ax: Axes) -> None:
    """Bars of regions above dots that say whose they are, beside bars of accuracies."""
    accuracies = {row["backbones"][0]: row["value"] for row in _rows(data, _BACKBONE)}
    accuracies = dict(sorted(accuracies.items(), key=lambda item: -item[1]))
    regions = _rows(data, _REGION)
    ax.set_axis_off()
    share = _ROW * len(accuracies) / (_ROW * len(accuracies) + _BARS)  # of the height
    left, top = _SIDE + _GAP, share + _GAP
    dots = ax.inset_axes((left, 0, 1 - left, share))
    _draw_bars(ax.inset_axes((left, top, 1 - left, 1 - top)), data)
    _draw_dots(dots, [*accuracies], [row["backbones"] for row in regions])
    _draw_accuracies(ax.inset_axes((0, 0, _SIDE, share)), accuracies)


def _rows(data: pl.DataFrame, kind: str) -> list[dict[str, Any]]:
    return data.filter(kind=kind).rows(named=True)


def _draw_bars(ax: Axes, data: pl.DataFrame) -> None:
    heights = [100 * row["value"] for row in _rows(data, _REGION)]
    bars = ax.bar(range(len(heights)), heights, width=0.7, color=INK)
    ax.bar_label(bars, fmt="%.1f", size=5.5, padding=1.5, rotation=90 if len(heights) > 8 else 0)
    ax.set_xlim(-0.6, len(heights) - 0.4)
    ax.set_xticks([])
    ax.grid(visible=False, axis="x")
    ax.set_ylabel("images, %")


def _upset_about(data: pl.DataFrame) -> str:
    """What is left out of the figure."""
    rest = (percent(row["value"]) for row in _rows(data, _REST))
    return "".join(f"all smaller regions together: {share} %" for share in rest)


def _draw_dots(ax: Axes, names: list[str], regions: list[list[str]]) -> None:
    for at, region in enumerate(regions):
        rows = [names.index(name) for name in region]
        ax.plot([at] * len(names), range(len(names)), "o", color=FAINT, ms=4, mew=0)
        ax.plot([at] * len(rows), rows, "-o", color=INK, ms=4, mew=0, lw=1)
    for row in range(0, len(names), 2):
        ax.axhspan(row - 0.5, row + 0.5, color="#f4f4f4", lw=0, zorder=0)
    ax.set_xlim(-0.6, len(regions) - 0.4)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.axis("off")


def _draw_accuracies(ax: Axes, accuracies: dict[str, float]) -> None:
    """Bars to the left, from the dots on."""
    short = shortened([*accuracies]).short
    ax.barh(range(len(short)), [100 * value for value in accuracies.values()], 0.6, color=MUTED)
    ax.set_xlim(100, 0)
    ax.set_xticks([100, 50, 0])
    ax.set_ylim(len(short) - 0.5, -0.5)
    ax.set_yticks(range(len(short)), [label(name, 20) for name in short.values()])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.spines[["left"]].set_visible(False)
    ax.set_xlabel("top-1, %", size=7)


upset = Figure(
    name="upset",
    short="Which backbones get the same images right, and no others do.",
    caption=(
        "Share of images that the backbones with a strong dot get right and no others; where all "
        "dots are faint, images that none gets right. Left: top-1 accuracy. Of several datasets "
        "these are means."
    ),
    source="oracle",
    data=_upset_data,
    draw=_draw_upset,
    size=_size,
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
        inside = to_rgba(mark.colour, 0.25)
        ax.add_patch(Circle((_AWAY * x, _AWAY * y), _RADIUS, fc=inside, ec=mark.colour))
        up = name == names[0]
        height, side = (1.68, "bottom") if up else (-1.38, "top")
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
    caption="Images that each of three backbones gets right, alone and together with the others; "
    "circles are of one size whatever the counts.",
    source="oracle",
    data=_venn_data,
    draw=_draw_venn,
    size=lambda _venn_data: (COLUMN, 2.7),
    about=_venn_about,
)
