"""How much a router counts each backbone, over the images that it predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.router.predict import WEIGHT
from clipsyn.show.figure import COLUMN, INK, Figure, Size, label
from clipsyn.show.titles import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _BELOW = 0.19, 0.45  # inches
_BOX = "#9fc5e0"
_LEVELS = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each backbone, the heaviest first: its weight over images."""
    names = [name for name in frame.columns if name.startswith(WEIGHT)]
    weights = frame.select(names).drop_nulls() if names else frame.clear()
    if weights.is_empty():
        raise UsageError(
            "there is no weight of any backbone to draw: give what `clipsyn predict ROUTER STORE "
            "-o FILE.parquet` wrote, with a router that weighs backbones, such as nlc or moe"
        )
    rows = [
        {"backbone": name.removeprefix(WEIGHT), "mean": column.mean()}
        | {level: column.quantile(share, "linear") for level, share in _LEVELS.items()}
        for name in names
        for column in [weights[name]]
    ]
    table = pl.DataFrame(rows).sort("mean", descending=True, maintain_order=True)
    return table.with_columns(n=pl.lit(len(weights)))


def _size(data: pl.DataFrame) -> Size:
    return COLUMN, _BELOW + _LINE * max(3, len(data))


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    at = range(len(data))
    ax.hlines(at, data["p5"], data["p95"], color=INK, lw=0.8)
    ax.barh(at, data["p75"] - data["p25"], 0.6, data["p25"], color=_BOX, ec=INK, lw=0.6)
    ax.plot(data["median"], at, "|", color=INK, ms=8, mew=1.2)
    ax.plot(data["mean"], at, "o", color=INK, ms=3.5, mfc="white", mew=0.8)
    names = shortened(data["backbone"].to_list()).short.values()
    ax.set_yticks(at, [label(name) for name in names])
    ax.set_ylim(len(data) - 0.4, -0.6)
    ax.use_sticky_edges = False  # of boxes that have no width
    ax.margins(x=0.05)
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(f"weight, over {data['n'][0]:,} images")


router_weights = Figure(
    name="router-weights",
    short="How much a router counts each backbone, over images.",
    caption=(
        "Weight of each backbone over the images that a router predicted: boxes hold the middle "
        "half of the images, lines the middle 90 %; a bar is the median, a circle the mean."
    ),
    source="predict",
    data=_data,
    draw=_draw,
    size=_size,
    tidy=False,
)
