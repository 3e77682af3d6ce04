"""`clipsyn representation`."""

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
    report_options,
    say_shared,
)
from clipsyn.cli.output import say


@click.command(short_help="How alike embeddings are, how sure logits.")
@cell_options(perturbations=["clean"])
@click.option(
    "--samples",
    type=COUNT,
    default=2000,
    show_default=True,
    help="Images, drawn at random from those that every backbone could read.",
)
@click.option(
    "--neighbours",
    type=COUNT,
    default=10,
    show_default=True,
    help="Nearest images that two backbones should agree on.",
)
@click.option(
    "--support", help="Split that temperatures are fitted on.  [default: train, if there is one]"
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Which images are drawn.")
@report_options
def representation(
    store: Path,
    *,
    samples: int,
    neighbours: int,
    support: str | None,
    seed: int,
    report: Report,
    **filters: Any,
) -> None:
    """How alike the embeddings of the backbones in STORE are, and how sure their logits.

    Linear CKA, Procrustes distance and mutual nearest neighbours of every pair of backbones: they
    need no labels. With labels, for each backbone: confidence where it is right and where it is
    wrong, cross-entropy and calibration error before and after temperature scaling. --csv,
    --parquet and --json have every dataset and pair with intervals.

    \b
    clipsyn representation store
    clipsyn representation store -d emoji-food --neighbours 5
    clipsyn representation store -b '*/openai' --samples 10000 --csv representation.csv
    """
    from clipsyn.analyses.representation.measure import representation as measure
    from clipsyn.analyses.representation.tables import tables
    from clipsyn.store.features import FeatureStore

    opened = FeatureStore.open(store)
    frame = measure(
        opened, **filters, samples=samples, neighbours=neighbours, support=support, seed=seed
    )
    report.show(frame, lambda frame: joined(tables(frame)))
    say_shared(opened, frame)
    scored = set(frame.filter(frame["metric"] == "ece")["dataset"])
    if silent := sorted(set(frame["dataset"]) - scored):
        say(f"no logit statistics, for want of labels: {', '.join(silent)}", err=True)
