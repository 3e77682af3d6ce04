"""`clipsyn zeroshot`."""

from __future__ import annotations

from pathlib import Path

import click

from clipsyn.cli.options import (
    Report,
    cell_options,
    pooled_option,
    report_options,
    say_left_out,
)


@click.command(short_help="Zero-shot accuracy of what a store holds.")
@cell_options()
@pooled_option
@click.option("--summary", is_flag=True, help="One table for everything: a line a dataset.")
@report_options
def zeroshot(
    store: Path,
    *,
    summary: bool,
    pooled: bool,
    report: Report,
    **filters: tuple[str, ...] | None,
) -> None:
    """Zero-shot accuracy of every backbone in STORE: top-1 with a 95 % interval, top-5, mean per
    class, n; and of the oracle, which for each image knows a backbone that gets it right.

    Needs no image, no model and no GPU.

    \b
    clipsyn zeroshot store
    clipsyn zeroshot store -d 'emoji-*' -p clean,jpeg-3 --summary
    clipsyn zeroshot store --json --csv results.csv
    """
    from clipsyn.analyses.accuracy import measure as evaluate
    from clipsyn.analyses.accuracy import tables
    from clipsyn.store.features import FeatureStore

    opened = FeatureStore.open(store)
    frame = evaluate.zeroshot(opened, **filters, pooled=pooled)
    table = tables.accuracy_table if summary else tables.backbone_tables
    report.show(frame, table)
    if filters["datasets"] is None:
        say_left_out(opened, frame)
