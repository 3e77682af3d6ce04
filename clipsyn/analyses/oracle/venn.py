"""Which images each of three backbones gets right: three circles, and seven counts."""

from __future__ import annotations

from math import cos, pi, sin
from typing import TYPE_CHECKING

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.view import refuse_several
from clipsyn.show.figure import COLUMN, INK, MUTED, Figure, label, marks, needed
from clipsyn.show.titles import shortened, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RADIUS, _AWAY = 1.0, 0.62  # of a circle, and of its centre from the middle
_FAR = (0.0, 1.05, 0.66, 0.0)  # of a count from the middle, by how many circles it is in
_RIGHT = pl.col("backbones").list.len()


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each set of the three backbones: images that these get right and no others do.

    Of more backbones the three that are right most often; images of all datasets together.
    """
    regions = needed(
        frame.filter(metric="region", ensemble="oracle"),
        "region of images that the same backbones get right",
        "give a store, or what `clipsyn oracle STORE -o FILE.parquet` wrote",
    )
    refuse_several(regions)
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


def _draw(data: pl.DataFrame, ax: Axes) -> None:
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


def _about(data: pl.DataFrame) -> str:
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
    data=_data,
    draw=_draw,
    size=lambda _data: (COLUMN, 2.7),
    about=_about,
)
