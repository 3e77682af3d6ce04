"""`clipsyn diversity`."""

from __future__ import annotations

from pathlib import Path

import click

from clipsyn.cli.options import (
    Report,
    cell_options,
    joined,
    pooled_option,
    report_options,
    say_left_out,
    say_shared,
)
from clipsyn.cli.output import say


@click.command(short_help="How differently the backbones err.")
@cell_options()
@pooled_option
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Results of `clipsyn evaluate -o`: correlate with the gains in it, over datasets.",
)
@click.option("--head", default="zero-shot", show_default=True, help="Head of those gains.")
@click.option(
    "--shots",
    help="Images a class of those gains, or full for the whole support.  [default: the most]",
)
@report_options
def diversity(
    store: Path,
    *,
    pooled: bool,
    results: Path | None,
    head: str,
    shots: str | None,
    report: Report,
    **filters: tuple[str, ...] | None,
) -> None:
    """How differently the backbones in STORE err, with zero-shot predictions.

    Error inconsistency, disagreement, double fault, Yule's Q and error consistency (Cohen's kappa)
    of every pair of backbones, and their means; Fleiss' kappa, the entropy of votes, and what only
    one backbone gets right. One dataset and perturbation is shown pair by pair, several by their
    means; --csv, --parquet and --json have all pairs with intervals.

    With --results also whether ensembles gain more where the backbones differ more: correlations of
    each measure with the gain over the best single backbone, over datasets, with 95 % intervals.

    \b
    clipsyn diversity store
    clipsyn diversity store -d emoji-food -p clean
    clipsyn diversity store --results results.parquet --shots 16 --csv diversity.csv
    """
    from clipsyn.analyses.diversity.measure import diversity as measure
    from clipsyn.analyses.diversity.tables import tables
    from clipsyn.store.features import FeatureStore

    opened = FeatureStore.open(store)
    frame = measure(opened, **filters, pooled=pooled, results=results, head=head, shots=shots)
    report.show(frame, lambda frame: joined(tables(frame)))
    say_shared(opened, frame)
    if filters["datasets"] is None:
        say_left_out(opened, frame, "labels, a second backbone")
    correlations = frame.filter(frame["dataset"].is_null())
    if results and correlations["value"].is_nan().all():  # of nothing, too
        say(
            "no correlation with gains: it takes three datasets whose diversity and gains differ",
            err=True,
        )
