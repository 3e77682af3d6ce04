"""`clipsyn cascade`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.cli.options import (
    COUNT,
    SEED,
    Report,
    cell_options,
    joined,
    list_option,
    report_options,
    say_left_out,
    say_shared,
)
from clipsyn.errors import UsageError


@click.command(short_help="What backbones cost, and what stopping early saves.")
@cell_options(perturbations=["clean"])
@list_option(
    "--ensembles",
    help="What combines the first k backbones, beside log-avg: NAME, NAME:parameter=value, or "
    "masked-NAME for one ensemble fitted for all stages; repeated or with commas.",
)
@click.option(
    "--order",
    type=click.Choice(["cost", "greedy", "given"]),
    default="cost",
    show_default=True,
    help="Cheapest backbone first; most accuracy gained on the support per GFLOP; or as "
    "--backbones has them.",
)
@list_option(
    "--thresholds",
    help="Confidences to leave at, repeated or with commas.  [default: 0.1,0.2 … 0.9,0.95,0.99]",
)
@click.option(
    "--within",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Accuracy that the threshold chosen on the support may lose there.",
)
@click.option(
    "--all-subsets",
    is_flag=True,
    help="Fit ensembles for every subset of up to nine backbones, for the Pareto front; slow.",
)
@list_option(
    "--cost",
    "costs",
    metavar="NAME=GFLOPS",
    help="What an image costs a backbone, where that is not known or another number is wanted.",
)
@click.option(
    "--support",
    default="train",
    show_default=True,
    metavar="SPLIT",
    help="Split to fit and choose on.",
)
@click.option("--shots", type=COUNT, help="Images of each class to fit on.  [default: all]")
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Of the images drawn by --shots, and of ensembles with a random start.",
)
@click.option("--details", is_flag=True, help="All tables of each dataset and perturbation.")
@report_options
def cascade(
    store: Path,
    *,
    within: float,
    details: bool,
    report: Report,
    **options: Any,
) -> None:
    """What the backbones in STORE cost, and cascades of them.

    A cascade runs one backbone after the other, combines what it has, and stops at the first answer
    that is confident enough. Accuracy against mean cost at each threshold, beside single backbones
    and ensembles of all their subsets; which of them are on the Pareto front. Everything is
    fitted and chosen on the support split.

    \b
    clipsyn cascade store
    clipsyn cascade store --ensembles nlc,super-learner --order greedy --within 0.5
    clipsyn cascade store -d emoji-food --thresholds 0.5,0.9 --cost my/backbone=17.5 --csv out.csv
    """
    from clipsyn.analyses.cascade import measure as evaluate
    from clipsyn.analyses.cascade.costs import read_costs
    from clipsyn.analyses.cascade.tables import tables
    from clipsyn.store.features import FeatureStore

    options["ensembles"] = options["ensembles"] or ()
    options["costs"] = read_costs(options["costs"] or ())
    options["thresholds"] = _numbers(options["thresholds"]) or evaluate.THRESHOLDS
    opened = FeatureStore.open(store)
    frame = evaluate.cascade(opened, **options, within=within / 100)
    report.show(frame, lambda frame: joined(tables(frame, details=details)))
    say_shared(opened, frame)
    if options["datasets"] is None:
        say_left_out(opened, frame)


def _numbers(texts: tuple[str, ...] | None) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in texts or ())
    except ValueError as error:
        raise UsageError(f"--thresholds {','.join(texts or ())}: {error}; write 0.5,0.9") from error
