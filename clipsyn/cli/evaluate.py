"""`clipsyn evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.cli.options import listed, output_options, say_written

_NAMES = "Names or patterns such as '{}', repeated or with commas.  [default: {}]"


@click.command(short_help="Fit and measure every ensemble, by number of shots.")
@click.argument("store", type=click.Path(path_type=Path), envvar="CLIPSYN_STORE")
@click.option("-d", "--dataset", "datasets", multiple=True, help=_NAMES.format("emoji-*", "all"))
@click.option(
    "-s",
    "--split",
    "splits",
    multiple=True,
    default=["test"],
    show_default=True,
    help="Measured on.",
)
@click.option(
    "-p",
    "--perturb",
    "perturbations",
    multiple=True,
    default=["clean"],
    help=_NAMES.format("jpeg-*", "clean"),
)
@click.option("-b", "--backbones", multiple=True, help=_NAMES.format("*/openai", "all"))
@click.option("--prompts", multiple=True, help="Prompt sets.  [default: all]")
@click.option(
    "--heads",
    multiple=True,
    default=["zero-shot"],
    show_default=True,
    help="Heads, or all: see below.",
)
@click.option(
    "--ensembles",
    multiple=True,
    default=["all"],
    show_default=True,
    help="Ensembles, or all: see below.",
)
@click.option(
    "--shots",
    multiple=True,
    default=["1,2,4,8,16,full"],
    show_default=True,
    help="Labelled images a class; full takes the whole support split.",
)
@click.option(
    "--seeds", type=click.IntRange(1), default=3, show_default=True, help="Draws of the shots."
)
@click.option("--support", default="train", show_default=True, help="Split that is fitted on.")
@click.option(
    "--support-prompts", help="Prompt set that is fitted on, if another (prompt transfer)."
)
@click.option(
    "--views", multiple=True, help="Perturbations of the support that are augmented views."
)
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
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@output_options
def evaluate(
    store: Path,
    *,
    as_json: bool,
    csv: Path | None,
    parquet: Path | None,
    seeds: int,
    **options: Any,
) -> None:
    """Fit every ensemble, on every head, on a few labelled images a class of STORE, and measure it.

    All methods get the same images. Accuracy, mean per class, NLL, ECE, Brier score and the gain
    over the best single backbone, each with a 95 % interval, and seconds to fit and predict.

    Heads turn embeddings into logits, ensembles the logits of several backbones into one.

    \b
    Heads:      zero-shot, linear-probe, tip-adapter, tip-adapter-f, lda, lp++
    Static:     vote-1, vote-3, conf, log-avg, prob-avg
    Fitted:     best-single, c-conf, c-log-avg, super-learner, gac, greedy, stacking
    Per image:  ola, knora-u, moe, nlc, residual-router

    Both take parameters: nlc:weight_map=linear:hidden=64.

    \b
    clipsyn evaluate store -o results.parquet
    clipsyn evaluate store -d 'emoji-*' --ensembles log-avg,super-learner,nlc --shots 1,16,full
    clipsyn evaluate store -p 'clean,jpeg-*' --heads zero-shot,tip-adapter --seeds 5
    """
    from clipsyn import frames
    from clipsyn.evaluate.loop import evaluate as run
    from clipsyn.evaluate.loop import named, read_shots
    from clipsyn.progress import progress
    from clipsyn.report.methods import method_tables
    from clipsyn.store.features import FeatureStore

    lists = ("datasets", "splits", "perturbations", "backbones", "prompts", "views")
    for name in lists:
        options[name] = listed(options[name])
    options["views"] = options["views"] or ()
    options["heads"], options["ensembles"] = named(
        listed(options["heads"]), listed(options["ensembles"])
    )
    options["shots"] = read_shots(listed(options["shots"]))
    with progress("tasks") as counters:
        frame = run(FeatureStore.open(store), seeds=range(seeds), progress=counters, **options)
    frames.write(frame, csv=csv, parquet=parquet)
    click.echo(frames.to_json(frame) if as_json else method_tables(frame))
    if options["output"]:
        click.echo(f"{len(frame):,} results, all of them in {options['output']}", err=True)
    say_written(frame, csv, parquet)
