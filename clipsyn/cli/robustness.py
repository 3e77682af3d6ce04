"""`clipsyn robustness`."""

from __future__ import annotations

from pathlib import Path

import click

from clipsyn.cli.options import (
    Report,
    cell_options,
    joined,
    report_options,
    say_left_out,
    say_shared,
)


@click.command(short_help="What perturbations do to accuracy, order and ensembles.")
@cell_options()
@click.option(
    "--reference",
    help="Backbone that corruption errors are divided by.  [default: the weakest on clean images]",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Results of `clipsyn evaluate -p '*' -o`: show the ensembles in it.",
)
@click.option("--head", default="zero-shot", show_default=True, help="Head of those ensembles.")
@click.option(
    "--shots",
    help="Images a class of those ensembles, or full for the whole support.  [default: the most]",
)
@click.option("--details", is_flag=True, help="All tables, of each dataset too.")
@report_options
def robustness(
    store: Path,
    *,
    reference: str | None,
    results: Path | None,
    head: str,
    shots: str | None,
    details: bool,
    report: Report,
    **filters: tuple[str, ...] | None,
) -> None:
    """What perturbations do to the backbones in STORE, with zero-shot predictions.

    Accuracy, its drop, relative robustness and corruption error (mCE); which backbone is best under
    which perturbation, and whether their order changes; the gain of the oracle, and with --results
    of ensembles, under perturbation; curves by severity. Several datasets are shown by their mean;
    --csv, --parquet and --json have everything with intervals.

    \b
    clipsyn robustness store
    clipsyn robustness store -d emoji-food -p 'fog-*,jpeg-*' --details
    clipsyn robustness store --reference tiny-RN/zoo --results results.parquet --csv robustness.csv
    """
    from clipsyn.analyses.robustness.measure import robustness as measure
    from clipsyn.analyses.robustness.tables import tables
    from clipsyn.store.features import FeatureStore

    opened = FeatureStore.open(store)
    frame = measure(opened, **filters, reference=reference, results=results, head=head, shots=shots)
    report.show(frame, lambda frame: joined(tables(frame, details=details)))
    say_shared(opened, frame)
    if filters["datasets"] is None:
        say_left_out(opened, frame, "labels, perturbed images")
