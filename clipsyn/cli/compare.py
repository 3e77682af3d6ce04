"""`clipsyn compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.cli.declared import settings_options
from clipsyn.cli.options import Report, report_options, with_options
from clipsyn.evaluation.paired import PairedSettings


def _compare(
    predictions: Path, first: str | None, second: str | None, *, report: Report, **values: Any
) -> None:
    from clipsyn.evaluation.paired.measure import measure
    from clipsyn.evaluation.paired.tables import tables

    settings = PairedSettings(**values)
    frame = measure(predictions, settings, first, second)
    report.show(frame, lambda shown: tables(shown, settings))


compare = click.command(
    "compare",
    short_help="Compare methods in pairs, on the same images.",
    help="""\
Compare methods on the images of PREDICTIONS, the file of `clipsyn evaluate --predictions`.

Each difference in accuracy is over the same images and the same draws of the shots. It has a 95 %
interval over images, one over draws and images together, the p-value of McNemar's test, and one
that is adjusted for all differences in its table (Holm). What is then no difference is marked as a
tie. Means over datasets draw an image that stands in several of them in all of these together.

FIRST and SECOND are ensembles, backbones, or "best on test", the backbone that is best on these
very images; HEAD+NAME is one of another head. With FIRST alone it is compared with every ensemble,
with neither all ensembles are compared with each other.

\b
clipsyn compare predictions.parquet
clipsyn compare predictions.parquet nlc super-learner
clipsyn compare predictions.parquet best-single log-avg -p 'jpeg-*'
clipsyn compare predictions.parquet nlc --shots 16 --details --csv pairs.csv""",
)(
    with_options(
        report_options(_compare),
        [
            click.argument("predictions", type=click.Path(path_type=Path)),
            click.argument("first", required=False),
            click.argument("second", required=False),
            *settings_options(PairedSettings),
        ],
    )
)
