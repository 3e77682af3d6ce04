"""Gains over the best single backbone, with intervals, beside how much the backbones disagree."""

from __future__ import annotations

import numpy as np
import polars as pl

from clipsyn.report.methods import method_frame
from clipsyn.report.tables import interval_text, show


def gain_frame(tidy: pl.DataFrame, head: str, methods: list[str]) -> pl.DataFrame:
    """A row for each dataset and perturbation, at the most shots; means over seeds, fractions.

    Columns: dataset, perturbation, disagreement (mean over pairs of backbones), oracle, and for
    each method its gain, with gain_low and gain_high (95 %, over samples) behind its name.
    """
    part = tidy.filter(pl.col("head") == head)
    gains, differ = method_frame(part, "gain"), method_frame(part, "disagreement")
    keys = ["dataset", "perturbation"]
    table = differ.group_by(keys, maintain_order=True).agg(disagreement=pl.col("value").mean())
    for method in ["oracle", *methods]:
        of = gains.filter(pl.col("method") == method)
        if (of["shots"] == "full").any():
            of = of.filter(pl.col("shots") == "full")
        elif of["shots"].drop_nulls().len():
            most = max(of["shots"].drop_nulls(), key=int)
            of = of.filter(pl.col("shots") == most)
        column = of.group_by(keys).agg(
            pl.col("value").mean().alias(method),
            pl.col("ci_low").mean().alias(f"{method} low"),
            pl.col("ci_high").mean().alias(f"{method} high"),
        )
        table = table.join(column, on=keys, how="left")
    return table.drop("oracle low", "oracle high")


def gain_table(
    tidy: pl.DataFrame, head: str, methods: list[str], *, terminal: bool | None = None
) -> str:
    """`gain_frame` as text: points with 95 % intervals, and what disagreement has to do with it."""
    frame = gain_frame(tidy, head, methods)
    shown = frame.select("dataset", "perturbation", "disagreement", "oracle")
    for method in methods:
        texts = [
            f"{100 * value:+.1f} ({interval_text(low, high)})"
            for value, low, high in frame.select(
                method, f"{method} low", f"{method} high"
            ).iter_rows()
        ]
        shown = shown.with_columns(pl.Series(method, texts))
    text = show(
        shown,
        title=f"head {head} · gain over the best single backbone on test, in points",
        percent=["disagreement", "oracle"],
        right=methods,
        terminal=terminal,
    )
    lines = [
        f"{method}: {rank_correlation(frame['disagreement'], frame[method]):+.2f}"
        for method in ["oracle", *methods]
    ]
    return (
        f"{text}\nrank correlation (Spearman) of gain with disagreement over these rows: "
        + ", ".join(lines)
    )


def rank_correlation(first: pl.Series, second: pl.Series) -> float:
    """Spearman's: Pearson's correlation of average ranks; NaN where one of them is constant."""
    ranks = np.stack([first.rank().to_numpy(), second.rank().to_numpy()])
    if len(first) < 2 or (ranks.std(axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])
