"""`clipsyn evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.cli.options import (
    SEEDS,
    WORKERS,
    Report,
    cell_options,
    list_option,
    report_options,
    say_shared,
)
from clipsyn.cli.output import say


@click.command(short_help="Fit and measure every ensemble, by number of shots.")
@cell_options(perturbations=["clean"])
@list_option(
    "--heads",
    default=["zero-shot"],
    help="Heads, or all: see above.",
)
@list_option(
    "--ensembles",
    default=["all"],
    help="Ensembles, or all: see above.",
)
@list_option(
    "--shots",
    default=["1,2,4,8,16,full"],
    help="Labelled images a class; full takes the whole support split.",
)
@click.option(
    "--seeds",
    type=SEEDS,
    default=3,
    show_default=True,
    help="Draws of the shots: seeds 0 to N-1, with --coop its 1 to N.",
)
@click.option("--support", help="Split that is fitted on.  [default: train, if it is needed]")
@click.option(
    "--support-prompts", help="Prompt set that is fitted on, if another (prompt transfer)."
)
@list_option("--views", help="Perturbations of the support that are augmented views.")
@click.option(
    "--base-to-new", is_flag=True, help="Fit on half of the classes, measure on each half."
)
@click.option(
    "--coop",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with CoOp's shot_K-seed_S.pkl, instead of drawing the shots.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Parquet file to add the results to."
)
@click.option("--replace", is_flag=True, help="Replace results of other inputs in that file.")
@click.option("--workers", type=WORKERS, default=1, show_default=True, help="Processes.")
@report_options
def evaluate(
    store: Path,
    *,
    report: Report,
    seeds: int,
    **options: Any,
) -> None:
    """Fit every ensemble, on every head, on a few labelled images a class of STORE, and measure it.

    All methods get the same images. Accuracy, mean per class, NLL, ECE, Brier score and the gain
    over the best single backbone, each with a 95 % interval, and seconds to fit and predict.

    Heads turn embeddings into logits, ensembles the logits of several backbones into one.

    \b
    Heads:      zero-shot, linear-probe, tip-adapter, tip-adapter-f, lda, anchored-probe
    Static:     vote-1, vote-3, conf, log-avg, prob-avg
    Fitted:     best-single, c-conf, c-log-avg, super-learner, gac, greedy, stacking
    Per image:  ola, knora-u, moe, nlc, residual-router

    Both take parameters: nlc:weight_map=linear:hidden=64.

    \b
    clipsyn evaluate store -o results.parquet
    clipsyn evaluate store -d 'emoji-*' --ensembles log-avg,super-learner,nlc --shots 1,16,full
    clipsyn evaluate store -p 'clean,jpeg-*' --heads zero-shot,tip-adapter --seeds 5
    """
    from clipsyn.progress import progress
    from clipsyn.protocol.choice import read_shots
    from clipsyn.protocol.loop import evaluate as run
    from clipsyn.protocol.tables import method_tables
    from clipsyn.store.features import FeatureStore

    _refuse_one_file(report, options["output"])
    options["views"] = options["views"] or ()
    options["heads"] = options["heads"] or ()
    options["shots"] = read_shots(options["shots"])
    first = 1 if options["coop"] else 0  # as CoOp numbers its files
    options["seeds"] = range(first, first + seeds)
    opened = FeatureStore.open(store)
    with progress("tasks") as counters:
        frame = run(opened, progress=counters, **options)
    report.show(frame, method_tables)
    say_shared(opened, frame)
    if options["output"]:
        say(f"{len(frame):,} results, all of them in {options['output']}", err=True)


def _refuse_one_file(report: Report, output: Path | None) -> None:
    """--csv and --parquet write their file anew, -o adds to what others may have put there."""
    from clipsyn.errors import UsageError

    for name, path in (("--csv", report.csv), ("--parquet", report.parquet)):
        if path and output and path.resolve() == output.resolve():
            raise UsageError(
                f"{name} would write over {output}, which -o adds to: leave {name} out, or give it "
                "another file"
            )
