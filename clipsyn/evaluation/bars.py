"""The backbone and the method that the support chooses beside the oracle, by dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from clipsyn.evaluation.figures import beside, lines_of
from clipsyn.evaluation.results.frame import refuse_several
from clipsyn.evaluation.tables import at_most_shots, method_frame
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN, ORACLE
from clipsyn.show.figure import COLUMN, INK, Figure, Mark, Size, needed
from clipsyn.show.panels import key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _BELOW = 0.24, 0.7  # inches
_BARS = {  # colour, place and height of each, in the order in which they are drawn
    ORACLE: ("#dedede", 0.0, 0.84),
    BEST_SINGLE: ("#8a949e", -0.2, 0.3),
    CHOSEN: ("#0072B2", 0.2, 0.3),
}
_TEXTS = {
    ORACLE: "oracle",
    BEST_SINGLE: "backbone chosen on support",
    CHOSEN: "method chosen on support",
}
_COLUMNS = ("dataset", "method", "head", "value", "ci_low", "ci_high", "seeds", "n")


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each dataset and method, means over draws; those without a dataset are means.

    At the most shots of each dataset. The oracle is that of the head where it is largest.
    """
    rows = frame.filter(classes="all")
    accuracy, gain = (at_most_shots(method_frame(rows, metric)) for metric in ("acc1", "gain"))
    chosen = needed(
        accuracy.filter(method=CHOSEN),
        "method that the support has chosen",
        "give what `clipsyn evaluate STORE -o FILE` wrote, with chosen among the ensembles",
    )
    refuse_several(chosen)
    over = gain.filter(method=CHOSEN).select("dataset", gain="value")
    single = chosen.join(over, on="dataset", maintain_order="left").with_columns(
        pl.col("value") - pl.col("gain"),
        pl.lit(None, pl.Float64).alias("ci_low"),
        pl.lit(None, pl.Float64).alias("ci_high"),
        method=pl.lit(BEST_SINGLE),
    )
    table = pl.concat(part.select(_COLUMNS) for part in (_oracle(accuracy, chosen), single, chosen))
    means = table.group_by("method", "head", maintain_order=True).agg(pl.col("value").mean())
    return pl.concat([table, means] if len(chosen) > 1 else [table], how="diagonal")


def _oracle(accuracy: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """Of the head whose oracle is largest, where all datasets have it."""
    oracles = accuracy.filter(method=ORACLE).join(chosen, on="dataset", how="semi")
    parts = oracles.partition_by("head", maintain_order=True)
    whole = [part for part in parts if part["dataset"].n_unique() == len(chosen)]
    return max(whole, key=lambda part: part["value"].sum(), default=oracles.clear())


def _entries(data: pl.DataFrame) -> dict[str, Mark]:
    there = set(data["method"])
    return {_TEXTS[name]: Mark(_BARS[name][0], "s", "") for name in _BARS if name in there}


def _size(data: pl.DataFrame) -> Size:
    lines = max(2, len(lines_of(data)))
    return COLUMN, _LINE * lines + _BELOW


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    lines = lines_of(data)
    for method, (colour, place, height) in _BARS.items():
        rows = data.filter(method=method)
        at = [lines[name] + place for name in rows["dataset"]]
        ax.barh(at, 100 * rows["value"], height, color=colour)
        if method == CHOSEN:
            ax.hlines(at, 100 * rows["ci_low"], 100 * rows["ci_high"], color=INK, lw=0.8)
    ax.set_yticks([*lines.values()], [beside(name, data) for name in lines])
    ax.set_ylim(max(lines.values()) + 0.55, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("top-1 accuracy, %", loc="right")
    key(ax, _entries(data))


def _about(data: pl.DataFrame) -> str:
    heads = data.filter(method=ORACLE)["head"].unique().to_list()
    return "".join(f"the oracle is that of head {head}" for head in heads)


chosen_bars = Figure(
    name="chosen",
    short="What the labels choose, a backbone or a method, beside the oracle, by dataset.",
    caption=(
        "Top-1 accuracy of the method that cross-validation on the support chooses, with 95 % "
        "intervals, of the backbone that is best on the support, under the same head, and of the "
        "oracle, which knows a right backbone for each image; at the most labelled images, means "
        "over draws."
    ),
    source="evaluate",
    data=_data,
    draw=_draw,
    size=_size,
    about=_about,
)
