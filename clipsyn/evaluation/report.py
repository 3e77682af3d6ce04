"""What is shown of the protocol's results.

For ensembles that are compared: gains over the backbone that is best on the support, beside how
differently backbones err.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from clipsyn.evaluation.results.frame import IF_ALIKE
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.evaluation.tables import (
    BEST,
    NOTE,
    at_most_shots,
    chosen_tables,
    method_frame,
    named_tables,
)
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN
from clipsyn.registry import unknown_name
from clipsyn.show.table import Cell, Table, Tables, paragraph
from clipsyn.show.tables import table_of
from clipsyn.stats.correlation import spearman
from clipsyn.stats.significance import holm, wilcoxon
from clipsyn.store.samples import SampleTable


def tables(
    frame: pl.DataFrame, settings: ProtocolSettings, independent: Iterable[SampleTable]
) -> dict[str, Tables]:
    """`named_tables`, what they mean, and for each head the gains of `settings.compare`.

    independent: sample tables that share no image; tests are over their datasets alone.
    """
    compared = named_tables(frame)
    if chosen := chosen_tables(frame):
        compared = {CHOSEN: chosen} | compared
    if not compared:
        return {"": (paragraph("no ensemble to show"),)}
    shown = compared | {"what they mean": (paragraph(NOTE),)}
    methods, datasets = list(dict.fromkeys(settings.compare)), {it.dataset for it in independent}
    heads = frame.filter(pl.col("head") != CHOSEN)["head"].unique(maintain_order=True)
    for head in heads if methods else ():
        shown[f"gains, {head}"] = gain_tables(frame, head, methods, datasets)
    return shown


def gain_frame(tidy: pl.DataFrame, head: str, methods: list[str]) -> pl.DataFrame:
    """Gains by dataset and perturbation, at the most shots, as fractions: means over seeds.

    Columns: dataset, perturbation, inconsistency (share of images that exactly one of two
    backbones gets right, mean over pairs), oracle, `BEST`, and for each METHOD its gain over the
    backbone that is best on the support, with "METHOD low" and "METHOD high" (95 %, over samples).
    """
    part = tidy.filter(pl.col("head") == head)
    gains = at_most_shots(method_frame(part, "gain"))
    keys = ["dataset", "perturbation"]
    differ = method_frame(part, "error_inconsistency")
    table = differ.group_by(keys, maintain_order=True).agg(inconsistency=pl.col("value").mean())
    known = gains["method"].unique().drop_nulls()
    if absent := [method for method in methods if method not in known]:
        raise unknown_name("ensemble", absent[0], known, "These have a gain to compare.")
    for method in ["oracle", *methods]:
        column = (
            gains.filter(pl.col("method") == method)
            .group_by(keys)
            .agg(
                pl.col("value").mean().alias(method),
                pl.col("ci_low").mean().alias(f"{method} low"),
                pl.col("ci_high").mean().alias(f"{method} high"),
            )
        )
        table = table.join(column, on=keys, how="left")
    lead = _accuracy(part, BEST).join(_accuracy(part, BEST_SINGLE), on=keys)
    lead = lead.select(*keys, (pl.col(BEST) - pl.col(BEST_SINGLE)).alias(BEST))
    return table.join(lead, on=keys, how="left").drop("oracle low", "oracle high")


def _accuracy(tidy: pl.DataFrame, method: str) -> pl.DataFrame:
    """Accuracy of one method by dataset and perturbation, at the most shots."""
    rows = at_most_shots(method_frame(tidy)).filter(method=method)
    return rows.group_by("dataset", "perturbation").agg(pl.col("value").mean().alias(method))


def gain_tables(
    tidy: pl.DataFrame, head: str, methods: list[str], independent: Collection[str]
) -> Tables:
    """`gain_frame` as a table, in points with 95 % intervals, and `correlations`.

    independent: datasets that share no image; the tests are over these alone.
    """
    frame = gain_frame(tidy, head, methods)
    columns = ["dataset", "perturbation", "inconsistency", "oracle", BEST]
    rows = [
        {column: row[column] for column in columns} | {name: _points(row, name) for name in methods}
        for row in frame.iter_rows(named=True)
    ]
    gains = table_of(
        rows,
        title=f"head {head} · gain over the backbone that is best on the support, in points",
        percent=["inconsistency", "oracle", BEST],
        headers={BEST: "best\non test"},
        right=methods,
    )
    tested = frame.filter(pl.col("dataset").is_in(independent))
    alike = at_most_shots(method_frame(tidy.filter(head=head), IF_ALIKE))
    correlated = correlations(frame, ["oracle", *methods], alike)
    return gains, correlated, significance(tested, methods)


def correlations(frame: pl.DataFrame, methods: list[str], alike: pl.DataFrame) -> Table:
    """Spearman's correlation over datasets of error inconsistency with gains, by perturbation.

    alike: rows of `IF_ALIKE`, shown below it: what to expect over datasets that do not differ.
    """
    rows: list[dict[str, Any]] = []
    for (name,), part in frame.group_by("perturbation", maintain_order=True):
        differ, count = part["inconsistency"].to_numpy(), len(part)
        found = {method: spearman(differ, part[method].to_numpy()).value for method in methods}
        rows.append({"perturbation": name, "datasets": count} | found)
        here = alike.filter(perturbation=name)
        expected = {method: here.filter(method=method)["value"].mean() for method in methods}
        if any(value is not None for value in expected.values()):
            rows.append({"perturbation": f"{name}, if alike", "datasets": count} | expected)
    title = (
        "rank correlation over datasets of error inconsistency with the gain (Spearman); if alike: "
        "of datasets that do not differ, as both are measured on the same images"
    )
    return table_of(rows, title=title)


def significance(frame: pl.DataFrame, methods: list[str]) -> Table:
    """Whether gains over datasets centre on 0: Wilcoxon's p-values, by perturbation.

    Adjusted for the number of methods (Holm): those below 0.05 hold together at that level.
    """
    rows = []
    for (name,), part in frame.group_by("perturbation", maintain_order=True):
        known = [part[method].drop_nulls().drop_nans().to_numpy() for method in methods]
        p_values = holm(np.array([wilcoxon(gains) for gains in known]))
        adjusted = dict(zip(methods, p_values.tolist(), strict=True))
        rows.append({"perturbation": name, "datasets": len(part)} | adjusted)
    title = (
        "p that gains centre on 0 over datasets that share no image (Wilcoxon's signed-rank test, "
        "exact; Holm)"
    )
    return table_of(rows, title=title)


def _points(row: Mapping[str, Any], method: str) -> Cell | None:
    """None where a method was not measured."""
    if row[method] is None:
        return None
    value, low, high = (100 * row[f"{method}{end}"] for end in ("", " low", " high"))
    return Cell(f"{value:+.1f} [{low:.1f}, {high:.1f}]", value, low, high)
