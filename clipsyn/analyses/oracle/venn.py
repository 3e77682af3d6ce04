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
_PLACES = {1: 1.05, 2: 0.66, 3: 0.0}  # of a count from the middle, by how many circles it is in


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
    from matplotlib.patches import Circle

    names = data["three"][0].to_list()
    short = shortened(names).short
    angles = {name: pi / 2 + 2 * pi * place / 3 for place, name in enumerate(names)}
    for name, mark in marks(names).items():
        x, y = cos(angles[name]), sin(angles[name])
        circle = Circle((_AWAY * x, _AWAY * y), _RADIUS, color=mark.colour, alpha=0.25, lw=0)
        ax.add_patch(circle)
        ax.add_patch(Circle(circle.center, _RADIUS, fill=False, ec=mark.colour, lw=1))
        up = name == names[0]
        at = (0, 1.68) if up else (1.2 * x, -1.38)
        ax.text(*at, label(short[name], 16), ha="center", va="bottom" if up else "top", size=8)
    for inside, images in data.select("backbones", "images").iter_rows():
        x, y = (sum(turn(angles[name]) for name in inside) for turn in (cos, sin))
        away = _PLACES.get(len(inside))
        if away is not None:
            far = away / max((x**2 + y**2) ** 0.5, 1e-9) if len(inside) < 3 else 0
            ax.text(far * x, far * y, f"{images:,}", ha="center", va="center", color=INK)
    ax.text(0, -1.78, _none(data), ha="center", va="top", size=7, color=MUTED)
    ax.set(xlim=(-2, 2), ylim=(-2, 1.95), aspect="equal")
    ax.set_axis_off()


def _none(data: pl.DataFrame) -> str:
    """How many images no circle has."""
    none = data.filter(pl.col("backbones").list.len() == 0)["images"].sum()
    return f"none of the three: {none:,}"


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
