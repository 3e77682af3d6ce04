"""`clipsyn published`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.cli.declared import settings_options
from clipsyn.cli.options import Report, report_options, with_options
from clipsyn.cli.output import say
from clipsyn.evaluation.published import CompareSettings


def _published(results: Path, *, report: Report, **values: Any) -> None:
    from clipsyn.evaluation.published.measure import measure, unpublished
    from clipsyn.evaluation.published.tables import tables
    from clipsyn.evaluation.results.files import read_results

    settings, ours = CompareSettings(**values), read_results(results)
    frame = measure(ours, settings)
    report.show(frame, lambda shown: tables(shown, settings))
    for note in unpublished(ours, frame):
        say(f"note: {note}", fg="yellow", err=True)


published = click.command(
    "published",
    short_help="Compare zero-shot accuracies with published ones.",
    help="""\
Compare the zero-shot accuracies in RESULTS with published ones: difference, interval, and a mark
where the difference is beyond the tolerance.

RESULTS is the Parquet file of `clipsyn zeroshot --parquet` or of `clipsyn evaluate -o`. A number is
compared where one is published for the same backbone, dataset and metric, and under the same
prompts if the reference names them; nothing else is.

\b
clipsyn published zeroshot.parquet
clipsyn published zeroshot.parquet --reference theirs.csv --tolerance 0.2 --csv differences.csv""",
)(
    with_options(
        report_options(_published),
        [
            click.argument("results", type=click.Path(path_type=Path)),
            *settings_options(CompareSettings),
        ],
    )
)
