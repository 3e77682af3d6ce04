"""`clipsyn oracle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipsyn.cli.options import (
    COUNT,
    Destination,
    Report,
    cell_options,
    joined,
    pooled_option,
    report_options,
    say_left_out,
    say_written,
)
from clipsyn.errors import UsageError

if TYPE_CHECKING:
    from polars import DataFrame


@click.command(short_help="How far the best choice of backbones could go.")
@cell_options()
@pooled_option
@click.option("--details", is_flag=True, help="All tables of each dataset and perturbation.")
@click.option(
    "--top",
    type=COUNT,
    default=10,
    show_default=True,
    help="Regions, and numbers of backbones, in a table.",
)
@click.option(
    "--weights", is_flag=True, help="What weighted sums of logits could reach; reads the logits."
)
@click.option(
    "--samples",
    type=Destination(),
    help="Write what each backbone says of each image to this .csv or .parquet.",
)
@click.option(
    "--subsets",
    type=Destination(),
    help="Write the oracle of every subset of backbones to this .csv or .parquet.",
)
@report_options
def oracle(
    store: Path,
    *,
    pooled: bool,
    details: bool,
    top: int,
    weights: bool,
    samples: Path | None,
    subsets: Path | None,
    report: Report,
    **filters: tuple[str, ...] | None,
) -> None:
    """The oracle of the backbones in STORE, which for each image knows one that gets it right.

    Its gain over the best single backbone; the best backbones of each number; what each backbone
    adds; which images only one gets right, or none; which backbones are right together.

    \b
    clipsyn oracle store
    clipsyn oracle store -d emoji-food -p clean --samples food.csv
    clipsyn oracle store -b '*/openai' --details --weights --csv oracle.csv
    """
    from clipsyn.analyses.oracle import measure as evaluate
    from clipsyn.analyses.oracle.tables import tables
    from clipsyn.store.features import FeatureStore

    for path in (samples, subsets):
        _check(path)
    opened = FeatureStore.open(store)
    frame = evaluate.oracle(opened, **filters, pooled=pooled, weights=weights)
    report.show(frame, lambda frame: joined(tables(frame, top=top, details=details or None)))
    if filters["datasets"] is None:
        say_left_out(opened, frame)
    if samples:
        _write(evaluate.sample_table(opened, **filters, pooled=pooled), samples)
    if subsets:
        _write(evaluate.subset_table(opened, **filters, pooled=pooled), subsets)


def _check(path: Path | None) -> None:
    if path and path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"{path} is neither CSV nor Parquet: end its name in .csv or .parquet")


def _write(frame: DataFrame, path: Path) -> None:
    from clipsyn import frames

    frames.write(
        frame,
        csv=path if path.suffix == ".csv" else None,
        parquet=path if path.suffix == ".parquet" else None,
    )
    say_written(len(frame), path)
